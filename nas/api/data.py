"""`Data`: a data set from a Python program's arrays, files or torch datasets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from nas.api.settings import image_size_of
from nas.api.words import in_python
from nas.data import Dataset, load_dataset
from nas.data.arrays import load_arrays
from nas.data.reason import reason
from nas.errors import DataError, UsageError


class Data:
    """Images and labels in memory, checked: the `data` of all functions of nas.

    `nas.Data("mnist")` loads a data set by name, as `--dataset` does: mnist, fashion-mnist,
    kmnist, cifar10, svhn or digits, or the path of a .npz file, a folder or a .csv file. `data_dir`
    is a folder with the files of a named set. `image_size` resizes images in files to this
    height and width. Raises DataError, one line with the remedy, for an unknown, missing or
    damaged data set.
    """

    @in_python
    def __init__(
        self,
        name: str | Path,
        *,
        data_dir: str | Path | None = None,
        image_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Load the data set; image files are stretched to ``image_size`` (h, w)."""
        if not isinstance(name, str | Path):
            raise DataError(
                f"nas.Data takes a name or a path, and this is a {type(name).__name__}: "
                "nas.Data.from_arrays(x_train, y_train) takes arrays, "
                "nas.Data.from_dataset(train, test) torch datasets"
            )
        self.data_dir = None if data_dir is None else Path(data_dir)
        self.dataset = load_dataset(
            str(name), self.data_dir, image_size=image_size_of(image_size)
        )

    @classmethod
    def from_arrays(
        cls,
        x_train: Any,
        y_train: Any,
        x_test: Any = None,
        y_test: Any = None,
        *,
        x_val: Any = None,
        y_val: Any = None,
        class_names: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> Self:
        """Take numpy arrays, torch tensors, or nested lists; they are copied.

        - `x_train`, `x_test`, `x_val`: images [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 to
          4 channels, or signals [N, T] or [N, C, T]. uint8 from 0 to 255, or other numbers,
          which are scaled to that; `notes` tells how.
        - `y_train`, `y_test`, `y_val`: classes [N], as integers 0, 1, 2, ... or text.
        - `x_test`, `y_test`: without them, a sixth of the images, at most 10,000, becomes the
          test set: each class in proportion, the same on every run.
        - `x_val`, `y_val`: the validation split. Without them it is held out of the training set.
        - `name`: what the study is named after.

        The test set is only read after the last epoch of a full training, except by
        `nas.train(..., like_published=True)`. Raises DataError that names the array.
        """
        arrays = {
            "x_train": _array(x_train, f"{name}: x_train"),
            "y_train": _array(y_train, f"{name}: y_train"),
        }
        for part, x, y in (("test", x_test, y_test), ("val", x_val, y_val)):
            if (x is None) != (y is None):
                raise DataError(f"{name}: give both x_{part} and y_{part}, or neither")
            if x is not None:
                arrays[f"x_{part}"] = _array(x, f"{name}: x_{part}")
                arrays[f"y_{part}"] = _array(y, f"{name}: y_{part}")
        try:
            copied = {key: np.array(array) for key, array in arrays.items()}
            dataset = load_arrays(name, name, copied)
        except MemoryError as error:
            raise DataError(
                f"{name}: no memory to copy the arrays: free some"
            ) from error
        return cls._of(_named(dataset, class_names))

    @classmethod
    def from_npz(cls, path: str | Path) -> Self:
        """Read a .npz file with x_train, y_train, x_test and y_test, as in `from_arrays`.

        Raises DataError that names the array.
        """
        if Path(path).suffix.lower() != ".npz":
            raise DataError(
                f"{path} is not an .npz file; give one, or use another from_..."
            )
        return cls(path)

    @classmethod
    def from_folder(cls, path: str | Path) -> Self:
        """Read a folder of images: train/ and, optionally, test/, with a folder per class.

        Raises DataError that names the unreadable files.
        """
        if not Path(path).expanduser().is_dir():
            raise DataError(f"{path} is not a folder; give one with train/ and test/")
        return cls(path)

    @classmethod
    def from_dataset(
        cls,
        train: Iterable[Any],
        test: Iterable[Any],
        *,
        class_names: Sequence[str] | None = None,
        name: str = "dataset",
    ) -> Self:
        """Take two torch datasets that yield (image, label) pairs.

        An image is a PIL image, or a tensor or array [H, W], [C, H, W] or [H, W, C] as in
        `from_arrays`, not normalised, all of one size. Each item is read once, so remove
        random transforms; nas augments during training. Class names are `class_names`, or
        else `train.classes` if it exists. Raises DataError.
        """
        if class_names is None:
            class_names = getattr(train, "classes", None)
        x_train, y_train = _pairs(train, f"{name}: train")
        x_test, y_test = _pairs(test, f"{name}: test")
        return cls.from_arrays(
            x_train, y_train, x_test, y_test, class_names=class_names, name=name
        )

    @classmethod
    def _of(cls, dataset: Dataset) -> Self:
        made = cls.__new__(cls)
        made.data_dir = None
        made.dataset = dataset
        return made

    @property
    def name(self) -> str:
        """The name or path that it was loaded by."""
        return self.dataset.name

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.dataset.input_shape

    @property
    def num_classes(self) -> int:
        """Labels are 0 to `num_classes - 1`."""
        return self.dataset.num_classes

    @property
    def notes(self) -> tuple[str, ...]:
        """Conversions and warnings, one line each."""
        return self.dataset.notes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.dataset.class_names

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        return (
            f"<Data {self.name}: {len(self.dataset.labels):,} training and "
            f"{len(self.dataset.test_labels):,} test images of {shape}, "
            f"{self.num_classes} classes>"
        )


def dataset_of(
    data: Data | str | Path | None, data_dir: str | Path | None
) -> Dataset | None:
    """Return a data set that is in memory; None for a name, which is loaded later.

    Raises UsageError for a ``data_dir`` with data in memory, DataError for no data.
    """
    if isinstance(data, Data):
        if data_dir is not None:
            raise UsageError(
                "--data-dir is for a data set by its name: this one is in memory"
            )
        return data.dataset
    if data is None or isinstance(data, str | Path):
        return None
    raise DataError(
        f"data is a {type(data).__name__}: give a name, a path or nas.Data, such as "
        "nas.Data.from_arrays(x_train, y_train, x_test, y_test) or "
        "nas.Data.from_dataset(train, test)"
    )


def folder_of(
    data: Data | str | Path | None, data_dir: str | Path | None
) -> Path | None:
    """Return the folder in which a named data set lies, if one was given."""
    if isinstance(data, Data):
        return data.data_dir
    return None if data_dir is None else Path(data_dir)


def name_of(data: Data | str | Path | None) -> str | None:
    """Return the name of a data set to load later, else None."""
    return str(data) if isinstance(data, str | Path) else None


def _array(value: Any, source: str) -> npt.NDArray[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype is torch.bfloat16:  # numpy lacks bfloat16
            value = value.float()
        return np.asarray(value.numpy())
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{source} is not an array ({reason(error)}): give a numpy array or a tensor, "
            "all images of one shape"
        ) from error
    if array.dtype.kind == "O":
        raise DataError(f"{source} holds Python objects: give an array of numbers")
    return array


def _image(value: Any, source: str) -> npt.NDArray[Any]:
    # Only these PIL modes have plain gray or RGB values.
    if hasattr(value, "convert") and getattr(value, "mode", "L") not in {"L", "RGB"}:
        value = value.convert("RGB")
    return _array(value, source)


def _named(dataset: Dataset, class_names: Sequence[str] | None) -> Dataset:
    if class_names is None:
        return dataset
    names = tuple(map(str, class_names))
    if len(names) != dataset.num_classes:
        raise DataError(
            f"{dataset.name}: {dataset.num_classes} classes have images, but there are "
            f"{len(names)} class names; give one per class"
        )
    return replace(dataset, class_names=names)


def _pairs(
    dataset: Iterable[Any], source: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the images and the labels of a torch dataset."""
    images: list[npt.NDArray[Any]] = []
    labels: list[int] = []
    for number, pair in enumerate(_items(dataset, source)):
        try:
            image, label = pair
            images.append(_image(image, source))
            labels.append(int(label))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{source}: item {number} is not a pair of an image and a whole number "
                f"({reason(error)})"
            ) from error
        if images[-1].shape != images[0].shape:
            raise DataError(
                f"{source}: image {number} has shape {images[-1].shape}, the first one "
                f"{images[0].shape}; bring all images to one size"
            )
    if not images:
        raise DataError(f"{source} is empty; give at least one image per class")
    return np.stack(images), np.array(labels, dtype=np.int64)


def _items(dataset: Any, source: str) -> Iterator[Any]:
    # Some torch datasets never raise IndexError, so iterating over them would not end.
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        return (dataset[number] for number in range(len(dataset)))
    if hasattr(dataset, "__iter__"):
        return (item for item in dataset)
    raise DataError(
        f"{source} is a {type(dataset).__name__}: give a torch Dataset of (image, label)"
    )
