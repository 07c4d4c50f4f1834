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
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.architecture import Shape
from nas.errors import ExportError
from nas.export import floating
from nas.export.equalise import equalised, on_pixels
from nas.export.stages import (
    Activation,
    Affine,
    After,
    Array,
    Pool,
    Resize,
    Stage,
    areas,
    by_weight,
    reach,
)

Int8 = npt.NDArray[np.int8]
Integers = npt.NDArray[np.int64]

FIXED_POINT_LIMIT = 2**27
"""Largest magnitude of an activation's fixed-point input."""
_INT32 = 2**31 - 1
_MOST_SHIFT = 46  # keeps shifted zero points and sums within 63 bits
_FRACTION_BITS = 16  # fractional bits if the values are small enough
_SAMPLES = 200_000  # values for choosing a tensor's range


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A tensor's uint8 numbers: ``real = scale * (number - zero)``."""

    scale: float
    zero: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerConvolution:
    """int8 ``weight`` [O, I, kh, kw]; the outputs start at channel ``start``."""

    weight: Int8
    padding: tuple[int, int]
    start: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationStep:
    """An activation, and the conversion of its fixed-point values into output numbers.

    ``output = (fixed * multiplier + offset) >> shift``; each is a single number or one
    per channel. ``fraction`` is the number of fractional bits of ``fixed``.
    """

    activation: str
    fraction: int
    multiplier: Integers
    offset: Integers
    shift: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A tensor to add before the shift, as ``(number - zero) * multiplier``."""

    zero: int
    multiplier: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerStage:
    """A stage in integers, with their scales.

    ``input_zero`` holds one zero point, or one per channel for the image. ``bias`` is
    in units of ``input_scale * weight_scale`` for each channel. ``sum_bias`` is added
    to the sums; it corrects for the zero point and covers all of a window that is
    summed. ``output`` is None for the logits, whose unit is ``2**-logit_bits``.
    """

    float_stage: Stage
    convolutions: tuple[IntegerConvolution, ...]
    input_scale: float
    input_zero: Integers
    weight_scale: Array
    bias: Integers
    early: Pool | None
    sum_bias: Integers
    up: int
    """Spare bits of the sums; using them keeps a shift of 32 or more precise."""
    multiplier: Integers
    shift: int
    activation_step: ActivationStep | None
    late: Pool | None
    output: Range | None
    logit_bits: int = 0
    added: Added | None = None

    @property
    def name(self) -> str:
        """The stage's place in the network."""
        return self.float_stage.name

    @property
    def output_shape(self) -> Shape:
        """Channels, height and width of the output."""
        return self.float_stage.output_shape


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
        table.append(_averaging(chain[0], zero))
        chain = chain[1:]
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
        if stage.adds >= number:
            raise ExportError(
                f"{stage.name}: a shortcut of the input image cannot be computed in "
                "int8: export to onnx, or put a block before it"
            )
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


def averaged(
    images: npt.NDArray[np.integer[Any]], sides: tuple[int, int]
) -> npt.NDArray[Any]:
    """Return [N, C, H, W] in a lower resolution: area means, halves rounded up."""
    height, width = images.shape[2:]
    result = np.empty((*images.shape[:2], *sides), dtype=images.dtype)
    for (y, rows), (x, columns) in product(
        enumerate(areas(height, sides[0])), enumerate(areas(width, sides[1]))
    ):
        area = images[:, :, slice(*rows), slice(*columns)].astype(np.int64)
        count = area.shape[2] * area.shape[3]
        result[:, :, y, x] = (2 * area.sum(axis=(2, 3)) + count) // (2 * count)
    return result


def resize_of(stage: Stage) -> Resize | None:
    """Return the resize step if the stage lowers the images' resolution, else None."""
    found = stage.after[0] if stage.after else None
    return found if isinstance(found, Resize) else None


def _averaging(stage: Stage, zero: Integers) -> IntegerStage:
    """Return the stage that lowers the images' resolution; it has no parameters."""
    nothing = np.zeros(0, dtype=np.int64)
    return IntegerStage(
        float_stage=stage,
        convolutions=(),
        input_scale=float(np.float32(1 / 255)),
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
        output=Range(scale=float(np.float32(1 / 255)), zero=0),
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

    early: Pool | None
    sign: Affine | None
    activation: str
    affine: Affine | None
    late: Pool | None


def _following_steps(stage: Stage) -> _FollowingSteps:
    steps = list(stage.after)

    def take(kind: type[After]) -> After | None:
        return steps.pop(0) if steps and isinstance(steps[0], kind) else None

    early, sign = take(Pool), take(Affine)
    activation, affine, late = take(Activation), take(Affine), take(Pool)
    if steps:
        raise ExportError(f"{stage.name}: {steps[0]} cannot be computed in int8 yet")
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
    output = None if logits else _range(outputs)
    if steps.activation == "sigmoid":
        output = Range(scale=float(np.float32(1 / 255)), zero=0)
    if not stage.convolutions and len(zero) == 1 and output and _is_maximum(steps):
        # A maximum is one of the input numbers, so their scale is exact.
        output = Range(scale=scale, zero=int(zero[0]))
    # This makes the shift exceed 32 bits, which is cheaper on a 32-bit processor.
    most_bits = math.floor(math.log2(0.25 / abs(real).max()))
    logit_bits = _bits_for(outputs, 2**28, most_bits) if logits else 0
    activation_step = None
    if output is None:
        real = real * 2.0**logit_bits
    elif steps.activation == "none" or (
        steps.activation in {"relu", "relu6"} and steps.affine is None
    ):
        # Saturation does the work of relu and relu6: the range starts at zero and ends
        # at most at the measured maximum.
        real = real / output.scale
    else:
        fraction = _bits_for(before, FIXED_POINT_LIMIT / 4, most_bits)
        real = real * 2.0**fraction
        activation_step = _activation_step(steps, fraction, output)
    unit = _unit(activation_step, output)
    most_shift = _MOST_SHIFT
    if added is not None:
        # This shift keeps the added numbers within 61 bits.
        most_shift = min(most_shift, 52 - math.frexp(added.scale / unit)[1])
    multiplier, shift = _fixed_point(real, most_shift)
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
    return tuple(convolutions), np.concatenate(scales), _whole(np.concatenate(biases))


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
    if largest > _INT32:
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
    elif steps.activation == "sigmoid":
        real = 1 / output.scale / np.full(1, 2.0**16)  # the unit of its table
    multiplier, shift = _fixed_point(real)
    offset = np.round((moved / output.scale + output.zero + 0.5) * 2.0**shift)
    return ActivationStep(
        activation=steps.activation,
        fraction=fraction,
        multiplier=multiplier,
        offset=_whole(np.clip(offset, -(2.0**61), 2.0**61)),
        shift=shift,
    )


def _is_maximum(steps: _FollowingSteps) -> bool:
    return steps.early is not None and steps.early.kind == "max"


def _unit(activation_step: ActivationStep | None, output: Range | None) -> float:
    """Return the value of one unit of the numbers after the shift."""
    if activation_step is not None:
        return 2.0**-activation_step.fraction
    return 1.0 if output is None else output.scale


def _fixed_point(real: Array, most_shift: int = _MOST_SHIFT) -> tuple[Integers, int]:
    """Return 32-bit multipliers and one shift with ``real ≈ multiplier / 2**shift``."""
    largest = float(abs(real).max())
    shift = max(1, most_shift)
    if largest > 0:
        shift = min(shift, max(1, 30 - math.frexp(largest)[1]))
    return _whole(np.clip(np.round(real * 2.0**shift), -_INT32, _INT32)), shift


def _bits_for(values: Tensor, limit: float, most: int) -> int:
    """Return the number of fractional bits that keeps these values below the limit."""
    largest = float(values.abs().max()) or 1.0
    return max(4, min(_FRACTION_BITS, most, math.floor(math.log2(limit / largest))))


def _range(values: Tensor) -> Range:
    """Return the uint8 range with the smallest squared error on these values.

    Its ends are the minimum and the maximum, or fractions of them. Zero is always
    represented exactly, which padding and relu need.
    """
    flat = values.flatten()
    some = flat[:: max(1, len(flat) // _SAMPLES)].double().numpy()
    low, high = min(0.0, float(flat.min())), max(0.0, float(flat.max()))
    if low == high:
        return Range(scale=1.0, zero=0)
    shares = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6)
    best = _between(low, high)
    least = math.inf
    for low_share in shares if low < 0 else (1.0,):
        for high_share in shares if high > 0 else (1.0,):
            tried = _between(low * low_share, high * high_share)
            numbers = np.clip(np.round(some / tried.scale) + tried.zero, 0, 255)
            error = float(
                ((numbers - tried.zero) * tried.scale - some) ** 2 @ np.ones(len(some))
            )
            if error < least:
                best, least = tried, error
    return best


def _between(low: float, high: float) -> Range:
    scale = float(np.float32((high - low) / 255))
    return Range(scale=scale, zero=max(0, min(255, round(-low / scale))))


def _whole(values: Array) -> Integers:
    return values.astype(np.int64)
