"""Real numbers as integers: multipliers with a shift, fractional bits, uint8 ranges."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from nas.export.integer_stages import Integers, Range
from nas.export.stages import Array

FIXED_POINT_LIMIT = 2**27
"""Largest magnitude of an activation's fixed-point input."""
INT32 = 2**31 - 1
MOST_SHIFT = 46  # keeps shifted zero points and sums within 63 bits
_FRACTION_BITS = 16  # fractional bits if the values are small enough
_SAMPLES = 200_000  # values for choosing a tensor's range


def fixed_point(real: Array, most_shift: int = MOST_SHIFT) -> tuple[Integers, int]:
    """Return 32-bit multipliers and one shift with ``real ≈ multiplier / 2**shift``."""
    largest = float(abs(real).max())
    shift = max(1, most_shift)
    if largest > 0:
        shift = min(shift, max(1, 30 - math.frexp(largest)[1]))
    return whole(np.clip(np.round(real * 2.0**shift), -INT32, INT32)), shift


def bits_for(values: Tensor, limit: float, most: int) -> int:
    """Return the number of fractional bits that keeps these values below the limit."""
    largest = float(values.abs().max()) or 1.0
    return max(4, min(_FRACTION_BITS, most, math.floor(math.log2(limit / largest))))


def range_of(values: Tensor) -> Range:
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


def whole(values: Array) -> Integers:
    """Return whole numbers as integers."""
    return values.astype(np.int64)
