"""Architectures that a study is created with: its first trials, frozen with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import Invoke
from studying import FakeEngine, made_up_accuracy, make_settings

from nas.architecture import Architecture, Block, Head
from nas.architecture.cost import count_params
from nas.candidates.pruning import PruningRule
from nas.engines import Job
from nas.errors import ArchitectureError, StudyError
from nas.references.bundled import Reference, available, find_reference, write_reference
from nas.references.comparison import compare
from nas.search.loop import search
from nas.search.start import Request, launch
from nas.space import encode, read_space
from nas.study.folders import create, open_study
from nas.study.settings import Sampler, Settings, differences, from_toml, to_toml


def net(width: int, activation: str = "relu") -> Architecture:
    """Return a net for the digits."""
    block = Block(out_channels=width, pool="max", activation=activation)  # type: ignore[arg-type]
    return Architecture(
        input_shape=(1, 8, 8),
        num_classes=10,
        blocks=(block, replace(block, pool="none")),
        head=Head(kind="gap"),
    )


def run(folder: Path, settings: Settings, trials: int = 12) -> list[Architecture]:
    """Search with made-up accuracies; return the architectures in order."""
    with create(folder, settings) as study:
        search(study, FakeEngine(), trials=trials)
        return [c.architecture for c in study.candidates()]


# Sigmoid-weighted units are not in the default space.
STARTS = (net(4), net(5, "silu"), net(6))


@pytest.mark.parametrize("sampler", ["evolution", "random"])
def test_they_are_the_first_trials_whatever_the_sampler(
    tmp_path: Path, sampler: Sampler
) -> None:
    """Each is trained once and the draws after them are others."""
    settings = make_settings(name="begun", sampler=sampler, start_from=STARTS)
    drawn = run(tmp_path / "begun", settings)
    assert tuple(drawn[:3]) == STARTS
    assert len({architecture.key for architecture in drawn}) == len(drawn) >= 12


def test_they_are_never_pruned_and_trained_to_the_end(tmp_path: Path) -> None:
    """However bad they are: a comparison asks for what they are worth."""
    settings = make_settings(
        name="begun",
        start_from=STARTS,
        fidelities=(4, 12),
        pruning=PruningRule(min_peers=0),
    )
    good, *bad = (start.key for start in STARTS)  # the good one is the smallest

    def accuracy(job: Job, rung: int) -> float:
        if job.architecture.key == good:
            return (rung + 1) / len(job.rungs)
        return 0.1 if job.architecture.key in bad else made_up_accuracy(job, rung)

    with create(tmp_path / "begun", settings) as study:
        search(study, FakeEngine(accuracy=accuracy), trials=20)
        candidates = study.candidates()
    assert [c.state for c in candidates[:3]] == ["complete"] * 3
    assert all(c.fully_trained for c in candidates[:3])
    rows = compare(
        [Reference(name="bad", architecture=STARTS[1])], candidates, [], settings
    )
    assert [row.accuracy for row in rows] == [0.1]


def test_one_that_is_not_trained_to_the_end_yet_is_not_compared(tmp_path: Path) -> None:
    """Nor is the user told to begin a study with it, which is done."""
    settings = make_settings(name="begun", start_from=STARTS, fidelities=(4, 12))
    with create(tmp_path / "begun", settings) as study:
        search(study, FakeEngine(), trials=6)
        candidates = study.candidates()
    short = [replace(c, fully_trained=c.trial != 1, trainings=()) for c in candidates]
    with pytest.raises(
        ArchitectureError, match="go on with `nas search --study begun`"
    ):
        compare([Reference(name="b", architecture=STARTS[1])], short, [], settings)


def test_their_trials_have_the_draws_that_make_them(tmp_path: Path) -> None:
    """Where the space can draw them; the others are learnt from all the same."""
    settings = make_settings(name="begun", start_from=STARTS)
    space = read_space(settings.space_toml, settings.space)
    known = [encode(space, start, settings.caps) is not None for start in STARTS]
    assert known == [True, False, True]
    run(tmp_path / "begun", settings, trials=4)
    with open_study(tmp_path / "begun") as study:
        trials = study._storage.get_all_trials(study._id, deepcopy=False)
        assert [bool(trial.params) for trial in trials[:3]] == known
        assert sorted(study._evolution._known)[:3] == [0, 1, 2]


def test_a_study_that_was_interrupted_goes_on_as_without(tmp_path: Path) -> None:
    """Stopped in the midst of the first trials it draws the same afterwards."""
    settings = make_settings(name="whole", start_from=STARTS, sampler="random")
    whole = run(tmp_path / "whole", settings)
    with create(tmp_path / "parts", replace(settings, name="parts")) as study:
        search(study, FakeEngine(), trials=2)
    with open_study(tmp_path / "parts") as study:
        search(study, FakeEngine(), trials=12)
        assert [c.architecture for c in study.candidates()] == whole


def test_they_stand_in_study_toml() -> None:
    """And are read from it; a study without has nothing of them there."""
    settings = make_settings(start_from=STARTS)
    assert from_toml(to_toml(settings), "here") == settings
    assert "start_from" not in to_toml(make_settings())
    assert differences(settings, make_settings()) == [
        "the architectures that it starts from"
    ]


def test_a_damaged_start_is_said() -> None:
    """Whoever edits study.toml gets one line with the file."""
    text = to_toml(make_settings(start_from=STARTS))
    for old, new in [("out_channels = 4", "out_channels = 0"), ("blocks", "bricks")]:
        with pytest.raises(StudyError, match="here is damaged"):
            from_toml(text.replace(old, new), "here")


def test_the_references_can_be_first_trials(tmp_path: Path) -> None:
    """Those of MNIST in the default space, without a warning from the sampler."""
    starts = tuple(find_reference(name).architecture for name in available())
    settings = make_settings(
        name="mnist",
        input_shape=(1, 28, 28),
        param_budget=max(map(count_params, starts)),
        start_from=starts,
        sampler="evolution",
    )
    drawn = run(tmp_path / "mnist", settings, trials=len(starts) + 2)
    assert tuple(drawn[: len(starts)]) == starts


# --- from the command line --------------------------------------------------------


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[Architecture, ...]]:
    """Return what begins a study of the digits, or goes on with it."""

    def begin_one(*names: str, budget: int | None = 2000) -> tuple[Architecture, ...]:
        request = Request(
            studies=tmp_path,
            study="one",
            dataset="digits",
            param_budget=budget,
            start_from=names,
        )
        study, _ = launch(request)
        with study:
            return study.settings.start_from

    return begin_one


def write(path: Path, architecture: Architecture) -> str:
    """Write a reference; return its path."""
    reference = Reference(name=path.stem, architecture=architecture)
    path.write_text(write_reference(reference))
    return str(path)


def test_the_same_network_twice_is_one_start(
    tmp_path: Path, begin: Callable[..., tuple[Architecture, ...]]
) -> None:
    """Also where the spelling differs; and the same command goes on."""
    again = replace(net(4), head=Head(kind="conv", kernel_size=1))
    names = [
        write(tmp_path / "a.toml", net(4)),
        write(tmp_path / "b.toml", net(6)),
        write(tmp_path / "c.toml", again),
    ]
    assert begin(*names) == (net(4), net(6))
    assert begin(*names) == (net(4), net(6))
    assert begin() == (net(4), net(6))
    with pytest.raises(StudyError, match="the architectures that it starts from"):
        begin(names[0])


def test_a_candidate_of_another_study_can_be_a_start(
    tmp_path: Path, begin: Callable[..., tuple[Architecture, ...]]
) -> None:
    """As STUDY:TRIAL."""
    run(tmp_path / "other", make_settings(name="other"), trials=2)
    (start,) = begin("other:1")
    with open_study(tmp_path / "other") as other:
        assert start == other.candidate(1).architecture


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        (net(16), "big has 2682 parameters, over --budget 2000: give at least"),
        (
            replace(net(4), input_shape=(1, 16, 16)),
            "big is for 1x16x16 images of 10 classes, but digits has 1x8x8",
        ),
        (replace(net(4), num_classes=7), "of 7 classes, but digits has"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    invoke: Invoke, tmp_path: Path, architecture: Architecture, words: str
) -> None:
    """And no study is begun."""
    path = write(tmp_path / "big.toml", architecture)
    arguments = ["search", "--dataset", "digits", "--budget", 2000]
    result = invoke(*arguments, "--start-from", path)
    assert result.code == 1
    assert words in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "studies").exists()
