"""nas.search, Study and Trained: real searches, their winners, one net."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from calling import CPU, digits, digits_as_arrays, the_line
from cli_runner import Invoke
from loading import module_of
from studying import one_line
from torch import nn

import nas
from nas.errors import (
    ArchitectureError,
    DataError,
    ExportError,
    RecipeError,
    StudyError,
    UsageError,
)
from nas.study.folders import open_study


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the studies of these tests."""
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="session")
def study(place: Path) -> nas.Study:
    """Return a finished study of the digits, given as arrays."""
    return nas.search(
        digits(),
        # Numbers as they come out of a DataFrame; study.toml can hold them.
        budget=np.int64(1000),
        trials=np.int32(4),
        epochs=np.uint8(2),
        studies=place,
        seed=1,
        **CPU,
    )


@pytest.fixture(scope="session")
def winner(study: nas.Study) -> nas.Trained:
    """Return its winner, trained for an epoch with two seeds."""
    size = study.front()["num_params"].iloc[-1]
    return study.best(
        epochs=1,
        seeds=2,
        finalists=1,
        max_params=size,
        min_accuracy=np.float32(0),
        **CPU,
    )


# --- a study ----------------------------------------------------------------------


def test_a_search_returns_what_stands_in_its_folder(
    study: nas.Study, place: Path, invoke: Invoke
) -> None:
    """The tables are those of `nas front`; the folder has what a search writes."""
    assert (study.name, study.outcome) == ("mine-1000", "done")
    assert study.folder == place / "mine-1000"
    files = {path.name for path in study.folder.iterdir()}
    assert {"study.toml", "journal.log", "front.csv", "front.html"} <= files
    assert "timing.json" in files
    trials = study.trials()
    assert trials["trial"].tolist() == [0, 1, 2, 3]
    assert (trials["num_params"] <= 1000).all()
    printed = invoke("front", "mine-1000", "--studies", place, "--format", "csv").out
    pd.testing.assert_frame_equal(
        study.front(), pd.read_csv(StringIO(printed)), check_dtype=False
    )
    assert {"flash", "latency_ms"} <= set(study.front(board="esp32"))
    figure = study.plot()
    assert isinstance(figure, go.Figure)
    assert "mine-1000" in figure.layout.title.text
    assert repr(study).startswith("<Study mine-1000: 4 trials, ")


def test_an_opened_study_is_the_same(study: nas.Study, place: Path) -> None:
    """By its name, or as the only one; it is not locked, and has no outcome."""
    for opened in (
        nas.open_study("mine-1000", studies=place),
        nas.open_study(studies=str(place)),
    ):
        pd.testing.assert_frame_equal(opened.trials(), study.trials())
        assert opened.settings == study.settings
        assert opened.outcome is None
    with pytest.raises(StudyError, match="no study 'other'"):
        nas.open_study("other", studies=place)


def test_the_environment_says_where_studies_are(
    study: nas.Study, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the command line."""
    monkeypatch.setenv("NAS_STUDIES", str(place))
    assert nas.open_study().name == study.name


def test_a_search_goes_on_where_the_study_was(tmp_path: Path) -> None:
    """Under the data's other name, too; with other data or settings it is refused."""
    first = nas.search(
        digits(), budget=900, trials=1, epochs=1, studies=tmp_path, **CPU
    )
    again = nas.search(digits(), budget=900, trials=2, studies=tmp_path, **CPU)
    assert again.trials()["trial"].tolist() == [0, 1]
    assert again.trials()["key"][0] == first.trials()["key"][0]
    other = nas.Data.from_arrays(**digits_as_arrays(), name="renamed")
    last = nas.search(
        other, study="mine-900", trials=3, time_limit=300, studies=tmp_path, **CPU
    )
    assert last.trials()["key"].tolist()[:2] == again.trials()["key"].tolist()
    assert len(last.trials()) == 3
    with pytest.raises(StudyError, match=r"seed 0 -> 5.*new name with study="):
        nas.search(other, study="mine-900", seed=5, studies=tmp_path, **CPU)
    arrays = digits_as_arrays()
    arrays["x_test"] = 255 - arrays["x_test"]
    changed = nas.Data.from_arrays(**arrays, name="mine")
    with pytest.raises(StudyError, match="is not the one that the study"):
        nas.search(changed, budget=900, studies=tmp_path, **CPU)
    with pytest.raises(StudyError, match="is not the one that the study"):
        last.best(data=changed, **CPU)
    # None of the refusals has left it locked.
    open_study(tmp_path / "mine-900").close()


def test_data_that_was_in_memory_has_to_be_given_again(
    study: nas.Study, place: Path, invoke: Invoke
) -> None:
    """A later process cannot know it; the line says what to do, on both doors."""
    opened = nas.open_study(study.name, studies=place)
    words = "uses the data set 'mine'"
    with pytest.raises(DataError, match=f"{words}.*data="):
        opened.best(**CPU)
    with pytest.raises(DataError, match=words):
        nas.search(study=study.name, studies=place, **CPU)
    result = invoke("best", study.name, "--studies", place, "--device", "cpu")
    assert result.code == 1
    assert words in one_line(result.err)
    trained = opened.best(data="digits", epochs=1, finalists=1, **CPU)
    assert trained.report["seeds"] == 1


def test_start_from_modules_and_architectures(
    winner: nas.Trained, tmp_path: Path
) -> None:
    """They are the first trials; a module needs the data for its shape."""
    module = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(320, 10)
    )
    started = nas.search(
        "digits",
        budget=4000,
        trials=2,
        epochs=1,
        start_from=[module, winner.architecture],
        studies=tmp_path,
        **CPU,
    )
    assert started.trials()["origin"].tolist() == ["start", "start"]
    assert started.trials()["num_params"].tolist() == [
        nas.count(module),
        nas.count(winner.architecture),
    ]
    with pytest.raises(ArchitectureError, match="for which images it is: give data="):
        nas.search(study="digits-4000", start_from=module, studies=tmp_path)


# --- the winner -------------------------------------------------------------------


def test_the_winner_is_ready(winner: nas.Trained, study: nas.Study) -> None:
    """Its model classifies the test images as the report says of the first seed."""
    data = digits().dataset
    report = winner.report
    assert report["trial"] in study.trials()["trial"].tolist()
    assert (report["seeds"], len(report["test_accuracy"])) == (2, 2)
    assert isinstance(winner.model, nn.Module)
    assert not winner.model.training
    assert nas.count(winner.model) == report["num_params"] <= 1000
    labels = winner.predict(data.test_images)
    accuracy = (labels == data.test_labels).double().mean().item()
    assert accuracy == pytest.approx(report["test_accuracy"][0], abs=1e-6)
    assert torch.equal(winner.predict(data.test_images.numpy()[:, 0]), labels)
    logits = winner.model(winner.normalise(data.test_images[:3]))
    assert logits.shape == (3, 10)
    assert repr(winner).startswith(f"<Trained trial {report['trial']}, ")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 1, 8, 8) + 1, "scale them alike, or give raw uint8 pixels"),
        (torch.rand(2, 1, 8, 8) * float("nan"), "hold NaN"),
        (np.zeros((2, 1, 8, 8), int), "give raw uint8 pixels, 0 to 255, or floats"),
        (torch.zeros(2, 1, 9, 8, dtype=torch.uint8), r"give \(N, 1, 8, 8\)"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"give \(N, 1, 8, 8\)"),
    ],
)
def test_images_of_another_kind_are_refused(
    winner: nas.Trained, images: Any, words: str
) -> None:
    """Rather than classified wrongly in silence."""
    with pytest.raises(DataError, match=words):
        winner.predict(images)


def test_the_winner_is_saved_and_exported(winner: nas.Trained, tmp_path: Path) -> None:
    """As `nas best --export` does: files that work without nas."""
    folder = winner.save(tmp_path / "net")
    assert json.loads((folder / "report.json").read_text()) == winner.report
    code = module_of(folder / "model.py")
    images = digits().dataset.test_images
    loaded = code.load(folder / "weights.safetensors")
    assert torch.equal(code.predict(loaded, images), winner.predict(images))
    # Floats of 0 to 1 are read by the same rule as by the loader.
    assert torch.equal(winner.predict(images / 255), winner.predict(images))
    report = winner.export("onnx")
    assert report["test_accuracy"] == pytest.approx(winner.report["test_accuracy"][0])
    assert (folder / "onnx" / "export.json").exists()
    with pytest.raises(ExportError, match="tflite"):
        winner.export("tflite", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_saved_winner_is_loaded(winner: nas.Trained, tmp_path: Path) -> None:
    """Model, report and all; no code of the folder is run."""
    folder = winner.save(tmp_path / "net")
    with (folder / "model.py").open("a") as file:
        file.write("raise SystemExit\n")
    found = nas.load(folder)
    assert found.report == winner.report
    assert repr(found) == repr(winner)
    images = digits().dataset.test_images
    assert torch.equal(found.predict(images), winner.predict(images))
    assert torch.equal(found.predict(images / 255), winner.predict(images))
    assert found.save(tmp_path / "copy") == tmp_path / "copy"
    assert nas.load(tmp_path / "copy").class_names == winner.class_names
    report = found.export("onnx", data=digits())
    assert report["test_accuracy"] == pytest.approx(winner.report["test_accuracy"][0])
    with pytest.raises(DataError, match="no data set 'mine'"):
        found.export("onnx")  # it was in memory
    for name, text, words in (
        ("report.json", "{}", "report.json has no architecture"),
        ("weights.safetensors", "", "cannot read"),
        ("architecture.json", "[]", "cannot read"),
    ):
        (folder / name).write_text(text)
        with pytest.raises(ExportError, match=words):
            nas.load(folder)
    with pytest.raises(ExportError, match=r"no architecture\.json: give a study"):
        nas.load(tmp_path)


def test_the_winner_goes_into_its_study_by_default(
    study: nas.Study, winner: nas.Trained
) -> None:
    """Where `nas export` finds it."""
    fresh = nas.Trained(
        winner.architecture,
        winner.weights,
        winner.report,
        digits().dataset,
        study.folder / "best",
    )
    assert fresh.save() == study.folder / "best"
    assert (study.folder / "best" / "model.py").exists()


# --- one net ----------------------------------------------------------------------


def test_a_module_is_trained_and_stays_as_it_is(tmp_path: Path) -> None:
    """By a recipe of one's own; the result has a folder only where one is given."""
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 10),
    )
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("max_lr = 0.02\n")
    trained = nas.train(module, digits(), epochs=1, recipe=recipe, **CPU)
    assert trained.report["num_params"] == nas.count(module)
    assert trained.report["recipe"]["max_lr"] == 0.02
    assert trained.report["source"] == "the torch module Sequential"
    assert all(torch.equal(module.state_dict()[n], t) for n, t in before.items())
    with pytest.raises(UsageError, match="has no folder: give one"):
        trained.save()
    assert trained.save(tmp_path / "net") == tmp_path / "net"
    with pytest.raises(UsageError, match="like_published= takes the recipe"):
        nas.train("s0", recipe=recipe, like_published=True, **CPU)
    with pytest.raises(RecipeError, match="no recipe at"):
        nas.train(module, "digits", recipe=tmp_path / "none.toml", **CPU)


def test_a_trial_is_trained_by_its_name(study: nas.Study, place: Path) -> None:
    """STUDY:TRIAL, as on the command line, on the data that is given."""
    trained = nas.train(f"{study.name}:2", digits(), epochs=1, studies=place, **CPU)
    assert trained.report["key"] == study.trials()["key"][2]
    assert nas.count(f"{study.name}:2", studies=place) == trained.report["num_params"]


def test_a_module_that_nas_cannot_take_apart_is_refused() -> None:
    """With the layer that has no place, before anything is trained."""
    module = nn.Sequential(nn.PixelUnshuffle(2), nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ArchitectureError, match="PixelUnshuffle"):
        nas.train(module, "digits", **CPU)
    with pytest.raises(ArchitectureError, match="s0 is for 1x28x28"):
        nas.train("s0", "digits", **CPU)
    with pytest.raises(ArchitectureError, match="a list is not a network"):
        nas.train([1], "digits", **CPU)  # type: ignore[arg-type]


def test_counting() -> None:
    """Trainable parameters, shared ones once; lazy layers have none to count yet."""
    linear = nn.Linear(3, 4)
    frozen = nn.Linear(5, 5).requires_grad_(requires_grad=False)
    assert nas.count(nn.Sequential(linear, linear, frozen, nn.BatchNorm1d(4))) == 24
    assert nas.count("s0") == 10_540
    with pytest.raises(ArchitectureError, match="lazy layers"):
        nas.count(nn.LazyLinear(3))
    with pytest.raises(ArchitectureError, match="unknown reference"):
        nas.count("s99")


def test_a_module_for_other_images_is_refused_with_a_remedy() -> None:
    """The remedy is the data: `nas.train` takes the shape from there."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(ArchitectureError) as caught:
        nas.train(module, "digits", **CPU)
    words = "does not take 1x8x8 images: it takes 1x28x28, so give data with images of 1x28x28"
    assert words in the_line(caught.value)
