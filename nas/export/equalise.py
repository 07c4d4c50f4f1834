"""Rescales weights for more exact quantisation without changing the function."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from nas.export import floating
from nas.export.stages import Array, Convolution, Stage, by_weight, reach


def on_pixels(stage: Stage, mean: Array, std: Array, zero: Array) -> Stage:
    """Return a stage on the image for inputs ``pixel / 255 - zero``, unnormalised.

    The output stays the same, except that padding has the value ``zero`` instead of the
    mean. These differ by at most half a pixel level.
    """
    channels = stage.input_shape[0]
    if not stage.convolutions:
        ones = Convolution(np.ones((channels, 1, 1, 1)), np.zeros(channels))
        stage = replace(stage, convolutions=(ones,), groups=channels, depthwise=True)
    convolutions = []
    for convolution in stage.convolutions:
        outputs = len(convolution.bias)
        weight = convolution.weight / by_weight(std, stage.groups, outputs)
        means = by_weight(zero - mean, stage.groups, outputs)
        moved = (weight * means).sum(axis=(1, 2, 3))
        convolutions.append(
            replace(convolution, weight=weight, bias=convolution.bias + moved)
        )
    return replace(stage, convolutions=tuple(convolutions))


def equalised(chain: Sequence[Stage], features: Tensor) -> list[Stage]:
    """Return the net with the channels of each depthwise convolution in one range.

    No operation lies between the two convolutions of a separable block. So the first is
    divided by the factors that the second is multiplied with (Nagel et al. 2019,
    cross-layer equalisation). A repeated block uses the same factors each time.
    """
    # A gated stage is not followed by a convolution that could undo the factors.
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
    factors: list[Array | None] = [None]  # of each stage's output
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
    """Return the stage with its single convolution scaled by the factors."""
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
