"""The search: exactly as many trials as asked, whatever happens to the workers."""

from __future__ import annotations

import io
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from strategies import examples
from studying import (
    SIX_NETS,
    FakeEngine,
    finish,
    finished,
    made_up_accuracy,
    make_settings,
    report_of,
)

from nas.api.progress import SearchDisplay
from nas.candidates.candidate import front
from nas.candidates.promotion import PromotionRule
from nas.candidates.pruning import PruningRule, RungResult, should_prune
from nas.engines import Event, Failed, Finished, Job, WorkerLost
from nas.errors import StudyError
from nas.search.loop import search
from nas.search.progress import Outcome, Progress
from nas.study.folders import create, open_study, read_study
from nas.study.study import Study


def run(
    folder: Path, engine: FakeEngine, trials: int, **changes: Any
) -> tuple[Study, Outcome]:
    """Begin a study, search to the end, and return it as a reader sees it."""
    limit = changes.pop("time_limit", None)
    with create(folder, make_settings(**changes)) as study:
        outcome = search(study, engine, trials=trials, time_limit=limit)
    return read_study(folder), outcome


def on(trial: int, event: Callable[[int], Event], times: int = 1) -> Any:
    """Return trouble that strikes one trial at its second rung, so many times."""

    def trouble(job: Job, begun: int, rung: int) -> Event | None:
        strikes = job.number == trial and rung == 1 and begun <= times
        return event(job.number) if strikes else None

    return trouble


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_a_search_ends_with_exactly_the_trials_asked_for(
    tmp_path: Path, workers: int
) -> None:
    """However many workers there are, none trains more than what is asked."""
    engine = FakeEngine(workers)
    study, outcome = run(tmp_path / "small", engine, 12)
    candidates = study.candidates()
    assert outcome.reason == "done"
    assert len(finished(candidates)) == len(candidates) == len(engine.started) == 12
    assert [job.seed for job in engine.started] == [c.seed for c in candidates]
    assert {job.rungs for job in engine.started} == {(1.0, 2.0, 4.0)}
    assert not engine.running


def test_the_total_counts_what_was_there_before(tmp_path: Path) -> None:
    """The same command again does nothing; a larger total adds the difference."""
    run(tmp_path / "small", FakeEngine(), 5)
    with open_study(tmp_path / "small") as study:
        engine = FakeEngine(2)
        assert search(study, engine, trials=5).reason == "done"
        assert search(study, engine, trials=3).reason == "done"
        assert engine.started == []
        search(study, engine, trials=8)
        assert [job.number for job in engine.started] == [5, 6, 7]


def test_the_pruning_rule_decides_on_every_report(tmp_path: Path) -> None:
    """With one worker the decisions are those of the rule applied by hand."""
    # The made-up losses lie too close together for the default's lead.
    rule = PruningRule(lead=0.05)
    study, _ = run(tmp_path / "small", FakeEngine(), 40, pruning=rule)
    peers: list[list[RungResult]] = [[], [], []]
    for candidate in study.candidates():
        for report in candidate.curve:
            result = RungResult(
                candidate.num_params, report.val_accuracy, report.train_loss
            )
            prune = report.rung < 2 and should_prune(
                result, peers[report.rung], rule=rule, val_size=240
            )
            peers[report.rung].append(result)
            assert prune == (
                candidate.state == "pruned" and report is candidate.curve[-1]
            )
        assert (candidate.state == "complete") == (len(candidate.curve) == 3)
        assert (candidate.reason is None) == (candidate.state == "complete")
    states = Counter(candidate.state for candidate in study.candidates())
    assert states["pruned"] >= 3
    assert states["complete"] > 5
    pruned = next(c for c in study.candidates() if c.state == "pruned")
    assert "of at most its size" in (pruned.reason or "")


def test_without_pruning_all_are_trained_to_the_end(tmp_path: Path) -> None:
    """--no-pruning: every candidate has its whole curve."""
    study, _ = run(tmp_path / "small", FakeEngine(2), 20, pruning=None)
    assert {len(c.curve) for c in study.candidates()} == {3}
    assert {c.state for c in study.candidates()} == {"complete"}


def test_an_interrupted_study_prunes_as_one_that_was_not(tmp_path: Path) -> None:
    """In three sittings the same candidates, curves and ends come about as in one."""
    whole, _ = run(tmp_path / "small", FakeEngine(), 30, sampler="evolution")
    with create(tmp_path / "parts", make_settings(sampler="evolution")) as study:
        search(study, FakeEngine(), trials=9)
    for trials in (17, 30):
        with open_study(tmp_path / "parts") as study:
            search(study, FakeEngine(), trials=trials)
    assert read_study(tmp_path / "parts").candidates() == whole.candidates()


def test_a_failure_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    """The failed trial has its reason and does not count as finished."""
    trouble = on(2, lambda job: Failed(job, "loss became NaN"))
    study, outcome = run(tmp_path / "small", FakeEngine(trouble=trouble), 6)
    failed = study.candidate(2)
    assert (failed.state, failed.reason) == ("failed", "loss became NaN")
    assert len(failed.curve) == 1
    assert outcome.reason == "done"
    assert len(finished(study.candidates())) == 6
    assert len(study.candidates()) == 7


def test_three_failures_in_a_row_of_one_cause_stop_the_search(tmp_path: Path) -> None:
    """The cause is in the error; those before are kept; a mended search goes on."""
    engine = FakeEngine(
        trouble=lambda job, _, __: (
            Failed(job.number, "out of memory") if job.number >= 2 else None
        )
    )
    with create(tmp_path / "small", make_settings()) as study:
        with pytest.raises(StudyError, match=r"3 candidates in a row.*out of memory"):
            search(study, engine, trials=20)
        states = [candidate.state for candidate in study.candidates()]
        assert states == ["complete"] * 2 + ["failed"] * 3
        search(study, FakeEngine(), trials=4)
        assert len(finished(study.candidates())) == 4


@pytest.mark.parametrize(
    "causes", [["a", "b", "a", "b", "a", "b"], ["a", "a", "", "a", "a", "", "b", "b"]]
)
def test_failures_apart_or_of_different_causes_do_not_stop_it(
    tmp_path: Path, causes: list[str]
) -> None:
    """Only three in a row, with no finished trial between, say that all will fail."""
    engine = FakeEngine(
        trouble=lambda job, _, __: (
            Failed(job.number, causes[job.number])
            if job.number < len(causes) and causes[job.number]
            else None
        )
    )
    study, outcome = run(tmp_path / "small", engine, 5)
    assert outcome.reason == "done"
    assert len(finished(study.candidates())) == 5


def test_promotions_that_fail_apart_do_not_stop_it(tmp_path: Path) -> None:
    """A longer training that ends well is one between them, too."""
    engine = FakeEngine(
        trouble=lambda job, _, __: (
            Failed(job.number, "out of memory")
            if job.number < 0 and job.number % 3 == 0
            else None
        )
    )
    rule = PromotionRule(middle=0.9, full=0.5)
    settings = make_settings(fidelities=(4, 12, 60), promotion=rule)
    with create(tmp_path / "small", settings) as study:
        for trial in range(30):
            study.ask()
            finish(study, trial, [0.1, 0.2, 0.5 + trial / 100])
        assert search(study, engine, trials=30).reason == "done"
    failed = [c for c in study.candidates() if not all(t.curve for t in c.trainings)]
    assert len(failed) >= 3
    # A candidate whose longer training failed gets no other one.
    assert not any(candidate.trainings[-1].curve for candidate in failed)
    assert sum(c.fully_trained for c in study.candidates()) >= 1


def test_the_candidate_of_a_dead_worker_is_trained_anew(tmp_path: Path) -> None:
    """The same candidate with the same seed; what it had reported is forgotten."""
    engine = FakeEngine(trouble=on(1, WorkerLost, times=2))
    study, _ = run(tmp_path / "small", engine, 4)
    assert [job.number for job in engine.started] == [0, 1, 1, 1, 2, 3]
    assert len({(j.seed, j.architecture) for j in engine.started[1:4]}) == 1
    assert len(study.candidate(1).curve) == 3
    assert [c.state for c in study.candidates()] == ["complete"] * 4


def test_a_candidate_that_kills_three_workers_has_failed(tmp_path: Path) -> None:
    """The search goes on without it."""
    engine = FakeEngine(trouble=on(1, WorkerLost, times=9))
    study, _ = run(tmp_path / "small", engine, 4)
    assert study.candidate(1).state == "failed"
    assert study.candidate(1).reason == "its worker died 3 times"
    assert engine.begun[1] == 3
    assert len(finished(study.candidates())) == 4


def test_out_of_memory_is_no_death_of_a_worker(tmp_path: Path) -> None:
    """Its candidate goes to another worker as often as it takes."""
    engine = FakeEngine(
        trouble=on(1, lambda job: WorkerLost(job, out_of_memory=True), times=9)
    )
    study, _ = run(tmp_path / "small", engine, 4)
    assert [c.state for c in study.candidates()] == ["complete"] * 4
    assert engine.begun[1] == 10


def test_a_time_limit_stops_and_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    """What is in training stays unfinished, and is the first to be taken up."""

    def slow(job: Job, rung: int) -> float:
        time.sleep(0.01)
        return made_up_accuracy(job, rung)

    engine = FakeEngine(2, accuracy=slow)
    study, outcome = run(tmp_path / "small", engine, 10_000, time_limit=0.3)
    assert outcome.reason == "time limit"
    assert outcome.timing.total < 3
    unfinished = [c.trial for c in study.candidates() if c.state == "running"]
    assert unfinished == sorted(engine.running)
    count = len(finished(study.candidates()))
    assert count > 0
    with open_study(tmp_path / "small") as again:
        engine = FakeEngine()
        search(again, engine, trials=count + 3)
        assert [job.number for job in engine.started][: len(unfinished)] == unfinished


def test_a_target_accuracy_ends_the_search(tmp_path: Path) -> None:
    """With the first fully trained net that has it; asked for again at once."""
    whole, outcome = run(tmp_path / "whole", FakeEngine(), 12)
    assert outcome.reason == "done"
    ends = [c.val_accuracy or 0.0 for c in whole.candidates()]
    target = sorted(ends)[6]
    first = next(n for n, end in enumerate(ends) if end >= target)
    with create(tmp_path / "small", make_settings()) as study:
        engine = FakeEngine()
        outcome = search(study, engine, trials=12, target_accuracy=target)
        assert outcome.reason == "target accuracy"
        assert len(finished(study.candidates())) == first + 1
        assert search(study, engine, trials=12, target_accuracy=target).reason == (
            "target accuracy"
        )
        assert len(engine.started) == first + 1
        assert search(study, engine, trials=12, target_accuracy=1).reason == "done"


def test_a_short_training_does_not_reach_a_target(tmp_path: Path) -> None:
    """Only what a full training says counts, the front's stand-ins do not."""
    with create(tmp_path / "small", make_settings(fidelities=(4, 8))) as study:
        candidate = study.ask()
        assert candidate is not None
        finish(study, candidate.trial, [0.5, 0.6, 0.7])
        assert study.front()
        engine = FakeEngine()
        outcome = search(study, engine, trials=2, target_accuracy=0.01)
        assert outcome.reason == "target accuracy"
        assert study.front()[-1].fully_trained


def test_unfinished_candidates_come_first_and_begin_anew(tmp_path: Path) -> None:
    """A report of before the interruption neither counts twice nor as a rival."""
    with create(tmp_path / "small", make_settings()) as study:
        for _ in range(3):
            study.ask()
        finish(study, 1, [0.1, 0.2, 0.3])
        study.record(0, report_of(0, 0.99))
        study.record(2, report_of(0, 0.99))
        study.record(2, report_of(1, 0.99))
    with open_study(tmp_path / "small") as study:
        engine = FakeEngine()
        search(study, engine, trials=5)
    assert [job.number for job in engine.started] == [0, 2, 3, 4]
    for candidate in read_study(tmp_path / "small").candidates():
        assert [r.rung for r in candidate.curve] == [0, 1, 2]
        assert all(report.val_accuracy != 0.99 for report in candidate.curve)


def test_no_more_unfinished_candidates_are_taken_up_than_are_wanted(
    tmp_path: Path,
) -> None:
    """Four unfinished and a total of two: two are trained, two wait."""
    with create(tmp_path / "small", make_settings()) as study:
        for _ in range(4):
            study.ask()
        search(study, FakeEngine(4), trials=2)
        states = Counter(candidate.state for candidate in study.candidates())
    assert states == {"complete": 2, "running": 2}


def test_an_exhausted_space_ends_the_search(tmp_path: Path) -> None:
    """Of six nets six are trained, with more workers than nets, too."""
    for workers in (1, 9):
        engine = FakeEngine(workers)
        study, outcome = run(
            tmp_path / str(workers), engine, 50, space_toml=SIX_NETS, name=f"w{workers}"
        )
        assert outcome.reason == "exhausted"
        assert len(finished(study.candidates())) == 6


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_an_exhausted_space_gets_its_full_trainings(
    tmp_path: Path, workers: int
) -> None:
    """That no net is left is found when all have been screened, and here lost one worker."""
    losses = []

    def trouble(job: Job, _begun: int, rung: int) -> Event | None:
        if job.number >= 0 or rung or losses:
            return None
        losses.append(job.number)
        return WorkerLost(job.number)

    engine = FakeEngine(workers, trouble=trouble)
    study, outcome = run(
        tmp_path / "small", engine, 50, space_toml=SIX_NETS, fidelities=(4, 12, 60)
    )
    assert outcome.reason == "exhausted"
    assert losses
    candidates = study.candidates()
    assert sum(c.fully_trained for c in candidates) == PromotionRule().least
    assert {c.epochs for c in candidates if not c.fully_trained} <= {4, 12}


def test_the_progress_tells_each_step(tmp_path: Path) -> None:
    """show() is called for each beginning, report and end, with the counts."""
    told: list[Progress] = []
    with create(tmp_path / "small", make_settings()) as study:
        study.ask()
        finish(study, 0, [0.1, 0.2, 0.3])
        search(study, FakeEngine(), trials=3, time_limit=60, show=told.append)
    changed = [(p.changed.trial, p.changed.state) for p in told if p.changed]
    begun_reported = [(1, "running")] * 4
    assert changed[:6] == [*begun_reported, (1, "complete"), (2, "running")]
    assert {(p.trials, p.finished_before, p.time_limit) for p in told} == {(3, 1, 60)}
    assert all(a.seconds <= b.seconds for a, b in pairwise(told))


def test_a_longer_training_that_fails_is_told_with_its_cause(tmp_path: Path) -> None:
    """The line says which training it was; the candidate stays complete."""

    def trouble(job: Job, _: int, __: int) -> Event | None:
        longer = job.recipe.epochs == 8
        return Failed(job.number, "loss became NaN") if longer else None

    written = io.StringIO()
    display = SearchDisplay(Console(file=written, width=200))
    with create(tmp_path / "small", make_settings(fidelities=(4, 8))) as study:
        search(study, FakeEngine(trouble=trouble), trials=9, show=display.show)
        assert {c.state for c in study.candidates()} <= {"complete", "pruned"}
    assert "8 epochs failed" in written.getvalue()
    line = next(x for x in written.getvalue().splitlines() if "failed" in x)
    assert "loss became NaN" in line


def test_the_clock_accounts_for_the_time(tmp_path: Path) -> None:
    """Sampling, storage, waiting and reporting are parts of the total."""
    _, outcome = run(tmp_path / "small", FakeEngine(), 10)
    timing = outcome.timing
    parts = [timing.sampling, timing.storage, timing.waiting, timing.reporting]
    assert all(part >= 0 for part in parts)
    assert timing.sampling > 0
    assert timing.storage > 0
    assert timing.training > 0
    assert sum(parts) <= timing.total
    assert sum(parts) > 0.8 * timing.total


@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 6),
    sittings=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    failing=st.floats(0, 0.2),
    losing=st.floats(0, 0.3),
)
@settings(max_examples=examples(25))
def test_any_order_of_events_keeps_the_promises(
    seed: int, workers: int, sittings: list[int], failing: float, losing: float
) -> None:
    """Each trial ends exactly once, and as many finish as were asked for."""
    chance = random.Random(seed)

    def trouble(job: Job, begun: int, rung: int) -> Event | None:
        # A cause of its own for each: they are not to stop the search.
        if chance.random() < failing:
            return Failed(job.number, f"cause {job.number}.{begun}.{rung}")
        return WorkerLost(job.number) if chance.random() < losing else None

    def check_at_once(progress: Progress) -> None:
        """Compare what the study keeps up to date with what all candidates give."""
        candidates = progress.study.candidates()
        assert progress.study.front() == front(candidates)
        assert +progress.study.counts() == Counter(c.state for c in candidates)

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "small"
        create(folder, make_settings()).close()
        for trials in sittings:
            engine = FakeEngine(workers, trouble=trouble, shuffle=chance)
            with open_study(folder) as study:
                had = len(finished(study.candidates()))
                before = {
                    c.trial: c for c in study.candidates() if c.state != "running"
                }
                try:
                    search(study, engine, trials=trials, show=check_at_once)
                except StudyError as error:
                    # Three trials in a row may well lose three workers each.
                    assert "worker died" in str(error)  # noqa: PT017
                else:
                    assert len(finished(study.candidates())) == max(had, trials)
                    assert not engine.running
                held = study.candidates()
            stored = read_study(folder).candidates()
            assert stored == held
            assert {t: stored[t] for t in before} == before
            assert len({c.key for c in stored}) == len(stored)
            for candidate in stored:
                rungs = [report.rung for report in candidate.curve]
                assert rungs == list(range(len(rungs)))
                assert (candidate.state == "complete") <= (len(rungs) == 3)
        records = (folder / "journal.log").read_text().splitlines()
        ends = Counter(
            record["trial_id"]
            for record in map(json.loads, records)
            if record["op_code"] == 6
        )
        assert all(count == 1 for count in ends.values())
        done = sum(candidate.state != "running" for candidate in stored)
        assert len(ends) == done


def test_a_training_without_a_report_still_ends(tmp_path: Path) -> None:
    """An engine that finishes at once does not confuse the search."""

    class Hasty(FakeEngine):
        def _next(self, training: Any) -> Event:
            del self.running[training.job.number]
            return Finished(training.job.number)

    study, _ = run(tmp_path / "small", Hasty(), 2)
    assert [c.state for c in study.candidates()] == ["complete"] * 2
