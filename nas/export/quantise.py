"""Quantises the float stages: int8 weights, uint8 activations, int32 sums.

Weights are symmetric with one scale per output channel. Activations are uint8 with one
scale and zero point per tensor; the range is measured on training images (min to max,
or narrower if that has a smaller squared error). The image itself is a tensor of scale
1/255 with the training images' mean as its zero point. So padding adds nothing, and
normalisation is folded into the first convolution.

One stage computes, in this order (integer.py is the executable definition)::

    sums = convolution + bias            int32; padding has the value of the zero point
    sums = sums * gate                   a uint8 number for each channel, if any
    sums = maximum or sum over a window  a pooling before the activation
    product = (sums << up) * multiplier  plus (added - zero) * its multiplier, if any
    fixed = product >> shift             activation in fixed point, if any
    output = fixed * multiplier >> shift saturated to uint8; logits stay int32
    output = maximum or mean             a pooling after the activation

Before the first stage the images may be averaged to a lower resolution, as uint8.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.architecture.activations import ACTIVATIONS
from nas.architecture.parts import Pooling
from nas.errors import ExportError
from nas.export import floating
from nas.export.equalise import equalised, on_pixels
from nas.export.fixed_point import (
    FIXED_POINT_LIMIT,
    INT32,
    MOST_SHIFT,
    bits_for,
    fixed_point,
    range_of,
    whole,
)
from nas.export.integer import averaged
from nas.export.integer_stages import (
    ActivationStep,
    Added,
    IntegerConvolution,
    Integers,
    IntegerStage,
    Range,
    pad_of,
    resize_of,
)
from nas.export.stages import (
    Activation,
    Affine,
    After,
    Array,
    Stage,
    by_weight,
    reach,
)


def quantise(
    chain: Sequence[Stage],
    images: npt.NDArray[np.uint8],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> list[IntegerStage]:
    """Return the network in integers, calibrated on these training images.

    ``images`` is uint8 ``[N, C, H, W]``; a thousand are enough. ``mean`` and ``std``
    hold one number per channel, for pixels of 0 to 1.

    Raises ExportError for a net whose numbers do not fit 32 bits.
    """
    zero = np.round(255 * np.asarray(mean)).astype(np.int64)
    table: list[IntegerStage] = []
    resizes = resize_of(chain[0])
    if resizes is not None:
        # The averages are whole numbers, so the next stages treat them like images.
        images = averaged(images, resizes.sides)
        table.append(_moving(chain[0], float(np.float32(1 / 255)), zero, 0))
        chain = chain[1:]
    for number, stage in enumerate(chain):
        if (stage.takes if pad_of(stage) else stage.adds) > number:
            raise ExportError(
                f"{stage.name}: a shortcut of the input image cannot be computed in "
                "int8: export to onnx, or put a block before it"
            )
    deviations = np.asarray(std)
    chain = [
        on_pixels(stage, np.asarray(mean), deviations, zero / 255)
        if stage.takes > number
        else stage
        for number, stage in enumerate(chain)
    ]
    features = torch.from_numpy(
        (images.astype(np.float32) - zero.reshape(1, -1, 1, 1)) / 255
    ).float()
    chain = equalised(chain, features)
    image = _Tensor(features, float(np.float32(1 / 255)), zero)
    tensors = deque([image], maxlen=reach(chain))
    for number, stage in enumerate(chain, start=1):
        if (step := pad_of(stage)) is not None:
            source = tensors[-stage.takes]
            zero = source.zero
            table.append(_moving(stage, source.scale, zero, int(zero[0])))
            padded = floating.follow(step, source.features)
            tensors.append(_Tensor(padded, source.scale, zero))
            continue
        quantised, features = _quantised(
            stage,
            tensors[-stage.takes],
            tensors[-stage.adds] if stage.adds else None,
            tensors[-stage.gates] if stage.gates else None,
            logits=number == len(chain),
        )
        table.append(quantised)
        if quantised.output is not None:
            output = quantised.output
            tensors.append(_Tensor(features, output.scale, np.array([output.zero])))
    return table


def _moving(
    stage: Stage, scale: float, zero: Integers, output_zero: int
) -> IntegerStage:
    """Return a stage that lowers the images' resolution, or pads; without parameters."""
    nothing = np.zeros(0, dtype=np.int64)
    return IntegerStage(
        float_stage=stage,
        convolutions=(),
        input_scale=scale,
        input_zero=zero,
        weight_scale=np.zeros(0),
        bias=nothing,
        early=None,
        sum_bias=nothing,
        up=0,
        multiplier=nothing,
        shift=1,
        activation_step=None,
        late=None,
        output=Range(scale=scale, zero=output_zero),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """The float values ``[N, C, H, W]`` of a feature map, its scale and zero points."""

    features: Tensor
    scale: float
    zero: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class _FollowingSteps:
    """The steps after a convolution, in order; ``sign`` precedes the activation."""

    early: Pooling | None
    sign: Affine | None
    activation: str
    affine: Affine | None
    late: Pooling | None


def _following_steps(stage: Stage) -> _FollowingSteps:
    steps = list(stage.after)

    def take(kind: type[After]) -> After | None:
        return steps.pop(0) if steps and isinstance(steps[0], kind) else None

    early, sign = take(Pooling), take(Affine)
    activation, affine, late = take(Activation), take(Affine), take(Pooling)
    if steps:
        # Only a scale that is never negative could change places with the maximum.
        raise ExportError(
            f"{stage.name}: an activation that also falls, max pooling and batch norm, in "
            "this order, cannot be computed in int8: export to onnx, or take another order"
        )
    return _FollowingSteps(
        early=early,  # type: ignore[arg-type]
        sign=sign,  # type: ignore[arg-type]
        activation=activation.name if isinstance(activation, Activation) else "none",
        affine=affine,  # type: ignore[arg-type]
        late=late,  # type: ignore[arg-type]
    )


def _quantised(
    stage: Stage,
    tensor: _Tensor,
    added: _Tensor | None,
    gates: _Tensor | None,
    *,
    logits: bool,
) -> tuple[IntegerStage, Tensor]:
    """Return the stage in integers and its float outputs."""
    scale, zero = tensor.scale, tensor.zero
    steps = _following_steps(stage)
    if logits and (steps.activation != "none" or steps.late):
        # A pool head makes the last block the classifier, but has a stage of its own.
        raise ExportError(f"{stage.name}: the logits cannot have an activation")
    before = floating.convolve(stage, tensor.features)
    if gates is not None:
        before = before * gates.features
    if added is not None:
        before = before + added.features
    for step in (steps.early, steps.sign):
        before = floating.follow(step, before) if step else before
    outputs = before
    if steps.activation != "none":
        outputs = floating.follow(Activation(steps.activation), outputs)
    outputs = floating.follow(steps.affine, outputs) if steps.affine else outputs
    sums_over = (
        math.prod(steps.early.window)
        if steps.early is not None and steps.early.kind == "avg"
        else 1
    )
    convolutions, weight_scale, bias = _weights(stage, scale, sums_over)
    sum_bias = (bias - _padding_sums(stage, convolutions, zero)) * sums_over
    # A gate is a number from 0 to 255 with zero point 0.
    most_times = sums_over if gates is None else 255
    up = _spare_bits(stage, convolutions, sum_bias, most_times)
    signs = steps.sign.scale if steps.sign else np.ones_like(weight_scale)
    real = scale * weight_scale / sums_over * signs / 2.0**up
    if gates is not None:
        real = real * gates.scale
    output = None if logits else range_of(outputs)
    if steps.activation in {"sigmoid", "unit"} and steps.affine is None:
        # Gates need the zero point 0.
        output = Range(scale=float(np.float32(1 / 255)), zero=0)
    if not stage.convolutions and len(zero) == 1 and output and _is_maximum(steps):
        # A maximum is one of the input numbers, so their scale is exact.
        output = Range(scale=scale, zero=int(zero[0]))
    # This makes the shift exceed 32 bits, which is cheaper on a 32-bit processor.
    most_bits = math.floor(math.log2(0.25 / abs(real).max()))
    logit_bits = bits_for(outputs, 2**28, most_bits) if logits else 0
    activation_step = None
    if output is None:
        real = real * 2.0**logit_bits
    elif steps.activation in {"none", "unit"} or (
        ACTIVATIONS[steps.activation].saturates and steps.affine is None
    ):
        # Saturation does the work of relu and relu6: the range starts at zero and ends
        # at most at the measured maximum. That of gates is from 0 to 1.
        real = real / output.scale
    else:
        fraction = bits_for(before, FIXED_POINT_LIMIT / 4, most_bits)
        real = real * 2.0**fraction
        activation_step = _activation_step(steps, fraction, output)
    unit = _unit(activation_step, output)
    most_shift = MOST_SHIFT
    if added is not None:
        # This shift keeps the added numbers within 61 bits.
        most_shift = min(most_shift, 52 - math.frexp(added.scale / unit)[1])
    multiplier, shift = fixed_point(real, most_shift)
    quantised = IntegerStage(
        float_stage=stage,
        convolutions=convolutions,
        input_scale=scale,
        input_zero=zero,
        weight_scale=weight_scale,
        bias=bias,
        early=steps.early,
        sum_bias=sum_bias,
        up=up,
        multiplier=multiplier,
        shift=shift,
        activation_step=activation_step,
        late=steps.late,
        output=output,
        logit_bits=logit_bits,
        added=None
        if added is None
        else Added(
            zero=int(added.zero[0]),
            multiplier=round(added.scale / unit * 2.0**shift),
        ),
    )
    return quantised, floating.follow(steps.late, outputs) if steps.late else outputs


def _weights(
    stage: Stage, input_scale: float, sums_over: int
) -> tuple[tuple[IntegerConvolution, ...], Array, Integers]:
    """Return int8 weights, the scale of each output channel, and the int32 biases."""
    if not stage.convolutions:
        # Pooling alone: a sum over the window with a weight of one.
        channels = stage.input_shape[0]
        ones = np.ones((channels, 1, 1, 1), dtype=np.int8)
        return (
            (IntegerConvolution(weight=ones, padding=(0, 0), start=0),),
            np.ones(channels),
            np.zeros(channels, dtype=np.int64),
        )
    scales, biases, start = [], [], 0
    convolutions = []
    for convolution in stage.convolutions:
        largest = abs(convolution.weight).max(axis=(1, 2, 3))
        # A bias far larger than the weights must fit 32 bits, too.
        least = abs(convolution.bias) * sums_over / (input_scale * 2**29)
        scale = np.maximum(largest / 127, least)
        scale = np.where(scale > 1e-30, scale, 1.0)
        weight = np.round(convolution.weight / scale[:, None, None, None])
        # ONNX stores float32; so both compute with the same numbers.
        scale = scale.astype(np.float32).astype(float)
        convolutions.append(
            IntegerConvolution(
                weight=np.clip(weight, -127, 127).astype(np.int8),
                padding=convolution.padding,
                start=start,
            )
        )
        scales.append(scale)
        biases.append(np.round(convolution.bias / (input_scale * scale)))
        start += len(scale)
    return tuple(convolutions), np.concatenate(scales), whole(np.concatenate(biases))


def _padding_sums(
    stage: Stage, convolutions: tuple[IntegerConvolution, ...], zero: Integers
) -> Integers:
    """Return the zero point's contribution to the sums of each output channel."""
    channels = stage.input_shape[0]
    zeros = np.broadcast_to(zero, (channels,))
    groups = stage.groups if stage.convolutions else channels
    return np.concatenate(
        [
            (c.weight * by_weight(zeros, groups, len(c.weight))).sum(axis=(1, 2, 3))
            for c in convolutions
        ]
    )


def _spare_bits(
    stage: Stage,
    convolutions: tuple[IntegerConvolution, ...],
    sum_bias: Integers,
    sums_over: int,
) -> int:
    """Return how many times the sums can be doubled within 31 bits, for any input.

    Raises ExportError if they could exceed 32 bits.
    """
    weights = np.concatenate(
        [abs(c.weight.astype(np.int64)).sum(axis=(1, 2, 3)) for c in convolutions]
    )
    largest = int((255 * weights * sums_over + abs(sum_bias)).max())
    if largest > INT32:
        raise ExportError(
            f"{stage.name}: {weights.max()} x 255 over {sums_over} places can leave 32 "
            "bits; a smaller kernel or fewer channels would fit"
        )
    return max(0, 30 - largest.bit_length())


def _activation_step(
    steps: _FollowingSteps, fraction: int, output: Range
) -> ActivationStep:
    """Return the activation and what follows it, for the output's range."""
    scale = steps.affine.scale if steps.affine else np.ones(1)
    moved = steps.affine.shift if steps.affine else np.zeros(1)
    real = scale / output.scale / 2.0**fraction
    if steps.activation == "hardswish":
        real = real / 6  # the fixed point holds x * clip(x + 3, 0, 6)
    elif steps.activation in {"sigmoid", "tanh"}:
        real = scale / output.scale / 2.0**16  # the unit of the tables
    multiplier, shift = fixed_point(real)
    offset = np.round((moved / output.scale + output.zero + 0.5) * 2.0**shift)
    return ActivationStep(
        activation=steps.activation,
        fraction=fraction,
        multiplier=multiplier,
        offset=whole(np.clip(offset, -(2.0**61), 2.0**61)),
        shift=shift,
    )


def _is_maximum(steps: _FollowingSteps) -> bool:
    """Return whether the stage gives maxima as they are."""
    largest = steps.early is not None and steps.early.kind == "max"
    return largest and steps.activation == "none"


def _unit(activation_step: ActivationStep | None, output: Range | None) -> float:
    """Return the value of one unit of the numbers after the shift."""
    if activation_step is not None:
        return 2.0**-activation_step.fraction
    return 1.0 if output is None else output.scale
