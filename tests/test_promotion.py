"""Promotion: the best of each range of sizes, a few early and most late."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nas.candidates.promotion import (
    Promotion,
    PromotionRule,
    next_promotion,
    planned_epochs,
    size_range,
)
from nas.candidates.ranking import Evidence

LEVELS = (1, 3, 15)
CAP = 8000
RULE = PromotionRule()
SIZES = [7900, 5000, 3900, 2500, 1900, 1100, 900, 600, 400, 100] * 20


def promote_all(
    trials: int = 200,
    screened: int = 200,
    sizes: Sequence[int] = SIZES,
    **changes: Any,
) -> list[Promotion]:
    """Promote until the rule wants no more; each training keeps the order of scores."""
    results: list[dict[int, list[float]]] = [{1: [0.0]} for _ in range(screened)]
    scores = [math.sin(n) for n in range(screened)]
    started: dict[int, set[tuple[int, int]]] = {}
    made = []
    while True:
        evidence = [
            Evidence(n, sizes[n], 10**6, some) for n, some in enumerate(results)
        ]
        found = next_promotion(
            evidence,
            scores,
            started,
            **{
                "rule": RULE,
                "fidelities": LEVELS,
                "trials": trials,
                "screened": screened,
                "screening": screened < trials,
            }
            | changes,
        )
        if found is None:
            return made
        made.append(found)
        results[found.trial].setdefault(found.epochs, []).append(0.0)
        started.setdefault(found.trial, set()).add((found.epochs, found.seed))
        assert len(made) < 1000, "promotes without end"


def test_as_many_as_the_rule_says_and_nothing_twice() -> None:
    """The shares of the trials, and none that was not promoted before."""
    made = promote_all()
    assert len(made) == len(set(made))
    counts = Counter((p.epochs, p.seed) for p in made)
    assert counts[3, 0] == round(RULE.middle * 200)
    assert counts[15, 0] == round(RULE.full * 200)
    assert counts[15, 1] <= round(RULE.seeds * 200)
    middle = [p.trial for p in made if p.epochs == 3]
    assert all(p.trial in middle for p in made if p.epochs == 15)
    epochs = sum(p.epochs for p in made) + 200
    assert epochs == planned_epochs(RULE, LEVELS, 200, always=0)


def test_every_range_of_sizes_has_its_share_and_the_best_of_it() -> None:
    """The range under the cap gets most; within one the best scores go first."""
    made = [p for p in promote_all() if p.epochs == 3]
    spent = Counter(size_range(SIZES[p.trial], max(SIZES)) for p in made)
    assert set(spent) == set(range(5))
    assert spent[0] == max(spent.values())
    for place, count in spent.items():
        members = [n for n in range(200) if size_range(SIZES[n], max(SIZES)) == place]
        best = sorted(members, key=math.sin)[:count]
        ours = {
            p.trial for p in made if size_range(SIZES[p.trial], max(SIZES)) == place
        }
        assert ours == set(best)


def test_a_range_without_candidates_yet_keeps_its_share() -> None:
    """Small networks that come late in a search find theirs; at the end none is lost."""
    large = [size for size in SIZES if size_range(size, max(SIZES)) < 2]
    for screening in (True, False):
        made = promote_all(sizes=large, screened=79, trials=80, screening=screening)
        spent = Counter(
            size_range(large[p.trial], max(large)) for p in made if p.epochs == 3
        )
        in_all = int(RULE.middle * 80)
        share = in_all * RULE.weights[0] / sum(RULE.weights)
        if screening:
            assert abs(spent[0] - share) < 1
        else:
            assert spent.total() == in_all


def test_early_on_few_are_promoted() -> None:
    """Better ones are to come; a few show that it works."""
    early = Counter(p.epochs for p in promote_all(screened=50))
    assert early[3] <= 0.3 * RULE.middle * 200
    assert early[15] <= 1


def test_short_studies_have_a_few_full_trainings() -> None:
    """However few the trials; most of them under the cap."""
    made = [p for p in promote_all(trials=20, screened=20) if p.epochs == 15]
    assert len([p for p in made if p.seed == 0]) == RULE.least
    assert SIZES[made[0].trial] > CAP / 2


def test_a_study_of_one_fidelity_promotes_nothing() -> None:
    """There is nowhere to."""
    assert promote_all(fidelities=(3,)) == []


def test_close_ones_get_a_second_seed() -> None:
    """Where the first two of a range differ clearly nobody does."""
    seeds = [p for p in promote_all() if p.seed]
    assert seeds
    assert {p.epochs for p in seeds} == {15}
    none = promote_all(rule=PromotionRule(close=0.0))
    assert not [p for p in none if p.seed]


def test_what_is_always_wanted_takes_nothing_from_the_others() -> None:
    """The others get as many as without, and the wanted no shorter training beside."""
    without, wanted = promote_all(), [0, 1, 4, 9]
    made = promote_all(always=wanted)
    assert [p for p in made if p.trial in wanted and p.seed == 0] == [
        Promotion(trial, 15, 0) for trial in wanted
    ]
    for epochs in (3, 15):
        assert sum(p.epochs == epochs and p.trial not in wanted for p in made) == sum(
            p.epochs == epochs for p in without
        )


def test_what_is_always_wanted_comes_first() -> None:
    """It is fully trained at once and once only, however bad it is."""
    worst = max(range(200), key=math.sin)
    made = promote_all(always=[worst])
    assert made[0] == (worst, 15, 0)
    assert sum(p.trial == worst and p.epochs == 15 for p in made) == 1
