"""Pareto dominance of (size, accuracy) points: small is good, accurate is good.

A point is a pair ``(num_params, val_accuracy)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
"""Size (lower is better), accuracy (higher is better)."""


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the indices of the points that none dominates, smallest size first.

    Of equal points the first one stands for all. Takes n log n steps.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    best = -math.inf
    for index in order:
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def hypervolume(points: Sequence[Point], reference_point: Point) -> float:
    """Return the area that the points dominate, bounded by the reference point.

    The size axis is logarithmic (natural), since a tenth fewer parameters is worth
    the same at any size; the area's unit is accuracy times log size. Points that do
    not dominate the reference point add nothing. Sizes are above 0.
    """
    largest, floor = reference_point
    inside = [p for p in points if p[0] < largest and p[1] > floor]
    area = 0.0
    front = [inside[i] for i in pareto_front(inside)]
    # Each step reaches to the next larger size, the last one to the reference.
    edges = [*(size for size, _ in front), largest][1:]
    for (size, accuracy), edge in zip(front, edges, strict=True):
        area += (math.log(edge) - math.log(size)) * (accuracy - floor)
    return area
