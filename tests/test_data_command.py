"""`nas data`: the list of the known sets, and what it says of one's own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Invoke
from PIL import Image
from studying import one_line

from nas.data import DATASETS, load_dataset
from nas.data.summary import class_counts, contact_sheet


def save(path: Path, channels: int = 1) -> str:
    """Write a set of two classes with all parts and return its path."""
    random = np.random.default_rng(0)
    content = {"class_names": np.array(["yes", "no"]), "weights": np.ones(3)}
    for part, count in (("train", 30), ("val", 8), ("test", 10)):
        shape = (count, channels, 6, 9)
        content[f"x_{part}"] = random.integers(0, 256, shape, dtype=np.uint8)
        content[f"y_{part}"] = (np.arange(count) % 5 == 0).astype(np.int64)
    np.savez(path, **content)
    return str(path)


def test_known_sets_are_listed_with_their_place(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each name stands there; what lies in the cache is told from what does not."""
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "c"))
    there = tmp_path / "c/KMNIST/raw/train-images-idx3-ubyte.gz"
    there.parent.mkdir(parents=True)
    there.touch()
    shown = invoke("data")
    assert shown.code == 0
    rows = {line.split()[1]: line for line in shown.out.splitlines() if "│" in line}
    assert set(DATASETS) <= set(rows)
    assert "not here" in rows["mnist"]
    assert " here, in" in rows["kmnist"]
    assert "scikit-learn" in rows["digits"]


def test_a_set_of_ones_own_is_shown(invoke: Invoke, tmp_path: Path) -> None:
    """Counts a class, size, values, splits, what is not used, and the sheet."""
    name = save(tmp_path / "own.npz")
    shown = invoke("data", name, "--sheet", "sheet.png")
    assert shown.code == 0, shown.err
    cells = [line.replace("│", " ").split() for line in shown.out.splitlines()]
    for row in (
        ["yes", "24", "6", "8"],
        ["no", "6", "2", "2"],
        ["all", "30", "8", "10"],
    ):
        assert row in cells
    assert "images of 6x9" in shown.out
    assert "validation split comes with the data" in shown.out
    assert "not used: weights" in shown.out
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    refused = invoke("data", "--sheet", "sheet.png")
    assert refused.code == 2
    assert invoke("data", tmp_path / "none.npz").code == 1
    assert invoke("data", name, "--image-size", "3x9").code == 2
    assert "only images in files" in invoke("data", name, "--image-size", "32").err
    refused = invoke("data", name, "--sheet", "sheet.txt")
    assert refused.code == 2
    assert "sheet.txt is no .png file" in one_line(refused.err)
    assert not (tmp_path / "sheet.txt").exists()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_sheet_has_a_row_of_images_a_class(tmp_path: Path, channels: int) -> None:
    """The first image of each class stands at the left of its row."""
    dataset = load_dataset(save(tmp_path / "own.npz", channels))
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(dataset))))
    assert sheet.shape[:2] == (2 * 8 + 2, 12 * 11 + 2)
    for label in (0, 1):
        first = int((dataset.labels == label).nonzero()[0])
        image = dataset.images[first].numpy().transpose(1, 2, 0)
        corner = sheet[2 + 8 * label : 8 + 8 * label, 2:11]
        expected = image if channels == 3 else image[..., 0]
        assert np.array_equal(corner, expected)


def test_the_counts_are_those_of_the_split(tmp_path: Path) -> None:
    """Each image is counted once."""
    dataset = load_dataset(save(tmp_path / "own.npz"))
    assert class_counts(dataset) == [[24, 6, 8], [6, 2, 2]]
