"""Helpers of the tests of `import nas`: the digits as one's own data, one error line.

No fixtures and no tests; the test files import what they need.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import nas
from nas.data import load_dataset

CPU: dict[str, Any] = {"device": "cpu", "workers": 1}


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
