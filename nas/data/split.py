"""The validation split, held out of the official training set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nas.errors import DataError

DEFAULT_VAL_SIZE = 10_000
"""The most that are held out: a sixth of MNIST's 60,000, as of any smaller set."""


def default_val_size(images: int) -> int:
    """Return how many images of a training set are held out of it by default."""
    return min(DEFAULT_VAL_SIZE, images // 6)


def split_indices(
    labels: torch.Tensor,
    *,
    seed: int,
    val_size: int | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split a training set, stratified by class and determined by the seed.

    ``labels`` is int64 [N]. ``val_size`` is the number of validation images, by default
    10,000 or a sixth of N, whichever is less. Returns the indices of the training and
    of the validation images, int64, each sorted. ``class_names`` are only used in error
    messages.

    Raises DataError if a part would miss a class.
    """
    values = labels.cpu().numpy()
    if val_size is None:
        val_size = default_val_size(len(values))
    classes, counts = np.unique(values, return_counts=True)
    for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
        if count < 2:
            raise DataError(
                f"class {class_names[label] if class_names else label} has a single "
                "training image; training and validation (or test, where none is given) "
                "need one each, so give at least 2 images per class"
            )
    shares = _shares(classes.tolist(), counts.tolist(), val_size)

    # numpy guarantees a stable RandomState stream, so a study's split survives updates
    # of numpy and torch; default_rng and randperm have no such guarantee.
    words = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    random = np.random.RandomState(words)
    held_out = np.zeros(len(values), dtype=bool)
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(values == label)
        held_out[random.permutation(members)[:share]] = True
    return (
        torch.from_numpy(np.flatnonzero(~held_out)),
        torch.from_numpy(np.flatnonzero(held_out)),
    )


def _shares(classes: list[int], counts: list[int], val_size: int) -> list[int]:
    """Return how many images each class gives, by largest remainders, at least one."""
    total = sum(counts)
    if not len(classes) <= val_size <= total - len(classes) or not classes:
        raise DataError(
            f"{total} training images of {len(classes)} classes cannot be divided into "
            f"{total - val_size} for training and {val_size} for validation with every "
            "class in both; give more images, at least six per class"
        )
    # Integers, so that equal shares compare equal on every machine.
    shares = [val_size * count // total for count in counts]
    by_remainder = sorted(
        range(len(counts)), key=lambda i: (-(val_size * counts[i] % total), i)
    )
    for index in by_remainder[: val_size - sum(shares)]:
        shares[index] += 1
    # A rare class takes one from the class with the most, or gives one to it.
    for index, count in enumerate(counts):
        while shares[index] < 1:
            shares[max(range(len(shares)), key=shares.__getitem__)] -= 1
            shares[index] += 1
        while shares[index] > count - 1:
            room = [n - s for n, s in zip(counts, shares, strict=True)]
            shares[max(range(len(shares)), key=room.__getitem__)] += 1
            shares[index] -= 1
    return shares
