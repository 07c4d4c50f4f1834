"""The winner's files: source that needs no nas, weights that fit it, whole or none."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from strategies import architectures, examples
from torch import nn

from nas.architecture import Architecture, Block, Head
from nas.architecture.cost import count_params
from nas.data import load_dataset
from nas.errors import StudyError
from nas.export import source, write_best
from nas.files import write_atomically, write_together
from nas.training.model import build

SMALL = Architecture(
    input_shape=(3, 12, 9),
    num_classes=4,
    blocks=(
        Block(out_channels=5, padding="valid", activation="silu", dropout=0.2),
        Block(kind="separable", out_channels=6, stride=2, norm="none", pool="max"),
    ),
    head=Head(kind="flatten", hidden=8),
)
DATA: dict[str, Any] = {
    "mean": (0.1, 0.2, 0.3),
    "std": (0.5, 0.6, 0.7),
    "class_names": ("cat", 'a "dog"', "l'été\\", "\udcff\n"),
}
NAMES = ["architecture.json", "model.py", "report.json", "weights.safetensors"]


def trained(architecture: Architecture) -> nn.Sequential:
    """Return a model whose every weight and statistic differs from a fresh one's."""
    model = build(architecture, seed=1)
    generator = torch.Generator().manual_seed(2)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return model.eval()


def executed(text: str) -> dict[str, Any]:
    """Return the names that the exported source defines."""
    names: dict[str, Any] = {"__name__": "exported"}
    exec(compile(text, "model.py", "exec"), names)  # noqa: S102 - it is what we test
    return names


def write_small(folder: Path, state: dict[str, torch.Tensor], **report: Any) -> None:
    """Write the small net as a winner."""
    write_best(folder, SMALL, source(SMALL, **DATA), state, report)


def data_for(architecture: Architecture) -> dict[str, Any]:
    """Return mean, std and class names that fit the architecture."""
    channels = architecture.input_shape[0]
    return {
        "mean": [0.1307] * channels,
        "std": [0.3081] * channels,
        "class_names": [f"class {i}" for i in range(architecture.num_classes)],
    }


@settings(max_examples=examples(60))
@given(architecture=architectures())
def test_the_source_is_the_same_network(architecture: Architecture) -> None:
    """For any architecture the source has the same layers, weights and logits."""
    model = trained(architecture)
    copy = executed(source(architecture, **data_for(architecture)))["Model"]().eval()
    copy.load_state_dict(model.state_dict(), strict=True)
    images = torch.rand(3, *architecture.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(copy(images), model(images), rtol=1e-5, atol=1e-5)
    # Settings that show in training only, such as dropout.
    assert repr(copy.blocks) == repr(model.get_submodule("blocks"))
    assert repr(copy.head) == repr(model.get_submodule("head"))


def test_the_files_work_without_nas(tmp_path: Path) -> None:
    """In a folder of their own the four files predict what the model predicts."""
    model = trained(SMALL)
    write_small(tmp_path, model.state_dict(), num_params=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    images = torch.randint(256, (16, 3, 12, 9), dtype=torch.uint8)
    torch.save(images, tmp_path / "images.pt")
    (tmp_path / "user.py").write_text(
        "import sys, torch\n"
        "sys.modules['nas'] = None  # an import of it fails\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import model\n"
        f"net = model.load({str(tmp_path / 'weights.safetensors')!r})\n"
        f"images = torch.load({str(tmp_path / 'images.pt')!r})\n"
        "print(model.predict(net, images).tolist())\n"
        "model.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    labels, check = done.stdout.splitlines()
    mean, std = (torch.tensor(DATA[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = model((images / 255 - mean) / std).argmax(1)
    assert json.loads(labels) == expected.tolist()
    assert check == f"{count_params(SMALL)} parameters (trained), logits (2, 4)"


@pytest.mark.parametrize(
    ("images", "error", "said"),
    [
        (torch.rand(2, 3, 12, 9) * 255, ValueError, "0 to 1: scale them alike"),
        (torch.full((2, 3, 12, 9), torch.nan), ValueError, "hold NaN"),
        (torch.zeros(2, 3, 12, 9, dtype=torch.int64), TypeError, "torch.int64"),
        (torch.zeros(2, 3, 9, 12, dtype=torch.uint8), ValueError, "(N, 3, 9, 12)"),
        (torch.zeros(3, 12, 9, dtype=torch.uint8), ValueError, "(N, 3, 12, 9)"),
        (torch.zeros(1, 2, 3, 12, 9, dtype=torch.uint8), ValueError, "(N, 2, 3, 12"),
    ],
)
def test_predict_refuses_what_it_would_get_wrong(
    images: torch.Tensor, error: type[Exception], said: str
) -> None:
    """What no rule of the loader reads: one line, no wrong class."""
    names = executed(source(SMALL, **DATA))
    with pytest.raises(error, match=re.escape(said)) as caught:
        names["predict"](names["Model"](), images)
    assert "\n" not in str(caught.value)


ARRAYS = np.random.default_rng(0)


@pytest.mark.parametrize(
    "values",
    [
        ARRAYS.integers(0, 256, (40, 8, 9), dtype=np.uint8),
        ARRAYS.integers(0, 256, (40, 8, 9, 1), dtype=np.uint8),
        ARRAYS.integers(0, 256, (40, 8, 9, 3), dtype=np.uint8),
        ARRAYS.integers(0, 256, (40, 2, 8, 9), dtype=np.uint8),
        ARRAYS.random((40, 8, 9)),
        ARRAYS.random((40, 8, 9)) < 0.5,
        ARRAYS.random((40, 8, 9, 3), dtype=np.float32),
        ARRAYS.normal(size=(40, 8, 9)) * 40 - 10,
        ARRAYS.integers(-128, 128, (40, 8, 9), dtype=np.int8),
        ARRAYS.integers(-3000, 3000, (40, 8, 9), dtype=np.int16),
        ARRAYS.integers(0, 256, (40, 8, 9)),
        ARRAYS.normal(size=(40, 97)),
        ARRAYS.normal(size=(40, 128, 3)),
        ARRAYS.normal(size=(40, 3, 128)),
    ],
    ids=lambda values: f"{values.dtype}-{'x'.join(map(str, values.shape))}",
)
def test_predict_takes_what_the_loader_takes(
    values: np.ndarray[Any, np.dtype[Any]], tmp_path: Path
) -> None:
    """The arrays of the .npz, as they are, give the classes of the loaded images."""
    labels = np.arange(40) % 4
    np.savez(
        tmp_path / "a.npz",
        x_train=values[:30],
        y_train=labels[:30],
        x_test=values[30:],
        y_test=labels[30:],
    )
    dataset = load_dataset(str(tmp_path / "a.npz"))
    architecture = Architecture(
        input_shape=dataset.input_shape,
        num_classes=4,
        blocks=(Block(out_channels=5),),
        head=Head(kind="flatten"),
    )
    model = trained(architecture)
    text = source(
        architecture,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        value_range=dataset.value_range,
        signal_length=dataset.signal_length,
    )
    names = executed(text)
    copy = names["Model"]().eval()
    copy.load_state_dict(model.state_dict())
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    raw = torch.cat([dataset.images, dataset.test_images])
    taken = names["normalise"](values)
    torch.testing.assert_close(taken, (raw / 255 - mean) / std)
    expected = names["predict"](copy, raw)
    assert len(set(expected.tolist())) > 1
    assert torch.equal(names["predict"](copy, values), expected)
    assert torch.equal(names["predict"](copy, torch.from_numpy(values)), expected)
    with pytest.raises(ValueError, match="values from"):
        names["predict"](copy, values.astype(np.float64) + 9e4)


def test_the_written_data_come_back(tmp_path: Path) -> None:
    """Weights, architecture, report and constants are those that were given."""
    model = trained(SMALL)
    write_small(tmp_path, model.state_dict(), test_accuracy=[0.5])
    assert Architecture.from_json((tmp_path / "architecture.json").read_text()) == SMALL
    assert json.loads((tmp_path / "report.json").read_text())["test_accuracy"] == [0.5]
    weights = load_file(tmp_path / "weights.safetensors")
    torch.testing.assert_close(weights, dict(model.state_dict()), rtol=0, atol=0)
    names = executed((tmp_path / "model.py").read_text())
    assert (names["MEAN"], names["STD"]) == (DATA["mean"], DATA["std"])
    assert names["CLASS_NAMES"] == DATA["class_names"]


@settings(max_examples=examples(25))
@given(notes=st.lists(st.text() | st.sampled_from(['"""', "\\", "$x {y}", '"'])))
def test_no_note_breaks_the_source(notes: list[str]) -> None:
    """Whatever a note holds, it stays within the docstring."""
    names = executed(source(SMALL, **DATA, notes=notes))
    assert names["__doc__"].startswith("A convolutional classifier")
    assert names["NUM_PARAMS"] == count_params(SMALL)


def test_the_source_is_formatted(tmp_path: Path) -> None:
    """Ruff's formatter and its linter find nothing to change in the source."""
    wide = Architecture(
        input_shape=(3, 32, 32),
        num_classes=30,
        blocks=(
            SMALL.blocks[0],
            Block(kind="separable", out_channels=1000, stride=2),
            Block(kind="separable", out_channels=10, stride=2),
        ),
        head=Head(kind="conv", kernel_size=3, dropout=0.1),
    )
    rare = Architecture(
        input_shape=(3, 32, 32),
        num_classes=8,
        blocks=(
            Block(kind="inception", out_channels=8, kernel_size=5, pool="max"),
            Block(kind="separable", out_channels=8, repeats=3, dropout=0.1),
            Block(out_channels=8, repeats=2, norm="none", activation="none"),
        ),
        head=Head(kind="pool"),
    )
    bare = Architecture(
        input_shape=(1, 8, 8), num_classes=2, blocks=(), head=Head(kind="gap")
    )
    notes = ["Test accuracy 99.52 %, " + "a mean of three seeds, " * 5, "MNIST."]
    for name, architecture in {"wide": wide, "rare": rare, "bare": bare}.items():
        text = source(architecture, **data_for(architecture), notes=notes)
        (tmp_path / f"{name}.py").write_text(text)
        text = source(
            architecture,
            **data_for(architecture),
            value_range=(-512.0625, 113.2),
            signal_length=60,
        )
        (tmp_path / f"{name}_of_signals.py").write_text(text)
    # Of a script that prints; and pairs of rules that contradict each other.
    ignored = "--ignore=INP001,T201,EM,TRY003,D203,D213,COM812,CPY"
    for command in (
        ["format", "--check", "--diff"],
        ["check", "--select=ALL", ignored],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """A state dict that does not fit writes nothing."""
    state = build(SMALL).state_dict()
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        write_small(tmp_path, state)
    assert not list(tmp_path.iterdir())


def full_disk(*_: Any) -> None:
    """Fail as fsync does on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("good_writes", [0, 1, 3])
def test_a_full_disk_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_writes: int
) -> None:
    """Whichever of the four writes fails, all old files stay, and no leftovers."""
    for name in NAMES:
        (tmp_path / name).write_text(f"old {name}")
    before = iter(range(good_writes))
    monkeypatch.setattr(
        os, "fsync", lambda _: full_disk() if next(before, None) is None else None
    )
    with pytest.raises(StudyError) as caught:
        write_small(tmp_path, build(SMALL).state_dict())
    assert "No space left on device: free some disk space" in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {name: f"old {name}" for name in NAMES}


def test_a_failing_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the last moment the old file is there; a failure leaves it whole."""
    path = tmp_path / "front.csv"
    write_atomically(path, "old")
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(StudyError, match="free some disk space"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["front.csv"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """What a read-only folder or file system answers is one line with the remedy."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StudyError) as caught:
        write_atomically(tmp_path / "front.csv", "new")
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'front.csv'}: {os.strerror(code)}: "
        "choose a folder that you may write to"
    )


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path, folder: str) -> None:
    """A path that leads through a file is one line with the remedy."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match=r"through folders only$"):
        write_atomically(tmp_path / folder / "front.csv", "new")


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    """A folder that has the file's name is left alone, and nothing else is left."""
    (tmp_path / "front.csv").mkdir()
    with pytest.raises(StudyError, match=r"move the folder of that name away$"):
        write_atomically(tmp_path / "front.csv", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["front.csv"]


def test_files_are_made_with_folders_and_usual_permissions(tmp_path: Path) -> None:
    """Missing folders are made; others may read the file as the umask says."""
    old = os.umask(0o022)
    try:
        path = tmp_path / "a" / "b" / "front.csv"
        write_together({path: "é", path.with_name("raw"): b"\xff"})
    finally:
        os.umask(old)
    assert path.read_bytes() == "é".encode()
    assert path.with_name("raw").read_bytes() == b"\xff"
    assert path.stat().st_mode & 0o777 == 0o644
