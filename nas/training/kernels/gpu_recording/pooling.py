"""Records 2x2 pooling and the means of maps."""

from __future__ import annotations

from torch import Tensor

from nas.training.kernels.gpu_recording.operations import Operations, share_evenly
from nas.training.kernels.program import LANES


def max_pool(
    to: Operations, x: Tensor, y: Tensor, winners: Tensor, _: int, *sizes: int
) -> None:
    """Record 2x2 maxima, and which value each was."""
    blocks = share_evenly(y.numel() // 4)
    to.add("pool", blocks, x, y, winners, integers=(y.numel(), *sizes, 1))


def avg_pool(to: Operations, x: Tensor, y: Tensor, _: int, *sizes: int) -> None:
    """Record 2x2 means."""
    blocks = share_evenly(y.numel() // 4)
    to.add("pool", blocks, x, y, integers=(y.numel(), *sizes, 0))


def max_pool_back(
    to: Operations,
    g: Tensor,
    winners: Tensor,
    gx: Tensor,
    _: int,
    height: int,
    width: int,
) -> None:
    """Record the gradient of the input of 2x2 maxima."""
    _pool_back(to, g, winners, gx, height, width)


def avg_pool_back(
    to: Operations, g: Tensor, gx: Tensor, _: int, height: int, width: int
) -> None:
    """Record the gradient of the input of 2x2 means."""
    _pool_back(to, g, None, gx, height, width)


def _pool_back(
    to: Operations,
    g: Tensor,
    winners: Tensor | None,
    gx: Tensor,
    height: int,
    width: int,
) -> None:
    planes = gx.numel() // (height * width)
    count = planes * ((height + 1) // 2) * ((width + 1) // 2)
    sizes = count, height, width, winners is not None
    to.add("pool_back", share_evenly(count // 4), g, winners, gx, integers=sizes)


def global_mean(to: Operations, x: Tensor, y: Tensor, planes: int, area: int) -> None:
    """Record the mean of each map."""
    to.add("global_mean", (1, planes), x, y, integers=(area,))


def global_mean_back(
    to: Operations, g: Tensor, gx: Tensor, planes: int, area: int, add: int
) -> None:
    """Record the gradient of the maps, which is added to ``gx`` where ``add`` is 1."""
    count = planes * area * LANES
    sizes = count, area, add
    to.add("global_mean_back", share_evenly(count), g, gx, integers=sizes)
