"""The user's own images as files: train/CLASS/IMAGE and test/CLASS/IMAGE."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from nas.data.dataset import Dataset, make_dataset
from nas.data.reason import reason
from nas.errors import DataError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"}
SUFFIXES |= {".webp"}

GRAY = {"1", "L", "LA"}
COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""PIL's names for the ways to store a pixel; those with over 8 bits are in neither."""

MAX_BYTES = 8 << 30
"""What the pixels may take together; as for a .npz."""


def load_folder(name: str, root: Path) -> Dataset:
    """Return the data set below ``root``.

    The folders below train/ are the classes, in the order of their names; test/ has
    the same. All images are of one size. They are gray if all of them are, else RGB;
    transparency is dropped. Hidden files and those of other kinds are passed over.
    Raises DataError naming the first file at fault.
    """
    classes = _class_folders(root / "train")
    test_classes = _class_folders(root / "test")
    for odd in sorted(set(classes) ^ set(test_classes)):
        here, there = ("train", "test") if odd in classes else ("test", "train")
        raise DataError(
            f"{root}: class {odd} is in {here}/ but not in {there}/; "
            "give both the same class folders"
        )
    files = _image_files(root / "train", classes)
    test_files = _image_files(root / "test", classes)
    gray = _check(files + test_files)
    images, labels = _read(files, gray=gray)
    test_images, test_labels = _read(test_files, gray=gray)
    return make_dataset(name, images, labels, test_images, test_labels, tuple(classes))


def _class_folders(part: Path) -> list[str]:
    if not part.is_dir():
        raise DataError(
            f"{part} is not there; give a folder with train/ and test/, each with one "
            "folder of images a class"
        )
    names = sorted(
        path.name
        for path in part.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    if not names:
        raise DataError(f"{part} has no class folders; give one folder a class")
    return names


def _image_files(part: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Return (file, label) of every image, in the order of the names."""
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        # By parts, not by the system's own order, so that it is the same everywhere.
        paths = sorted(
            (path for path in (part / name).rglob("*") if _is_image(path)),
            key=lambda path: path.parts,
        )
        if not paths:
            raise DataError(
                f"{part / name} has no images; give at least one a class "
                f"({', '.join(sorted(SUFFIXES))})"
            )
        found.extend((path, label) for path in paths)
    return found


def _is_image(path: Path) -> bool:
    return (
        path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )


def _check(files: list[tuple[Path, int]]) -> bool:
    """Return whether all images are gray; DataError unless all are of one size.

    Reads the headers alone, so that a fault is met before the long reading.
    """
    first, _ = files[0]
    width, height = _open(first).size
    gray = True
    for path, _ in files:
        image = _open(path)
        if image.size != (width, height):
            raise DataError(
                f"{path} is {image.size[0]}x{image.size[1]} pixels, but {first} is "
                f"{width}x{height}; bring all images to one size"
            )
        if image.mode not in GRAY | COLOUR:
            raise DataError(
                f"{path} has pixels of mode {image.mode}; give 8 bit gray or RGB"
            )
        gray = gray and image.mode in GRAY
    size = len(files) * width * height * (1 if gray else 3)
    if size > MAX_BYTES:
        raise DataError(
            f"{first} and the {len(files) - 1} others take {size / 2**30:.1f} GiB; at "
            f"most {MAX_BYTES >> 30} GiB are read, so give fewer or smaller images"
        )
    return gray


def _read(
    files: list[tuple[Path, int]], *, gray: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return uint8 [N, C, H, W] and labels [N]."""
    width, height = _open(files[0][0]).size
    images = np.empty((len(files), height, width, 1 if gray else 3), dtype=np.uint8)
    for index, (path, _) in enumerate(files):
        image = _open(path, decode=True).convert("L" if gray else "RGB")
        images[index] = np.asarray(image).reshape(images.shape[1:])
    labels = np.array([label for _, label in files], dtype=np.int64)
    return images.transpose(0, 3, 1, 2), labels


def _open(path: Path, *, decode: bool = False) -> Image.Image:
    """Return an image, its file closed again; it has pixels only with ``decode``."""
    try:
        with warnings.catch_warnings():
            # PIL only warns of an image that is suspiciously large.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if decode:
                    image.load()
                return image
    except Exception as error:  # decoders of damaged files raise nearly everything
        raise DataError(
            f"{path} is no readable image ({reason(error)}); replace or remove it"
        ) from error
