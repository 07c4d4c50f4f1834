"""The user's own data: .npz files and folders of images, good and bad."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from strategies import examples

from nas.data import Dataset, load_dataset, pictures
from nas.errors import DataError


def arrays(**changed: Any) -> dict[str, Any]:
    """Return the four arrays of a good file, some of them changed."""
    random = np.random.default_rng(0)
    plain: dict[str, Any] = {
        "x_train": random.integers(0, 256, (12, 6, 7), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": random.integers(0, 256, (6, 6, 7), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    }
    return plain | changed


def save(path: Path, content: dict[str, Any]) -> str:
    """Write a .npz and return its path."""
    np.savez_compressed(path, **content)
    return str(path)


# --- .npz


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_npz_is_read_in_every_layout(
    tmp_path: Path, layout: str, channels: int
) -> None:
    """Channels first, last or absent, the pixels come out channels first."""
    random = np.random.default_rng(1)
    first = random.integers(0, 256, (12, channels, 6, 7), dtype=np.uint8)
    if layout == "NHW":
        first = first[:, :1]
    given_layout = {
        "NHW": first[:, 0],
        "NHWC": first.transpose(0, 2, 3, 1),
        "NCHW": first,
    }[layout]
    content = arrays(x_train=given_layout, x_test=given_layout[:6])
    name = save(tmp_path / "set.npz", content)
    dataset = load_dataset(name)
    assert dataset.name == name
    assert torch.equal(dataset.images, torch.from_numpy(first))
    assert torch.equal(dataset.test_images, torch.from_numpy(first[:6]))
    assert dataset.num_classes == 3


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_npz_of_floats_is_scaled(tmp_path: Path, dtype: str) -> None:
    """Floats from 0 to 1 give the same set as the bytes that they came from."""
    plain = arrays()
    scaled = arrays(
        x_train=(plain["x_train"] / 255).astype(dtype),
        x_test=(plain["x_test"] / 255).astype(dtype),
    )
    bytes_set = load_dataset(save(tmp_path / "a.npz", plain))
    float_set = load_dataset(save(tmp_path / "b.npz", scaled))
    assert bytes_set.fingerprint == float_set.fingerprint


def random_values(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return numbers from 0 to 1, both included."""
    values = np.random.default_rng(seed).random(shape)
    values.flat[0], values.flat[1] = 0, 1
    return values


def note(dataset: Dataset, words: str) -> str:
    """Return the one note with these words."""
    found = [line for line in dataset.notes if words in line]
    assert len(found) == 1, dataset.notes
    return found[0]


@pytest.mark.parametrize(
    ("low", "high", "dtype", "value_range", "words"),
    [
        (0, 1, "f4", (0, 1), "times 255"),
        (0, 255, "u1", (0, 1), None),
        (-128, 127, "i1", (-128, 127), "128 is added"),
        (0, 255, "i8", (0, 255), "bytes as they are"),
        (-4, 12, "f4", (-4, 12), "steps of 0.0627"),
        (0, 0.125, "f8", (0, 0.125), "steps of"),
        (-3000, 5000, "i2", (-3000, 5000), "steps of 31.4"),
    ],
)
def test_values_become_bytes_by_the_stated_rule(
    tmp_path: Path,
    low: float,
    high: float,
    dtype: str,
    value_range: tuple[float, float],
    words: str | None,
) -> None:
    """Each byte stands for the value nearest to it on the scale that is told."""
    values = low + random_values(12, 6, 7) * (high - low)
    values = (np.rint(values) if dtype[0] in "iu" else values).astype(dtype)
    content = arrays(x_train=values, x_test=values[:6])
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert dataset.value_range == pytest.approx(value_range)
    step = (value_range[1] - value_range[0]) / 255
    scale = 255 if dtype == "u1" else 1  # bytes stand for 0 to 1
    back = value_range[0] + dataset.images[:, 0].numpy() * step
    assert np.abs(back * scale - values).max() <= step * scale * 0.5001
    assert words is None or note(dataset, words)


def test_floats_of_whole_numbers_are_bytes(tmp_path: Path) -> None:
    """Pixels that somebody made floats come out as they went in."""
    plain = arrays()
    content = arrays(**{x: plain[x].astype("f4") for x in ("x_train", "x_test")})
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert torch.equal(dataset.images[:, 0], torch.from_numpy(plain["x_train"]))
    assert dataset.value_range == (0, 255)


def test_values_beyond_the_training_range_are_cut_and_counted(tmp_path: Path) -> None:
    """The scale is the training set's; only its own range is refused nothing."""
    train = -5 + 10 * random_values(12, 6, 7)
    test = train[:6].copy()
    test[0, 0, :3] = 9, -9, 5
    content = arrays(x_train=train, x_test=test)
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert note(dataset, "are cut").endswith("2 values are cut")
    assert dataset.test_images[0, 0, 0, :3].tolist() == [255, 0, 255]
    test[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="or NaN, and x_train has not"):
        load_dataset(save(tmp_path / "a.npz", content))


def test_values_far_out_are_warned_of(tmp_path: Path) -> None:
    """One outlier would leave all others a few of the 256 steps."""
    train = random_values(40, 30, 30) - 0.5
    content = arrays(x_train=train, x_test=train[:6], y_train=np.arange(40) % 3)
    assert not any("numpy.clip" in n for n in _notes(tmp_path, content))
    train[0, 0, 0] = 1000
    assert any("numpy.clip" in n for n in _notes(tmp_path, content))


def _notes(tmp_path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    return load_dataset(save(tmp_path / "a.npz", content)).notes


def test_values_outside_0_to_1_in_the_test_part_are_refused(tmp_path: Path) -> None:
    """A test part that is scaled otherwise than the training part is no detail."""
    content = arrays(x_train=random_values(12, 6, 7), x_test=np.full((6, 6, 7), 7.0))
    with pytest.raises(DataError, match="x_test has values outside 0 to 1"):
        load_dataset(save(tmp_path / "a.npz", content))


@pytest.mark.parametrize(
    ("length", "rows", "width"),
    [(36, 6, 6), (128, 8, 16), (1000, 25, 40), (41, 6, 7), (97, 9, 11)],
)
@pytest.mark.parametrize("axes", ["NT", "NCT", "NTC"])
def test_signals_are_folded_row_after_row(
    tmp_path: Path, length: int, rows: int, width: int, axes: str
) -> None:
    """The steps of each channel stand in their order, the last fills up the end."""
    channels = 1 if axes == "NT" else 6
    random = np.random.default_rng(3)
    signals = random.integers(0, 256, (12, channels, length), dtype=np.uint8)
    stored = {
        "NT": signals[:, 0],
        "NCT": signals,
        "NTC": signals.transpose(0, 2, 1),
    }[axes]
    content = arrays(x_train=stored, x_test=stored[:6], axes=np.array(axes))
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert dataset.input_shape == (channels, rows, width)
    assert dataset.signal_length == length
    flat = dataset.images.flatten(2).numpy()
    assert np.array_equal(flat[:, :, :length], signals)
    assert (flat[:, :, length:] == signals[:, :, -1:]).all()
    assert f"{rows} rows of {width}" in note(dataset, "folded")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((12, 128), (1, 8, 16)),
        ((12, 3, 128), (3, 8, 16)),
        ((12, 128, 2), (2, 8, 16)),
        ((12, 49, 10), (1, 49, 10)),
        ((12, 49, 10, 2), (2, 49, 10)),
        ((12, 4, 32, 32), (4, 32, 32)),
    ],
)
def test_axes_are_told_apart_by_their_lengths(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Without `axes`: two are signals, short ones are channels."""
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = arrays(x_train=values, x_test=values[:6])
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert dataset.input_shape == expected


def test_axes_end_the_doubt(tmp_path: Path) -> None:
    """Six short rows may be channels: it is told, and an array says what is right."""
    values = np.random.default_rng(0).integers(0, 256, (12, 6, 128), dtype=np.uint8)
    content = arrays(x_train=values, x_test=values[:6])
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert dataset.input_shape == (1, 6, 128)
    assert "read as NHW" in note(dataset, "array axes")
    content["axes"] = np.array("NCT")
    assert load_dataset(save(tmp_path / "a.npz", content)).input_shape == (6, 8, 16)


def test_val_arrays_are_the_validation_split(tmp_path: Path) -> None:
    """x_val and y_val, and nothing else, are what a search measures on."""
    more = np.random.default_rng(5).integers(0, 256, (3, 6, 7), dtype=np.uint8)
    content = arrays(x_val=more, y_val=np.array([2, 1, 0]))
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    train, val = dataset.split(seed=1, val_size=dataset.val_size)
    assert train.tolist() == list(range(12))
    assert torch.equal(dataset.images[val][:, 0], torch.from_numpy(more))
    assert dataset.labels[val].tolist() == [2, 1, 0]
    assert (
        dataset.fingerprint
        != load_dataset(save(tmp_path / "b.npz", arrays())).fingerprint
    )


def test_names_of_classes_are_used(tmp_path: Path) -> None:
    """class_names names whole numbers, and gives texts their order."""
    names = np.array(["yes", "no", "maybe"])
    dataset = load_dataset(save(tmp_path / "a.npz", arrays(class_names=names)))
    assert dataset.class_names == ("yes", "no", "maybe")
    plain = arrays()
    texts = {y: names[plain[y]] for y in ("y_train", "y_test")}
    ordered = load_dataset(save(tmp_path / "b.npz", arrays(**texts, class_names=names)))
    assert ordered.class_names == dataset.class_names
    assert ordered.fingerprint == dataset.fingerprint
    alone = load_dataset(save(tmp_path / "c.npz", arrays(**texts)))
    assert alone.class_names == ("maybe", "no", "yes")
    assert "maybe, no, yes" in note(alone, "text labels")
    said = [alone.class_names[label] for label in alone.labels.tolist()]
    assert said == texts["y_train"].tolist()


def test_a_text_that_training_lacks_is_named(tmp_path: Path) -> None:
    """A test label of no class is told as text."""
    content = arrays(
        y_train=np.array(["a", "b", "c"] * 4), y_test=np.array(["a", "b", "z"] * 2)
    )
    with pytest.raises(DataError, match="y_test has z, which y_train does not"):
        load_dataset(save(tmp_path / "a.npz", content))


def test_one_hot_labels_are_read(tmp_path: Path) -> None:
    """A 1 in the class's own column is that class."""
    plain = arrays()
    content = arrays(**{y: np.eye(3)[plain[y]] for y in ("y_train", "y_test")})
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert dataset.labels.tolist() == plain["y_train"].tolist()
    assert note(dataset, "one-hot")


def test_arrays_that_are_not_used_are_named(tmp_path: Path) -> None:
    """Nobody believes that sample_weight has been heeded."""
    content = arrays(sample_weight=np.ones(12), info=np.array("x"))
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert note(dataset, "not used").endswith("sample_weight, info")


def test_constant_images_are_warned_of(tmp_path: Path) -> None:
    """A silent recording or a black photo is most often a mistake."""
    content = arrays()
    content["x_train"][[4, 7]] = 9
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    assert "2 of 12 training images" in note(dataset, "one value only")
    assert "number 4" in note(dataset, "one value only")


def test_a_class_that_outweighs_is_told(tmp_path: Path) -> None:
    """With nine of twelve images of a class, always saying so is right 75 %."""
    content = arrays(y_train=np.array([1] * 9 + [0, 2, 0]))
    dataset = load_dataset(save(tmp_path / "a.npz", content))
    told = note(dataset, "balanced accuracy")
    assert "75.0 % of the training images are of one class, '1':" in told


@pytest.mark.parametrize("dtype", ["u1", "i4", "u8", ">i8"])
def test_npz_labels_may_be_any_whole_numbers(tmp_path: Path, dtype: str) -> None:
    """Labels of any integer type, also in a column as Keras has them, are taken."""
    column = (np.arange(12) % 3).astype(dtype)[:, None]
    dataset = load_dataset(save(tmp_path / "a.npz", arrays(y_train=column)))
    assert dataset.labels.tolist() == [index % 3 for index in range(12)]
    assert dataset.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": np.zeros((12, 6, 7), dtype="i4")}, "x_train holds one value"),
        ({"x_test": np.zeros((6, 6, 7), dtype="c8")}, "x_test is complex64"),
        ({"x_test": np.zeros((6, 6, 7))}, "x_test is float64, but x_train uint8"),
        ({"x_train": np.full((12, 6, 7), 255.0)}, "x_train holds one value"),
        ({"x_train": np.full((12, 6, 7), np.nan)}, "x_train holds NaN"),
        ({"x_train": np.zeros((12, 20), dtype="u1")}, "signals of 20 steps"),
        ({"axes": np.array("NHCW")}, "axes is 'NHCW'; give one of"),
        ({"axes": np.array("NT")}, r"x_train has shape \(12, 6, 7\)"),
        ({"axes": np.array("NHWC")}, r"x_train has shape \(12, 6, 7\)"),
        ({"x_train": np.zeros((), dtype="u1")}, "x_train has shape"),
        ({"x_train": np.zeros((12, 6, 7, 2), dtype="u1")}, "6x7 with 2 channels, test"),
        ({"x_train": np.zeros((12, 3, 3), dtype="u1")}, "signals of 3 steps"),
        ({"x_train": np.zeros((12, 3, 9, 3), dtype="u1")}, "9x3 pixels"),
        ({"x_train": np.zeros((12, 0, 0), dtype="u1")}, "0x0 pixels"),
        ({"x_train": np.zeros((11, 6, 7), dtype="u1")}, "11 training images but 12"),
        ({"x_test": np.zeros((6, 7, 7), dtype="u1")}, "one size"),
        ({"y_train": np.zeros((12, 3), dtype="i8")}, "y_train has shape"),
        ({"y_train": np.arange(12) % 3 * 1.0}, "labels are float64"),
        ({"y_train": np.array(["a", "b", "c"] * 4)}, "y_train holds texts and another"),
        ({"class_names": np.array(["a", "b", "a"])}, "a name twice"),
        ({"class_names": np.array(["a", "b"])}, "there are 2 class names"),
        ({"x_val": np.zeros((6, 6, 7), dtype="u1")}, "has no y_val"),
        (
            {"x_val": np.zeros((6, 6, 8), dtype="u1"), "y_val": np.arange(6) % 3},
            "validation images are of shape",
        ),
        (
            {"x_val": np.zeros((6, 6, 7), dtype="u1"), "y_val": np.arange(6)},
            "validation label 5 is in no training image",
        ),
        ({"y_train": np.arange(12) % 3 - 1}, "go down to -1"),
        ({"y_train": np.full(12, 2**64 - 1, dtype="u8")}, "at least two classes"),
        ({"y_test": np.full(6, 2**64 - 1, dtype="u8")}, "in no training image"),
        ({"y_train": np.array([None] * 12)}, "y_train cannot be read.*plain arrays"),
    ],
)
def test_bad_array_is_named(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    """Each fault of an array ends in one line that names the file."""
    name = save(tmp_path / "mine.npz", arrays(**changed))
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(name)
    assert "mine.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    """A file with other keys is told with those that it has and those it should."""
    name = save(tmp_path / "a.npz", {"images": np.zeros(3), "y_test": np.zeros(3)})
    with pytest.raises(DataError, match=r"no x_train, y_train, x_test \(it has images"):
        load_dataset(name)


def test_pickled_arrays_are_not_unpickled(tmp_path: Path) -> None:
    """An object array, which is a pickle and could run code, is not read."""
    marker = tmp_path / "was-run"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    evil = np.array([Evil()] * 12, dtype=object)
    name = save(tmp_path / "a.npz", arrays(x_train=evil))
    with pytest.raises(DataError, match="x_train cannot be read"):
        load_dataset(name)
    assert not marker.exists()
    with np.load(name, allow_pickle=True) as file:
        assert file["x_train"] is not None
    assert marker.exists()


def test_zip_bomb_is_refused_by_its_directory(tmp_path: Path) -> None:
    """A file that says it unpacks to over 8 GiB is not unpacked."""
    path = tmp_path / "bomb.npz"
    save(path, arrays())
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24  # the unpacked size in the first entry
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    at = content.index(b"PK\x01\x02", at) + 24
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    at = content.index(b"PK\x01\x02", at) + 24
    content[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"unpacks to 12\.0 GiB; at most 8 GiB"):
        load_dataset(str(path))


def test_array_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """A short member whose header claims terabytes does not take the memory."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 9999, 9999)}\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    path = tmp_path / "liar.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", member)
    with pytest.raises(DataError, match="x_train cannot be read"):
        load_dataset(str(path))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04", b"\x93NUMPY\x01\0"])
def test_file_that_is_no_zip_is_told(tmp_path: Path, content: bytes) -> None:
    """A file of another kind under the name .npz is told as that."""
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"is not a complete \.npz file"):
        load_dataset(str(tmp_path / "a.npz"))


def test_member_that_is_no_array_is_told(tmp_path: Path) -> None:
    """A plain text member under an array's name is no array."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(key, b"text")
    with pytest.raises(DataError, match="x_train has shape"):
        load_dataset(str(path))


def whole_npz() -> bytes:
    """Return the bytes of a good file, unpacked inside so that damage hits headers."""
    file = io.BytesIO()
    np.savez(file, **arrays())
    return file.getvalue()


WHOLE = whole_npz()


@settings(deadline=None, max_examples=examples(200))
@given(st.data())
def test_damaged_npz_is_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Random, cut and altered files end in a DataError or in a data set."""
    places = st.integers(0, len(WHOLE) - 1)
    cut = places.map(lambda end: WHOLE[:end])
    altered = st.tuples(places, st.binary(min_size=1, max_size=8)).map(
        lambda change: WHOLE[: change[0]] + change[1] + WHOLE[change[0] + 1 :]
    )
    content = data.draw(st.one_of(st.binary(max_size=200), cut, altered))
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    path.write_bytes(content)
    try:
        load_dataset(str(path))
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - or it is whole


# --- folders


def image(seed: int, size: tuple[int, int] = (7, 6), mode: str = "L") -> Image.Image:
    """Return an image of random pixels; size is width and height."""
    random = np.random.default_rng(seed)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a good folder of gray images: classes cat and dog, 4 and 2 of each."""
    root = tmp_path / "pets"
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                image(number).save(root / part / name / f"{number}.png")
    return root


def pixels(dataset_images: torch.Tensor, index: int) -> npt.NDArray[np.uint8]:
    """Return an image's pixels, channels last."""
    array: npt.NDArray[np.uint8] = dataset_images[index].permute(1, 2, 0).numpy()
    return array


def test_folder_is_read_in_the_order_of_names(folder: Path) -> None:
    """Classes and files come by name; hidden and other files are passed over."""
    (folder / "train/cat/notes.txt").write_text("no image")
    (folder / "train/cat/.hidden.png").write_text("no image")
    (folder / "train/.cache").mkdir()
    (folder / "train/dog/more").mkdir()
    image(9).save(folder / "train/dog/more/a.bmp")
    dataset = load_dataset(str(folder))
    assert dataset.class_names == ("cat", "dog")
    assert dataset.input_shape == (1, 6, 7)
    assert dataset.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert dataset.test_labels.tolist() == [0, 0, 1, 1]
    for index in range(4):
        expected = np.asarray(image(index))
        assert np.array_equal(pixels(dataset.images, index)[..., 0], expected)
    assert np.array_equal(pixels(dataset.images, 8)[..., 0], np.asarray(image(9)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_one_colour_image_makes_the_set_rgb(folder: Path, mode: str) -> None:
    """Gray images among coloured ones get three equal channels."""
    suffix = "tif" if mode == "CMYK" else "png"
    coloured = image(5, mode="RGB").convert(mode)
    coloured.save(folder / f"test/cat/0.{suffix}")
    dataset = load_dataset(str(folder))
    assert dataset.input_shape == (3, 6, 7)
    gray = pixels(dataset.images, 0)
    assert np.array_equal(gray, np.asarray(image(0).convert("RGB")))
    test = pixels(dataset.test_images, 0 if mode != "CMYK" else 1)
    assert np.array_equal(test, np.asarray(coloured.convert("RGB")))
    grays = 12 if mode == "CMYK" else 11
    assert note(dataset, "gray images among").startswith(f"{grays} ")


def test_black_and_white_is_gray(folder: Path) -> None:
    """One channel, as of gray with transparency in test_data_pictures.py."""
    image(5).convert("1").save(folder / "train/cat/0.png")
    assert load_dataset(str(folder)).input_shape == (1, 6, 7)


def test_oversized_images_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one huge image nor all together may fill the memory."""
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "MAX_BYTES", 100)
        with pytest.raises(DataError, match="at most"):
            load_dataset(str(folder))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(DataError, match="is not a readable image"):
        load_dataset(str(folder))


@pytest.mark.parametrize("part", ["train", "test"])
def test_classes_must_be_the_same(folder: Path, part: str) -> None:
    """A class in one part alone is named."""
    (folder / part / "bird").mkdir()
    image(0).save(folder / part / "bird/0.png")
    with pytest.raises(DataError, match=f"class bird is in {part}/ but not in"):
        load_dataset(str(folder))


def test_a_folder_of_idx_files_is_named_with_the_options_that_read_it(
    tmp_path: Path,
) -> None:
    """As Debian installs Fashion-MNIST: no folder of pictures."""
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    for path in (tmp_path, tmp_path / "train-images-idx3-ubyte.gz"):
        with pytest.raises(DataError, match=r"MNIST's format: give .* --data-dir"):
            load_dataset(str(path))


def test_missing_parts_are_named(folder: Path, tmp_path: Path) -> None:
    """A folder without train/, without classes, or with an empty one is refused."""
    for path in (folder / "test/dog").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"dog has no images"):
        load_dataset(str(folder))
    (folder / "train").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"train is not there, but test is"):
        load_dataset(str(folder))
    (folder / "train").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load_dataset(str(folder))
