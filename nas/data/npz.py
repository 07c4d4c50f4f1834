"""The user's own arrays in one numpy file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.arrays import KEYS, load_arrays
from nas.data.dataset import MAX_BYTES, Dataset
from nas.data.reason import reason
from nas.errors import DataError


def load_npz(name: str, path: Path) -> Dataset:
    """Return the data set in a ``.npz`` by the rules of nas.data.arrays.

    Pickled arrays are not read. Raises DataError naming the array at fault.
    """
    return load_arrays(name, str(path), _read(path))


def _read(path: Path) -> dict[str, Any]:
    """Return the arrays of KEYS, and None for every other name."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path} is not a complete .npz file ({reason(error)}); write it with "
            "numpy.savez_compressed"
        ) from error
    if size > MAX_BYTES:
        raise DataError(
            f"{path} unpacks to {size / 2**30:.1f} GiB; at most {MAX_BYTES >> 30} GiB "
            "are read, so give fewer or smaller images"
        )
    key = KEYS[0]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = dict.fromkeys(file.files)
            for key in KEYS:
                if key in arrays:
                    arrays[key] = file[key]
    except Exception as error:  # damaged members raise nearly everything
        raise DataError(
            f"{path}: {key} cannot be read ({reason(error)}); save plain arrays with "
            "numpy.savez_compressed: of numbers, texts as .astype(str)"
        ) from error
    return arrays
