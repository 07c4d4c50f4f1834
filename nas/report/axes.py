"""The scales of accuracy and size that the interactive and the still plot share.

Good candidates crowd just below 100 %, where a linear axis shows them as one line.
So accuracy is drawn by its error on a logarithmic scale, best at the top, and the
ticks name the accuracy: 90 %, 99 % and 99.9 % stand equally far apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

SMALLEST_ERROR = 1e-4
"""Where a flawless candidate is drawn, since a logarithmic scale has no zero."""

_NO_CANDIDATES_YET = (0.01, 0.5)


def error_of(val_accuracy: float) -> float:
    """Return 1 - accuracy as it is drawn, at least SMALLEST_ERROR."""
    return max(1 - val_accuracy, SMALLEST_ERROR)


def error_range(errors: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest error to show, with some air."""
    low = min(errors, default=_NO_CANDIDATES_YET[0])
    high = max(errors, default=_NO_CANDIDATES_YET[1])
    air = (high / low) ** 0.05 * 1.05
    return low / air, min(high * air, 1.1)


def accuracy_range(accuracies: Sequence[float]) -> tuple[float, float]:
    """Return the accuracies between which a linear axis shows the better ones.

    It begins at the lower quartile, so that a few hopeless candidates do not press
    the rest together.
    """
    if not accuracies:
        return 0.0, 1.0
    ordered = sorted(accuracies)
    low, high = ordered[len(ordered) // 4], ordered[-1]
    air = max((high - low) * 0.06, 0.001)
    return max(low - air, -0.02), high + air


def size_range(sizes: Sequence[int], param_budget: int | None) -> tuple[float, float]:
    """Return the smallest and the largest number of parameters to show."""
    known = [*sizes, param_budget] if param_budget else list(sizes)
    low, high = min(known, default=100), max(known, default=100)
    if low == high:
        low = max(low // 10, 1)
    air = (high / low) ** 0.03 * 1.03
    return low / air, high * air


def one_two_five(low: float, high: float) -> list[float]:
    """Return the numbers 1, 2 and 5 times a power of ten from low to high."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = (
        float(f"{digit}e{power}")
        for power in range(first, last + 1)
        for digit in (1, 2, 5)
    )
    return [tick for tick in ticks if low <= tick <= high]


def log_range(start: float, end: float) -> tuple[float, float]:
    """Return the range as plotly wants it for a logarithmic axis."""
    return math.log10(start), math.log10(end)


def accuracy_label(error: float) -> str:
    """Return the accuracy that stands at this error: 0.005 gives ``99.5 %``."""
    return f"{100 * (1 - error):.6g} %"


def size_label(size: float) -> str:
    """Return a short number of parameters: 2000 gives ``2k``."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{size / factor:g}{letter}"
    return f"{size:g}"


def staircase(
    points: Iterable[tuple[float, float]], end: float | None
) -> list[tuple[float, float]]:
    """Return the corners of the front: each accuracy holds until the next size.

    ``end`` is the size up to which the last accuracy is drawn, None to stop at it.
    """
    corners: list[tuple[float, float]] = []
    for size, height in points:
        if corners:
            corners.append((size, corners[-1][1]))
        corners.append((size, height))
    if corners and end is not None and end > corners[-1][0]:
        corners.append((end, corners[-1][1]))
    return corners
