"""nas.Data: the same data from arrays, files and torch datasets, and what is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calling import digits, digits_as_arrays, the_line
from PIL import Image
from torch.utils.data import IterableDataset, TensorDataset

import nas
from nas.errors import DataError


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


def test_without_test_arrays_a_part_is_held_out() -> None:
    """As for an .npz without them; it is said."""
    arrays = digits_as_arrays()
    data = nas.Data.from_arrays(arrays["x_train"], arrays["y_train"])
    assert len(data.dataset.test_labels) == len(arrays["y_train"]) // 6
    assert any("there is no test set" in note for note in data.notes)


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
        (of_arrays(x_test=None), "arrays: give both x_test and y_test, or neither"),
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
        (
            lambda: nas.Data(np.zeros((3, 8, 8))),  # type: ignore[arg-type]
            "this is a ndarray: nas.Data.from_arrays(x_train, y_train) takes arrays",
        ),
        (lambda: nas.Data("mnist", data_dir="nowhere"), "check data_dir= and NAS_DATA"),
    ],
)
def test_bad_data_is_one_line(make: Callable[[], object], words: str) -> None:
    """It names the array, file or item, in the caller's words."""
    with pytest.raises(DataError) as caught:
        make()
    assert words in the_line(caught.value)
    assert tempfile.gettempdir() not in str(caught.value)
