"""Runs the user's module once, so that a slip in it is told as what it is."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch
from torch import nn

from nas.architecture import Shape
from nas.errors import ArchitectureError, first_line
from nas.importing.loading import missing_arguments

# Torch's own errors for sizes that do not fit; others are slips in the code.
_SIZES = (RuntimeError, ValueError, IndexError, AssertionError)
_COMMON = ((1, 28, 28), (3, 32, 32), (1, 32, 32), (3, 28, 28), (1, 8, 8))


def check_runs(model: nn.Module, input_shape: Shape, shape_from: str) -> None:
    """Raise ArchitectureError unless the module takes images of that shape.

    ``shape_from`` says in the message where the user gives another shape.
    """
    if needed := missing_arguments(model.forward, given=1):
        raise ArchitectureError(
            f"the module's forward needs more than the images ({needed}), and nas gives it "
            "those alone; the nearest is a default for each other argument"
        )
    try:
        with torch.no_grad():
            model(torch.zeros(2, *input_shape))
    except Exception as error:
        place = place_of(error)
        if not isinstance(error, _SIZES) or isinstance(error, NotImplementedError):
            raise ArchitectureError(
                f"{place}the module's forward raises {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
        shape = "x".join(map(str, input_shape))
        fitting = [
            "x".join(map(str, other)) for other in _COMMON if _takes(model, other)
        ]
        remedy = (
            f"it takes {' or '.join(fitting)}, so give {shape_from} {fitting[0]}"
            if fitting
            else f"{first_line(error)}; give {shape_from} the size that it was made for"
        )
        raise ArchitectureError(
            f"{place}the module does not take {shape} images: {remedy}"
        ) from error


def _takes(model: nn.Module, shape: Shape) -> bool:
    try:
        with torch.no_grad():
            model(torch.zeros(2, *shape))
    except Exception:  # noqa: BLE001 - whatever the user's code raises
        return False
    return True


def place_of(error: BaseException) -> str:
    """Return the user's line at which it was raised, "" where there is none."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(ours):
            return f"{Path(frame.filename).name} line {frame.lineno}: "
    return ""
