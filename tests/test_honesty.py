"""What the README's "Honest numbers" hang on: who trains on what, and reads what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runner import Invoke
from nets import net_of
from studying import finish, make_settings, report_of

from nas.architecture import Block
from nas.data import Dataset, load_dataset
from nas.engines import Job, Mode
from nas.engines.worker import Worker, WorkerConfig
from nas.errors import EngineError
from nas.search.start import Request, launch
from nas.study.folders import create
from nas.training.recipe import Recipe
from nas.training.report import RungReport
from nas.training.step import TrainingData

NET = net_of(Block(out_channels=2))
TEST_FROM = 10_000
"""The number of the first test image; a training image has its place."""


def numbered(count: int, first: int = 0) -> torch.Tensor:
    """Return images [N, 1, 8, 8] that say in two pixels which ones they are."""
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    number = torch.arange(first, first + count)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = number // 256, number % 256
    return images


def numbers(images: torch.Tensor) -> list[int]:
    """Return which ones these images are."""
    return (images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1].long()).tolist()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Return the digits with numbers for images; their labels are what they were."""
    digits = load_dataset("digits")
    return replace(
        digits,
        images=numbered(len(digits.labels)),
        test_images=numbered(len(digits.test_labels), TEST_FROM),
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the next training is given, and what is tested."""
    found: dict[str, Any] = {"tested": []}

    def train(
        model: torch.nn.Module, data: TrainingData, *_: object, **__: object
    ) -> Iterator[RungReport]:
        model.train()
        found["data"] = data
        yield report_of(0, 0.5)

    def confusion(
        _: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, *__: object
    ) -> torch.Tensor:
        found["tested"].append((numbers(images), labels.tolist()))
        return torch.eye(10, dtype=torch.int64)

    monkeypatch.setattr("nas.engines.worker.train", train)
    monkeypatch.setattr("nas.engines.worker.confusion", confusion)
    return found


def work(dataset: Dataset, mode: Mode, split_seed: int = 3, size: int = 240) -> None:
    """Let a worker do a job of this kind."""
    config = WorkerConfig(split_seed=split_seed, val_size=size, device="cpu")
    job = Job(
        number=0,
        architecture=NET,
        recipe=Recipe(epochs=1),
        seed=0,
        rungs=(1.0,),
        mode=mode,
    )
    events = list(Worker(dataset, config).events(job))
    assert len(events) == 2, events


def parts(data: TrainingData) -> tuple[list[int], list[int]]:
    """Return which images are trained on, and which measured on."""
    return numbers(data.train_images), numbers(data.val_images)


def test_a_search_trains_and_measures_on_apart_parts_of_the_official_training_set(
    dataset: Dataset, seen: dict[str, Any]
) -> None:
    """Each image is in one of the two, with its own label; none is of the test set."""
    work(dataset, "search")
    train, val = parts(seen["data"])
    assert len(val) == len(set(val)) == 240
    assert sorted(train + val) == list(range(len(dataset.labels)))
    assert seen["data"].train_labels.tolist() == dataset.labels[train].tolist()
    assert seen["data"].val_labels.tolist() == dataset.labels[val].tolist()
    assert set(seen["data"].val_labels.tolist()) == set(range(10))
    assert seen["tested"] == []


def test_the_split_is_the_seed_s_and_the_size_the_study_s(
    dataset: Dataset, seen: dict[str, Any]
) -> None:
    """Another seed holds others out, the same one the same."""
    held_out = []
    for split_seed in (3, 4, 0, 3):
        work(dataset, "search", split_seed)
        held_out.append(parts(seen["data"])[1])
    assert held_out[0] == held_out[3]
    assert len({tuple(part) for part in held_out}) == 3
    work(dataset, "search", size=100)
    assert len(parts(seen["data"])[1]) == 100


def test_a_winner_trains_on_all_training_images_and_is_tested_once(
    dataset: Dataset, seen: dict[str, Any]
) -> None:
    """On both parts together, measured on none of them, tested on the test set."""
    work(dataset, "final")
    train, val = parts(seen["data"])
    assert train == list(range(len(dataset.labels)))
    assert val == []
    assert seen["data"].train_labels.tolist() == dataset.labels.tolist()
    assert seen["tested"] == [
        (numbers(dataset.test_images), dataset.test_labels.tolist())
    ]


def test_what_trains_as_published_measures_on_the_test_set_and_says_so(
    dataset: Dataset, seen: dict[str, Any]
) -> None:
    """That is what the mode is for; no training image is measured on."""
    work(dataset, "published")
    train, val = parts(seen["data"])
    assert train == list(range(len(dataset.labels)))
    assert val == numbers(dataset.test_images)


def large(path: Path) -> str:
    """Write a data set of 60,000 images, as many as MNIST has; return its path."""
    labels = np.arange(60_000) % 2
    np.savez(
        path,
        x_train=np.zeros((60_000, 8, 8), dtype=np.uint8),
        y_train=labels,
        x_test=np.zeros((2, 8, 8), dtype=np.uint8),
        y_test=labels[:2],
    )
    return str(path)


def test_a_study_of_mnist_s_size_holds_10000_images_out(tmp_path: Path) -> None:
    """And a smaller one a sixth: what a candidate's accuracy is measured on."""
    for data, held_out in ((large(tmp_path / "big.npz"), 10_000), ("digits", 240)):
        study, _ = launch(Request(studies=tmp_path, dataset=data, param_budget=900))
        with study:
            assert study.settings.val_size == held_out


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--study", "small"],
        ["search", "--study", "small", "--engine", "ray"],
        ["best", "small"],
        ["train", "small:0"],
    ],
    ids=["search", "search on ray", "best", "train"],
)
def test_every_command_splits_as_the_study_does(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str],
) -> None:
    """Its workers get the study's seed and size, whatever engine they are of."""
    data = load_dataset("digits")
    settings = make_settings(seed=7, data_fingerprint=data.fingerprint, val_size=240)
    with create(tmp_path / "studies" / "small", settings) as study:
        study.ask()
        finish(study, 0, [0.5, 0.6, 0.7])

    def start(_: object, __: object, **options: Any) -> None:
        raise EngineError(f"{options['split_seed']} {options['val_size']}")

    monkeypatch.setattr("nas.engines.local.LocalEngine.__init__", start)
    monkeypatch.setattr("nas.engines.ray.RayEngine.__init__", start)
    assert invoke(*arguments).err == "nas: 7 240\n"


def test_nas_train_holds_out_what_a_search_would(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a data set without a study, too."""

    def start(_: object, __: object, **options: Any) -> None:
        raise EngineError(f"{options['split_seed']} {options['val_size']}")

    monkeypatch.setattr("nas.engines.local.LocalEngine.__init__", start)
    path = large(tmp_path / "big.npz")
    net = tmp_path / "net.json"
    net.write_text(replace(NET, num_classes=2).to_json())
    assert invoke("train", net, "--dataset", path).err == "nas: 0 10000\n"
