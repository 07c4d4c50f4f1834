"""The pruning rule: only clearly better rivals of at most its size count."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import dominates, points

from nas.candidates.pareto import Point
from nas.candidates.pruning import (
    PruningRule,
    RungResult,
    RungResults,
    accuracy_noise,
    count_rivals,
    should_prune,
)

VAL_SIZE = 1000
POINT = st.tuples(st.integers(1, 1000), st.floats(0, 1))
RULES = st.builds(
    PruningRule,
    rivals=st.integers(1, 3),
    lead=st.floats(0, 0.4),
    noise=st.floats(0, 3),
    min_peers=st.integers(0, 8),
)


def ahead(peers: list[Point]) -> list[RungResult]:
    """Return peers whose training loss is lower than that of `own`."""
    return [RungResult(*peer, train_loss=0.1) for peer in peers]


def own(point: Point, train_loss: float = 0.2) -> RungResult:
    """Return where the candidate stands that is judged."""
    return RungResult(*point, train_loss=train_loss)


def prunes(point: Point, peers: list[Point], rule: PruningRule) -> bool:
    """Ask the rule with a validation set of VAL_SIZE images."""
    return should_prune(own(point), ahead(peers), rule=rule, val_size=VAL_SIZE)


def rivals_of(point: Point, peers: list[Point], rule: PruningRule) -> int:
    """Count the rivals with a validation set of VAL_SIZE images."""
    return count_rivals(own(point), ahead(peers), rule=rule, val_size=VAL_SIZE)


@given(POINT, points(), RULES)
def test_only_dominated_candidates_are_pruned(
    point: Point, peers: list[Point], rule: PruningRule
) -> None:
    """Who is pruned is dominated by as many peers as the rule names."""
    if prunes(point, peers, rule):
        assert sum(dominates(peer, point) for peer in peers) >= rule.rivals


@given(POINT, points(), RULES, st.data())
def test_bigger_nets_never_count_against_smaller_ones(
    point: Point, peers: list[Point], rule: PruningRule, data: st.DataObject
) -> None:
    """However accurate, larger peers change nothing once there are enough peers."""
    larger = data.draw(
        st.lists(st.tuples(st.integers(int(point[0]) + 1, 5000), st.floats(0, 1)))
    )
    if len(peers) >= rule.min_peers:
        assert prunes(point, peers, rule) == prunes(point, peers + larger, rule)
    assert not prunes(point, larger * 10, rule)


@given(POINT, points(), RULES)
def test_nothing_is_pruned_among_few(
    point: Point, peers: list[Point], rule: PruningRule
) -> None:
    """Before min_peers have reported everything goes on."""
    assert not prunes(point, peers[: max(0, rule.min_peers - 1)], rule) or (
        rule.min_peers == 0
    )


@given(POINT, points(), RULES, st.floats(0, 1), st.integers(0, 500))
def test_better_candidates_are_pruned_less(
    point: Point, peers: list[Point], rule: PruningRule, gain: float, fewer: int
) -> None:
    """Fewer parameters never bring more rivals, nor does one more rival save it."""
    smaller = (max(1, point[0] - fewer), point[1])
    assert rivals_of(smaller, peers, rule) <= rivals_of(point, peers, rule)
    if prunes(point, peers, rule):
        assert prunes(point, [*peers, (1, gain)], rule)


RESULTS = st.builds(
    RungResult, st.integers(1, 20), st.floats(0, 1), st.floats(0, 3, allow_nan=False)
)


@given(RESULTS, st.lists(RESULTS), RULES)
def test_rivals_are_counted_as_one_by_one(
    mine: RungResult, peers: list[RungResult], rule: PruningRule
) -> None:
    """All at once gives what the definition gives peer by peer, as an array, too."""
    margin = rule.noise * accuracy_noise(mine.val_accuracy, VAL_SIZE)
    count = sum(
        peer.num_params <= mine.num_params
        and peer.val_accuracy > mine.val_accuracy + margin
        and peer.train_loss < (1 - rule.lead) * mine.train_loss
        for peer in peers
    )
    assert count_rivals(mine, peers, rule=rule, val_size=VAL_SIZE) == count
    results = RungResults()
    for trial, peer in enumerate(peers):
        results.put(trial, peer)
    rows = results.peers()
    assert count_rivals(mine, rows, rule=rule, val_size=VAL_SIZE) == count


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | RESULTS)), st.integers(0, 200))
def test_standings_are_noted_and_forgotten(
    changes: list[tuple[int, RungResult | None]], more: int
) -> None:
    """In any order of both, what is held is what a dict would hold."""
    results, expected = RungResults(), dict[int, RungResult]()
    for trial, result in changes:
        if result is None:
            results.drop(trial)
            expected.pop(trial, None)
        else:
            results.put(trial, result)
            expected[trial] = result
    for trial in range(100, 100 + more):
        expected[trial] = RungResult(trial, 0.5, 1.0)
        results.put(trial, expected[trial])
    assert sorted(map(tuple, results.peers().tolist())) == sorted(expected.values())


@given(st.floats(0, 1), st.integers(1, 100_000))
def test_noise_is_binomial(val_accuracy: float, val_size: int) -> None:
    """The noise is finite, above 0 for all accuracies, and at most that of a coin."""
    noise = accuracy_noise(val_accuracy, val_size)
    assert 0 < noise <= math.sqrt(0.5 / val_size) * (1 + 1e-12)


def test_noise_by_hand() -> None:
    """At 0.9 on 1,000 images a difference has a standard error of 1.3 points."""
    assert accuracy_noise(0.9, 1000) == pytest.approx(0.013416, abs=1e-6)


@pytest.mark.parametrize(
    ("point", "pruned"),
    [
        ((500, 0.90), True),  # two smaller peers are clearly better
        ((500, 0.949), False),  # better, but not by more than the noise
        ((200, 0.90), True),  # equal in size counts
        ((199, 0.10), False),  # small: only (100, 0.10) is its rival
    ],
)
def test_pruning_by_example(point: Point, *, pruned: bool) -> None:
    """The rule on one handful of peers."""
    peers = [(100, 0.10), (200, 0.95), (200, 0.96), (800, 0.99), (900, 0.99)]
    rule = PruningRule(rivals=2, noise=2, min_peers=5)
    assert prunes(point, peers, rule) == pruned
    assert not prunes(point, peers[:4], rule)


@given(POINT, points(), RULES)
def test_both_witnesses_are_needed(
    point: Point, peers: list[Point], rule: PruningRule
) -> None:
    """No peer is a rival of a candidate whose training loss is not far behind."""
    mine = own(point, train_loss=0.1 / (1 - rule.lead) - 1e-9)
    assert count_rivals(mine, ahead(peers), rule=rule, val_size=VAL_SIZE) == 0
