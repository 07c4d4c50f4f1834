"""Loads a Dataset by its name or from a path."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from nas.data import digits, npz, vision
from nas.data.dataset import Dataset
from nas.data.reason import reason
from nas.errors import DataError

_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "mnist": vision.load_mnist,
    "fashion-mnist": lambda data_dir: vision.load_idx_set("fashion-mnist", data_dir),
    "kmnist": lambda data_dir: vision.load_idx_set("kmnist", data_dir),
    "cifar10": vision.load_cifar10,
    "svhn": vision.load_svhn,
    "digits": lambda _: digits.load_digits(),
}

DATASETS = tuple(_LOADERS)
"""The names that load_dataset knows; anything else is a path."""


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    *,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Return a data set by its name, or from a path, checked and in memory.

    ``name`` is one of DATASETS, or the path of a ``.npz``, of a folder of images or of
    a ``.csv`` that lists them. A data set from a path is named by the absolute path,
    which is valid from any folder. ``image_size`` is the height and width that image
    files are stretched to; other sets keep their own. ``data_dir``, or else
    NAS_DATA_DIR, is a folder with the files of the named set; without either they come
    from the cache or are downloaded into it.
    Raises DataError, one line with the remedy, if there is no such data set or its
    files are missing, damaged or of a wrong shape.
    """
    try:
        if name in _LOADERS:
            return _LOADERS[name](_data_dir(data_dir))
        return _load_path(name, image_size)
    except (OSError, MemoryError) as error:
        raise DataError(f"{name} cannot be read ({reason(error)})") from error


def _data_dir(given: Path | None) -> Path | None:
    if given is None:
        from_environment = os.environ.get("NAS_DATA_DIR")
        if not from_environment:
            return None
        given = Path(from_environment)
    if not given.is_dir():
        raise DataError(
            f"the data folder {given} is not there; check --data-dir and NAS_DATA_DIR"
        )
    return given


def _load_path(name: str, image_size: tuple[int, int] | None) -> Dataset:
    path = Path(name).expanduser()
    # Path.exists would raise for a name that is too long or has a zero byte.
    if not name or not os.path.exists(path):  # noqa: PTH110
        raise DataError(_unknown(name))
    name = os.path.abspath(path)  # noqa: PTH100 - keeps the user's symbolic links
    if path.is_dir():
        # Imported here as only image files need PIL.
        from nas.data.folder import load_folder

        return load_folder(name, path, image_size)
    if path.suffix.lower() == ".npz":
        return npz.load_npz(name, path)
    if path.suffix.lower() == ".csv":
        from nas.data.table import load_table

        return load_table(name, path, image_size)
    if "-idx" in path.name:
        raise DataError(
            f"{path} is a file of MNIST's format: give its folder with --data-dir, and "
            "--dataset mnist, fashion-mnist or kmnist"
        )
    raise DataError(
        f"{path} is neither a .npz file nor a .csv nor a folder; give one of them"
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.lower().replace("_", "-"), DATASETS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return (
        f"there is no data set {name!r}: no name (known: {', '.join(DATASETS)}) and no "
        f"file or folder{hint}"
    )
