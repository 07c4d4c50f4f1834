"""One architecture trained to the end, with an engine that makes its accuracies up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Invoke
from nets import net_of
from studying import FakeEngine, finish, make_settings

from nas.architecture import Block
from nas.engines import Event, Failed, Finished, Job, Reported, WorkerLost
from nas.errors import ArchitectureError, RecipeError, StudyError
from nas.references.bundled import Published, Reference, write_reference
from nas.search.kept_trainings import KeptTrainings
from nas.search.recipes import RecipeChange
from nas.search.resolve import resolve
from nas.search.train_one import (
    Plan,
    Trained,
    choose_recipe,
    train_single,
)
from nas.study.folders import create
from nas.study.settings import derived_seed
from nas.training import kernels
from nas.training.recipe import Recipe

PUBLISHED = Published(
    num_params=200,
    epochs=4,
    accuracy=0.97,
    last_accuracy=0.96,
    recipe=Recipe(epochs=4, optimizer="adam", max_lr=0.01),
)
OWN = Reference(
    name="own",
    architecture=net_of(Block(out_channels=6, pool="max")),
    source="by hand",
    published=PUBLISHED,
)
# The best epoch is not the last.
CURVE = [0.5, 0.9, 0.7, 0.8]


def seeds_curve(job: Job, rung: int) -> float:
    """Return the curve, a little lower for each seed."""
    return CURVE[rung] - job.number / 100


def train(engine: FakeEngine | None = None, **plan: Any) -> Trained:
    """Train the own net for four epochs."""
    return train_single(
        OWN,
        engine or FakeEngine(2, accuracy=seeds_curve),
        Plan(dataset="digits", data_fingerprint="0", recipe=PUBLISHED.recipe, **plan),
        hardware={},
    )


def test_the_test_set_is_read_once_a_seed_after_the_last_epoch() -> None:
    """Each seed is a "final" job; the report has each value, mean and spread."""
    engine = FakeEngine(2, accuracy=seeds_curve)
    trained = train(engine, seeds=3, seed=7)
    assert [job.mode for job in engine.started] == ["final"] * 3
    assert trained.report["test_accuracy"] == pytest.approx([0.8, 0.79, 0.78])
    assert trained.report["test_accuracy_mean"] == pytest.approx(0.79)
    assert trained.report["test_accuracy_std"] == pytest.approx(0.01)
    assert not any("best_epoch" in key for key in trained.report)
    seeds = [derived_seed(7, "final", number) for number in range(3)]
    assert trained.report["seed_values"] == seeds
    # The first seed's weights, and the report says so.
    assert trained.weights["seed"] == trained.report["weights_seed"] == seeds[0]
    json.dumps(trained.report)


def test_like_published_tells_the_best_epoch_beside_the_honest_number() -> None:
    """The best epoch has keys of its own, which say what it is."""
    report = train(seeds=2, like_published=True).report
    assert report["test_accuracy"] == pytest.approx([0.8, 0.79])
    assert report["test_accuracy_best_epoch"] == pytest.approx([0.9, 0.89])
    assert report["test_accuracy_best_epoch_mean"] == pytest.approx(0.895)
    assert report["test_accuracy_best_epoch_is"].startswith(
        "best epoch, selected on the test set"
    )
    assert report["best_epochs"] == [2, 2]
    assert report["published"]["accuracy"] == 0.97
    json.dumps(report)


def lost_once(job: Job, begun: int, rung: int) -> Event | None:
    """Let the worker die after its second report."""
    return WorkerLost(job.number) if begun == 1 and rung == 2 else None


def test_a_worker_that_dies_leaves_no_trace_in_the_curve() -> None:
    """The job begins anew and its later reports count."""
    engine = FakeEngine(1, accuracy=seeds_curve, trouble=lost_once)
    report = train(engine, like_published=True).report
    assert engine.begun == {0: 2}
    assert report["test_accuracy_by_epoch"] == [CURVE]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (lambda job, _begun, _rung: Failed(job.number, "NaN"), "own could not .* NaN"),
        (lambda job, _begun, _rung: WorkerLost(job.number), "own .* died 3 times"),
    ],
)
def test_a_training_that_fails_is_an_error(
    trouble: Callable[[Job, int, int], Event | None], words: str
) -> None:
    """There is no number then."""
    with pytest.raises(StudyError, match=words):
        train(FakeEngine(1, trouble=trouble))


@pytest.mark.parametrize(
    ("ran", "said"),
    [([True] * 3, True), ([True, False, True], False), ([None] * 3, None)],
)
def test_the_report_says_whether_the_kernels_did_it_all(
    ran: list[bool | None], said: bool | None
) -> None:
    """One seed without them is enough to say no."""
    report = train(FakeEngine(2, kernels=lambda job: ran[job.number]), seeds=3).report
    assert report["c_kernels"] is said


def test_seeds_that_had_ended_are_not_trained_again(tmp_path: Path) -> None:
    """The curves are those of all seeds, kept or not."""

    def stop(job: Job, _begun: int, _rung: int) -> None:
        if job.number == 2:
            raise KeyboardInterrupt

    kept = KeptTrainings(tmp_path, {})
    plan = Plan(
        dataset="digits",
        data_fingerprint="0",
        recipe=PUBLISHED.recipe,
        seeds=3,
        like_published=True,
    )
    stopped = FakeEngine(1, accuracy=seeds_curve, trouble=stop)
    with pytest.raises(KeyboardInterrupt):
        train_single(OWN, stopped, plan, hardware={}, kept=kept)
    engine = FakeEngine(1, accuracy=seeds_curve)
    report = train_single(OWN, engine, plan, hardware={}, kept=kept).report
    assert [job.number for job in engine.started] == [2]
    whole = train(seeds=3, like_published=True).report
    assert report | {"duration_seconds": 0} == whole | {"duration_seconds": 0}


def test_each_report_is_shown() -> None:
    """Four epochs and the end."""
    seen: list[Reported | Finished] = []
    plan = Plan(dataset="digits", data_fingerprint="0", recipe=PUBLISHED.recipe)
    train_single(
        OWN, FakeEngine(), plan, hardware={}, show=lambda _, event: seen.append(event)
    )
    assert [type(event) for event in seen] == [Reported] * 4 + [Finished]


# --- the recipe -------------------------------------------------------------------


def test_the_recipe_is_the_winners_unless_another_is_asked_for(tmp_path: Path) -> None:
    """In full length for large data, longer and in smaller batches for small."""
    assert choose_recipe(OWN, 60_000) == Recipe(epochs=15)
    small = choose_recipe(OWN, 1437)
    assert small.epochs > 15
    assert small.batch_size < Recipe().batch_size
    assert choose_recipe(OWN, 60_000, epochs=3).epochs == 3
    assert choose_recipe(OWN, 60_000, like_published=True) == PUBLISHED.recipe
    file = tmp_path / "recipe.toml"
    file.write_text("max_lr = 0.1\n")
    assert choose_recipe(OWN, 60_000, change=RecipeChange(file=file)) == Recipe(
        epochs=15, max_lr=0.1
    )
    file.write_text("max_lr = 0.1\nepochs = 7\n")
    assert choose_recipe(OWN, 60_000, change=RecipeChange(file=file)) == Recipe(
        epochs=7, max_lr=0.1
    )
    assert (
        choose_recipe(OWN, 60_000, change=RecipeChange(file=file), epochs=2).epochs == 2
    )
    small = choose_recipe(OWN, 1437, change=RecipeChange(file=file))
    assert small.batch_size < Recipe().batch_size


def test_a_net_without_any_norm_takes_a_lower_rate() -> None:
    """Unless the user or the net's study says another."""
    blocks = (Block(out_channels=6, norm="none"),)
    bare = replace(OWN, architecture=replace(OWN.architecture, blocks=blocks))
    assert choose_recipe(bare, 60_000) == Recipe(epochs=15, max_lr=0.1)
    studied = Recipe(epochs=12)
    assert choose_recipe(bare, 60_000, studied=studied) == studied
    mixed = replace(OWN.architecture, blocks=(*blocks, Block(out_channels=6)))
    some = replace(OWN, architecture=mixed)
    assert choose_recipe(some, 60_000).max_lr == Recipe().max_lr


def test_a_candidate_is_trained_by_its_studys_recipe() -> None:
    """But for the epochs of a screening; what the user changes goes before it."""
    studied = Recipe(epochs=12, batch_size=32, flip=0.5, augment=0)
    assert choose_recipe(OWN, 60_000, studied=studied) == studied
    longer = choose_recipe(OWN, 60_000, studied=studied, epochs=30)
    assert longer == replace(studied, epochs=30)
    wish = RecipeChange(augment="none")
    assert choose_recipe(OWN, 60_000, studied=studied, change=wish).flip == 0


@pytest.mark.parametrize("text", ["max_lr = -1", "colour = 1", "max_lr = [", "x"])
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """In one line with the file."""
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.toml: ") as caught:
        choose_recipe(OWN, 60_000, change=RecipeChange(file=file))
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="give an existing file"):
        choose_recipe(OWN, 60_000, change=RecipeChange(file=tmp_path / "none.toml"))


def test_without_a_published_recipe_there_is_none_to_follow() -> None:
    """The line says what to do instead."""
    bare = Reference(name="bare", architecture=OWN.architecture)
    with pytest.raises(ArchitectureError, match="leave --like-published out"):
        choose_recipe(bare, 60_000, like_published=True)


# --- where the architecture comes from --------------------------------------------


def test_a_candidate_is_found_by_its_study_and_trial(tmp_path: Path) -> None:
    """Its data set is the study's."""
    with create(tmp_path / "some", make_settings(name="some")) as study:
        study.ask()
        candidate = finish(study, 0, [0.5, 0.6, 0.7])
    found = resolve("some:0", tmp_path)
    assert found.reference.architecture == candidate.architecture
    assert found.dataset == "digits"
    with pytest.raises(StudyError, match="no trial 1"):
        resolve("some:1", tmp_path)
    with pytest.raises(StudyError, match="no study 'other'"):
        resolve("other:0", tmp_path)


# --- the command ------------------------------------------------------------------


def test_the_command_trains_and_writes(invoke: Invoke, tmp_path: Path) -> None:
    """The honest number first, the best epoch under it; a folder as of nas best."""
    (tmp_path / "own.toml").write_text(write_reference(OWN))
    common = ["--dataset", "digits", "--device", "cpu", "--workers", 1]
    result = invoke(
        "train", "own.toml", *common, "--like-published", "--epochs", 2, "-o", "out"
    )
    assert result.code == 0, result.err
    *_, honest, best, written = result.out.splitlines()
    assert honest.startswith("own, 136 parameters: test accuracy ")
    assert honest.endswith("after the last of 2 epochs")
    assert best.startswith("best epoch, selected on the test set: ")
    assert best.endswith(
        "published: 97.00 % best epoch, 96.00 % last epoch, of 4 epochs with 200 "
        "parameters"
    )
    assert (
        written
        == "written to out: weights.safetensors, architecture.json, model.py, report.json"
    )
    assert result.out.startswith("augmentation: rotation 10 degrees, shift 10 %, ")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["c_kernels"] is kernels.available()
    assert report["test_accuracy_by_epoch"][0][-1] == report["test_accuracy"][0]
    assert report["recipe"]["optimizer"] == "adam"
    assert math.isclose(report["test_accuracy_mean"], report["test_accuracy"][0])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none"], 1, "unknown reference 'none'"),
        (["none.toml"], 1, "no architecture at none.toml"),
        (["own.toml", "--dataset", "nothing"], 1, "no data set 'nothing'"),
        (["s0", "--dataset", "digits"], 1, "1x28x28 images of 10 classes"),
        (["own.toml", "--device", "tpu"], 1, "no device 'tpu'"),
        (["own.toml", "--like-published", "--recipe", "r.toml"], 2, "of the source"),
        (["own.toml", "--like-published", "--augment", "none"], 2, "of the source"),
        (["own.toml", "--augment", "turn"], 2, "give none, or some of affine, shift"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    invoke: Invoke, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    """Before anything is loaded that takes long."""
    (tmp_path / "own.toml").write_text(write_reference(OWN))
    result = invoke("train", *arguments)
    assert result.code == code
    assert words in result.err
    assert result.err.count("\n") == 1
