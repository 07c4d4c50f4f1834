"""The scales of accuracy and size that the interactive and the static plot share.

Good candidates lie just below 100 %, where a linear axis shows them as one line. So
the axis is the logarithm of the error, with the best at the top, and its ticks show the
accuracy: 90 %, 99 % and 99.9 % are equally far apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

SMALLEST_ERROR = 1e-4
"""The plotted error of a perfect candidate, as a logarithmic scale has no zero."""

_NO_CANDIDATES_YET = (0.01, 0.5)


def error_of(val_accuracy: float) -> float:
    """Return the plotted error: 1 - accuracy, at least SMALLEST_ERROR."""
    return max(1 - val_accuracy, SMALLEST_ERROR)


def error_range(errors: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest error to show, with some margin."""
    low = min(errors, default=_NO_CANDIDATES_YET[0])
    high = max(errors, default=_NO_CANDIDATES_YET[1])
    air = (high / low) ** 0.05 * 1.05
    return low / air, min(high * air, 1.1)


def accuracy_range(accuracies: Sequence[float]) -> tuple[float, float]:
    """Return the range of a linear accuracy axis that shows the better candidates.

    It starts at the lower quartile, so that a few bad candidates do not compress the
    rest.
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
    """Return the range in plotly's format for a logarithmic axis."""
    return math.log10(start), math.log10(end)


def accuracy_label(error: float) -> str:
    """Return the accuracy label for an error: 0.005 gives ``99.5 %``."""
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

    The last accuracy is drawn up to the size ``end``; None stops at the last point.
    """
    corners: list[tuple[float, float]] = []
    for size, height in points:
        if corners:
            corners.append((size, corners[-1][1]))
        corners.append((size, height))
    if corners and end is not None and end > corners[-1][0]:
        corners.append((end, corners[-1][1]))
    return corners
