"""`Dataset`, and the checks on the arrays of every source."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas.data.split import default_val_size, split_indices
from nas.errors import DataError

MAX_BYTES = 8 << 30
"""Limit for a user's own set; a larger one is a zip bomb or not a tiny-image set."""

MIN_PIXELS = 4
"""Minimum height and width of an image."""

MAX_CHANNELS = 64
"""Limit for images and signals; more channels mean that the axes are in wrong order."""

CHUNK = 4096
"""Images counted at a time for the mean, as bincount converts them to int64."""


# No eq: comparing two tensors gives no single truth value.
@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images and labels in memory, on the CPU, in the order of the source.

    Attributes:
        name: a name of DATASETS, or a path.
        num_classes: labels are 0 to ``num_classes - 1``.
        class_names: one per label.
        images: the official training set, uint8 [N, C, H, W], 0 to 255.
        labels: int64 [N].
        test_images: uint8 [M, C, H, W].
        test_labels: int64 [M].
        mean: per channel, of the training images on a scale of 0 to 1.
        std: likewise (population); 1.0 for a channel that is constant.
        fingerprint: 16 hex digits of the sha256 over all four arrays. It depends on
            the data only, not on the source.
        num_val: the last ``num_val`` of ``images`` are the data's own validation
            split; 0 if it has none.
        value_range: the values of the source that became the bytes 0 and 255.
        signal_length: the number of time steps of signals, which are folded into
            rows; 0 for images.
        notes: conversions of the source and oddities in it, one line each.

    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    images: torch.Tensor
    labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    num_val: int = 0
    value_range: tuple[float, float] = (0.0, 1.0)
    signal_length: int = 0
    notes: tuple[str, ...] = ()

    @property
    def val_size(self) -> int:
        """The size of the validation split: its own, else 10,000 or a sixth."""
        return self.num_val or default_val_size(len(self.labels))

    def split(self, seed: int, val_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the indices of the training and of the validation images, int64.

        Uses the data's own validation split if it has one. Otherwise draws one with
        `nas.data.split_indices`, which may raise DataError.
        """
        if self.num_val:
            indices = torch.arange(len(self.labels))
            return indices[: -self.num_val], indices[-self.num_val :]
        return split_indices(
            self.labels, seed=seed, val_size=val_size, class_names=self.class_names
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width


def make_dataset(
    name: str,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[Any],
    test_images: npt.NDArray[np.uint8],
    test_labels: npt.NDArray[Any],
    class_names: tuple[str, ...] | None = None,
    *,
    num_val: int = 0,
    value_range: tuple[float, float] = (0.0, 1.0),
    signal_length: int = 0,
) -> Dataset:
    """Check the arrays and return them as a Dataset.

    ``images`` and ``test_images`` are uint8 [N, C, H, W], the labels integers [N].
    Without ``class_names`` the classes are called "0", "1", ... The other arguments are
    as in Dataset.

    Raises DataError if the arrays do not form a classification problem.
    """
    check_part(name, "training", images, labels)
    check_part(name, "test", test_images, test_labels)
    if images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            f"{name}: training images are {_size(images)}, test images "
            f"{_size(test_images)}; bring them to one size"
        )
    num_classes = count_classes(name, labels, test_labels)
    if class_names is None:
        class_names = tuple(str(label) for label in range(num_classes))
    elif len(class_names) != num_classes:
        raise DataError(
            f"{name}: {num_classes} classes have images, but there are "
            f"{len(class_names)} class names"
        )
    arrays = (
        np.ascontiguousarray(images),
        np.ascontiguousarray(labels, dtype=np.int64),
        np.ascontiguousarray(test_images),
        np.ascontiguousarray(test_labels, dtype=np.int64),
    )
    mean, std = _mean_and_std(torch.from_numpy(arrays[0]))
    return Dataset(
        name=name,
        num_classes=num_classes,
        class_names=class_names,
        images=torch.from_numpy(arrays[0]),
        labels=torch.from_numpy(arrays[1]),
        test_images=torch.from_numpy(arrays[2]),
        test_labels=torch.from_numpy(arrays[3]),
        mean=mean,
        std=std,
        fingerprint=_fingerprint(arrays, num_val),
        num_val=num_val,
        value_range=value_range,
        signal_length=signal_length,
    )


def check_part(
    name: str, part: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> None:
    """Raise DataError unless these are images of one size, each with a label."""
    if len(images) != len(labels):
        raise DataError(
            f"{name}: {len(images)} {part} images but {len(labels)} {part} labels; "
            "give each image one label"
        )
    if len(images) == 0:
        raise DataError(f"{name}: the {part} set is empty; give at least one image")
    _, channels, height, width = images.shape
    if not 1 <= channels <= MAX_CHANNELS:
        raise DataError(
            f"{name}: {part} images have {channels} channels; give 1 to {MAX_CHANNELS}"
        )
    if min(height, width) < MIN_PIXELS:
        raise DataError(
            f"{name}: {part} images are {height}x{width} pixels; "
            f"give at least {MIN_PIXELS}x{MIN_PIXELS}"
        )


def count_classes(
    name: str, labels: npt.NDArray[Any], test_labels: npt.NDArray[Any]
) -> int:
    """Return the number of classes K; DataError unless the labels are 0 to K - 1."""
    for part, values in (("training", labels), ("test", test_labels)):
        if values.dtype.kind not in "iu":
            raise DataError(
                f"{name}: {part} labels are {values.dtype}; give whole numbers, "
                'e.g. labels.astype("int64")'
            )
        if values.min() < 0:
            raise DataError(
                f"{name}: {part} labels go down to {values.min()}; "
                "number the classes 0, 1, 2, ..."
            )
    seen = np.unique(labels)
    if len(seen) < 2:
        raise DataError(
            f"{name}: all training images are of one class; give at least two classes"
        )
    if int(seen[-1]) != len(seen) - 1:
        gap = next(label for label, value in enumerate(seen) if label != int(value))
        raise DataError(
            f"{name}: training labels go up to {seen[-1]}, but no image has label "
            f"{gap}; number the classes 0, 1, 2, ... without a gap"
        )
    if int(test_labels.max()) >= len(seen):
        raise DataError(
            f"{name}: test label {test_labels.max()} is in no training image; "
            f"training labels are 0 to {len(seen) - 1}"
        )
    return len(seen)


def _size(images: npt.NDArray[Any]) -> str:
    channels, height, width = images.shape[1:]
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"


def _mean_and_std(
    images: torch.Tensor,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population deviation per channel of uint8 [N, C, H, W] / 255.

    The sums are integers from each channel's histogram, so equal on every machine.
    """
    means: list[float] = []
    stds: list[float] = []
    levels = torch.arange(256)
    for channel in images.unbind(dim=1):
        counts = torch.zeros(256, dtype=torch.int64)
        for chunk in torch.split(channel, CHUNK):
            counts += chunk.flatten().bincount(minlength=256)
        number = channel.numel()
        total = int((counts * levels).sum())
        squares = int((counts * levels * levels).sum())
        means.append(total / number / 255)
        deviation = math.sqrt(number * squares - total**2) / number / 255
        stds.append(deviation or 1.0)
    return tuple(means), tuple(stds)


def _fingerprint(arrays: tuple[npt.NDArray[Any], ...], num_val: int) -> str:
    """Return 16 hex digits of the sha256 of dtypes, shapes, bytes and the split."""
    digest = hashlib.sha256(f"validation {num_val}".encode() if num_val else b"")
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(little.data)
    return digest.hexdigest()[:16]
