"""Beginning a study and going on with it: defaults, differences, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import save_npz
from studying import SIX_NETS

from nas.data import Dataset
from nas.errors import NasError, RecipeError, SpaceError, StudyError, UsageError
from nas.search import start as launching
from nas.search.recipes import RecipeChange
from nas.search.start import Request, launch
from nas.study.folders import load_settings
from nas.study.settings import Settings
from nas.training.recipe import Recipe


def begin(studies: Path, **keywords_given: Any) -> Settings:
    """Launch a study, close it and return its settings."""
    study, _ = launch(Request(studies=studies, **keywords_given))
    with study:
        return study.settings


def digits(studies: Path, **keywords_given: Any) -> Settings:
    """Launch a study of the digits with at most 2,000 parameters."""
    return begin(
        studies, **{"dataset": "digits", "param_budget": 2000} | keywords_given
    )


def test_a_new_study_is_named_after_data_set_and_cap(tmp_path: Path) -> None:
    """Its settings are the defaults, fitted to small data, and stand in its folder."""
    settings = digits(tmp_path)
    assert settings.name == "digits-2000"
    assert settings == load_settings(tmp_path / "digits-2000")
    assert (settings.space, settings.sampler, settings.seed) == (
        "mixed",
        "evolution",
        0,
    )
    assert settings.val_size == 1442 // 6
    assert settings.fidelities[-1] > Recipe().epochs
    assert settings.fidelities[0] == settings.recipe.epochs == settings.rungs[-1]
    assert settings.input_shape == (1, 8, 8)
    # The largest class has 24 or 25 of the 240 images.
    assert settings.majority_accuracy == pytest.approx(0.1, abs=0.005)
    assert settings.chance_level == pytest.approx(0.14, abs=0.01)
    assert settings.pruning is not None


def test_data_that_was_renamed_is_named_once(tmp_path: Path) -> None:
    """The study notes the new path of the same data, where the old one is gone."""
    old = save_npz(tmp_path / "old.npz")
    studies = tmp_path / "studies"
    begin(studies, dataset=str(old), param_budget=2000)
    copy = tmp_path / "copy.npz"
    copy.write_bytes(old.read_bytes())
    assert begin(studies, study="old-2000", dataset=str(copy)).dataset == str(old)
    old.unlink()
    assert begin(studies, study="old-2000", dataset=str(copy)).dataset == str(copy)
    assert begin(studies, study="old-2000").dataset == str(copy)


def test_a_named_data_set_is_found_again_in_the_folder_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another word; where the folder is gone, in the usual places."""
    asked: list[Path | None] = []
    digits_set = launching.load_dataset("digits")

    def load(name: str, data_dir: Path | None, **_: Any) -> Dataset:
        asked.append(data_dir)
        return replace(digits_set, name=name)

    monkeypatch.setattr(launching, "load_dataset", load)
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(tmp_path)
    studies, other = tmp_path / "studies", tmp_path / "other"
    begun = digits(studies, dataset="kmnist", data_dir=Path("there"))
    assert begun.data_dir == str(there)
    assert begin(studies, study="kmnist-2000") == begun
    assert begin(studies, dataset="kmnist", param_budget=2000) == begun
    assert begin(studies, study="kmnist-2000", data_dir=other) == begun
    there.rmdir()
    assert begin(studies, study="kmnist-2000") == begun
    assert asked == [Path("there"), there, there, other, None]
    assert digits(other, dataset="kmnist").data_dir is None


def test_a_study_of_the_users_own_data_is_named_after_the_file(tmp_path: Path) -> None:
    """Whatever the file's name, the study's is one that a folder can have."""
    path = str(save_npz(tmp_path / "My  cats & dögs!.npz"))
    settings = begin(tmp_path / "studies", dataset=path, param_budget=2000)
    assert settings.name == "My-cats-d-gs-2000"
    assert settings.dataset == path
    assert begin(tmp_path / "studies", study=settings.name) == settings


def test_a_study_of_the_users_own_data_works_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However its path is spelt, and wherever the data lies by now."""
    studies, home = tmp_path / "studies", tmp_path / "home"
    home.mkdir()
    save_npz(home / "mine.npz")
    monkeypatch.chdir(home)
    settings = begin(studies, dataset="mine.npz", param_budget=2000)
    assert settings.dataset == str(home / "mine.npz")
    assert settings.data_title == "mine.npz"
    for folder, spelling in (
        (home, "./mine.npz"),
        (tmp_path, None),
        (tmp_path, "home/mine.npz"),
        (tmp_path, "home/../home/mine.npz"),
    ):
        monkeypatch.chdir(folder)
        assert begin(studies, study=settings.name, dataset=spelling) == settings
    (home / "mine.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(NasError, match=r"uses the data set '.*home/mine.npz'"):
        begin(studies, study=settings.name)
    moved = replace(settings, dataset=str(tmp_path / "moved.npz"))
    assert begin(studies, study=settings.name, dataset="moved.npz") == moved
    save_npz(tmp_path / "other.npz", y_test=np.ones(4, dtype=int))
    with pytest.raises(StudyError, match=r"dataset .*/moved.npz -> other.npz"):
        begin(studies, study=settings.name, dataset="other.npz")


def test_going_on_needs_no_options_or_the_same(tmp_path: Path) -> None:
    """The name alone, the same command, and each option with its stored value."""
    keywords_given: dict[str, Any] = {
        "max_macs": 50_000,
        "max_memory": 3000,
        "space": "plain",
        "epochs": 4,
        "sampler": "random",
        "seed": 3,
        "pruning": False,
        "metric": "balanced-accuracy",
    }
    settings = digits(tmp_path, **keywords_given)
    assert begin(tmp_path, study="digits-2000") == settings
    assert digits(tmp_path) == settings
    assert digits(tmp_path, **keywords_given) == settings
    for name, value in keywords_given.items():
        assert begin(tmp_path, study="digits-2000", **{name: value}) == settings


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"param_budget": 1999}, "(budget 2000 -> 1999)"),
        ({"dataset": "mnist"}, "dataset digits -> mnist"),
        ({"max_macs": 9}, "max_macs None -> 9"),
        ({"max_memory": 9}, "max_memory None -> 9"),
        ({"space": "plain"}, "space mixed -> plain"),
        ({"epochs": 99}, "epochs 40 -> 99"),
        ({"sampler": "random"}, "sampler evolution -> random"),
        ({"seed": 1}, "seed 0 -> 1"),
        ({"metric": "balanced-accuracy"}, "metric accuracy -> balanced-accuracy"),
        ({"pruning": False}, "pruning "),
        ({"dataset": "mnist", "seed": 1, "epochs": 99}, "; seed 0 -> 1"),
    ],
)
def test_other_options_are_refused(
    tmp_path: Path, changes: dict[str, Any], phrase: str
) -> None:
    """The message names what was stored and what was asked; the study stays."""
    digits(tmp_path)
    before = (tmp_path / "digits-2000" / "study.toml").read_bytes()
    with pytest.raises(StudyError, match=r"with other settings .*--study$") as caught:
        begin(tmp_path, study="digits-2000", **changes)
    assert phrase in str(caught.value)
    assert (tmp_path / "digits-2000" / "study.toml").read_bytes() == before


def test_the_recipe_that_is_asked_for_is_frozen(tmp_path: Path) -> None:
    """A file's keys and the kinds of augmentation; the same again is no difference."""
    file = tmp_path / "recipe.toml"
    file.write_text("epochs = 30\nmax_lr = 0.25\nlabel_smoothing = 0.1\n")
    wish = RecipeChange(file=file, augment="shift,flip")
    settings = digits(tmp_path, recipe=wish)
    recipe = settings.recipe
    assert (recipe.max_lr, recipe.label_smoothing) == (0.25, 0.1)
    assert recipe.batch_size < Recipe().batch_size
    assert (recipe.flip, recipe.shift, recipe.rotation) == (0.5, 0.1, 0)
    assert settings.fidelities == (2, 6, 30)
    for again in (
        wish,
        RecipeChange(file=file),
        RecipeChange(augment=["flip", "shift"]),
    ):
        assert digits(tmp_path, recipe=again) == settings
    assert digits(tmp_path) == settings == load_settings(tmp_path / "digits-2000")
    with pytest.raises(StudyError, match=r"recipe.flip 0.5 -> 0.0\)"):
        digits(tmp_path, recipe=RecipeChange(augment="shift"))
    file.write_text("max_lr = 0.5\nepochs = 60\n")
    with pytest.raises(StudyError, match=r"recipe.max_lr 0.25 -> 0.5; epochs 30 -> 60"):
        digits(tmp_path, recipe=RecipeChange(file=file))


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        (RecipeChange(augment="turn"), UsageError, "give none, or some of affine"),
        (RecipeChange(file=Path("none.toml")), RecipeError, "no recipe at none.toml"),
    ],
)
def test_a_bad_recipe_is_found_before_the_data_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wish: RecipeChange,
    error: type[NasError],
    words: str,
) -> None:
    """No download for the sake of an error, and no folder."""
    monkeypatch.setattr(launching, "load_dataset", lambda *_, **__: pytest.fail("load"))
    with pytest.raises(error, match=words):
        digits(tmp_path / "studies", recipe=wish)
    assert not (tmp_path / "studies").exists()


def test_signals_are_shifted_in_time_by_default(tmp_path: Path) -> None:
    """What suits the data is chosen where nothing else is asked for, and frozen."""
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "signals.npz",
        x_train=random.integers(0, 256, (60, 60), dtype=np.uint8),
        y_train=np.arange(60) % 2,
        x_test=random.integers(0, 256, (2, 60), dtype=np.uint8),
        y_test=np.arange(2),
    )
    keywords_given: dict[str, Any] = {"dataset": str(tmp_path / "signals.npz")}
    settings = begin(tmp_path, param_budget=2000, **keywords_given)
    recipe = settings.recipe
    assert (recipe.along, recipe.edge, recipe.rotation) == ("time", "repeat", 0)
    assert load_settings(tmp_path / "signals-2000") == settings


def test_another_data_set_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No download for the sake of an error."""
    digits(tmp_path)
    monkeypatch.setattr(launching, "load_dataset", lambda *_: pytest.fail("loaded"))
    with pytest.raises(StudyError, match="dataset digits -> cifar10"):
        begin(tmp_path, study="digits-2000", dataset="cifar10")


def test_a_changed_space_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """The study keeps a copy of the space's text and goes on without the file."""
    path = tmp_path / "mine.toml"
    path.write_text(SIX_NETS)
    settings = digits(tmp_path, space=str(path))
    assert settings.space_toml == SIX_NETS
    path.write_text(SIX_NETS.replace("[1, 3, 5]", "[1, 3]"))
    with pytest.raises(StudyError, match="the text of its search space"):
        digits(tmp_path, space=str(path))
    path.unlink()
    assert digits(tmp_path) == settings


def test_changed_data_under_the_same_path_are_refused(tmp_path: Path) -> None:
    """A study compares accuracies, which needs the same images throughout."""
    path = str(save_npz(tmp_path / "own.npz"))
    begin(tmp_path, dataset=path, param_budget=2000)
    save_npz(tmp_path / "own.npz", y_test=np.ones(4, dtype=int))
    with pytest.raises(StudyError, match="not the one that the study"):
        begin(tmp_path, dataset=path, param_budget=2000)


def test_a_bad_space_is_found_before_the_data_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error in --space costs no download."""
    monkeypatch.setattr(launching, "load_dataset", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SpaceError, match="unknown search space"):
        begin(tmp_path, param_budget=2000, space="mixd")


def test_the_rungs_follow_the_epochs(tmp_path: Path) -> None:
    """A study of one epoch has one rung, its end."""
    settings = digits(tmp_path, epochs=1)
    assert settings.rungs == (1.0,)
    assert settings.recipe == replace(settings.recipe, epochs=1)
