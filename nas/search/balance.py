"""Balanced accuracy, and how informative an accuracy is with unequal classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nas.candidates.candidate import chance_level


def balance(confusions: Sequence[list[list[int]] | None]) -> dict[str, Any]:
    """Return what a report tells beside the test accuracy; {} where nothing was counted.

    ``confusions`` has, of each seed, how often each class (row) got each answer
    (column). ``test_confusion`` is their sum, ``test_accuracy_by_class`` the share of
    each class that is right (None of a class without test images) and
    ``test_balanced_accuracy`` the mean of these; ``majority_class`` is the largest
    class of the test set, and always answering it is right ``majority_share`` times.
    """
    if not confusions or any(one is None for one in confusions):
        return {}
    counts = np.sum([np.array(one) for one in confusions], axis=0)
    sizes = counts.sum(axis=1)
    by_class = [
        int(right) / int(size) if size else None
        for right, size in zip(counts.diagonal(), sizes, strict=True)
    ]
    known = [share for share in by_class if share is not None]
    return {
        "test_balanced_accuracy": sum(known) / len(known),
        "test_accuracy_by_class": by_class,
        "majority_class": int(sizes.argmax()),
        "majority_share": int(sizes.max()) / int(sizes.sum()),
        "test_confusion": counts.tolist(),
        "test_confusion_is": "rows: true class, columns: answer; the sum of all seeds",
    }


def effective_size(counts: Sequence[int]) -> int:
    """Return the number of images on which plain accuracy has the noise of the balanced one.

    ``counts`` are the images of each class; those without any do not count. With the
    same share right in each class the variances are equal.
    """
    known = [count for count in counts if count]
    return max(1, round(len(known) ** 2 / sum(1 / count for count in known)))


def no_better_than_majority(accuracy: float, share: float, images: int) -> bool:
    """Return whether an accuracy is not above the largest class's share by its noise.

    ``images`` is how many it was measured on; the noise is two standard errors.
    """
    return accuracy <= chance_level(share, images)
