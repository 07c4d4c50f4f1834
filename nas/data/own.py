"""The steps that all of the user's own sets share, from arrays or from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas.data.dataset import Dataset, check_part, count_classes, make_dataset
from nas.data.split import default_val_size, split_indices
from nas.errors import DataError

Part = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]
"""Images uint8 [N, C, H, W] and labels [N]."""

TEST_SEED = 0
"""The seed of the test split of a set without one; it must never change."""

_NAMED = 10
_FEW = 20


def assemble(
    name: str,
    parts: Mapping[str, Part],
    class_names: tuple[str, ...] | None,
    notes: Sequence[str],
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    signal_length: int = 0,
) -> Dataset:
    """Return the data set of the parts "train" and, if present, "val" and "test".

    Without a test part, a stratified one is drawn from the training part, always the
    same. The notes list oddities and conversions. Raises DataError if the parts do not
    form a classification problem.
    """
    told = list(notes)
    images, labels = parts["train"]
    if "test" in parts:
        test_images, test_labels = parts["test"]
    else:
        check_part(name, "training", images, labels)
        count_classes(name, labels, labels)
        numbers = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.int64))
        size = default_val_size(len(labels))
        rest, drawn = split_indices(
            numbers, seed=TEST_SEED, val_size=size, class_names=class_names
        )
        told.append(
            f"there is no test set: {size:,} of the {len(labels):,} training images are "
            "held out as one, each class in proportion, always the same"
        )
        test_images, test_labels = images[drawn.numpy()], labels[drawn.numpy()]
        images, labels = images[rest.numpy()], labels[rest.numpy()]
    num_val = 0
    if "val" in parts:
        val_images, val_labels = parts["val"]
        check_part(name, "validation", val_images, val_labels)
        if images.shape[1:] != val_images.shape[1:]:
            raise DataError(
                f"{name}: validation images are of shape {val_images.shape[1:]}, "
                f"training images {images.shape[1:]}; bring them to one size"
            )
        if count_classes(name, labels, labels) <= int(val_labels.max()):
            raise DataError(
                f"{name}: validation label {val_labels.max()} is in no training image"
            )
        num_val = len(val_labels)
        images = np.concatenate([images, val_images])
        labels = np.concatenate([labels, val_labels])
    dataset = make_dataset(
        name,
        *(images, labels, test_images, test_labels, class_names),
        num_val=num_val,
        value_range=value_range,
        signal_length=signal_length,
    )
    return replace(dataset, notes=(*told, *_oddities(dataset)))


def listed(names: Sequence[str]) -> str:
    """Return "a, b, c and 7 more"."""
    shown = ", ".join(names[:_NAMED])
    rest = len(names) - _NAMED
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def _oddities(dataset: Dataset) -> list[str]:
    """Return warnings: constant or repeated images, rare or dominant classes."""
    lines = []
    images, test_images = dataset.images.numpy(), dataset.test_images.numpy()
    for part, some in (("training", images), ("test", test_images)):
        constant = _constant(some)
        if len(constant):
            lines.append(
                f"warning: {len(constant):,} of {len(some):,} {part} images hold one "
                f"value only, the first is number {constant[0]} (from 0)"
            )
    known = {image.tobytes() for image in images}
    repeated = sum(image.tobytes() in known for image in test_images)
    if repeated:
        lines.append(
            f"warning: {repeated:,} of {len(test_images):,} test images are also "
            "training images: a net can memorise them, so the test accuracy is too high"
        )
    counts = dataset.labels.bincount(minlength=dataset.num_classes)
    share = int(counts.max()) / len(dataset.labels)
    if share > 0.5 and share * dataset.num_classes > 1.2:
        lines.append(
            f"warning: {100 * share:.1f} % of the training images are of one class, "
            f"{dataset.class_names[int(counts.argmax())]!r}: always answering it has that "
            "accuracy, too; look at the balanced accuracy"
        )
    rare = [
        f"{dataset.class_names[label]} ({count})"
        for label, count in enumerate(counts.tolist())
        if count < _FEW
    ]
    if rare:
        lines.append(f"warning: classes of fewer than {_FEW} images: {listed(rare)}")
    return lines


def _constant(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the indices of the images that are constant in each channel."""
    flat = images.reshape(*images.shape[:2], -1)
    same = flat.max(axis=2) == flat.min(axis=2)  # [N, C]
    return np.flatnonzero(same.all(axis=1))
