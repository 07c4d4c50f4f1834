"""Reads image files into arrays of one size and pixel format, by fixed rules.

Size: the requested one; else the common size of all images; else the median height and
width of the training images, scaled down to at most 64. An image of another size is
stretched to it, as ``image.resize((width, height))`` does.
Pixels: gray if every image is stored as gray, else RGB. Transparent images are put on
white, or on black if their visible pixels are lighter than middle gray on average over
the whole set. The camera's rotation (EXIF) is applied.
"""

from __future__ import annotations

import os
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from nas.data.dataset import MAX_BYTES, MIN_PIXELS
from nas.data.own import listed
from nas.data.reason import reason
from nas.errors import DataError

GRAY = {"1", "L", "LA"}
COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""PIL's pixel modes; GRAY and COLOUR leave out those with more than 8 bits."""

ALPHA = {"LA", "PA", "RGBA"}

NOT_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats of PIL that need another program or are not pictures."""

LARGEST_SIDE = 64
"""Maximum side for images of several sizes; larger is too much for tiny networks."""

LARGE_SIDE = 128
"""Images of one size keep it; above this side a note warns about the cost."""

_TURNED = {5, 6, 7, 8}
"""EXIF orientations that swap height and width."""

_ORIENTATION = 0x0112
_MOST_FAULTS = 50

Size = tuple[int, int]
"""Height and width."""


@dataclass(slots=True)
class _Header:
    size: Size
    gray: bool
    turned: bool
    several: bool


def suffixes() -> set[str]:
    """Return the suffixes of image files, in lower case with the dot."""
    Image.init()
    return {
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in NOT_PICTURES
    }


def find_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files below a folder and the skipped paths, both sorted.

    Other files and hidden ones are skipped; a hidden folder counts as one path.
    """
    known = suffixes()
    found: list[Path] = []
    skipped: list[Path] = []
    for place, folders, files in os.walk(folder):
        hidden = [name for name in folders if name.startswith(".")]
        skipped += [Path(place, name) for name in hidden]
        folders[:] = [name for name in folders if name not in hidden]
        for name in files:
            is_picture = Path(name).suffix.lower() in known and not name.startswith(".")
            (found if is_picture else skipped).append(Path(place, name))
    # By path parts, so that the order is the same on every system.
    found.sort(key=lambda path: path.parts)
    return found, sorted(skipped)


def read_pictures(
    parts: dict[str, list[Path]], image_size: Size | None
) -> tuple[dict[str, npt.NDArray[np.uint8]], list[str]]:
    """Return the images of each part, uint8 [N, C, H, W], and notes on conversions.

    Raises one DataError for all files that cannot be read.
    """
    faults: list[str] = []
    paths = [path for some in parts.values() for path in some]
    headers = {path: _header(path, faults) for path in paths}
    good = {path: header for path, header in headers.items() if header}
    if not good:
        _raise(faults)
    training = [h for p in parts["train"] if (h := good.get(p))] or [*good.values()]
    gray = all(header.gray for header in good.values())
    height, width = size = image_size or _size_for(training, [*good.values()])
    total = len(paths) * height * width * (1 if gray else 3)
    if total > MAX_BYTES:
        raise DataError(
            f"{paths[0]} and the {len(paths) - 1} others take {total / 2**30:.1f} GiB; at "
            f"most {MAX_BYTES >> 30} GiB are read, so give fewer or smaller images"
        )
    images = np.empty((len(paths), height, width, 1 if gray else 3), dtype=np.uint8)
    see_through: list[int] = []
    brightness: list[float] = []
    for index, path in enumerate(paths):
        picture = _decoded(path, faults) if path in good else None
        if picture is None:
            continue
        if (light := _visible_brightness(picture)) is not None:
            see_through.append(index)
            brightness.append(light)
        images[index] = _pixels(picture, size, gray=gray, ground=255)
    if faults:
        _raise(faults)
    notes = _notes(size, image_size, [*good.values()])
    if not gray and any(header.gray for header in good.values()):
        count = sum(header.gray for header in good.values())
        notes.append(f"{count:,} gray images among coloured ones: read as RGB")
    if see_through:
        ground = 0 if statistics.fmean(brightness) > 127.5 else 255
        for index in see_through if ground == 0 else []:
            picture = _decoded(paths[index], faults)
            if picture is None:
                _raise(faults)
            images[index] = _pixels(picture, size, gray=gray, ground=ground)
        notes.append(
            f"{len(see_through):,} images have transparent pixels: put on "
            f"{'white' if ground else 'black'}, from which the others stand out"
        )
    ready = images.transpose(0, 3, 1, 2)
    ends = np.cumsum([len(some) for some in parts.values()])[:-1]
    return dict(zip(parts, np.split(ready, ends), strict=True)), notes


def _notes(size: Size, asked: Size | None, headers: Sequence[_Header]) -> list[str]:
    notes = []
    sizes = sorted({header.size for header in headers}, key=lambda s: s[0] * s[1])
    if sizes != [size]:
        why = (
            "a fixed size"
            if asked
            else f"the median of the training images, at most {LARGEST_SIDE}; "
            "--image-size sets another"
        )
        kinds = "one size" if len(sizes) == 1 else f"{len(sizes):,} sizes"
        span = _by(sizes[0])
        if len(sizes) > 1:
            span += f" to {_by(sizes[-1])}"
        notes.append(
            f"images of {kinds}, {span} (height x width): stretched to {_by(size)} ({why})"
        )
    elif max(size) > LARGE_SIDE:
        notes.append(
            f"images are {_by(size)} pixels, which makes every network slow: "
            f"--image-size {LARGEST_SIDE} is enough for most tiny ones"
        )
    if count := sum(header.turned for header in headers):
        notes.append(f"{count:,} images are turned as the camera says (EXIF)")
    if count := sum(header.several for header in headers):
        notes.append(f"{count:,} files hold several pictures: the first is read")
    return notes


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _size_for(training: Sequence[_Header], everything: Sequence[_Header]) -> Size:
    sizes = {header.size for header in everything}
    if len(sizes) == 1:
        return sizes.pop()
    height = statistics.median_low([header.size[0] for header in training])
    width = statistics.median_low([header.size[1] for header in training])
    scale = min(1.0, LARGEST_SIDE / max(height, width))
    return (
        max(MIN_PIXELS, round(height * scale)),
        max(MIN_PIXELS, round(width * scale)),
    )


def _header(path: Path, faults: list[str]) -> _Header | None:
    """Return the image's header, or add a fault to the list and return None."""
    try:
        with _strict(), Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION, 1)
            several = bool(getattr(image, "is_animated", False))
            mode = image.mode
    except Exception as error:  # noqa: BLE001  # damaged files raise nearly everything
        faults.append(f"{path} is not a readable image ({reason(error)})")
        return None
    if mode not in GRAY | COLOUR:
        faults.append(
            f"{path} has pixels of mode {mode}, and 8 bit gray or RGB are read"
        )
        return None
    if orientation in _TURNED:
        width, height = height, width
    return _Header((height, width), mode in GRAY, orientation in range(2, 9), several)


def _decoded(path: Path, faults: list[str]) -> Image.Image | None:
    """Return the image upright, or add a fault to the list and return None."""
    try:
        with _strict(), Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001  # as above
        faults.append(f"{path} is not a readable image ({reason(error)})")
        return None


def _strict() -> warnings.catch_warnings[None]:
    """Return a context in which a suspiciously large image is an error."""
    return warnings.catch_warnings(
        action="error", category=Image.DecompressionBombWarning
    )


def _see_through(image: Image.Image) -> bool:
    return image.mode in ALPHA or "transparency" in image.info


def _visible_brightness(image: Image.Image) -> float | None:
    """Return the mean gray value of visible pixels, 0 to 255; None if opaque."""
    if not _see_through(image):
        return None
    whole = image.convert("RGBA")
    alpha = np.asarray(whole.getchannel("A"), dtype=np.float64)
    if alpha.min() == 255:
        return None
    gray = np.asarray(whole.convert("RGB").convert("L"), dtype=np.float64)
    return float((alpha * gray).sum() / alpha.sum()) if alpha.any() else 0.0


def _pixels(
    image: Image.Image, size: Size, *, gray: bool, ground: int
) -> npt.NDArray[np.uint8]:
    """Return uint8 [H, W, C]."""
    mode = "L" if gray else "RGB"
    if _see_through(image):
        whole = image.convert("RGBA")
        below = Image.new("RGBA", whole.size, (ground, ground, ground, 255))
        image = Image.alpha_composite(below, whole).convert("RGB")
    image = image.convert(mode)
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, -1)


def _raise(faults: Sequence[str]) -> NoReturn:
    """Raise a DataError that lists the faults."""
    shown = "; ".join(faults[:_MOST_FAULTS])
    rest = len(faults) - _MOST_FAULTS
    more = f"; and {rest:,} more" if rest > 0 else ""
    count = f"{len(faults):,} files: " if len(faults) > 1 else ""
    them = "them" if len(faults) > 1 else "it"
    raise DataError(f"{count}{shown}{more}; replace or remove {them}")


def skipped_note(skipped: Sequence[Path], root: Path) -> str:
    """Return the note that counts and names the skipped files."""
    names = [str(path.relative_to(root)) for path in skipped]
    files = "file is" if len(names) == 1 else "files are"
    return (
        f"{len(names):,} {files} skipped, hidden or no images that Pillow reads: "
        f"{listed(names)}"
    )
