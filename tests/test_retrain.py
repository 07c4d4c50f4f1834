"""From the front to the winner, with an engine that makes its accuracies up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studying import FakeEngine, complete_candidate, make_settings, one_block, report_of

from nas.candidates.candidate import (
    Candidate,
    State,
    Training,
    chance_level,
    front,
    with_training,
)
from nas.engines import Event, Failed, Job, WorkerLost
from nas.errors import StudyError
from nas.search.best import SelectionCriteria, Winner, retrain
from nas.search.kept_trainings import KeptTrainings
from nas.search.retraining import ProgressEvent
from nas.study.settings import Settings, derived_seed

SETTINGS = make_settings()


def candidate(
    trial: int, width: int, val_accuracy: float, state: State = "complete"
) -> Candidate:
    """Return a candidate of that width."""
    return complete_candidate(trial, one_block(width), val_accuracy, state=state)


# Trials 0 to 5 are the front, smallest first; 6 is dominated, 7 and 8 do not count.
CANDIDATES = [
    *(candidate(n, n + 2, 0.90 + n / 100) for n in range(6)),
    candidate(6, 9, 0.91),
    candidate(7, 3, 0.99, "pruned"),
    candidate(8, 4, 0.99, "running"),
]
SIZES = [c.num_params for c in CANDIDATES[:6]]
# With one of their structure at the cap, none is resized to it: see test_contenders.py.
LARGEST = CANDIDATES[6].num_params


def after(accuracies: dict[int, float]) -> Callable[[Job, int], float]:
    """Return what is measured after the longer training, by width of the net."""

    def accuracy(job: Job, rung: int) -> float:
        full = accuracies[job.architecture.blocks[0].out_channels]
        return full * ((rung + 1) / len(job.rungs))

    return accuracy


# By trial n with the width n + 2: the longer training turns the order around.
AFTER = dict(enumerate([0.97, 0.98, 0.985, 0.991, 0.99, 0.98], start=2)) | {9: 0.5}


def choose(
    engine: FakeEngine | None = None,
    candidates: list[Candidate] | None = None,
    *,
    settings: Settings = SETTINGS,
    kept: KeptTrainings | None = None,
    show: Callable[[ProgressEvent], None] = lambda _: None,
    **criteria: Any,
) -> Winner:
    """Retrain by these criteria."""
    return retrain(
        CANDIDATES if candidates is None else candidates,
        settings,
        engine or FakeEngine(2, accuracy=after(AFTER)),
        SelectionCriteria(**{"max_params": LARGEST, "epochs": 3} | criteria),
        hardware={"processor": "made up"},
        show=show,
        kept=kept,
    )


def test_the_winner_is_chosen_by_validation_accuracy_after_the_longer_training() -> (
    None
):
    """Of the most promising the one that is best then; the last two get a second seed."""
    engine = FakeEngine(2, accuracy=after(AFTER))
    winner = choose(engine)
    assert winner.contender.trial == 3
    assert [f["trial"] for f in winner.report["finalists"]] == [2, 3, 4, 5]
    assert [f["seeds"] for f in winner.report["finalists"]] == [1, 2, 2, 1]
    assert winner.report["val_accuracy"] == 0.991
    assert [job.mode for job in engine.started] == ["search"] * 6 + ["final"]
    assert len({job.seed for job in engine.started}) == 7
    assert engine.started[-1].architecture == CANDIDATES[3].architecture
    assert not engine.running


def test_a_net_at_chance_level_is_not_on_the_front() -> None:
    """However small it is; without a known level all are."""
    assert chance_level(0.87, 69) == pytest.approx(0.951, abs=1e-3)
    known = [replace(c, chance_level=0.92) for c in CANDIDATES[:6]]
    assert front(known) == known[3:]
    assert len(front(CANDIDATES[:6])) == 6
    with pytest.raises(StudyError, match="no net is better than always answering"):
        choose(
            candidates=[replace(c, chance_level=0.99) for c in CANDIDATES[:6]],
            min_accuracy=0.9,
        )


def test_another_recipe_begins_the_choice_anew() -> None:
    """What the study measured by its own says nothing then; the report has the new."""
    by_study = FakeEngine(2, accuracy=after(AFTER))
    choose(by_study, epochs=4)
    recipe = replace(SETTINGS.recipe, flip=0.5)
    engine = FakeEngine(2, accuracy=after(AFTER))
    winner = choose(engine, epochs=4, recipe=recipe)
    assert len(by_study.started) < len(engine.started) == 7
    assert all(job.recipe == recipe for job in engine.started)
    assert winner.report["recipe"]["flip"] == 0.5
    balanced = FakeEngine(2, accuracy=after(AFTER))
    report = choose(balanced, epochs=4, metric="balanced-accuracy").report
    assert len(balanced.started) == 7
    assert {job.metric for job in balanced.started} == {"balanced-accuracy"}
    assert report["metric"] == "balanced-accuracy"
    assert report["val_accuracy_is"].startswith("balanced accuracy after 4 epochs")


def test_the_finalists_are_the_most_promising() -> None:
    """As many as asked for, or all there are; never an unfinished one."""
    for finalists, trials in [(1, [5]), (4, [2, 3, 4, 5]), (99, list(range(7)))]:
        report = choose(finalists=finalists).report
        assert [f["trial"] for f in report["finalists"]] == trials


def by_length(short: dict[int, float]) -> Callable[[Job, int], float]:
    """Return what is measured: these after trainings of 1 epoch, AFTER later, by width."""

    def accuracy(job: Job, rung: int) -> float:
        width = job.architecture.blocks[0].out_channels
        return short[width] if job.rungs[-1] == 1 else after(AFTER)(job, rung)

    return accuracy


SHORT = {2: 0.1, 3: 0.2, 4: 0.3, 5: 0.8, 6: 0.5, 7: 0.4, 9: 0.3}
"""After a short training trial 3 is ahead of those that promise more."""


def test_before_a_long_full_training_more_contenders_get_a_short_one() -> None:
    """As many times the finalists; the best of them are fully trained."""
    engine = FakeEngine(2, accuracy=by_length(SHORT))
    report = choose(engine, finalists=1, epochs=5).report
    lengths = Counter(job.rungs[-1] for job in engine.started)
    assert lengths == {1: 6, 5: 2}
    assert {row["trial"] for row in report["screened"]} == {1, 2, 3, 4, 5, 6}
    assert {row["epochs"] for row in report["screened"]} == {1}
    assert [f["trial"] for f in report["finalists"]] == [3]
    assert report["trial"] == 3
    stages = []
    choose(finalists=1, epochs=5, show=lambda event: stages.append(event.stage))
    assert list(dict.fromkeys(stages)) == ["screening", "finalist", "winner"]


def test_screening_uses_what_the_study_has_measured() -> None:
    """Short trainings are not repeated; full ones stay among the finalists."""
    settings = replace(
        SETTINGS, recipe=replace(SETTINGS.recipe, epochs=1), fidelities=(1, 5)
    )
    known = [
        replace(c, curve=(report_of(0, SHORT[c.trial + 2], epochs=1.0),))
        for c in CANDIDATES[:6]
    ]
    full = Training(
        trial=4, epochs=5, seed_number=0, curve=(report_of(0, 0.995, epochs=5.0),)
    )
    known[4] = with_training(known[4], full, full=5)
    engine = FakeEngine(2, accuracy=by_length(SHORT))
    report = choose(
        engine, known, settings=settings, finalists=1, epochs=5, max_params=SIZES[5]
    ).report
    assert report["screened"] == []
    assert [f["trial"] for f in report["finalists"]] == [3, 4]
    assert report["trial"] == 4
    assert [job.rungs[-1] for job in engine.started if job.mode == "search"] == [5] * (
        len(engine.started) - 1
    )


def test_of_equally_accurate_finalists_the_smallest_wins() -> None:
    """The same accuracy with fewer parameters is better."""
    engine = FakeEngine(accuracy=after(dict.fromkeys(range(2, 20), 0.9)))
    assert choose(engine).contender.trial == 2


def test_what_the_study_has_trained_fully_is_not_trained_again() -> None:
    """Its result counts, and a second seed is another one than the study's."""
    known = [
        with_training(
            c,
            Training(
                trial=c.trial,
                epochs=3,
                seed_number=0,
                curve=(report_of(0, AFTER[c.trial + 2], epochs=3.0),),
            ),
            full=3,
        )
        for c in CANDIDATES[:6]
    ]
    engine = FakeEngine(2, accuracy=after(AFTER))
    winner = choose(engine, known, max_params=SIZES[5])
    assert winner.contender.trial == 3
    assert [job.mode for job in engine.started] == ["search"] * 2 + ["final"]
    first = derived_seed(SETTINGS.seed, "promote", 3, 3, 0)
    assert first not in {job.seed for job in engine.started}


def test_a_second_seed_can_change_the_choice() -> None:
    """Of the last two the better mean wins, not the luckier first training."""
    seen: Counter[int] = Counter()

    def accuracy(job: Job, rung: int) -> float:
        width = job.architecture.blocks[0].out_channels
        if rung == len(job.rungs) - 1:
            seen[width] += 1
        return 0.90 if width == 5 and seen[width] > 1 else after(AFTER)(job, rung)

    assert choose(FakeEngine(accuracy=accuracy)).contender.trial == 4


def test_a_clear_lead_needs_no_second_seed() -> None:
    """The time is better spent on more contenders; with few images no lead is clear."""
    clear = FakeEngine(accuracy=after(AFTER | {5: 0.999}))
    few = replace(SETTINGS, val_size=200)
    for settings, seeds in ((SETTINGS, [1] * 4), (few, [1, 2, 2, 1])):
        winner = choose(clear, settings=settings)
        assert winner.contender.trial == 3
        assert [f["seeds"] for f in winner.report["finalists"]] == seeds


def test_the_winner_is_within_max_params() -> None:
    """A cap below the study's makes a front of its own, from all that fit."""
    assert choose(max_params=SIZES[2]).contender.trial == 2
    assert choose(max_params=SIZES[3] - 1).contender.trial == 2
    dominated = [candidate(0, 5, 0.99), candidate(1, 4, 0.9), candidate(2, 6, 0.95)]
    engine = FakeEngine(accuracy=after(dict.fromkeys(range(2, 9), 0.9)))
    winner = choose(engine, dominated, max_params=dominated[1].num_params)
    assert winner.contender.trial == 1


def test_the_report_says_all_that_was_measured() -> None:
    """The keys of the issue, one test accuracy a seed, mean and deviation."""
    winner = choose(seeds=3)
    report = winner.report
    assert report["seeds"] == len(report["test_accuracy"]) == 3
    assert report["test_accuracy"] == [0.991] * 3
    assert report["test_accuracy_mean"] == pytest.approx(0.991)
    assert report["test_accuracy_std"] == 0
    assert report["num_params"] == winner.contender.num_params
    assert report["epochs"] == report["recipe"]["epochs"] == 3
    assert report["hardware"] == {"processor": "made up"}
    assert {"python", "torch", "optuna"} <= set(report["versions"])
    assert len(set(report["seed_values"])) == 3
    assert report["weights_seed"] == report["seed_values"][0]
    assert report["duration_seconds"] >= 0
    assert {"macs", "peak_memory", "key", "trial", "study", "dataset"} <= set(report)


def test_the_deviation_of_several_seeds() -> None:
    """It is the sample's, with n - 1."""
    values = iter([0.9, 0.92, 0.97])
    made: dict[int, float] = {}

    def accuracy(job: Job, _: int) -> float:
        if job.mode == "final" and job.seed not in made:
            made[job.seed] = next(values)
        return made.get(job.seed, 0.5)

    report = choose(FakeEngine(accuracy=accuracy), seeds=3).report
    assert report["test_accuracy_mean"] == pytest.approx(0.93)
    assert report["test_accuracy_std"] == pytest.approx(0.0360555)


def test_one_seed_has_no_deviation() -> None:
    """None, not 0: nothing is known of it."""
    assert choose().report["test_accuracy_std"] is None


def test_out_of_memory_is_no_death_of_a_worker() -> None:
    """The training goes to another worker as often as it takes."""

    def trouble(job: Job, begun: int, _: int) -> Event | None:
        return WorkerLost(job.number, out_of_memory=True) if begun < 6 else None

    engine = FakeEngine(2, accuracy=after(AFTER), trouble=trouble)
    assert len(choose(engine, seeds=2).report["test_accuracy"]) == 2
    assert engine.begun[0] > 6


def test_the_weights_are_those_of_the_first_seed_in_any_order_of_ends() -> None:
    """However the workers end, and whoever is lost on the way."""

    def trouble(job: Job, begun: int, _: int) -> Event | None:
        return WorkerLost(job.number) if job.number == 0 and begun < 3 else None

    for seed in range(5):
        engine = FakeEngine(
            3,
            accuracy=after(AFTER),
            trouble=trouble,
            shuffle=random.Random(seed),
        )
        winner = choose(engine, seeds=4)
        assert winner.weights["seed"] == winner.report["weights_seed"]
        assert len(winner.report["test_accuracy"]) == 4


def test_every_part_is_told() -> None:
    """The display hears of each epoch of each finalist and of the winner's test."""
    told: list[ProgressEvent] = []
    retrain(
        CANDIDATES,
        SETTINGS,
        FakeEngine(accuracy=after(AFTER)),
        SelectionCriteria(max_params=LARGEST, epochs=3, seeds=2),
        hardware={},
        show=told.append,
    )
    reports = [event for event in told if event.report is not None]
    assert len(reports) == 4 * 3 + 2 * 3 + 2 * 3
    tests = [event for event in told if event.test_accuracy is not None]
    assert [(event.stage, event.trial) for event in tests] == [("winner", 3)] * 2


@given(
    st.lists(st.integers(1, 999), min_size=1, max_size=25, unique=True),
    st.integers(0, 1000),
    st.integers(1, 7),
)
def test_min_accuracy_takes_the_smallest_that_reaches_it(
    thousandths: list[int], wanted: int, finalists: int
) -> None:
    """Whatever the order after the full training, and none is trained twice."""
    members = [
        candidate(number, number + 2, share / 1000)
        for number, share in enumerate(sorted(thousandths))
    ]
    engine = FakeEngine(
        accuracy=after({n + 2: share / 1000 for n, share in enumerate(thousandths)})
    )
    criteria = {
        "min_accuracy": wanted / 1000,
        "finalists": finalists,
        "max_params": members[-1].num_params,
    }
    reaching = [n for n, share in enumerate(thousandths) if share >= wanted]
    if reaching:
        winner = choose(engine, members, **criteria)
        assert winner.contender.trial == reaching[0]
    else:
        with pytest.raises(StudyError, match="no net of the front reaches"):
            choose(engine, members, **criteria)
    searched = [job.architecture.key for job in engine.started if job.mode == "search"]
    assert len(searched) == len(set(searched))
    if reaching:
        assert len(searched) <= reaching[0] + finalists


def test_an_accuracy_that_none_reaches_names_the_best() -> None:
    """Trial, size and accuracy of the best that was measured are in the message."""
    with pytest.raises(
        StudyError, match=rf"trial 3 with {SIZES[3]} parameters, has 0.9910"
    ):
        choose(min_accuracy=0.9999)


def test_nothing_finished_is_an_error() -> None:
    """Neither in an empty study nor in one with only pruned and running candidates."""
    for candidates in ([], CANDIDATES[7:]):
        with pytest.raises(StudyError, match="no fully trained candidate yet"):
            choose(candidates=candidates)


def test_a_cap_below_all_names_the_smallest() -> None:
    """The message says which --max-params would do."""
    with pytest.raises(StudyError, match=f"at least --max-params {SIZES[0]}$"):
        choose(max_params=SIZES[0] - 1)


def test_a_failure_is_an_error_with_its_cause() -> None:
    """There is nothing to choose when no contender could be trained."""
    engine = FakeEngine(
        accuracy=after(AFTER), trouble=lambda job, _, __: Failed(job.number, "NaN")
    )
    for criteria in ({}, {"epochs": 5}, {"min_accuracy": 0.9}):
        with pytest.raises(StudyError, match="no contender could be trained"):
            choose(engine, **criteria)


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (lambda job: Failed(job, "loss became NaN"), "loss became NaN"),
        (WorkerLost, "its worker died 3 times"),
    ],
    ids=["failed", "killed"],
)
@pytest.mark.parametrize("epochs", [3, 5])
def test_a_contender_that_fails_is_left_out(
    epochs: int,
    event: Callable[[int], Event],
    cause: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a warning, in the screening and after it; the others are still compared."""

    def trouble(job: Job, _: int, __: int) -> Event | None:
        width = job.architecture.blocks[0].out_channels
        return event(job.number) if width == 5 else None

    winner = choose(
        FakeEngine(2, accuracy=after(AFTER), trouble=trouble), epochs=epochs
    )
    assert winner.contender.trial == 4
    assert f"trial 3 is left out, its training failed: {cause}" in caplog.text
    rows = winner.report["finalists"] + winner.report["screened"]
    assert 3 not in {row["trial"] for row in rows}
    smallest = choose(
        FakeEngine(2, accuracy=after(AFTER), trouble=trouble), min_accuracy=0.9899
    )
    assert smallest.contender.trial == 4


def test_the_winner_has_to_be_trained() -> None:
    """There a failure is an error."""

    def trouble(job: Job, _: int, __: int) -> Event | None:
        return Failed(job.number, "NaN") if job.mode == "final" else None

    with pytest.raises(StudyError, match="trial 3 could not be trained: NaN"):
        choose(FakeEngine(2, accuracy=after(AFTER), trouble=trouble))


# --- stopped and gone on with ------------------------------------------------------


def stopping(events: int) -> FakeEngine:
    """Return an engine under which the user presses Ctrl-C after so many events."""
    left = [events]

    def trouble(_job: Job, _begun: int, _rung: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return FakeEngine(2, accuracy=after(AFTER), trouble=trouble)


def without_time(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report but for what depends on the clock."""
    return {k: v for k, v in report.items() if k != "duration_seconds"}


@pytest.mark.parametrize("events", [0, 3, 4, 5, 9, 16, 20, 24, 27, 28, 30, 35])
def test_a_retraining_that_was_stopped_goes_on(tmp_path: Path, events: int) -> None:
    """No training that had ended is done again, and the result is the same."""
    whole = choose(seeds=3)
    engine = stopping(events)
    kept = KeptTrainings(tmp_path / "kept", {"data": "digits"})
    with pytest.raises(KeyboardInterrupt):
        choose(engine, seeds=3, kept=kept)
    ended = len(kept)
    going_on = FakeEngine(2, accuracy=after(AFTER))
    shown: list[ProgressEvent] = []
    winner = choose(going_on, seeds=3, kept=kept, show=shown.append)
    assert len(going_on.started) == 9 - ended
    assert without_time(winner.report) == without_time(whole.report)
    assert winner.weights.keys() == whole.weights.keys()
    assert winner.weights["seed"] == whole.weights["seed"]
    assert sum(event.test_accuracy is not None for event in shown) == 3
    assert len(kept) == 9
    kept.discard()
    assert not list(tmp_path.iterdir())


def test_only_the_same_trainings_are_taken_up(tmp_path: Path) -> None:
    """Other data, another number of epochs and a damaged file begin anew."""
    kept = KeptTrainings(tmp_path, {"data": "digits"})
    choose(kept=kept)
    assert len(kept) == 7
    for folder, conditions, epochs in (
        (tmp_path, {"data": "others"}, 3),
        (tmp_path, {"data": "digits"}, 2),
        (tmp_path / "other", {"data": "digits"}, 3),
    ):
        engine = FakeEngine(2, accuracy=after(AFTER))
        choose(engine, kept=KeptTrainings(folder, conditions), epochs=epochs)
        assert len(engine.started) == 7
    for number, path in enumerate(sorted(tmp_path.glob("*.npz"))):
        path.write_bytes(path.read_bytes()[: number * 40])
    engine = FakeEngine(2, accuracy=after(AFTER))
    choose(engine, kept=kept)
    assert len(engine.started) == 7


def test_what_cannot_be_kept_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full for a while costs one line, once."""
    (tmp_path / "file").touch()
    assert choose(kept=KeptTrainings(tmp_path / "file" / "kept", {})).contender
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("what is trained cannot be kept: cannot write ")


def test_three_deaths_of_the_winners_worker_are_an_error_two_are_not() -> None:
    """A lost job is trained again from its beginning."""

    def dying(times: int) -> FakeEngine:
        lost: list[Job] = []

        def trouble(job: Job, _: int, rung: int) -> Event | None:
            if job.mode != "final" or rung != 1 or len(lost) >= times:
                return None
            lost.append(job)
            return WorkerLost(job.number)

        return FakeEngine(accuracy=after(AFTER), trouble=trouble)

    assert choose(dying(2)).contender.trial == 3
    with pytest.raises(StudyError, match="its worker died 3 times"):
        choose(dying(3))
