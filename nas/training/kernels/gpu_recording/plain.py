"""Records what is computed value by value or map by map: all but convolutions and norms.

A table by the names of the C functions in kernels.c, with those functions' arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from nas.training.kernels.gpu_recording.operations import Operations, share_evenly
from nas.training.kernels.program import LANES

CURVES = {"silu": 4, "sigmoid": 5}
"""The activations with exponentials that gpu.cu has, and their numbers there."""


def _each(
    to: Operations,
    name: str,
    count: int,
    *tensors: Tensor | None,
    at_once: int = 1,
    integers: Sequence[int] = (),
    floats: Sequence[float] = (),
) -> None:
    """Record work on so many values, of which a thread takes some ``at_once``."""
    blocks = share_evenly(count // at_once)
    to.add(name, blocks, *tensors, integers=(count, *integers), floats=floats)


def _halved(height: int, width: int) -> int:
    """Return how many 2x2 windows cover a map."""
    return (height + 1) // 2 * ((width + 1) // 2)


# The C functions count in vectors of LANES values, the kernel in values.
RECORD: dict[str, Callable[..., None]] = {
    "activate": lambda to, x, y, count, slope, kind: _each(
        to, "activate", count * LANES, x, y, integers=(kind,), floats=(slope,)
    ),
    "activate_back": lambda to, g, x, gx, count, slope, kind: _each(
        to, "activate_back", count * LANES, g, x, gx, integers=(kind,), floats=(slope,)
    ),
    "curve": lambda to, name, x, y: _each(
        to, "activate", x.numel(), x, y, integers=(CURVES[name],)
    ),
    # In place. The gradient of a sigmoid follows from its output.
    "curve_back": lambda to, name, g, x, y: _each(
        to,
        "activate_back",
        g.numel(),
        *(g, y if name == "sigmoid" else x, g),
        integers=(CURVES[name],),
    ),
    "add": lambda to, x, y, count: _each(to, "add", count * LANES, x, y, at_once=4),
    "copy": lambda to, y, x: _each(to, "copy", y.numel(), y, x, at_once=4),
    "join": lambda to, part, whole, _, *sizes: _each(
        to, "join", part.numel(), part, whole, integers=sizes
    ),
    "scale": lambda to, x, by, y, planes, area: _each(
        to, "scale", planes * area * LANES, x, by, y, integers=(area,)
    ),
    "scale_back": lambda to, g, x, by, gx, g_by, planes, area: to.add(
        "scale_back", (1, planes), g, x, by, gx, g_by, integers=(area,)
    ),
    "max_pool": lambda to, x, y, winners, _, *sides: _each(
        to, "pool", y.numel(), x, y, winners, at_once=4, integers=(*sides, 1)
    ),
    "avg_pool": lambda to, x, y, _, *sides: _each(
        to, "pool", y.numel(), x, y, at_once=4, integers=(*sides, 0)
    ),
    "max_pool_back": lambda to, g, winners, gx, planes, *sides: _each(
        to,
        "pool_back",
        planes * _halved(*sides) * LANES,
        *(g, winners, gx),
        at_once=4,
        integers=(*sides, 1),
    ),
    "avg_pool_back": lambda to, g, gx, planes, *sides: _each(
        to,
        "pool_back",
        planes * _halved(*sides) * LANES,
        *(g, None, gx),
        at_once=4,
        integers=(*sides, 0),
    ),
    "global_mean": lambda to, x, y, planes, area: to.add(
        "global_mean", (1, planes), x, y, integers=(area,)
    ),
    "global_mean_back": lambda to, g, gx, planes, area, add: _each(
        to, "global_mean_back", planes * area * LANES, g, gx, integers=(area, add)
    ),
}
