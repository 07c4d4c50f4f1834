"""mnist and its relatives, cifar10 and svhn: torchvision's files and checksums.

The cache and a data folder have the layout of a torchvision root, so files that other
programs fetched with torchvision can be used.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.data import download, mnist
from nas.data.dataset import Dataset, make_dataset
from nas.data.idx import decode_idx, find_idx_files, read_bytes
from nas.data.reason import reason
from nas.errors import DataError

logger = logging.getLogger("nas")


def load_mnist(data_dir: Path | None) -> Dataset:
    """Return MNIST: 60,000 and 10,000 images of 1x28x28, ten classes.

    The files may be anywhere below ``data_dir``, packed or not. Raises DataError.
    """
    expected = {f"{mnist.LAYOUT}/{file}": md5 for file, md5 in mnist.MD5.items()}
    return _load_idx("mnist", data_dir, expected, lambda _: mnist.fetch())


def load_idx_set(name: str, data_dir: Path | None) -> Dataset:
    """Return "fashion-mnist" or "kmnist", as load_mnist returns MNIST."""
    # Imported here, as in the other loaders, because torchvision is slow to import.
    from torchvision import datasets

    source = {"fashion-mnist": datasets.FashionMNIST, "kmnist": datasets.KMNIST}[name]
    folder = f"{source.__name__}/raw"
    expected = {f"{folder}/{file}": md5 for file, md5 in source.resources}

    def fetch(relative: str) -> dict[str, bytes]:
        file = relative.rpartition("/")[2]
        urls = [mirror + file for mirror in source.mirrors]
        return {relative: download.fetch(urls, expected[relative])}

    return _load_idx(name, data_dir, expected, fetch, tuple(source.classes))


FASHION_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
"""The md5 of Fashion-MNIST's unpacked files, headers included."""


def _load_idx(
    name: str,
    data_dir: Path | None,
    expected: dict[str, str],
    fetch: Callable[[str], dict[str, bytes]],
    class_names: tuple[str, ...] | None = None,
) -> Dataset:
    """Return the set whose files are ``expected``: paths below a root, and md5s."""
    if data_dir:
        paths = [_find_idx(name, data_dir, path, md5) for path, md5 in expected.items()]
    else:
        root = _complete(name, None, expected, fetch)
        paths = [root / relative for relative in expected]
    return _from_idx(name, paths, class_names)


def _find_idx(name: str, data_dir: Path, relative: str, packed_md5: str) -> Path:
    """Return the set's own file below ``data_dir``, packed or not.

    The md5 of its content identifies it, or that of torchvision's packed file. The
    content's md5 is not known for kmnist: there its format and place decide, and known
    files of other sets are excluded. Raises DataError if there is none.
    """
    plain = relative.rpartition("/")[2].removesuffix(".gz")
    found = find_idx_files(data_dir, plain)
    contents = {"mnist": mnist.MD5, "fashion-mnist": FASHION_MD5}
    known = contents[name][plain] if name in contents else None
    taken = {*mnist.MD5.values(), *FASHION_MD5.values()} - {known}
    own_place = Path(relative).parent
    # The set's own folder first, as other sets use the same file names.
    found.sort(key=lambda path: not path.parent.match(str(own_place)))
    faults = []
    for path in found:
        try:
            if path.suffix == ".gz" and download.md5(path.read_bytes()) == packed_md5:
                return path
            content = download.md5(read_bytes(path).data)
        except (OSError, DataError) as error:
            faults.append(f"{path} is cut or damaged ({reason(error)})")
            continue
        if content == known or (known is None and content not in taken):
            return path
        if name != "mnist" and content in mnist.MD5.values():
            faults.append(f"{path} belongs to MNIST, not to {name}")
        else:
            faults.append(f"{path} is cut or damaged or of another set (md5 {content})")
    why = "; ".join(faults) or f"{plain} is not there"
    raise DataError(
        f"no whole {name} in {data_dir}: {why}; put the official {', '.join(mnist.MD5)} "
        "(or each with .gz) anywhere into it, or leave the data folder out to have them "
        "fetched"
    )


def load_cifar10(data_dir: Path | None) -> Dataset:
    """Return CIFAR-10: 50,000 and 10,000 images of 3x32x32, ten classes, or DataError.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    from torchvision.datasets import CIFAR10

    folder = CIFAR10.base_folder
    files = [*CIFAR10.train_list, *CIFAR10.test_list]
    files.append([CIFAR10.meta["filename"], CIFAR10.meta["md5"]])
    expected = {f"{folder}/{file}": md5 for file, md5 in files}

    def fetch(_: str) -> dict[str, bytes]:
        packed = download.fetch([CIFAR10.url], CIFAR10.tgz_md5)
        try:
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                members = {name: archive.extractfile(name) for name in expected}
                return {name: file.read() for name, file in members.items() if file}
        except (tarfile.TarError, KeyError, EOFError) as error:
            raise OSError(f"{CIFAR10.filename}: {reason(error)}") from error

    root = _complete("cifar10", data_dir, expected, fetch)
    train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
    return make_dataset(
        "cifar10",
        train.data.transpose(0, 3, 1, 2),
        np.asarray(train.targets),
        test.data.transpose(0, 3, 1, 2),
        np.asarray(test.targets),
        tuple(train.classes),
    )


def load_svhn(data_dir: Path | None) -> Dataset:
    """Return SVHN: 73,257 and 26,032 images of 3x32x32, ten classes, or DataError.

    Netzer et al., "Reading Digits in Natural Images", 2011; without the extra images.
    """
    from torchvision.datasets import SVHN

    parts = {SVHN.split_list[part][1]: SVHN.split_list[part] for part in _SVHN_PARTS}
    expected = {file: md5 for file, (_, _, md5) in parts.items()}

    def fetch(file: str) -> dict[str, bytes]:
        return {file: download.fetch([parts[file][0]], expected[file])}

    root = _complete("svhn", data_dir, expected, fetch)
    train, test = (SVHN(root, split=part) for part in _SVHN_PARTS)
    return make_dataset("svhn", train.data, train.labels, test.data, test.labels)


_SVHN_PARTS = ("train", "test")


def _complete(
    name: str,
    data_dir: Path | None,
    expected: dict[str, str],
    fetch: Callable[[str], dict[str, bytes]],
) -> Path:
    """Return the root folder that has every file of ``expected`` with its md5.

    Files that are missing or damaged in the cache are fetched. ``data_dir`` is never
    written to; a fault in it is a DataError.
    """
    root = data_dir or download.cache_dir()
    for relative, md5 in expected.items():
        path = root / relative
        fault = _fault(path, md5)
        if fault is None:
            continue
        if data_dir:
            raise DataError(
                f"no whole {name} in {data_dir}: {relative} {fault}; put "
                f"{_listing(expected)}, or leave the data folder out to have them "
                "fetched"
            )
        if path.exists():
            logger.warning("%s %s; fetching it again", path, fault)
        try:
            contents = fetch(relative)
        except OSError as error:
            raise DataError(
                f"{name} is incomplete in the cache and cannot be downloaded ({reason(error)}); "
                f"put {_listing(expected)}, and give that folder as --data-dir or "
                "NAS_DATA_DIR"
            ) from error
        download.store(contents)
    return root


def _listing(expected: dict[str, str]) -> str:
    """Return "a, b and so on into FOLDER" for files that are all in one folder."""
    names = ", ".join(relative.rpartition("/")[2] for relative in expected)
    below = next(iter(expected)).rpartition("/")[0]
    return f"{names} into {below}/ of a folder" if below else f"{names} into a folder"


def _fault(path: Path, md5: str) -> str | None:
    if not path.exists():
        return "is not there"
    try:
        found = download.md5(path.read_bytes())
    except OSError as error:
        return f"cannot be read ({reason(error)})"
    return None if found == md5 else f"is cut or damaged (md5 {found}, not {md5})"


def _from_idx(
    name: str, paths: list[Path], class_names: tuple[str, ...] | None
) -> Dataset:
    arrays: list[npt.NDArray[Any]] = []
    for path in paths:
        raw = read_bytes(path)
        array = decode_idx(raw, path)
        if array.shape[1:] != ((28, 28) if "images" in path.name else ()):
            raise DataError(f"{path} holds {array.shape}, not {name}; replace it")
        arrays.append(array)
    images, labels, test_images, test_labels = arrays
    return make_dataset(
        name,
        images[:, None],
        labels,
        test_images[:, None],
        test_labels,
        class_names,
    )
