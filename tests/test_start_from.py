"""Architectures that a study is created with: its first trials, frozen with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import Invoke
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from nets import net_of
from strategies import architectures
from studying import SIX_NETS, FakeEngine, made_up_accuracy, make_settings

from nas.architecture import Architecture, Block, Head
from nas.architecture.cost import count_params
from nas.candidates.pruning import PruningRule
from nas.engines import Job
from nas.errors import ArchitectureError, StudyError
from nas.references.bundled import Reference, available, find_reference, write_reference
from nas.references.comparison import compare
from nas.search.loop import search
from nas.search.start import Request, launch
from nas.space import Caps, encode, find_space, include, read_space
from nas.study.folders import create, open_study, read_study
from nas.study.settings import Sampler, Settings, differences, from_toml, to_toml


def net(width: int, activation: str = "relu") -> Architecture:
    """Return a net for the digits."""
    block = Block(out_channels=width, pool="max", activation=activation)  # type: ignore[arg-type]
    return net_of(block, replace(block, pool="none"))


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


def test_the_plain_nets_of_a_search_come_after_them(tmp_path: Path) -> None:
    """All of them, as without."""
    begun = make_settings(name="begun", sampler="evolution")
    with create(tmp_path / "begun", begun) as study:
        plain = []
        while (asked := study.ask()) is not None and asked.origin == "plain":
            plain.append(asked)
    assert plain
    settings = make_settings(name="other", sampler="evolution", start_from=STARTS)
    with create(tmp_path / "other", settings) as study:
        asked = [study.ask() for _ in range(len(STARTS) + len(plain))]
    after = asked[len(STARTS) :]
    assert [one.key for one in after if one] == [one.key for one in plain]


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
        ArchitectureError, match="resume with `nas search --study begun`"
    ):
        compare([Reference(name="b", architecture=STARTS[1])], short, [], settings)


def test_their_trials_have_the_draws_that_make_them(tmp_path: Path) -> None:
    """Where the space can draw them; the others are learnt from all the same."""
    settings = make_settings(name="begun", start_from=STARTS)
    space = read_space(settings.space_toml, settings.space)
    known = [encode(space, start, settings.caps) is not None for start in STARTS]
    assert known == [True, False, True]
    run(tmp_path / "begun", settings, trials=4)
    reader = read_study(tmp_path / "begun")
    trials = reader._storage.get_all_trials(reader._id, deepcopy=False)
    assert [bool(trial.params) for trial in trials[:3]] == known
    with open_study(tmp_path / "begun") as study:
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


@pytest.mark.parametrize(
    ("space", "name"),
    [("plain", "public-1936"), ("plain", "public-7496"), ("shared", "s0")],
)
def test_a_space_takes_in_what_it_lacks(space: str, name: str) -> None:
    """Hand-made nets can then be drawn, and all that could be before still can."""
    named, start = find_space(space), find_reference(name).architecture
    caps = Caps(num_params=2 * count_params(start))
    wider, added = include(named, start, caps)
    assert encode(wider, start, caps) is not None
    assert bool(added) == (encode(named, start, caps) is None)
    for choice in ("kinds", "kernel_sizes", "activations", "heads", "hidden"):
        before, after = getattr(named, choice), getattr(wider, choice)
        assert set(before.options) <= set(after.options)
        assert min(after.shares) >= min(before.shares) / 2
    assert include(wider, start, caps) == (wider, [])


def test_a_space_takes_in_kernels_gates_and_a_resolution() -> None:
    """Each is added to the options, and the net can be drawn then."""
    gated = Block(kind="mobilenet", out_channels=4, squeeze_excitation=4, dilation=2)
    net = net_of(
        Block(out_channels=4, kernel_width=9), gated, shape=(1, 28, 28), resolution=20
    )
    space, caps = read_space(SIX_NETS, "six"), Caps(20_000)
    wider, added = include(space, net, caps)
    assert encode(wider, net, caps) is not None
    assert {"input resolution 20", "kernel_widths 9", "dilations 2"} <= {*added}
    assert {"kinds mobilenet", "squeeze_excitations 4"} <= {*added}


def test_no_space_draws_hard_gates() -> None:
    """Their block's other options are added; `encode` tells the net from that with sigmoids."""
    gated = Block(kind="mobilenet", out_channels=4, squeeze_excitation=4)
    hard = net_of(Block(out_channels=4), replace(gated, gate="hard_sigmoid"))
    space, caps = read_space(SIX_NETS, "six"), Caps(20_000)
    wider, added = include(space, hard, caps)
    assert "squeeze_excitations 4" in added
    assert encode(wider, hard, caps) is None
    assert encode(wider, net_of(Block(out_channels=4), gated), caps) is not None


@settings_of_hypothesis(max_examples=15)
@given(architectures())
def test_what_no_space_can_hold_keeps_the_rest_out_of_none(net: Architecture) -> None:
    """Whatever the net, its kinds and activations are in the space afterwards."""
    caps = Caps(num_params=2 * count_params(net))
    wider, _ = include(read_space(SIX_NETS, "six"), net, caps)
    assert {block.kind for block in net.blocks} <= set(wider.kinds.options)
    odd = {block.kernel_size for block in net.blocks if block.kernel_size % 2}
    assert {size for size in odd if size <= 15} <= set(wider.kernel_sizes.options)


def test_what_a_space_lacks_is_told_and_searched(tmp_path: Path) -> None:
    """And the same command goes on, with the space named or not."""
    start = write(tmp_path / "mine.toml", net(5, "silu"))
    told: list[str] = []
    request = Request(
        studies=tmp_path,
        dataset="digits",
        param_budget=2000,
        start_from=(start,),
        space="plain",
    )
    study, _ = launch(request, say=told.append)
    with study:
        (line,) = told
        assert line.startswith("mine has what the space plain lacks; added for this")
        assert "activations silu" in line
        space = read_space(study.settings.space_toml, "plain")
        assert encode(space, net(5, "silu"), study.settings.caps) is not None
        search(study, FakeEngine(), trials=12)
        drawn = [c.architecture for c in study.candidates()[1:]]
        assert any(b.activation == "silu" for a in drawn for b in a.blocks)
    for again in (request, replace(request, space=None, start_from=())):
        launch(again, say=told.append)[0].close()
    launch(replace(request, start_from=()))[0].close()
    assert len(told) == 1
    with pytest.raises(StudyError, match="space plain -> shared"):
        launch(replace(request, space="shared"))


def test_a_start_that_no_space_can_draw_is_told(tmp_path: Path) -> None:
    """An even kernel with zeros around: it is trained all the same."""
    even = replace(net(4).blocks[0], kernel_size=2, padding=(1, 0))
    start = write(tmp_path / "even.toml", replace(net(4), blocks=(even,)))
    told: list[str] = []
    request = Request(
        studies=tmp_path, dataset="digits", param_budget=2000, start_from=(start,)
    )
    with launch(request, say=told.append)[0] as study:
        assert "even has what no space can draw" in told[-1]
        search(study, FakeEngine(), trials=3)
        assert study.candidates()[0].state == "complete"


def test_a_study_from_before_spaces_were_widened_goes_on(tmp_path: Path) -> None:
    """Its space is the named one as it is, which the same command names again."""
    start = write(tmp_path / "mine.toml", net(5, "silu"))
    request = Request(
        studies=tmp_path,
        study="old",
        dataset="digits",
        param_budget=2000,
        start_from=(start,),
        space="plain",
    )
    launch(request)[0].close()
    path = tmp_path / "old/study.toml"
    settings = from_toml(path.read_text(), "old")
    plain = replace(settings, space_toml=find_space("plain").text)
    path.write_text(to_toml(plain))
    launch(request)[0].close()


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
