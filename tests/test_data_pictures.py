"""Folders and tables of photos as they come: sizes, pixels, faults, splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_own import note

from nas.data import Dataset, load_dataset
from nas.errors import DataError


def photo(
    seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB"
) -> Image.Image:
    """Return an image of random pixels; size is width and height."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def fill(root: Path, count: int = 6, suffix: str = "png") -> Path:
    """Write classes cat and dog with so many images of 10x12 each."""
    for number, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index in range(count):
            photo(100 * number + index).save(root / name / f"{index:02}.{suffix}")
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Make train/ and test/ with cats and dogs."""
    fill(tmp_path / "pets/train")
    fill(tmp_path / "pets/test", 2)
    for number, path in enumerate(sorted((tmp_path / "pets/test").rglob("*.png"))):
        photo(5000 + number).save(path)
    return tmp_path / "pets"


@pytest.mark.parametrize("suffix", ["jfif", "webp", "tga", "jp2", "ico", "PCX"])
def test_every_suffix_that_pillow_reads_counts(pets: Path, suffix: str) -> None:
    """Rare suffixes are read like the common ones."""
    kind = "jpeg" if suffix == "jfif" else None
    image = photo(7, (16, 16)) if suffix == "ico" else photo(7)
    image.save(pets / f"train/cat/rare.{suffix}", format=kind)
    assert len(load_dataset(str(pets)).labels) == 13


def test_what_is_skipped_is_counted_and_named(pets: Path) -> None:
    """Other files, hidden ones and whole folders that are not used are told."""
    (pets / "train/cat/a.heic").write_bytes(b"?")
    (pets / "train/dog/.DS_Store").write_bytes(b"?")
    (pets / "train/stray.png").write_bytes(b"?")
    (pets / "extra").mkdir()
    (pets / "README").write_text("?")
    told = note(load_dataset(str(pets)), "skipped")
    assert told.startswith("5 files")
    for name in ("cat/a.heic", ".DS_Store", "stray.png", "extra", "README"):
        assert name in told


def test_images_of_several_sizes_become_the_median(pets: Path) -> None:
    """Stretched to the median of the training images, and told."""
    odd = photo(9, (30, 40))
    odd.save(pets / "train/cat/00.png")
    photo(9, (300, 400)).save(pets / "test/cat/00.png")
    dataset = load_dataset(str(pets))
    assert dataset.input_shape == (3, 10, 12)
    told = note(dataset, "stretched")
    assert "3 sizes, 10x12 to 400x300" in told
    assert "median" in told
    expected = np.asarray(odd.resize((12, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(dataset.images[0].permute(1, 2, 0).numpy(), expected)


def test_large_images_of_several_sizes_are_made_small(pets: Path) -> None:
    """The longer side of the median is 64 at most, the proportions stay."""
    for number, path in enumerate(sorted((pets / "train").rglob("*.png"))):
        photo(number, (640, 480 + number % 2)).save(path)
    assert load_dataset(str(pets)).input_shape == (3, 48, 64)


def test_the_size_asked_for_holds(pets: Path) -> None:
    """It replaces the rule, for images of one size as well."""
    dataset = load_dataset(str(pets), image_size=(8, 20))
    assert dataset.input_shape == (3, 8, 20)
    assert "a fixed size" in note(dataset, "stretched")
    again = load_dataset(str(pets), image_size=(10, 12))
    assert again.fingerprint == load_dataset(str(pets)).fingerprint
    assert not again.notes or not any("stretched" in line for line in again.notes)


def test_large_images_of_one_size_stay_but_are_told(pets: Path) -> None:
    """Nobody waits hours for 300x400 pixels unwarned."""
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        photo(number, (300, 200)).save(path)
    dataset = load_dataset(str(pets))
    assert dataset.input_shape == (3, 200, 300)
    assert "--image-size 64" in note(dataset, "slow")


def shape_alpha(colour: int, seed: int = 1) -> Image.Image:
    """Return an image that is one gray everywhere, its drawing in the alpha alone."""
    alpha = photo(seed, mode="L").point(lambda value: 255 if value > 99 else 0)
    image = Image.new("RGBA", alpha.size, (colour, colour, colour, 0))
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(("colour", "ground"), [(0, "white"), (255, "black")])
def test_drawings_in_alpha_alone_are_seen(pets: Path, colour: int, ground: str) -> None:
    """A black drawing stands on white, a white one on black; neither is all 0."""
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        shape_alpha(colour, number).save(path)
    dataset = load_dataset(str(pets))
    assert f"put on {ground}" in note(dataset, "transparent")
    drawn = np.asarray(shape_alpha(colour, 4).getchannel("A")) == 255
    image = dataset.images[0, 0].numpy()  # the fifth path: the four of test/ sort first
    assert (image[drawn] == colour).all()
    assert (image[~drawn] == 255 - colour).all()
    assert not any("one value only" in line for line in dataset.notes)


def test_gray_with_alpha_stays_gray(pets: Path) -> None:
    """Gray and gray with transparency are one channel; the ground shows through."""
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        photo(number, mode="L").save(path)
    half = photo(3, mode="L").convert("LA")
    half.putalpha(0)
    half.save(pets / "train/cat/00.png")
    dataset = load_dataset(str(pets))
    assert dataset.input_shape == (1, 10, 12)
    assert int(dataset.images[0].min()) == int(dataset.images[0].max()) == 255
    assert "1 of 12 training images" in note(dataset, "one value only")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_rotation_is_applied(pets: Path, orientation: int) -> None:
    """A photo comes in as a viewer shows it, for all eight orientations."""
    upright = photo(3, (12, 10))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(pets / "train/cat/00.png", exif=exif)
    dataset = load_dataset(str(pets))
    assert dataset.input_shape == (3, 10, 12)
    got = dataset.images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(got, np.asarray(upright))
    assert any("EXIF" in line for line in dataset.notes) == (orientation > 1)


def test_all_bad_files_are_listed_at_once(pets: Path) -> None:
    """Empty, cut and wide ones, in one line."""
    (pets / "train/cat/01.png").write_bytes(b"")
    whole = (pets / "train/dog/02.png").read_bytes()
    (pets / "train/dog/02.png").write_bytes(whole[: len(whole) // 2])
    wide = Image.fromarray(np.zeros((10, 12), dtype=np.uint16))
    wide.save(pets / "test/dog/00.png")
    with pytest.raises(DataError, match="3 files: ") as caught:
        load_dataset(str(pets))
    for words in (
        "cat/01.png is not a readable image",
        "dog/02.png is not a readable image",
        "test/dog/00.png has pixels of mode I;16, and 8 bit gray or RGB are read",
    ):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def labels_of(dataset: Dataset, indices: torch.Tensor) -> Sequence[int]:
    """Return the number of images of each class."""
    counts: list[int] = dataset.labels[indices].bincount().tolist()
    return counts


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_val_is_the_validation_split(pets: Path, name: str) -> None:
    """Its images, and no others, are what a search measures on."""
    fill(pets / name, 3)
    for number, path in enumerate((pets / name).rglob("*.png")):
        photo(900 + number).save(path)
    dataset = load_dataset(str(pets))
    assert (dataset.num_val, dataset.val_size) == (6, 6)
    train, val = dataset.split(seed=5, val_size=6)
    assert labels_of(dataset, train) == [6, 6]
    assert labels_of(dataset, val) == [3, 3]
    first = np.asarray(Image.open(pets / name / "cat/00.png"))
    got = dataset.images[val[0]].permute(1, 2, 0).numpy()
    assert np.array_equal(got, first)
    assert len(dataset.test_labels) == 4


def test_another_validation_split_is_another_set(pets: Path) -> None:
    """The same images, otherwise divided, have another fingerprint."""
    plain = load_dataset(str(pets)).fingerprint
    (pets / "val").mkdir()
    for name in ("cat", "dog"):
        (pets / "val" / name).mkdir()
        last = pets / "train" / name / "05.png"
        last.rename(pets / "val" / name / "05.png")
    assert load_dataset(str(pets)).fingerprint != plain


@pytest.mark.parametrize("flat", [True, False])
def test_a_set_without_test_gets_a_split_that_is_told(
    tmp_path: Path, flat: bool
) -> None:
    """Class folders alone, or train/ alone: a sixth is held out, always the same."""
    fill(tmp_path / ("set" if flat else "set/train"), 12)
    dataset = load_dataset(str(tmp_path / "set"))
    assert dataset.class_names == ("cat", "dog")
    assert labels_of(dataset, torch.arange(20)) == [10, 10]
    assert dataset.test_labels.bincount().tolist() == [2, 2]
    assert note(dataset, "no test set").count("4 of the 24") == 1
    again = load_dataset(str(tmp_path / "set"))
    assert again.fingerprint == dataset.fingerprint


def test_a_class_of_one_image_is_named(pets: Path) -> None:
    """By its folder, not by a number."""
    for path in sorted((pets / "train/dog").iterdir())[1:]:
        path.unlink()
    dataset = load_dataset(str(pets))
    assert note(dataset, "fewer than").endswith("cat (6), dog (1)")
    with pytest.raises(DataError, match="class dog has a single training image"):
        dataset.split(0, dataset.val_size)


def test_repeated_test_images_are_told(pets: Path) -> None:
    """An image of the training set in the test set makes the number too good."""
    (pets / "test/cat/00.png").write_bytes((pets / "train/cat/03.png").read_bytes())
    assert "1 of 4 test images" in note(load_dataset(str(pets)), "memorise")


# --- tables


def table(pets: Path, lines: Sequence[str]) -> str:
    """Write a CSV beside the folders and return its path."""
    (pets / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(pets / "list.csv")


def test_a_table_is_the_folder_that_it_lists(pets: Path) -> None:
    """The same images by path, label and split; other columns are named."""
    lines = ["split;id;Label;Path"]
    for part in ("train", "test"):
        lines += [
            f"{part};7;{path.parent.name};{path.relative_to(pets)}"
            for path in sorted((pets / part).rglob("*.png"))
        ]
    listed = load_dataset(table(pets, lines))
    assert listed.class_names == ("cat", "dog")
    assert listed.fingerprint == load_dataset(str(pets)).fingerprint
    assert note(listed, "not used").endswith("id")


def test_a_table_without_heading_or_split(pets: Path) -> None:
    """Path and label alone: numbers are classes in their own order."""
    files = sorted((pets / "train").rglob("*.png"))
    lines = [
        f"{path.relative_to(pets)},{10 if path.parent.name == 'cat' else 9}"
        for path in files
    ]
    dataset = load_dataset(table(pets, lines))
    assert dataset.class_names == ("9", "10")
    assert len(dataset.labels) == 10
    assert len(dataset.test_labels) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        (["a,b", "c,d"], "has the columns a, b"),
        (
            ["path,label", "no.png,1", "train/cat/00.png,", "x/y.png,2"],
            "line 2: no.png",
        ),
        (["path,label,split", "train/cat/00.png,1,tset"], "line 2: 'tset' is not"),
        (["path,label,split", "train/cat/00.png,1,test"], "no training images"),
    ],
)
def test_a_bad_table_is_one_line(pets: Path, lines: list[str], message: str) -> None:
    """All faults are named with their lines."""
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(table(pets, lines))
    assert "\n" not in str(caught.value)
    if "no.png" in message:
        assert "line 3 lacks" in str(caught.value)
        assert "line 4: x/y.png" in str(caught.value)
