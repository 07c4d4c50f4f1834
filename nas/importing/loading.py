"""From ``model.py:net`` to the module of that name."""

from __future__ import annotations

import importlib.util
import sys
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
        try:
            found = found()
        except Exception as error:
            raise ArchitectureError(
                f"{target}: calling it without arguments raises {_summary(error)}"
            ) from error
    if not isinstance(found, nn.Module):
        raise ArchitectureError(
            f"{target} is no nn.Module but {type(found).__name__}: name a module, or "
            "what returns one when called without arguments"
        )
    return unwrapped(found)


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


def _run(path: Path) -> Any:
    name = f"nas_imported_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up there; the file may import its neighbours.
    sys.modules[name] = code
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(code)
    except (Exception, SystemExit) as error:
        raise ArchitectureError(f"running {path} raises {_summary(error)}") from error
    finally:
        sys.path.pop(0)
    return code


def _summary(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
