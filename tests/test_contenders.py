"""Who may win under a cap: the study's own candidates, and the best structures resized."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from studying import FakeEngine, complete_candidate, make_settings, one_block

from nas.architecture import Architecture
from nas.architecture.cost import cost
from nas.candidates.candidate import Candidate
from nas.candidates.ranking import family_of
from nas.engines import Job
from nas.search.best import SelectionCriteria, Winner, retrain
from nas.search.contenders import Contender, contenders
from nas.study.settings import Settings

SETTINGS = make_settings(param_budget=2000)
KERNELS = {"good": 5, "bad": 3}


def net(kind: str, width: int) -> Architecture:
    """Return a net of the good structure or of the bad one."""
    return one_block(width, KERNELS[kind])


def candidate(trial: int, kind: str, width: int, val_accuracy: float) -> Candidate:
    """Return a complete candidate of that structure and width."""
    return complete_candidate(trial, net(kind, width), val_accuracy)


# Wider ones of the bad structure; the good one was tried at 490 parameters alone.
GOOD = candidate(9, "good", 13, 0.90)
CANDIDATES = [
    *(candidate(n, "bad", 10 + 6 * n, 0.70 + 0.03 * n) for n in range(9)),
    GOOD,
]


def under(cap: int, settings: Settings = SETTINGS) -> list[Contender]:
    """Return the contenders under the cap."""
    small_enough = [c for c in CANDIDATES if c.num_params <= cap]
    return contenders(CANDIDATES, small_enough, settings, cap)


@pytest.mark.parametrize("cap", [310, 1000])
def test_what_was_best_at_another_size_comes_first_as_wide_as_the_cap_allows(
    cap: int,
) -> None:
    """Narrowed or widened; it is told from the trial that it was made from."""
    first = under(cap)[0]
    assert (first.trial, first.resized, first.name) == (9, True, "trial 9 resized")
    assert 0.9 * cap <= first.num_params <= cap
    assert first.num_params == cost(first.architecture).num_params
    assert family_of(first.architecture) == family_of(GOOD.architecture)
    assert first.search_val_accuracy is None
    assert Contender.from_candidate(GOOD) in under(1000)


def test_what_stands_at_the_cap_is_not_resized_to_it() -> None:
    """Nor what is worse than the others of its size."""
    found = under(GOOD.num_params)
    assert not any(c.resized for c in found)
    assert found[0] == Contender.from_candidate(GOOD)


def test_all_caps_hold() -> None:
    """A resized net is within those of the study, too, and in its space."""
    tight = replace(SETTINGS, max_macs=GOOD.macs)
    assert not any(c.resized for c in under(1000, tight))
    assert any(c.resized for c in under(1000))


def test_the_report_and_the_events_tell_a_resized_winner() -> None:
    """Its size is not that of the trial whose number it has."""

    def accuracy(job: Job, rung: int) -> float:
        del rung
        block = job.architecture.blocks[0]
        return 0.9 + (0.05 if block.kernel_size == 5 else 0) + block.out_channels / 1000

    told: list[Any] = []
    winner: Winner = retrain(
        CANDIDATES,
        SETTINGS,
        FakeEngine(2, accuracy=accuracy),
        SelectionCriteria(max_params=1000, epochs=3),
        hardware={},
        show=told.append,
    )
    report = winner.report
    assert (report["trial"], report["resized"]) == (9, True)
    assert GOOD.num_params < report["num_params"] <= 1000
    assert [f["resized"] for f in report["finalists"]].count(True) == 1
    seen = {(event.trial, event.num_params) for event in told if event.resized}
    assert seen == {(9, report["num_params"])}


def test_compute_counts_where_contenders_compete_for_trainings() -> None:
    """Of two that promise nearly as much the one that trains faster comes first."""
    light, heavy = (
        GOOD,
        replace(candidate(10, "good", 13, 0.901), key="another", macs=20 * GOOD.macs),
    )
    some = [*CANDIDATES, heavy]

    def first(compute_cost: float) -> int:
        rule = replace(SETTINGS.evolution, compute_cost=compute_cost)
        settings = replace(SETTINGS, evolution=rule)
        small_enough = [light, heavy]
        return contenders(some, small_enough, settings, light.num_params)[0].trial

    assert first(0.0) == heavy.trial
    assert first(0.05) == light.trial
