"""The user's own images in one numpy file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.data.dataset import Dataset, make_dataset
from nas.data.reason import reason
from nas.errors import DataError

KEYS = ("x_train", "y_train", "x_test", "y_test")

MAX_BYTES = 8 << 30
"""What a file may unpack to: beyond this it is a zip bomb or no tiny-image set."""

CHUNK = 4096
"""Float images that are scaled at a time: keeps the extra memory small."""


def load_npz(name: str, path: Path) -> Dataset:
    """Return the data set in a ``.npz`` with the four arrays of KEYS.

    x: uint8, or floats from 0 to 1; [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1
    or 3. y: whole numbers [N] or [N, 1], the classes 0, 1, 2, ... Nothing pickled is
    read. Raises DataError naming the array at fault.
    """
    arrays = _read(path)
    return make_dataset(
        name,
        _images(arrays["x_train"], f"{path}: x_train"),
        _labels(arrays["y_train"], f"{path}: y_train"),
        _images(arrays["x_test"], f"{path}: x_test"),
        _labels(arrays["y_test"], f"{path}: y_test"),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path} is no whole .npz file ({reason(error)}); write it with "
            "numpy.savez_compressed"
        ) from error
    if size > MAX_BYTES:
        raise DataError(
            f"{path} unpacks to {size / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} GiB "
            "are read, so give fewer or smaller images"
        )
    arrays: dict[str, Any] = {}
    key = KEYS[0]
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files
            for key in KEYS:
                if key in names:
                    arrays[key] = file[key]
    except Exception as error:  # damaged members raise nearly everything
        raise DataError(
            f"{path}: {key} cannot be read ({reason(error)}); save plain number arrays "
            "with numpy.savez_compressed"
        ) from error
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise DataError(
            f"{path} has no {', '.join(missing)} (it has "
            f"{', '.join(names) or 'nothing'}); give {', '.join(KEYS)}"
        )
    return arrays


def _images(array: Any, source: str) -> npt.NDArray[np.uint8]:
    """Return uint8 [N, C, H, W]."""
    if not isinstance(array, np.ndarray) or array.ndim not in (3, 4):
        raise DataError(
            f"{source} has shape {np.shape(array)}; give [N, H, W], [N, H, W, C] or "
            "[N, C, H, W]"
        )
    if array.ndim == 3:
        array = array[:, None]
    # Where both ends look like channels an image is 3 pixels at most either way.
    elif array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8:
        return np.asarray(array, dtype=np.uint8)
    if array.dtype.kind != "f":
        raise DataError(
            f"{source} is {array.dtype}; give uint8 from 0 to 255 or floats from 0 to 1"
        )
    scaled = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), CHUNK):
        chunk = array[start : start + CHUNK]
        # Written so that a NaN fails, too.
        if not ((chunk >= 0) & (chunk <= 1)).all():
            raise DataError(
                f"{source} has values outside 0 to 1 or NaN; scale them, or give uint8 from "
                "0 to 255"
            )
        scaled[start : start + CHUNK] = np.rint(chunk.astype(np.float64) * 255)
    return scaled


def _labels(array: Any, source: str) -> npt.NDArray[Any]:
    """Return them as [N]."""
    # Keras' own data sets have their labels in a column.
    if isinstance(array, np.ndarray) and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if not isinstance(array, np.ndarray) or array.ndim != 1:
        raise DataError(
            f"{source} has shape {np.shape(array)}; give one label an image, [N]"
        )
    return array
