"""Summarises a data set as counts per class and as a contact sheet."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch

from nas.data import download, mnist
from nas.data.dataset import Dataset

SIZES = {
    "mnist": "60,000 + 10,000 of 1x28x28",
    "fashion-mnist": "60,000 + 10,000 of 1x28x28",
    "kmnist": "60,000 + 10,000 of 1x28x28",
    "cifar10": "50,000 + 10,000 of 3x32x32",
    "svhn": "73,257 + 26,032 of 3x32x32",
    "digits": "1,442 + 355 of 1x8x8",
}
"""Numbers of training and test images of the named sets."""

_CACHED = {
    "mnist": f"{mnist.LAYOUT}/train-images-idx3-ubyte",
    "fashion-mnist": "FashionMNIST/raw/train-images-idx3-ubyte.gz",
    "kmnist": "KMNIST/raw/train-images-idx3-ubyte.gz",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "svhn": "train_32x32.mat",
}

_PER_CLASS = 12
_MOST_CLASSES = 50
_GAP = 2


def whereabouts(name: str) -> str:
    """Return where a named set is: here, or to be fetched when first used."""
    if name not in _CACHED:
        return "comes with scikit-learn"
    if (download.cache_dir() / _CACHED[name]).exists():
        return f"here, in {download.cache_dir()}"
    return "not here: fetched when first used"


def class_counts(dataset: Dataset) -> list[list[int]]:
    """Return how many training, validation and test images each class has.

    The validation split is that of seed 0. Raises DataError if the set cannot be split.
    """
    train, val = dataset.split(0, dataset.val_size)
    labels = (dataset.labels[train], dataset.labels[val], dataset.test_labels)
    counts = [part.bincount(minlength=dataset.num_classes) for part in labels]
    rows: list[list[int]] = torch.stack(counts, dim=1).tolist()
    return rows


def contact_sheet(dataset: Dataset) -> bytes:
    """Return a PNG with a row of up to 12 training images per class.

    The images are spread evenly over the set. At most the first 50 classes are shown.
    Images with 3 channels are shown as RGB; of others the first channel is shown.
    """
    from PIL import Image

    channels, height, width = dataset.input_shape
    labels = dataset.labels.numpy()
    images = dataset.images.numpy()
    rows = min(dataset.num_classes, _MOST_CLASSES)
    step_y, step_x = height + _GAP, width + _GAP
    shown = 3 if channels == 3 else 1
    sheet: npt.NDArray[np.uint8] = np.full(
        (rows * step_y + _GAP, _PER_CLASS * step_x + _GAP, shown), 96, dtype=np.uint8
    )
    for row in range(rows):
        members = np.flatnonzero(labels == row)
        places = np.linspace(0, len(members) - 1, min(_PER_CLASS, len(members)))
        for column, place in enumerate(places.round().astype(int)):
            top, left = _GAP + row * step_y, _GAP + column * step_x
            picture = images[members[place]][:shown].transpose(1, 2, 0)
            sheet[top : top + height, left : left + width] = picture
    file = io.BytesIO()
    Image.fromarray(sheet if shown == 3 else sheet[..., 0]).save(file, format="PNG")
    return file.getvalue()
