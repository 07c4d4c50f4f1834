"""Reads a trained net from the folder that `nas best` or `nas train -o` wrote."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from nas.architecture import Architecture
from nas.errors import ExportError, NasError
from nas.export.contract import BYTES
from nas.study.folders import find_study, winner_folder

_FILES = ("architecture.json", "weights.safetensors", "model.py", "report.json")


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNet:
    """The content of such a folder; ``mean`` and ``std`` are for pixels of 0 to 1."""

    folder: Path
    architecture: Architecture
    weights: dict[str, npt.NDArray[np.generic]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    report: dict[str, Any]
    value_range: tuple[float, float] = BYTES
    """The values of the original data that became the bytes 0 and 255."""
    signal_length: int = 0
    """The number of steps of a signal, which is folded into rows; 0 for images."""

    @property
    def dataset(self) -> str | None:
        """The data set that the net was trained on, if the report names it."""
        name = self.report.get("dataset")
        return name if isinstance(name, str) else None


def find_trained(name: str, studies: Path) -> TrainedNet:
    """Return the net of a folder, or of a study's ``best/``.

    Raises ExportError if neither has one, or its files do not belong together.
    """
    given, study = Path(name), find_study(studies, name)
    folder = given
    if not (given / _FILES[0]).exists():
        # The user's own winner of a published study goes before the published one.
        winners = [winner_folder(study), study / "best"]
        folder = next((found for found in winners if found.is_dir()), given)
    missing = [file for file in _FILES if not (folder / file).is_file()]
    if missing and folder == given and (study / "study.toml").exists():
        raise ExportError(
            f"the study {name!r} has no winner yet: run `nas best {name}` first"
        )
    if not folder.exists():
        raise ExportError(
            f"no study {name!r} in {studies}, and no folder {name}: `nas studies` lists the "
            "studies"
        )
    if missing:
        raise ExportError(
            f"{folder} has no {missing[0]}: give a study with a winner, or a folder that "
            "`nas best` or `nas train --output` wrote"
        )
    return read_trained(folder)


def read_trained(folder: Path) -> TrainedNet:
    """Return the net of such a folder, without running code from it.

    Raises ExportError if a file cannot be read or does not fit the others.
    """
    path = folder
    try:
        path = folder / "architecture.json"
        architecture = Architecture.from_json(path.read_text(encoding="utf-8"))
        path = folder / "weights.safetensors"
        weights = load_file(path)
        path = folder / "report.json"
        report = json.loads(path.read_text(encoding="utf-8"))
        path = folder / "model.py"
        constants = _constants(path.read_text(encoding="utf-8"))
    except (
        *(OSError, ValueError, SyntaxError, RecursionError, MemoryError),
        *(SafetensorError, NasError),
    ) as error:
        raise ExportError(f"cannot read {path}: {error}") from error
    channels, classes = architecture.input_shape[0], architecture.num_classes

    def constant(
        name: str, what: str, fits: Callable[[Any], bool], usual: Any = None
    ) -> Any:
        value = constants.get(name, usual)
        if not fits(value):
            raise ExportError(
                f"{path}: {name} has to be {what}, as nas wrote it; train the net again "
                "or restore the file"
            )
        return value

    return TrainedNet(
        folder=folder,
        architecture=architecture,
        weights=weights,
        mean=constant(
            "MEAN", f"{channels} numbers", lambda value: _are_numbers(value, channels)
        ),
        std=constant(
            "STD",
            f"{channels} numbers",
            lambda value: _are_numbers(value, channels) and min(value) > 0,
        ),
        class_names=constant(
            "CLASS_NAMES",
            f"{classes} names",
            lambda value: _is_tuple(value, classes, str),
        ),
        report=report if isinstance(report, dict) else {},
        # An older nas wrote none of the following: it only had images of bytes.
        value_range=constant(
            "VALUE_RANGE",
            "two rising numbers",
            lambda value: _are_numbers(value, 2) and value[0] < value[1],
            BYTES,
        ),
        signal_length=constant(
            "SIGNAL_LENGTH",
            "a number of steps",
            lambda value: isinstance(value, int) and value >= 0,
            0,
        ),
    )


def _constants(text: str) -> dict[str, Any]:
    """Return the literals that a module assigns to names, without running it."""
    found = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    found[name] = ast.literal_eval(value)
                except (ValueError, RecursionError):
                    continue
    return found


def _is_tuple(value: Any, length: int, kind: type) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == length
        and all(isinstance(one, kind) for one in value)
    )


def _are_numbers(value: Any, length: int) -> bool:
    return _is_tuple(value, length, float) and bool(np.isfinite(value).all())
