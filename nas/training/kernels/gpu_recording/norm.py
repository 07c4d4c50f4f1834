"""Records batch norm and dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nas.training.kernels.gpu_recording.operations import (
    Operations,
    share_evenly,
    share_planes,
)
from nas.training.kernels.recording import (
    Back,
    NormInside,
    area_of,
    kept_scale,
    threshold_of,
)


class Draws:
    """Which values are dropped: that follows from a step's seeds and a number."""

    def __init__(self, seeds: Tensor | None, place: Tensor | None) -> None:
        """Take the seeds of all steps, and the number of the step that is being done."""
        self.seeds, self.place = seeds, place
        self._count = 0

    def following(self, probability: float) -> tuple[int, int, float]:
        """Return a dropout's number, its threshold and the scale of what is kept."""
        self._count += 1
        threshold = threshold_of(probability)
        return self._count, threshold, kept_scale(threshold)


def norm(
    to: Operations, draws: Draws, x: Tensor, bias: Tensor | None, fused: NormInside
) -> tuple[Tensor, Back]:
    """Record batch norm in training, with what stands around it."""
    layer, before, after, dropout = fused
    y = torch.empty_like(x)
    groups, channels, area = *x.shape[:2], area_of(x)
    *draw, scale = draws.following(dropout)
    saved, middle = (torch.empty(rows * channels, device=to.device) for rows in (4, 1))
    assert layer.running_mean is not None  # build() makes no other
    sums, count = _statistics(to, x, bias, layer.running_mean, middle, before=before)
    sizes = groups, channels, area, before, after
    blocks = share_planes(groups * channels, area)
    to.add(
        "norm", blocks, x, y, sums, middle, bias, layer.weight, layer.bias,
        layer.running_mean, layer.running_var, saved, draws.seeds, draws.place,
        integers=(*sizes, count, *draw),
        floats=(layer.momentum or 0.0, layer.eps, scale),
    )  # fmt: skip

    def back(g: Tensor) -> Tensor:
        splits, _ = share_planes(channels, groups * area)
        sums = torch.empty(splits * channels * 2, device=to.device)
        same = bias, saved, draws.seeds, draws.place
        integers = *sizes, splits, *draw
        to.add(
            "norm_back_sums", (splits, channels), g, x, sums, *same,
            integers=integers, floats=(scale,),
        )  # fmt: skip
        weight, shift = (to.part(to.place(p), 1) for p in (layer.weight, layer.bias))
        biases = to.part(to.place(bias), groups * blocks[0])
        to.add(
            "norm_back", blocks, g, x, sums, *same, g, weight, shift, biases,
            integers=integers, floats=(scale,),
        )  # fmt: skip
        return g

    return y, back


def _statistics(
    to: Operations,
    x: Tensor,
    bias: Tensor | None,
    running_mean: Tensor,
    middle: Tensor,
    *,
    before: bool,
) -> tuple[Tensor, int]:
    """Return sums over x, and how many of them; a convolution makes its own."""
    channels = x.shape[1]
    convolution = to.convolution_to(x)
    if convolution is not None:
        count = convolution.blocks_x
        sums = torch.empty(count * channels * 2, device=to.device)
        to.point(convolution, 3, sums, running_mean, middle, bias)
        convolution.integers[15] = before
        return sums, count
    count, _ = share_planes(channels, x.shape[0] * area_of(x))
    sums = torch.empty(count * channels * 2, device=to.device)
    to.add(
        "statistics", (count, channels), x, sums, running_mean, middle, bias,
        integers=(*x.shape[:2], area_of(x), before),
    )  # fmt: skip
    return sums, count


def norm_eval(
    to: Operations, x: Tensor, y: Tensor, groups: int, channels: int, area: int,
    *rest: Any,
) -> None:  # fmt: skip
    """Record batch norm with the running statistics."""
    *tensors, eps, _ = rest
    blocks = share_planes(groups * channels, area)
    integers = channels, area
    to.add("norm_eval", blocks, x, y, *tensors, integers=integers, floats=(eps,))


def dropout(
    to: Operations, draws: Draws, x: Tensor, y: Tensor, probability: float
) -> Back:
    """Record dropout in training, from x to y."""
    *draw, scale = draws.following(probability)

    def drop(result: Tensor, values: Tensor) -> None:
        to.add(
            "dropout", share_evenly(x.numel()), values, result, draws.seeds,
            draws.place, integers=(x.numel(), *draw), floats=(scale,),
        )  # fmt: skip

    drop(y, x)

    def back(g: Tensor) -> Tensor:
        drop(g, g)
        return g

    return back
