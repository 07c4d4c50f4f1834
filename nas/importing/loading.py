"""From ``model.py:net`` to the module of that name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.errors import ArchitectureError


def load_module(target: str) -> nn.Module:
    """Return the module that ``FILE.py:NAME`` names.

    NAME is an instance of nn.Module, or what returns one when called without
    arguments. The file is run. Raises ArchitectureError for whatever goes wrong in it.
    """
    file, _, name = target.rpartition(":")
    path = Path(file)
    if not name.isidentifier() or path.suffix != ".py":
        raise ArchitectureError(f"{target!r} names no module: write FILE.py:NAME")
    if not path.is_file():
        raise ArchitectureError(f"no file {path}: give an existing one, FILE.py:NAME")
    with _as_script(path):
        code = _run(path)
        if not hasattr(code, name):
            classes = [
                n
                for n, value in vars(code).items()
                if isinstance(value, nn.Module)
                or (isinstance(value, type) and issubclass(value, nn.Module))
            ]
            there = ", ".join(classes) or "none"
            raise ArchitectureError(
                f"{path} has no {name!r}: its modules and their classes are {there}"
            )
        found = getattr(code, name)
        if not isinstance(found, nn.Module) and callable(found):
            found = _called(found, target, path)
    if not isinstance(found, nn.Module):
        raise ArchitectureError(
            f"{target} is no nn.Module but {type(found).__name__}: name a module, or "
            "what returns one when called without arguments"
        )
    return unwrapped(found)


def _called(found: Any, target: str, path: Path) -> Any:
    """Return what a class or function gives without arguments."""
    if needed := missing_arguments(found):
        raise ArchitectureError(
            f"{target} needs arguments ({needed}): give them defaults, or name a function "
            "without arguments that returns the module"
        )
    try:
        return found()
    except Exception as error:
        raise ArchitectureError(
            f"{target}: calling it without arguments raises {_summary(error, path)}: name "
            "a function that returns the module without that"
        ) from error


def missing_arguments(called: Any, given: int = 0) -> str:
    """Return the arguments without default beyond the first ones, "" where none are."""
    try:
        parameters = [*inspect.signature(called).parameters.values()]
    except (TypeError, ValueError):  # of what is written in C
        return ""
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return ", ".join(
        one.name
        for one in parameters[given:]
        if one.default is inspect.Parameter.empty and one.kind not in any_number
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """Return what nn.DataParallel or torch.compile were given.

    Raises ArchitectureError for TorchScript, which has no Python code to follow.
    """
    parallel = ("DataParallel", "DistributedDataParallel")
    # The class of compiled ones is in torch._dynamo, which takes seconds to import.
    inside = dict.fromkeys(parallel, "module") | {"OptimizedModule": "_orig_mod"}
    while name := inside.get(type(module).__name__):
        module = module.get_submodule(name)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise ArchitectureError(
            f"{type(module).__name__} is TorchScript, which nas cannot follow: give the "
            "module that it was made of"
        )
    return module


@contextmanager
def _as_script(path: Path) -> Iterator[None]:
    """Let the file import its neighbours, and read no options of nas as its own."""
    arguments, paths = sys.argv, list(sys.path)
    sys.argv = [str(path)]
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = arguments, paths


def _run(path: Path) -> Any:
    try:
        folder, names = path.resolve().parent, [path.stem]
        while (folder / "__init__.py").is_file():
            folder, names = folder.parent, [folder.name, *names]
        if len(names) > 1 and "from ." in path.read_text(encoding="utf-8"):
            # Its package has to be known before `from .layers import Block`.
            sys.path.insert(1, str(folder))
            return importlib.import_module(".".join(names))
        name = f"nas_imported_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        code = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up there.
        sys.modules[name] = code
        spec.loader.exec_module(code)
    except (Exception, SystemExit) as error:
        raise ArchitectureError(
            f"running {path} raises {_summary(error, path)}{_remedy(error)}"
        ) from error
    return code


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f": install {package}, or give a file that does without it"
    # Others are slips in the code.
    if isinstance(error, OSError | RuntimeError | SystemExit):
        return ": put what trains or reads data behind if __name__ == '__main__'"
    return ""


def _summary(error: BaseException, path: Path) -> str:
    """Return the error in one line, with the user's line that raised it."""
    (first, *_) = str(error).splitlines() or [""]
    said = f"{type(error).__name__}: {first}"
    folder = path.parent.resolve()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.parent.resolve() == folder and not isinstance(error, SyntaxError):
            return f"{said} ({file.name} line {frame.lineno})"
    return said
