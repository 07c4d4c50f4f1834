"""Names, the sets of torchvision and scikit-learn, the common checks and the split."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from nas.data import (
    DATASETS,
    download,
    idx,
    load_dataset,
    mnist,
    split_indices,
    vision,
    wheel,
)
from nas.data.dataset import make_dataset
from nas.errors import DataError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep every test to itself: an empty cache, no data folder, no mirror."""

    def unreachable(*_: object) -> bytes:
        raise OSError("no network")

    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("NAS_DATA_DIR", raising=False)
    monkeypatch.setattr(download, "fetch", unreachable)
    monkeypatch.setattr(wheel, "read_raw", unreachable)


# --- names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mnst", "mnist"),
        ("MNIST", "mnist"),
        ("fashion_mnist", "fashion-mnist"),
        ("cifar", "cifar10"),
        ("digit", "digits"),
    ],
)
def test_unknown_name_is_told_with_the_nearest(name: str, near: str) -> None:
    """A slip of the pen gets all the names and the one that was meant."""
    with pytest.raises(DataError, match=f"did you mean {near}") as caught:
        load_dataset(name)
    assert all(known in str(caught.value) for known in DATASETS)


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "no/such.npz", "two\nlines"])
def test_name_of_nothing_is_a_data_error(name: str) -> None:
    """Whatever is neither a name nor a path ends in one line."""
    with pytest.raises(DataError, match="there is no data set") as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)


def test_file_of_another_kind_is_a_data_error(tmp_path: Path) -> None:
    """A path to neither a .npz nor a .csv nor a folder is refused."""
    (tmp_path / "x.txt").write_text("1,2")
    with pytest.raises(DataError, match=r"neither a \.npz file nor a \.csv"):
        load_dataset(str(tmp_path / "x.txt"))


# --- digits


def test_digits_have_their_fixed_split() -> None:
    """All 1,797 images are there once, every fifth of a class in the test part."""
    from sklearn.datasets import load_digits

    dataset = load_dataset("digits")
    bunch = load_digits()
    assert dataset.input_shape == (1, 8, 8)
    assert (len(dataset.labels), len(dataset.test_labels)) == (1442, 355)
    both = torch.cat([dataset.images, dataset.test_images])[:, 0].to(torch.float64)
    got = sorted(map(tuple, (both * 16 / 255).round().flatten(1).tolist()))
    assert got == sorted(map(tuple, bunch.images.reshape(-1, 64).tolist()))
    assert int(both.max()) == 255
    train, test = dataset.labels.bincount(), dataset.test_labels.bincount()
    assert ((train + test) // 5).tolist() == test.tolist()
    assert dataset.fingerprint == "c2fe6236f9044e37"


# --- torchvision's


def idx_files() -> dict[str, bytes]:
    """Return packed IDX files by torchvision's names, with 30 and 20 images."""
    files: dict[str, bytes] = {}
    for part, count in (("train", 30), ("t10k", 20)):
        images = np.full((count, 28, 28), count, dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            packed = gzip.compress(idx.encode_idx(array).tobytes(), mtime=0)
            files[f"{part}-{kind}-ubyte.gz"] = packed
    return files


def cifar_files() -> dict[str, bytes]:
    """Return CIFAR-10's eight files with 4 images each."""
    data = np.arange(4 * 3072).reshape(4, 3072).astype(np.uint8)
    batch = pickle.dumps({"data": data, "labels": [0, 1, 2, 1]})
    files = {f"data_batch_{number}": batch for number in range(1, 6)}
    files["test_batch"] = batch
    files["batches.meta"] = pickle.dumps({"label_names": ["plane", "car", "bird"]})
    return files


def svhn_files() -> dict[str, bytes]:
    """Return SVHN's two files with 6 images each; the label 10 stands for 0."""
    from scipy.io import savemat  # type: ignore[import-untyped,unused-ignore]

    images = np.arange(32 * 32 * 3 * 6).reshape(32, 32, 3, 6).astype(np.uint8)
    file = io.BytesIO()
    savemat(file, {"X": images, "y": np.array([[10], [1], [2], [10], [1], [2]])})
    return {"train_32x32.mat": file.getvalue(), "test_32x32.mat": file.getvalue()}


Install = Callable[[str], dict[str, bytes]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that makes torchvision take small files for the named set.

    The function returns them by their paths below a root of torchvision.
    """

    def known(name: str) -> dict[str, bytes]:
        """Make the files of that name the known ones."""
        if name == "svhn":
            files = svhn_files()
            svhn = torchvision.datasets.SVHN
            for (part, entry), raw in zip(
                list(svhn.split_list.items())[:2], files.values(), strict=True
            ):
                changed = [entry[0], entry[1], download.md5(raw)]
                monkeypatch.setitem(svhn.split_list, part, changed)
            return files
        if name == "cifar10":
            files = cifar_files()
            cifar = torchvision.datasets.CIFAR10
            table = [[file, download.md5(raw)] for file, raw in files.items()]
            monkeypatch.setattr(cifar, "train_list", table[:5])
            monkeypatch.setattr(cifar, "test_list", table[5:6])
            meta = cifar.meta | {"md5": table[6][1]}
            monkeypatch.setattr(cifar, "meta", meta)
            return {f"{cifar.base_folder}/{file}": raw for file, raw in files.items()}
        files = idx_files()
        known = {
            "fashion-mnist": torchvision.datasets.FashionMNIST,
            "kmnist": torchvision.datasets.KMNIST,
        }[name]
        resources = [(file, download.md5(raw)) for file, raw in files.items()]
        if name == "fashion-mnist":
            for file, raw in files.items():
                md5 = download.md5(gzip.decompress(raw))
                monkeypatch.setitem(vision.FASHION_MD5, file.removesuffix(".gz"), md5)
        monkeypatch.setattr(known, "resources", resources)
        return {f"{known.__name__}/raw/{file}": raw for file, raw in files.items()}

    return known


def write(root: Path, files: dict[str, bytes]) -> Path:
    """Write files by their paths below a root and return the root."""
    for relative, raw in files.items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    return root


def serve(files: dict[str, bytes]) -> Callable[..., bytes]:
    """Return a stand-in for download.fetch that has the files, or them in a tar."""

    def fetch(urls: list[str], _: str) -> bytes:
        name = urls[0].rpartition("/")[2]
        if not name.endswith(".tar.gz"):
            return next(raw for path, raw in files.items() if path.endswith(name))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path, raw in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(raw)
                archive.addfile(member, io.BytesIO(raw))
        return packed.getvalue()

    return fetch


OTHERS = ["fashion-mnist", "kmnist", "cifar10", "svhn"]


@pytest.mark.parametrize("name", OTHERS)
def test_set_is_fetched_once_then_cached(
    name: str, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is a root of torchvision, and the second load needs no network."""
    files = install(name)
    unreachable = download.fetch
    monkeypatch.setattr(download, "fetch", serve(files))
    cold = load_dataset(name)
    cache = tmp_path / "cache"
    found = [path for path in cache.rglob("*") if path.is_file()]
    assert {str(path.relative_to(cache)): path.read_bytes() for path in found} == files
    monkeypatch.setattr(download, "fetch", unreachable)
    warm = load_dataset(name)
    assert warm.fingerprint == cold.fingerprint
    assert load_dataset(name, cache).fingerprint == cold.fingerprint
    assert warm.images.dtype == torch.uint8
    assert warm.images.is_contiguous()
    assert len(warm.class_names) == warm.num_classes

    # A damaged file in the cache is fetched again, one in a data folder is not.
    damaged = found[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(DataError, match="no network"):
        load_dataset(name)
    with pytest.raises(DataError, match=r"(cut or damaged|no IDX file).*(put|replace)"):
        load_dataset(name, cache)
    monkeypatch.setattr(download, "fetch", serve(files))
    assert load_dataset(name).fingerprint == cold.fingerprint


@pytest.mark.parametrize("name", ["mnist", *OTHERS])
def test_set_out_of_reach_is_one_line_with_the_remedy(name: str) -> None:
    """Without network the error lists the files and the option to give them by."""
    with pytest.raises(DataError, match=r"no network.*--data-dir") as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", *OTHERS])
def test_data_dir_without_the_set_is_an_error(name: str, tmp_path: Path) -> None:
    """A data folder without the files is named, and nothing is fetched."""
    with pytest.raises(DataError, match="is not there; put") as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_channels_come_first(install: Install, tmp_path: Path) -> None:
    """CIFAR-10's and SVHN's pixels stand where torchvision has them."""
    root = write(tmp_path, install("cifar10") | install("svhn"))
    cifar = load_dataset("cifar10", root)
    oracle = torchvision.datasets.CIFAR10(root, train=True)
    assert torch.equal(cifar.images, torch.from_numpy(oracle.data).permute(0, 3, 1, 2))
    assert cifar.class_names == ("plane", "car", "bird")
    svhn = load_dataset("svhn", root)
    assert svhn.images.shape == (6, 3, 32, 32)
    assert svhn.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_unpacked_files_are_read(install: Install, tmp_path: Path) -> None:
    """Files that torchvision has unpacked serve without their packed ones."""
    files = install("kmnist")
    plain = {
        path.removesuffix(".gz"): gzip.decompress(raw) for path, raw in files.items()
    }
    dataset = load_dataset("kmnist", write(tmp_path / "plain", plain))
    packed = load_dataset("kmnist", write(tmp_path / "packed", files))
    assert dataset.fingerprint == packed.fingerprint
    assert dataset.class_names[:3] == ("o", "ki", "su")


@pytest.mark.parametrize("below", [".", "usr/share/fashion", "FashionMNIST/raw"])
@pytest.mark.parametrize("level", [None, 1, 9])
def test_idx_files_count_by_their_content(
    install: Install, tmp_path: Path, below: str, level: int | None
) -> None:
    """Anywhere below the folder, packed anew or not, beside another set's files."""
    files = install("fashion-mnist")
    for path, raw in files.items():
        content = gzip.decompress(raw)
        name = Path(path).name
        place = tmp_path / "data" / below / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if level is None:
            place.with_suffix("").write_bytes(content)
        else:
            place.write_bytes(gzip.compress(content, level, mtime=77))
        other = tmp_path / "data/KMNIST/raw" / name
        other.parent.mkdir(parents=True, exist_ok=True)
        odd = content[:-1] + bytes([content[-1] ^ 1])
        other.write_bytes(gzip.compress(odd, mtime=0))
    found = load_dataset("fashion-mnist", tmp_path / "data")
    whole = load_dataset("fashion-mnist", write(tmp_path / "whole", files))
    assert found.fingerprint == whole.fingerprint
    assert found.class_names[0] == "T-shirt/top"


def test_files_of_another_set_are_refused(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked files of MNIST, or of another form, do not pass for Fashion-MNIST."""
    files = install("fashion-mnist")
    plain = {
        path.removesuffix(".gz"): gzip.decompress(raw) for path, raw in files.items()
    }
    first = next(iter(plain))
    known = mnist.MD5 | {Path(first).name: download.md5(plain[first])}
    root = write(tmp_path, plain)
    with monkeypatch.context() as patch:
        patch.setattr(mnist, "MD5", known)
        patch.setitem(vision.FASHION_MD5, Path(first).name, "0" * 32)
        with pytest.raises(DataError, match="belongs to MNIST"):
            load_dataset("fashion-mnist", root)
    (root / first).unlink()
    with pytest.raises(DataError, match="ubyte is not there"):
        load_dataset("fashion-mnist", root)
    odd = idx.encode_idx(np.zeros((30, 8, 8), dtype=np.uint8)).tobytes()
    with pytest.raises(DataError, match="of another set"):
        load_dataset("fashion-mnist", write(tmp_path, {first: odd}))


def test_broken_archive_is_a_data_error(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar that is none, or lacks a file, ends in one line."""
    files = install("cifar10")
    monkeypatch.setattr(download, "fetch", lambda *_: b"no tar")
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_dataset("cifar10")
    files.popitem()
    monkeypatch.setattr(download, "fetch", serve(files))
    with pytest.raises(DataError, match=r"cannot be downloaded.*batches\.meta"):
        load_dataset("cifar10")


# --- what every set passes


def arrays(count: int = 12, shape: tuple[int, ...] = (1, 5, 6)) -> list[Any]:
    """Return images and labels of three classes, for training and for the test."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
    labels = np.arange(count) % 3
    return [images, labels, images.copy(), labels.copy()]


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_std_are_those_of_numpy(channels: int) -> None:
    """The histogram gives what the plain formula gives, per channel."""
    images, *rest = arrays(shape=(channels, 5, 6))
    dataset = make_dataset("x", images, *rest)
    assert dataset.mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)))
    assert dataset.std == pytest.approx((images / 255).std(axis=(0, 2, 3)))
    assert dataset.class_names == ("0", "1", "2")


def test_constant_channel_has_std_one() -> None:
    """Nothing divides by zero where a channel holds one value."""
    images, *rest = arrays(shape=(3, 5, 6))
    images[:, 1] = 7
    dataset = make_dataset("x", images, *rest)
    assert dataset.std[1] == 1.0
    assert dataset.mean[1] == pytest.approx(7 / 255)
    assert dataset.std[0] != 1.0


def test_fingerprint_sees_every_array_and_nothing_else() -> None:
    """It changes with a single value anywhere, and not with name or memory layout."""
    plain = make_dataset("x", *arrays()).fingerprint
    assert len(plain) == 16
    assert make_dataset("y", *arrays()).fingerprint == plain
    images, labels, *rest = arrays()
    strided = np.asfortranarray(images)
    assert make_dataset("x", strided, labels.astype(">i2"), *rest).fingerprint == plain
    seen = {plain}
    for position in range(4):
        changed = arrays()
        changed[position].flat[0] = (int(changed[position].flat[0]) + 1) % 3
        seen.add(make_dataset("x", *changed).fingerprint)
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: [0, 1]}, "12 training images but 2 training labels"),
        ({3: [0, 1]}, "12 test images but 2 test labels"),
        ({0: np.zeros((0, 1, 5, 6)), 1: np.zeros(0)}, "training set is empty"),
        ({2: np.zeros((0, 1, 5, 6)), 3: np.zeros(0)}, "test set is empty"),
        ({0: np.zeros((12, 65, 5, 6))}, "65 channels"),
        ({0: np.zeros((12, 1, 5, 3))}, "5x3 pixels"),
        ({2: np.zeros((12, 1, 6, 6))}, "bring them to one size"),
        ({2: np.zeros((12, 3, 5, 6))}, "bring them to one size"),
        ({1: np.arange(12) % 3 * 1.0}, "labels are float64"),
        ({3: np.zeros(12, dtype=bool)}, "labels are bool"),
        ({1: np.arange(12) % 3 - 1}, "go down to -1"),
        ({3: np.arange(12) % 3 - 2}, "go down to -2"),
        ({1: np.arange(12) % 3 * 2}, "no image has label 1"),
        ({1: np.arange(12) % 3 + 1}, "no image has label 0"),
        ({1: np.zeros(12, dtype=int)}, "at least two classes"),
        ({3: np.arange(12)}, "test label 11 is in no training image"),
    ],
)
def test_misshapen_set_is_one_line(change: dict[int, Any], message: str) -> None:
    """Each way to be no classification problem has its own words."""
    given_arrays = arrays()
    for position, value in change.items():
        given_arrays[position] = np.asarray(value)
    with pytest.raises(DataError, match=message) as caught:
        make_dataset("mine", *given_arrays)
    assert str(caught.value).startswith("mine: ")
    assert "\n" not in str(caught.value)


def test_class_names_must_fit() -> None:
    """There are as many names as classes."""
    images, labels, *_ = arrays()
    with pytest.raises(DataError, match="2 class names"):
        make_dataset("x", images, labels, images, labels, ("a", "b"))


# --- the split


@settings(deadline=None, max_examples=examples(200))
@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=12),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_split_is_a_stratified_partition(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    """Every image is in one part, every class in both, in proportion, the size kept."""
    total = sum(counts)
    labels = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)])
    labels = labels[torch.randperm(total, generator=torch.Generator().manual_seed(0))]
    val_size = data.draw(st.integers(len(counts), total - len(counts)))
    train, val = split_indices(labels, seed=seed, val_size=val_size)
    assert len(val) == val_size
    assert sorted(train.tolist() + val.tolist()) == list(range(total))
    assert train.tolist() == sorted(train.tolist())
    assert val.tolist() == sorted(val.tolist())
    assert train.dtype == val.dtype == torch.int64
    assert (
        set(labels[train].tolist())
        == set(labels[val].tolist())
        == set(range(len(counts)))
    )
    # Only where a class was too rare for a share of its own do others give way.
    shares = labels[val].bincount().tolist()
    ideal = [val_size * count / total for count in counts]
    if all(1 <= share <= n - 1 for share, n in zip(ideal, counts, strict=True)):
        assert all(abs(a - b) <= 1 for a, b in zip(shares, ideal, strict=True))
    again = split_indices(labels, seed=seed, val_size=val_size)
    assert torch.equal(val, again[1])


FIXED = [5, 6, 8, 9, 19, 22, 30, 40, 48, 50]


def test_split_is_fixed_by_the_seed_for_good() -> None:
    """These very images are held out, whatever the versions and the machine."""
    labels = torch.arange(60) % 3
    _, val = split_indices(labels, seed=0)
    assert val.tolist() == FIXED
    _, other = split_indices(labels, seed=1)
    assert other.tolist() != FIXED
    _, high = split_indices(labels, seed=1 << 32)
    assert high.tolist() != FIXED


@pytest.mark.parametrize(("total", "expected"), [(600, 100), (66_000, 10_000)])
def test_split_size_by_default(total: int, expected: int) -> None:
    """A sixth is held out, 10,000 at most."""
    _, val = split_indices(torch.arange(total) % 10, seed=3)
    assert len(val) == expected


@pytest.mark.parametrize(
    ("labels", "val_size"),
    [
        ([], None),
        ([0, 1], None),
        ([0, 0, 0, 1], 1),
        ([0, 0, 1, 1], 1),
        ([0, 0, 1, 1], 3),
        ([0, 0, 1, 1], 0),
        ([0, 0, 1, 1], -2),
        ([0, 0, 1, 1], 9),
        ([0, 0, 0, 1, 1, 1], None),
    ],
)
def test_split_that_misses_a_class_is_an_error(
    labels: list[int], val_size: int | None
) -> None:
    """A part without one of the classes is refused in one line."""
    with pytest.raises(DataError, match="at least"):
        split_indices(
            torch.tensor(labels, dtype=torch.int64), seed=0, val_size=val_size
        )
