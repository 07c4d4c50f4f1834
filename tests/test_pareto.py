"""Dominance, the front and its hypervolume, against the definitions spelled out."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dominates, points

from nas.candidates.pareto import Point, hypervolume, pareto_front

REFERENCE = (500.0, 0.25)


@given(points())
def test_front_equals_brute_force(drawn: list[Point]) -> None:
    """The front is what nothing dominates, each point once, by ascending size."""
    front = pareto_front(drawn)
    expected = sorted(
        {p for p in drawn if not any(dominates(other, p) for other in drawn)}
    )
    assert [drawn[i] for i in front] == expected
    assert all(drawn.index(drawn[i]) == i for i in front)


def summed(drawn: list[Point], reference_point: Point) -> float:
    """Return the dominated area cell by cell between all sizes and accuracies."""
    largest, floor = reference_point
    sizes = sorted({min(size, largest) for size, _ in drawn} | {largest})
    heights = sorted({max(height, floor) for _, height in drawn} | {floor})
    area = 0.0
    for left, right in pairwise(sizes):
        for low, high in pairwise(heights):
            if any(size <= left and top >= high for size, top in drawn):
                area += (math.log(right) - math.log(left)) * (high - low)
    return area


@given(points(12))
def test_hypervolume_equals_a_sum_over_cells(drawn: list[Point]) -> None:
    """The quick sum along the front is the area counted cell by cell."""
    assert hypervolume(drawn, REFERENCE) == pytest.approx(summed(drawn, REFERENCE))


@given(points(), st.data())
def test_hypervolume_only_grows(drawn: list[Point], data: st.DataObject) -> None:
    """One more point never takes area away; a dominated one adds none."""
    before = hypervolume(drawn, REFERENCE)
    point = data.draw(st.tuples(st.integers(1, 1000), st.floats(0, 1)))
    after = hypervolume([*drawn, point], REFERENCE)
    assert after >= before - 1e-9
    if any(dominates(other, point) for other in drawn):
        assert after == pytest.approx(before)


def test_hypervolume_by_hand() -> None:
    """Two steps of a staircase; points beyond the reference add nothing."""
    area = hypervolume([(10, 0.5), (100, 0.9), (2000, 1.0)], (1000, 0.1))
    assert area == pytest.approx(math.log(10) * 0.4 + math.log(10) * 0.8)
    assert hypervolume([], (1000, 0.1)) == 0
    assert hypervolume([(1000, 1.0), (10, 0.1)], (1000, 0.1)) == 0
