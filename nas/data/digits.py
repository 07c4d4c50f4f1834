"""scikit-learn's digits: 1,797 images of 8x8, embedded in the library.

The test part of the UCI "Optical Recognition of Handwritten Digits", CC BY 4.0.
"""

from __future__ import annotations

import numpy as np

from nas.data.dataset import Dataset, make_dataset

TEST_EVERY = 5
"""Every fifth image of each class is a test image."""


def load_digits() -> Dataset:
    """Return the digits: 1,442 training and 355 test images of 1x8x8, ten classes.

    The set has no official split. Ours is fixed: every fifth image of each class, in
    the set's own order, is a test image. The values 0 to 16 become 0 to 255.
    """
    # Imported here as scikit-learn is slow to import.
    from sklearn.datasets import (  # type: ignore[import-untyped,unused-ignore]
        load_digits as load_sklearn,
    )

    bunch = load_sklearn()
    values = np.asarray(bunch.images)
    labels = np.asarray(bunch.target)
    images = np.rint(values * (255 / 16)).astype(np.uint8)[:, None]
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        is_test[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return make_dataset(
        "digits", images[~is_test], labels[~is_test], images[is_test], labels[is_test]
    )
