"""Ranking: what the size explains is taken out, longer trainings correct shorter ones."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.architecture import Architecture, Block, Head
from nas.candidates.ranking import Evidence, badness, depth_of, rank

LEVELS = (1, 3, 15)


def made_up(trial: int, num_params: int, talent: float, **more: float) -> Evidence:
    """Return a candidate whose badness falls with its size, and by its talent."""
    results = {1: [-0.7 * math.log(num_params) - talent]}
    results |= {int(name[1:]): [value] for name, value in more.items()}
    return Evidence(trial, num_params, 10**6, results)


def population(seed: int, count: int = 60) -> tuple[list[Evidence], list[float]]:
    """Return candidates of all sizes and what each is better by than its size."""
    rng = random.Random(seed)
    talents = [rng.gauss(0, 0.3) for _ in range(count)]
    sizes = [round(math.exp(rng.uniform(5, 9.2))) for _ in range(count)]
    some = [
        made_up(n, s, t) for n, (s, t) in enumerate(zip(sizes, talents, strict=True))
    ]
    return some, talents


@given(st.integers(0, 1000))
def test_the_residual_is_what_the_size_does_not_explain(seed: int) -> None:
    """Talents that were put in come out again, whatever the sizes."""
    evidence, talents = population(seed)
    residuals = rank(evidence, LEVELS).residuals
    assert np.corrcoef(residuals, talents)[0, 1] < -0.85


def test_small_nets_are_not_worse_for_being_small() -> None:
    """Of equal talent all sizes have residuals near 0; predicted, the large are better."""
    evidence = [made_up(n, 100 * 2**n, 0.0) for n in range(8)]
    ranks = rank(evidence, LEVELS)
    assert np.abs(ranks.residuals).max() < 0.1
    assert list(np.argsort(ranks.predicted)) == list(range(7, -1, -1))


def test_a_longer_training_corrects_a_shorter_one() -> None:
    """Two promoted ones change places; the rest stay where they are."""
    evidence, _ = population(3)
    before = rank(evidence, LEVELS).residuals
    order = [int(place) for place in np.argsort(before)]
    first, second = order[:2]

    def promoted(place: int, worse: float) -> Evidence:
        known = evidence[place]
        results = dict(known.results)
        results[3] = [results[1][0] - 1.0 + worse]
        return Evidence(known.trial, known.num_params, known.macs, results)

    evidence[first], evidence[second] = promoted(first, 0.4), promoted(second, 0.0)
    after = rank(evidence, LEVELS).residuals
    assert after[second] < after[first]
    others = [place for place in range(len(evidence)) if place not in {first, second}]
    np.testing.assert_allclose(after[others], before[others])


def test_what_was_never_trained_to_an_end_is_not_ranked() -> None:
    """It is nan, and disturbs nobody; without anyone all are."""
    evidence, _ = population(1, count=20)
    pruned = Evidence(99, 500, 10**6, {})
    ranks = rank([*evidence, pruned], LEVELS)
    assert math.isnan(ranks.residuals[-1])
    np.testing.assert_allclose(ranks.residuals[:-1], rank(evidence, LEVELS).residuals)
    assert np.isnan(rank([pruned], LEVELS).residuals).all()


def test_badness_knows_loss_and_error() -> None:
    """Either makes it worse; an error of none is half an image's."""
    assert badness(0.02, 0.99, 1000) < badness(0.03, 0.99, 1000)
    assert badness(0.02, 0.99, 1000) < badness(0.02, 0.98, 1000)
    assert badness(0.02, 1.0, 1000) == pytest.approx(
        (math.log(0.02) + math.log(0.0005)) / 2
    )
    assert badness(None, 0.99, 1000) == pytest.approx(math.log(0.01))


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        ({"depth": 4}, {"depth": 16}),
        ({"macs": 10**5}, {"macs": 10**6}),
        ({"spatial": True}, {"spatial": False}),
    ],
    ids=["depth", "compute", "head"],
)
def test_what_longer_trainings_bring_some_nets_counts_for_all_like_them(
    fast: dict[str, Any], slow: dict[str, Any]
) -> None:
    """A third was promoted, of both kinds; the others' ranks follow."""
    evidence = []
    for number in range(60):
        size, slowly = 300 + 100 * (number % 30), number % 2
        results = {1: [-0.7 * math.log(size)]}
        if number < 20:
            results[3] = [-0.7 * math.log(size) - 0.4 - 0.3 * slowly]
        traits: dict[str, Any] = {"macs": 10**6} | (slow if slowly else fast)
        evidence.append(
            Evidence(trial=number, num_params=size, results=results, **traits)
        )
    before = rank([replace(e, results={1: e.results[1]}) for e in evidence], LEVELS)
    after = rank(evidence, LEVELS)
    gained = (after.residuals - before.residuals)[20:]
    assert gained[1::2].mean() < gained[::2].mean() - 0.1
    # Without longer trainings no more than what is known beforehand.
    assert abs(before.residuals[1::2].mean() - before.residuals[::2].mean()) < 0.25


def test_the_depth_counts_convolutions_one_after_the_other() -> None:
    """Not those side by side; repeats count, and the two of a separable block."""
    blocks = (
        Block(out_channels=8),
        Block(kind="separable", out_channels=8, repeats=3),
        Block(kind="inception", out_channels=9, kernel_size=5),
    )
    net = Architecture(
        input_shape=(1, 28, 28), num_classes=10, blocks=blocks, head=Head(kind="gap")
    )
    assert depth_of(net) == 1 + 2 * 3 + 1
    assert depth_of(replace(net, blocks=())) == 1
