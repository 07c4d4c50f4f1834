"""import nas: the command line's options as keywords, data from anywhere, real searches."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from cli_runner import Invoke
from PIL import Image
from studying import environment, make_settings, one_line, run_python
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

import nas
from nas import cli
from nas.api.words import translated
from nas.data import load_dataset
from nas.engines.local import LocalEngine
from nas.errors import (
    ArchitectureError,
    DataError,
    DeviceError,
    ExportError,
    NasError,
    RecipeError,
    SpaceError,
    StudyError,
    UsageError,
)
from nas.study.folders import create, open_study

CPU: dict[str, Any] = {"device": "cpu", "workers": 1}
COMMANDS = {"search": cli.search, "best": cli.best, "train": cli.train}


def digits_as_arrays() -> dict[str, np.ndarray]:
    """Return the digits as the four arrays of numpy."""
    data = load_dataset("digits")
    return {
        "x_train": data.images.numpy(),
        "y_train": data.labels.numpy(),
        "x_test": data.test_images.numpy(),
        "y_test": data.test_labels.numpy(),
    }


def the_line(error: BaseException) -> str:
    """Return the error's text, which is one line."""
    assert len(str(error).splitlines()) == 1
    return str(error)


def digits() -> nas.Data:
    """Return the digits as somebody's own arrays."""
    return nas.Data.from_arrays(**digits_as_arrays(), name="mine")


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


# --- the two doors ----------------------------------------------------------------

# Keyword: option, where the names differ.
RENAMED = {"search": {"data": "dataset"}, "best": {"data": "dataset"}, "train": {}}
RENAMED["train"] = {"data": "dataset"}
# The command that has it only there, and why.
ONLY_OPTIONS = {
    "search": set[str](),
    "best": {
        "study",  # the object whose method it is
        "studies",  # open_study has it
        "storage",  # likewise
        "output",  # Trained.save
        "export",  # Trained.export
        "front",  # Study.best_front
        "sizes",  # likewise
    },
    "train": {"output"},  # Trained.save
}
ONLY_KEYWORDS = {
    "search": {"progress"},  # a command always shows it
    "best": {"progress"},
    "train": {"progress"},
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "search": nas.search,
    "best": nas.Study.best,
    "train": nas.train,
}
# A keyword may be a path or not given; the command's default for these is spelt out.
FROM_ENVIRONMENT = {"studies", "storage"}


def options(command: str) -> dict[str, inspect.Parameter]:
    """Return the command's arguments and options by the names of their keywords."""
    return dict(inspect.signature(COMMANDS[command]).parameters)


def described(command: str) -> dict[str, tuple[Any, Any]]:
    """Return the type of each argument or option, and what Typer is told of it."""
    hints = typing.get_type_hints(COMMANDS[command], include_extras=True)
    return {
        name: (hints[name].__origin__, hints[name].__metadata__[0])
        for name in options(command)
    }


def keywords(command: str) -> dict[str, inspect.Parameter]:
    """Return the function's parameters, those renamed by their option's name."""
    found = inspect.signature(FUNCTIONS[command]).parameters
    return {
        RENAMED[command].get(name, name): parameter
        for name, parameter in found.items()
        if name != "self" and name not in ONLY_KEYWORDS[command]
    }


@pytest.mark.parametrize("command", FUNCTIONS)
def test_each_option_has_its_keyword_and_the_reverse(command: str) -> None:
    """What stands on one side alone is listed above with its reason, and is there."""
    assert set(keywords(command)) == set(options(command)) - ONLY_OPTIONS[command]
    assert set(options(command)) >= ONLY_OPTIONS[command]
    assert (
        set(inspect.signature(FUNCTIONS[command]).parameters)
        >= (ONLY_KEYWORDS[command])
    )


@pytest.mark.parametrize("command", FUNCTIONS)
def test_the_defaults_are_those_of_the_command_line(command: str) -> None:
    """Each keyword that may be left out has its option's default."""
    for name, parameter in keywords(command).items():
        option = options(command)[name]
        if inspect.Parameter.empty in {parameter.default, option.default}:
            assert parameter.default is option.default
        elif name in FROM_ENVIRONMENT:
            assert parameter.default is None
            assert described(command)[name][1].envvar == f"NAS_{name.upper()}"
        else:
            assert (parameter.default or None) == (option.default or None), name


def test_best_front_has_the_keywords_of_best() -> None:
    """With the same defaults; for what limits one winner it has the sizes."""
    one = inspect.signature(nas.Study.best).parameters
    several = inspect.signature(nas.Study.best_front).parameters
    assert set(several) == set(one) - {"max_params", "min_accuracy"} | {"sizes"}
    for name in set(several) & set(one):
        assert several[name].default == one[name].default


def refused() -> list[tuple[str, str, Any]]:
    """Return command, keyword and value for values that the option refuses."""
    found: list[tuple[str, str, Any]] = []
    for command in FUNCTIONS:
        for name, (kind, option) in described(command).items():
            values: list[Any] = []
            if option.min is not None:
                values += [option.min - 1, "3", True, math.nan]
            if option.max is not None:
                values.append(option.max + 1)
            if "Literal" in str(kind):
                values.append("nonsense")
            if name not in ONLY_OPTIONS[command]:
                found += [(command, name, value) for value in values]
    return found


@pytest.mark.parametrize(("command", "name", "value"), refused())
def test_what_an_option_refuses_its_keyword_refuses(
    command: str, name: str, value: Any, tmp_path: Path
) -> None:
    """At once, as a UsageError that names keyword and value; nothing is written."""
    first: list[Any] = {"search": ["digits"], "train": ["s0"]}.get(command, [])
    if command == "best":
        with create(tmp_path / "small", make_settings()) as stored:
            first.append(nas.Study(stored))
    before = list(tmp_path.rglob("*"))
    place = {} if command == "best" else {"studies": tmp_path / "studies"}
    with pytest.raises(UsageError) as caught:
        FUNCTIONS[command](*first, **place | {name: value})
    assert str(caught.value).startswith(f"{name}={value!r}")
    assert list(tmp_path.rglob("*")) == before


def test_there_are_ranges_to_be_tested() -> None:
    """The test above is not empty: all numbers and choices of a search are in it."""
    names = {name for _, name, _ in refused()}
    assert {"budget", "trials", "seed", "sampler", "engine", "min_accuracy"} <= names


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"budget": 30}, SpaceError, "budget=30 is below the smallest net"),
        ({}, StudyError, "give budget=, the cap on parameters"),
        ({"budget": 900, "space": "mixd"}, SpaceError, "did you mean mixed"),
        ({"budget": 900, "device": "cuda:77"}, DeviceError, "no device 'cuda:77'"),
        ({"budget": 900, "time_limit": "soon"}, UsageError, "time_limit='soon' is no"),
        ({"budget": 900, "trial_time_limit": 0}, UsageError, "trial_time_limit=0 is"),
        ({"budget": 900, "address": "a:1"}, UsageError, 'need engine="ray"'),
        ({"budget": 900, "study": "../x"}, StudyError, "cannot be named"),
        ({"budget": 900, "data_dir": "nowhere", "data": "mnist"}, DataError, "nowhere"),
        (
            {"budget": 900, "data_dir": "x", "data": nas.Data("digits")},
            UsageError,
            "data_dir= is for a data set by its name",
        ),
        ({"budget": 900, "data": "digts"}, DataError, "did you mean digits"),
        ({"budget": 900, "data": 3}, DataError, "data is a int"),
        ({"budget": 900, "max_latency": "esp32=0.001"}, SpaceError, 'cy="esp32=0.0'),
        ({"budget": 900, "start_from": "s0"}, ArchitectureError, "s0 is for 1x28x28"),
        (
            {"budget": 900, "start_from": [7]},
            ArchitectureError,
            "a int is not a network",
        ),
        ({"budget": 900, "pruning": "no"}, UsageError, "pruning='no' is neither"),
    ],
)
def test_errors_are_those_of_the_command_line_in_the_words_of_python(
    given: dict[str, Any], kind: type[NasError], words: str, tmp_path: Path
) -> None:
    """One line of the same class; it names the keyword, not the option."""
    with pytest.raises(kind) as caught:
        nas.search(**{"data": "digits", "studies": tmp_path / "s"} | given)
    text = the_line(caught.value)
    assert words in text
    assert "--" not in text
    assert not (tmp_path / "s").exists()


def test_commands_in_a_message_stay_as_they_are_typed() -> None:
    """Only what is outside of backticks is Python's."""
    text = "over --budget 5: narrow it with `nas resize --budget 5`, or give --max-macs"
    assert translated(text) == (
        "over budget=5: narrow it with `nas resize --budget 5`, or give max_macs="
    )
    assert translated("resume with the same command") == "resume with the same call"


# --- what import loads ------------------------------------------------------------


def test_import_nas_loads_nothing_and_knows_its_names() -> None:
    """`nas --help` imports it, too; dir() and an unknown name are as of any module."""
    done = run_python(
        "import sys, nas\n"
        "assert set(nas.__all__) <= set(dir(nas))\n"
        "assert not {'torch', 'optuna', 'pandas', 'numpy'} & set(sys.modules)\n"
        "nas.serch\n",
        cwd=Path(__file__).parent,
    )
    assert "\nAttributeError: module 'nas' has no attribute 'serch'" in done.stderr


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("import nas.search.loop", marks=pytest.mark.slow),
        "nas.search",
        pytest.param("nas.train", marks=pytest.mark.slow),
    ],
)
def test_search_is_the_function_whatever_was_imported_first(first: str) -> None:
    """There is a package of that name, which Python would put in its place."""
    done = run_python(
        f"import nas\n{first}\nfrom nas.search.start import Request\n"
        "from nas import search\n"
        "print(search.__module__, nas.search is search, nas.search.__name__)\n",
        cwd=Path(__file__).parent,
    )
    assert done.stdout == "nas.api.study True search\n", done.stderr


def test_the_package_is_typed(tmp_path: Path) -> None:
    """py.typed is shipped, and a type checker knows what each function returns."""
    assert (Path(nas.__file__).parent / "py.typed").exists()
    (tmp_path / "script.py").write_text(
        "import nas\n"
        "reveal_type(nas.search('digits', budget=9))\n"
        "reveal_type(nas.search('digits').best().report)\n"
        "reveal_type(nas.count('s0'))\n"
        "nas.search(budgte=9)\n"
    )
    around = Path(nas.__file__).parent.parent
    # mypy finds what is installed, and refuses to be pointed at site-packages.
    checkout = {} if around.name == "site-packages" else {"MYPYPATH": str(around)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "script.py"],
        cwd=tmp_path,
        env=environment() | checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert len(found) >= 4, done.stdout
    for line, words in zip(
        found, ["nas.api.study.Study", "dict[str, ", '"int"', '"budgte"'], strict=False
    ):
        assert words in line


# --- data -------------------------------------------------------------------------


def as_folder(folder: Path) -> Path:
    """Write the digits as a folder of images."""
    arrays = digits_as_arrays()
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / part / str(label) / f"{number:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(path)
    return folder


class Pairs(IterableDataset[Any]):
    """The digits as PIL images, without a length."""

    classes = ("zero", *"123456789")

    def __init__(self, part: str) -> None:
        """Take the training or the test part."""
        arrays = digits_as_arrays()
        self.pairs = zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)

    def __iter__(self) -> Iterator[Any]:
        """Yield image and label."""
        return ((Image.fromarray(x[0]), int(y)) for x, y in self.pairs)


def test_the_same_data_whichever_way_it_comes(tmp_path: Path) -> None:
    """numpy, torch, floats, channels last, .npz, torch datasets: one fingerprint."""
    arrays = digits_as_arrays()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    floats = {n: t / 255 if n.startswith("x") else t for n, t in tensors.items()}
    last = {n: a.reshape(-1, 8, 8, 1) if a.ndim == 4 else a for n, a in arrays.items()}
    lists = {name: array.tolist() for name, array in arrays.items()}
    for part in ("x_train", "x_test"):
        lists[part] = arrays[part][:, 0]
    np.savez(tmp_path / "digits.npz", **arrays)
    pairs = [
        TensorDataset(tensors[f"x_{part}"], tensors[f"y_{part}"])
        for part in ("train", "test")
    ]
    named = nas.Data("digits")
    for data in (
        digits(),
        *(nas.Data.from_arrays(**some) for some in (tensors, floats, last, lists)),
        nas.Data.from_npz(tmp_path / "digits.npz"),
        nas.Data.from_dataset(*pairs),
        nas.Data.from_dataset(Pairs("train"), Pairs("test")),
    ):
        assert data.dataset.fingerprint == named.dataset.fingerprint, data
        assert (data.input_shape, data.num_classes) == ((1, 8, 8), 10)
    assert data.class_names == Pairs.classes
    assert repr(digits()) == (
        "<Data mine: 1,442 training and 355 test images of 1x8x8, 10 classes>"
    )


def test_data_from_a_folder(tmp_path: Path) -> None:
    """The same loader as the command line's."""
    data = nas.Data.from_folder(as_folder(tmp_path / "digits"))
    assert data.input_shape == (1, 8, 8)
    assert data.class_names == tuple("0123456789")
    assert sorted(data.dataset.labels.tolist()) == data.dataset.labels.tolist()
    assert len(data.dataset.labels) == 1442


def test_arrays_are_copied_and_left_alone() -> None:
    """What is done to them later does not reach the data, nor the reverse."""
    arrays = digits_as_arrays()
    before = {name: array.copy() for name, array in arrays.items()}
    data = nas.Data.from_arrays(**arrays)
    arrays["x_train"][:] = 0
    assert torch.equal(data.dataset.images, torch.from_numpy(before["x_train"]))
    data.dataset.test_images[:] = 0
    assert np.array_equal(arrays["x_test"], before["x_test"])


def of_arrays(**changes: Any) -> Callable[[], object]:
    """Return what makes data of the digits with some arrays changed."""
    return lambda: nas.Data.from_arrays(**digits_as_arrays() | changes)


def of_pairs(*pairs: Any) -> Callable[[], object]:
    """Return what makes data of a dataset with these items."""
    return lambda: nas.Data.from_dataset(list(pairs), list(pairs), name="own")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (of_arrays(x_train=np.zeros((3, 8, 8), complex)), "arrays: x_train"),
        (of_arrays(y_test=np.zeros(3, int)), "arrays: 355 test images but 3 test"),
        (of_arrays(x_test=[[1], [1, 2]]), "arrays: x_test is not an array"),
        (of_arrays(y_train=[None] * 1442), "arrays: y_train holds Python objects"),
        (of_arrays(class_names=["a", "b"]), "10 classes have images, but there are 2"),
        (of_pairs((np.zeros((8, 8)), 0), 5), "own: train: item 1 is not a pair"),
        (
            of_pairs((np.zeros((8, 8)), 0), (np.zeros((9, 8)), 1)),
            "own: train: image 1 has shape (9, 8), the first one (8, 8)",
        ),
        (of_pairs(), "own: train is empty"),
        (lambda: nas.Data.from_dataset(3, 4), "train is a int: give a torch Dataset"),
        (lambda: nas.Data.from_npz("x.csv"), "x.csv is not an .npz file"),
        (lambda: nas.Data.from_folder("nowhere"), "nowhere is not a folder"),
        (lambda: nas.Data("mnits"), "did you mean mnist"),
        (lambda: nas.Data("mnist", data_dir="nowhere"), "check data_dir= and NAS_DATA"),
    ],
)
def test_bad_data_is_one_line(make: Callable[[], object], words: str) -> None:
    """It names the array, file or item, in the caller's words."""
    with pytest.raises(DataError) as caught:
        make()
    assert words in the_line(caught.value)
    assert tempfile.gettempdir() not in str(caught.value)


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
        (torch.rand(2, 1, 8, 8) * float("nan"), "or NaN"),
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
    spec = importlib.util.spec_from_file_location("net_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
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


# --- scripts ----------------------------------------------------------------------

SCRIPT = """\
import nas

print("once")
study = nas.search("digits", budget=900, trials=2, epochs=1, device="cpu", workers=2)
print(len(study.trials()), study.best(epochs=1, finalists=1, device="cpu", workers=1).report["seeds"])
"""


@pytest.mark.slow
def test_a_plain_script_needs_no_main_guard(tmp_path: Path) -> None:
    """Its workers do not run it anew, and nothing is printed but what it prints."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert (done.stdout, done.stderr) == ("once\n2 1\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("progress", [True, False])
def test_a_terminal_shows_how_it_comes_along(tmp_path: Path, progress: bool) -> None:
    """On stderr, so that stdout stays the script's own; nothing where it is unwanted."""
    (tmp_path / "script.py").write_text(
        "import nas\n"
        f"given = dict(epochs=1, device='cpu', workers=1, progress={progress})\n"
        "study = nas.search('digits', budget=900, trials=1, **given)\n"
        "study.best(finalists=1, **given)\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment() | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    parts = []
    with contextlib.suppress(OSError):  # the other side is closed
        while part := os.read(ours, 65536):
            parts.append(part)
    os.close(ours)
    assert process.communicate(timeout=100)[0] == b""
    assert process.returncode == 0
    text = b"".join(parts).decode()
    if progress:
        assert "1 of 1 trials: 1 complete" in text
        assert re.search(r"winner trial 0 .*: test accuracy \d", text)
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back
    else:
        assert text == ""


# Where the tests run in the background, the script has inherited that SIGINT is ignored.
INTERRUPTED = """\
import signal
import nas

signal.signal(signal.SIGINT, signal.default_int_handler)
given = dict(budget=900, epochs=2, device="cpu", workers=1, studies="studies")
try:
    nas.search("digits", trials=100_000, **given)
except KeyboardInterrupt as stop:
    print(stop, flush=True)
opened = nas.open_study(studies="studies")
states = opened.trials()["state"].tolist()
done = sum(state in ("complete", "pruned") for state in states)
study = nas.search("digits", trials=done + 1, **given)
print(done, study.outcome, study.trials()["state"].isin(["complete", "pruned"]).sum())
"""


def test_an_interrupt_leaves_the_study_in_order(tmp_path: Path) -> None:
    """The same process goes on: nothing is locked, no worker and no trial is left."""
    (tmp_path / "script.py").write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_a_finished_trial(tmp_path / "studies" / "digits-900", process)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does, and a notebook
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    stopped, ended = out.splitlines()
    done = int(ended.split()[0])
    assert done >= 1
    assert stopped == (
        f"stopped with {done} of 100000 trials finished; resume with the same call"
    )
    assert ended == f"{done} done {done + 1}"
    assert err == ""


def wait_for_a_finished_trial(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the study has a trial that has come to its end."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (folder / "journal.log").exists():
            trials = nas.open_study(folder.name, studies=folder.parent).trials()
            if (trials["state"] != "running").any():
                return
        time.sleep(0.2)
    pytest.fail("no trial has finished")


def test_an_interrupt_while_workers_start_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a notebook they would live on as long as its kernel."""
    started: list[Any] = []
    start = LocalEngine._start_worker

    def interrupted(engine: LocalEngine, device: str) -> Any:
        if started:
            raise KeyboardInterrupt
        started.append(start(engine, device))
        return started[-1]

    monkeypatch.setattr(LocalEngine, "_start_worker", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LocalEngine(
            digits().dataset, split_seed=0, val_size=240, workers=2, devices=["cpu"]
        )
    assert started[0].process.exitcode is not None
