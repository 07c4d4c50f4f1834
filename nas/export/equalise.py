"""Changes of weights that leave the function as it is and whole numbers more exact."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from nas.export import floating
from nas.export.stages import Array, Convolution, Stage, reach


def on_pixels(stage: Stage, mean: Array, std: Array, zero: Array) -> Stage:
    """Return a stage of the image as it works on ``pixel / 255 - zero``, no bias lost.

    Only where a kernel reaches over the edge it sees zero instead of mean, by less
    than half a level of the pixels.
    """
    channels = stage.input_shape[0]
    if not stage.convolutions:
        ones = Convolution(np.ones((channels, 1, 1, 1)), np.zeros(channels))
        stage = replace(stage, convolutions=(ones,), depthwise=True)
    axis = (-1, 1, 1, 1) if stage.depthwise else (1, -1, 1, 1)
    convolutions = []
    for convolution in stage.convolutions:
        weight = convolution.weight / std.reshape(axis)
        moved = (weight * (zero - mean).reshape(axis)).sum(axis=(1, 2, 3))
        convolutions.append(
            replace(convolution, weight=weight, bias=convolution.bias + moved)
        )
    return replace(stage, convolutions=tuple(convolutions))


def equalised(chain: Sequence[Stage], features: Tensor) -> list[Stage]:
    """Return the net with depthwise convolutions whose channels are all of one range.

    Nothing comes between a separable block's two convolutions, so what the first is
    divided by, the second is multiplied with (Nagel et al. 2019, cross-layer
    equalisation); in a repeated block by the same numbers each time.
    """
    # What is gated has no convolution behind it that could make up for a factor.
    gated = {
        chain[number - stage.takes].name
        for number, stage in enumerate(chain)
        if stage.gates
    }
    largest: dict[str, Array] = {}
    tensors = deque([features], maxlen=reach(chain))
    for stage in chain:
        if stage.depthwise and not stage.after and stage.name not in gated:
            peaks = floating.convolve(stage, tensors[-stage.takes]).abs()
            peak = peaks.amax(dim=(0, 2, 3)).double().numpy()
            largest[stage.name] = np.maximum(largest.get(stage.name, 0.0), peak)
        tensors.append(floating.apply(stage, tensors))
    equal: list[Stage] = []
    factors: list[Array | None] = [None]  # of what each stage gives
    for stage in chain:
        before, factor = factors[-stage.takes], None
        if before is not None:
            equal.append(_with_weights(stage, before[None, :, None, None]))
        elif stage.name in largest:
            factor = np.where(largest[stage.name] > 0, largest[stage.name], 1.0)
            equal.append(_with_weights(stage, 1 / factor[:, None, None, None]))
        else:
            equal.append(stage)
        factors.append(factor)
    return equal


def _with_weights(stage: Stage, factors: Array) -> Stage:
    """Return the stage with its one convolution's weights times the factors."""
    (convolution,) = stage.convolutions
    bias = convolution.bias
    if stage.depthwise:
        bias = bias * factors[:, 0, 0, 0]
    return replace(
        stage,
        convolutions=(
            replace(convolution, weight=convolution.weight * factors, bias=bias),
        ),
    )
