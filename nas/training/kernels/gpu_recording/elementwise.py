"""Records what is computed value by value: activations, sums, copies and gates."""

from __future__ import annotations

from torch import Tensor

from nas.training.kernels.gpu_recording.operations import Operations, share_evenly
from nas.training.kernels.program import LANES

CURVES = {"silu": 4, "sigmoid": 5}
"""The activations with exponentials that gpu.cu has, and their numbers there."""


def activate(
    to: Operations, x: Tensor, y: Tensor, count: int, slope: float, kind: int
) -> None:
    """Record an activation of that kind, by its number in gpu.cu."""
    count *= LANES
    integers = count, kind
    to.add("activate", share_evenly(count), x, y, integers=integers, floats=(slope,))


def activate_back(
    to: Operations,
    g: Tensor,
    x: Tensor,
    gx: Tensor,
    count: int,
    slope: float,
    kind: int,
) -> None:
    """Record the gradient of an activation's input."""
    count *= LANES
    to.add(
        "activate_back", share_evenly(count), g, x, gx,
        integers=(count, kind), floats=(slope,),
    )  # fmt: skip


def curve(to: Operations, name: str, x: Tensor, y: Tensor) -> None:
    """Record an activation with exponentials; x may be y."""
    activate(to, x, y, x.numel() // LANES, 0.0, CURVES[name])


def curve_back(to: Operations, name: str, g: Tensor, x: Tensor, y: Tensor) -> None:
    """Record the gradient of its input x, in place; y is its output."""
    known = y if name == "sigmoid" else x
    activate_back(to, g, known, g, g.numel() // LANES, 0.0, CURVES[name])


def add(to: Operations, x: Tensor, y: Tensor, count: int) -> None:
    """Record the addition of y to x."""
    count *= LANES
    to.add("add", share_evenly(count // 4), x, y, integers=(count,))


def copy(to: Operations, copied: Tensor, values: Tensor) -> None:
    """Record a copy."""
    count = copied.numel()
    to.add("copy", share_evenly(count // 4), copied, values, integers=(count,))


def join(to: Operations, part: Tensor, whole: Tensor, groups: int, *sizes: int) -> None:
    """Record that a part's channels are put into the whole, or taken from there."""
    count = part.numel()
    assert groups == part.shape[0]
    to.add("join", share_evenly(count), part, whole, integers=(count, *sizes))


def scale(
    to: Operations, x: Tensor, by: Tensor, y: Tensor, planes: int, area: int
) -> None:
    """Record the product of each map with its gate."""
    count = planes * area * LANES
    to.add("scale", share_evenly(count), x, by, y, integers=(count, area))


def scale_back(
    to: Operations,
    g: Tensor,
    x: Tensor,
    by: Tensor,
    gx: Tensor,
    g_by: Tensor,
    planes: int,
    area: int,
) -> None:
    """Record the gradients of the maps and of their gates."""
    to.add("scale_back", (1, planes), g, x, by, gx, g_by, integers=(area,))
