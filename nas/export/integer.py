"""The numpy definition of the int8 net's arithmetic; the C code gives the same bits.

Sums use float64, which is exact for integers up to 2**53, so that numpy's matrix
product can compute them. No sum exceeds 2**31 (quantise checks that).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from nas.architecture.parts import Pooling
from nas.export.fixed_point import FIXED_POINT_LIMIT
from nas.export.integer_stages import (
    ActivationStep,
    IntegerConvolution,
    Integers,
    IntegerStage,
    pad_of,
    resize_of,
)
from nas.export.stages import Pad, areas, reach

_CHUNK = 100
_MOST_VALUES = 20_000_000  # in the windows of one chunk, 160 MB
TABLE_SHIFT = 4
"""The tables have 16 entries per unit, from 0 to 8."""
_PLACES = [place / 16 for place in range(129)]
TABLES: dict[str, Integers] = {
    name: np.round(65536 * np.array(values)).astype(np.int64)
    for name, values in {
        "sigmoid": [1 / (1 + math.exp(-x)) for x in _PLACES],
        "normal": [(1 + math.erf(x / math.sqrt(2))) / 2 for x in _PLACES],  # of GELU
        "decay": [1 - math.exp(-x) for x in _PLACES],  # of ELU below 0
    }.items()
}
"""In units of 2**-16; linear between the entries, and one above 8."""
LEAKY = 10486
"""0.01 in units of 2**-20."""


def classify(table: Sequence[IntegerStage], images: npt.NDArray[np.uint8]) -> Integers:
    """Return the class of each image, uint8 ``[N, C, H, W]``; ties go to the first."""
    classes: Integers = run(table, images).argmax(axis=1)
    return classes


def run(table: Sequence[IntegerStage], images: npt.NDArray[np.uint8]) -> Integers:
    """Return the logits ``[N, num_classes]`` in units of ``2**-logit_bits``."""
    size = max(1, min(_CHUNK, _MOST_VALUES // max(map(_window_values, table))))
    chunks = [images[i : i + size] for i in range(0, len(images), size)]
    return np.concatenate([_run(table, chunk) for chunk in chunks])


def _window_values(stage: IntegerStage) -> int:
    """Return the number of window values of one image, over all output positions."""
    places = math.prod(stage.float_stage.conv_shape[1:])
    kernel = max((math.prod(c.weight.shape[1:]) for c in stage.convolutions), default=1)
    return places * max(kernel, stage.float_stage.input_shape[0])


def _run(table: Sequence[IntegerStage], images: npt.NDArray[np.uint8]) -> Integers:
    kept = reach([stage.float_stage for stage in table])
    tensors = deque([images.astype(np.int64)], maxlen=kept)
    for stage in table:
        tensors.append(apply(stage, tensors))
    return tensors[-1].reshape(len(images), -1)


def apply(stage: IntegerStage, tensors: Sequence[Integers]) -> Integers:
    """Return the stage's output, ``[N, C, H, W]``, from the tensors before it."""
    source = stage.float_stage
    features = tensors[-source.takes]
    if (step := resize_of(source)) is not None:
        return averaged(features, step.sides)
    if (pad := pad_of(source)) is not None:
        return _padded(pad, features, int(stage.input_zero[0]), source.output_shape[0])
    sums = np.concatenate(
        [_convolve(stage, c, features) for c in stage.convolutions], axis=1
    )
    sums = _pool_sums(stage.early, sums) + stage.sum_bias.reshape(-1, 1, 1)
    if source.gates:
        sums *= tensors[-source.gates]
    sums <<= stage.up
    multiplier = stage.multiplier.reshape(-1, 1, 1)
    product = sums * multiplier + (1 << (stage.shift - 1))
    if stage.added is not None:
        product += (tensors[-source.adds] - stage.added.zero) * stage.added.multiplier
    output = _scaled(product, stage.shift)
    if stage.output is None:
        return output
    if stage.activation_step is not None:
        output = _activated(
            stage.activation_step,
            np.clip(output, -FIXED_POINT_LIMIT, FIXED_POINT_LIMIT),
        )
    else:
        output = output + stage.output.zero
    return _pool_numbers(stage.late, np.clip(output, 0, 255))


def _padded(pad: Pad, features: Integers, zero: int, channels: int) -> Integers:
    kept = features[:, :, :: pad.stride, :: pad.stride]
    first, start = max(-pad.before, 0), max(pad.before, 0)
    count = min(kept.shape[1] - first, channels - start)
    result = np.full((len(kept), channels, *kept.shape[2:]), zero, dtype=np.int64)
    result[:, start : start + count] = kept[:, first : first + count]
    return result


def _convolve(
    stage: IntegerStage, convolution: IntegerConvolution, features: Integers
) -> Integers:
    channels = features.shape[1]
    zero = np.broadcast_to(stage.input_zero, (channels,))
    above, beside = convolution.padding
    count, _, height, width = features.shape
    padded = np.empty((count, channels, height + 2 * above, width + 2 * beside))
    padded[:] = zero.reshape(-1, 1, 1)
    padded[:, :, above : above + height, beside : beside + width] = features
    step, apart = stage.float_stage.stride, stage.float_stage.dilation
    extent = tuple(apart * (side - 1) + 1 for side in convolution.weight.shape[2:])
    windows = sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, ::step, ::step, ::apart, ::apart]
    weight = convolution.weight.astype(np.float64)
    if depthwise(stage):
        sums = np.einsum("nchwij,cij->nchw", windows, weight[:, 0])
    else:
        groups = stage.float_stage.groups
        each = zip(
            np.split(windows, groups, axis=1), np.split(weight, groups), strict=True
        )
        parts = [np.tensordot(*pair, axes=((1, 4, 5), (1, 2, 3))) for pair in each]
        sums = np.concatenate(parts, axis=3).transpose(0, 3, 1, 2)
    whole: Integers = sums.astype(np.int64)
    return whole


def depthwise(stage: IntegerStage) -> bool:
    """Return whether each channel is convolved by itself; pooling alone counts."""
    source = stage.float_stage
    moves = resize_of(source) or pad_of(source)
    return source.depthwise or not (source.convolutions or moves)


def _scaled(values: Integers, shift: int) -> Integers:
    """Return the values divided by 2**shift, rounded down, clipped to ±2**30."""
    scaled: Integers = np.clip(values >> shift, -(2**30), 2**30)
    return scaled


def _windows(pool: Pooling, values: Integers) -> Integers:
    """Return the values grouped by window, ``[N, C, H, W, h * w]``.

    What is padded is smaller than any value.
    """
    (above, beside), (down, right) = pool.padding, pool.strides
    sides = ((0, 0), (0, 0), (above, above), (beside, beside))
    padded = np.pad(values, sides, constant_values=np.iinfo(np.int64).min)
    windows = sliding_window_view(padded, pool.window, axis=(2, 3))
    windows = windows[:, :, ::down, ::right]
    return windows.reshape(*windows.shape[:4], -1)


def _pool_sums(pool: Pooling | None, sums: Integers) -> Integers:
    if pool is None:
        return sums
    windows = _windows(pool, sums)
    pooled: Integers = (
        windows.max(axis=4) if pool.kind == "max" else windows.sum(axis=4)
    )
    return pooled


def _pool_numbers(pool: Pooling | None, numbers: Integers) -> Integers:
    if pool is None:
        return numbers
    windows = _windows(pool, numbers)
    if pool.kind == "max":
        pooled: Integers = windows.max(axis=4)
        return pooled
    if pool.window != (2, 2):
        raise ValueError(
            f"means of uint8 numbers need windows of 2x2, not {pool.window}"
        )
    # A quarter of the sum, with halves rounded to even as in ONNX.
    total: Integers = windows.sum(axis=4)
    return (total + 1 + ((total >> 2) & 1)) >> 2


def _activated(step: ActivationStep, fixed: Integers) -> Integers:
    one = 1 << step.fraction
    match step.activation:
        case "relu":
            value = np.maximum(fixed, 0)
        case "relu6":
            value = np.clip(fixed, 0, 6 * one)
        case "leaky_relu":
            value = np.where(fixed < 0, (fixed * LEAKY + (1 << 19)) >> 20, fixed)
        case "hardswish":
            value = (fixed * np.clip(fixed + 3 * one, 0, 6 * one)) >> step.fraction
        case "sigmoid":
            value = _gate("sigmoid", fixed, step.fraction)
        case "tanh":
            value = 2 * _gate("sigmoid", 2 * fixed, step.fraction) - 65536
        case "silu":
            value = (fixed * _gate("sigmoid", fixed, step.fraction)) >> 16
        case "gelu":
            value = (fixed * _gate("normal", fixed, step.fraction)) >> 16
        case "elu":
            below = _curve("decay", abs(fixed), step.fraction) >> (16 - step.fraction)
            value = np.where(fixed < 0, -below, fixed)
        case _:
            raise NotImplementedError(step.activation)
    shape = (-1, 1, 1)
    scaled: Integers = value * step.multiplier.reshape(shape)
    return _scaled(scaled + step.offset.reshape(shape), step.shift)


def _curve(name: str, magnitude: Integers, fraction: int) -> Integers:
    """Return what the table says of numbers that are not below 0, from 0 to 65536."""
    table, bits = TABLES[name], fraction - TABLE_SHIFT
    place = np.minimum(magnitude >> bits, len(table) - 2)
    rest = magnitude - (place << bits)
    rise = table[place + 1] - table[place]
    value = table[place] + ((rise * rest) >> bits)
    return np.where(magnitude >> bits >= len(table) - 1, 65536, value)


def _gate(name: str, fixed: Integers, fraction: int) -> Integers:
    """Return the table's value for any numbers, whose sum is one for x and -x."""
    value = _curve(name, abs(fixed), fraction)
    return np.where(fixed < 0, 65536 - value, value)


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
