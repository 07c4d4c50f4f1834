"""Turns the user's own arrays into a data set, by fixed rules for axes and values.

Axes: [N, H, W], [N, H, W, C], [N, C, H, W] with C 1 to 4, and signals [N, T],
[N, C, T], [N, T, C]. The lengths decide which; `axes` overrides them. A signal is
folded into rows; see ``fold``.

Values: bytes stay as they are. Other values become bytes by one linear scale for the
whole set, which the training images determine; see ``Scale``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.data.dataset import Dataset
from nas.data.own import assemble, listed
from nas.errors import DataError

PARTS = {"train": "training", "val": "validation", "test": "test"}

KEYS = (
    *(f"{axis}_{part}" for part in PARTS for axis in "xy"),
    "class_names",
    "axes",
)
"""The allowed names of arrays; x_train and y_train are required."""

AXES = ("NHW", "NHWC", "NCHW", "NT", "NCT", "NTC")
"""The allowed values of the array `axes`: number, height, width, channel, time."""

FEWEST_STEPS = 36
"""Minimum length of a signal, as it is folded into at least six rows of six."""

_FEWEST_ROWS = 6
_MOST_CHANNELS = 4
_MAYBE_CHANNELS = 16  # an axis this short may be the channels of a signal
_CHUNK = 4096
_SAMPLE = 1_000_000


def load_arrays(name: str, source: str, arrays: Mapping[str, Any]) -> Dataset:
    """Return a data set from arrays named as in KEYS; a note lists unused ones.

    x: numbers of any type; the module docstring has the rules for axes and values. y:
    whole numbers 0, 1, 2, ... or strings, [N] or [N, 1], or one-hot [N, K].
    ``class_names`` names the classes in the order of the labels; for string labels, it
    sets the order. ``axes`` is one of AXES and holds for all x arrays. ``source`` is
    the name of the data in messages. Raises DataError naming the array at fault.
    """
    _check_keys(source, arrays)
    notes = []
    unused = [key for key in arrays if key not in KEYS]
    if unused:
        notes.append(f"arrays that are not used: {listed(unused)}")
    parts = [part for part in PARTS if f"x_{part}" in arrays]
    axes = _axes(source, arrays)
    scale: Scale | None = None
    pixels: dict[str, npt.NDArray[np.uint8]] = {}
    length = 0
    for part in parts:
        array, layout = _channels_first(
            arrays[f"x_{part}"], f"{source}: x_{part}", axes
        )
        if scale is None:
            scale = Scale.of(array, f"{source}: x_{part}")
        bytes_, outside = scale.applied(array, f"{source}: x_{part}")
        if outside:
            notes.append(
                f"x_{part} goes beyond the range of x_train: {outside:,} values are cut"
            )
        if "T" in layout:
            length = bytes_.shape[-1]
            bytes_ = fold(bytes_, f"{source}: x_{part}")
        pixels[part] = bytes_
        if part == "train":
            notes += _shape_notes(arrays["x_train"], layout, bytes_.shape, axes)
            notes += scale.notes
    assert scale is not None
    labels, names, told = _labels(source, arrays, parts)
    return assemble(
        name,
        {part: (pixels[part], labels[part]) for part in parts},
        names,
        [*notes, *told],
        value_range=(scale.low, scale.high),
        signal_length=length,
    )


def _check_keys(source: str, arrays: Mapping[str, Any]) -> None:
    needed = ["x_train", "y_train"]
    for part in PARTS:
        some = [f"{axis}_{part}" for axis in "xy"]
        if any(key in arrays for key in some):
            needed += some
    missing = [key for key in dict.fromkeys(needed) if key not in arrays]
    if missing:
        raise DataError(
            f"{source} has no {', '.join(missing)} (it has "
            f"{', '.join(arrays) or 'nothing'}); give x_train, y_train, x_test, y_test "
            "and, for validation, x_val, y_val"
        )


def _axes(source: str, arrays: Mapping[str, Any]) -> str | None:
    if "axes" not in arrays:
        return None
    said = np.asarray(arrays["axes"]).ravel()
    text = str(said[0]).upper() if len(said) == 1 else f"{len(said)} values"
    if text not in AXES:
        raise DataError(f"{source}: axes is {text!r}; give one of {', '.join(AXES)}")
    return text


def _channels_first(
    array: Any, source: str, axes: str | None
) -> tuple[npt.NDArray[Any], str]:
    """Return [N, C, H, W] or, for signals, [N, C, T], and the original axes."""
    shape = np.shape(array)
    layout = axes or _guessed(shape)
    if not isinstance(array, np.ndarray) or layout is None or len(layout) != len(shape):
        raise DataError(
            f"{source} has shape {shape}; give [N, H, W], [N, H, W, C], [N, C, H, W], "
            "[N, T] or [N, C, T] with 1 to 4 channels, or say what it is with an array "
            f"axes, one of {', '.join(AXES)}"
        )
    if "C" not in layout:
        return array[:, None], layout
    return np.moveaxis(array, layout.index("C"), 1), layout


def _guessed(shape: tuple[int, ...]) -> str | None:
    few = range(1, _MOST_CHANNELS + 1)
    if len(shape) == 2:
        return "NT"
    if len(shape) == 3:
        # No image has a side of fewer than four pixels.
        if 1 <= shape[1] < _MOST_CHANNELS:
            return "NCT"
        return "NTC" if 1 <= shape[2] < _MOST_CHANNELS else "NHW"
    if len(shape) == 4 and shape[1] in few:
        return "NCHW"
    return "NHWC" if len(shape) == 4 and shape[3] in few else None


def _shape_notes(
    array: npt.NDArray[Any], layout: str, shape: Sequence[int], axes: str | None
) -> list[str]:
    """Return a note on how the axes are interpreted, if that is not obvious."""
    what = "x".join(map(str, shape[1:]))
    if "T" in layout:
        length = array.shape[layout.index("T")]
        note = (
            f"x_train {list(array.shape)} holds signals of {length} steps ({layout}): "
            f"folded into {shape[2]} rows of {shape[3]}, so images of {what}"
        )
        return [note]
    both = array.ndim == 4 and all(
        1 <= array.shape[n] <= _MOST_CHANNELS for n in (1, 3)
    )
    few = array.ndim == 3 and min(array.shape[1:]) <= _MAYBE_CHANNELS
    if axes is None and (both or few):
        note = (
            f"x_train {list(array.shape)} is read as {layout}, images of {what}; if it is "
            f"something else, say so with an array axes, one of {', '.join(AXES)}"
        )
        return [note]
    return []


def fold(signals: npt.NDArray[np.uint8], source: str) -> npt.NDArray[np.uint8]:
    """Return signals [N, C, T] as images [N, C, H, W], row after row.

    H is the largest divisor of T from 6 to the square root of T. If there is none, H is
    that root rounded down, and the last value is repeated to fill the last row.
    Raises DataError for signals of fewer than 36 steps.
    """
    length = signals.shape[-1]
    if length < FEWEST_STEPS:
        raise DataError(
            f"{source} has signals of {length} steps; give at least {FEWEST_STEPS}"
        )
    rows = rows_for(length)
    width = -(-length // rows)
    padded = np.pad(signals, ((0, 0), (0, 0), (0, rows * width - length)), mode="edge")
    return padded.reshape(*signals.shape[:2], rows, width)


def rows_for(length: int) -> int:
    """Return the number of rows that a signal of ``length`` steps is folded into."""
    root = math.isqrt(length)
    divisors = (n for n in range(root, _FEWEST_ROWS - 1, -1) if length % n == 0)
    return next(divisors, root)


@dataclass(frozen=True, slots=True)
class Scale:
    """The values that map to the bytes 0 and 255; the scale between is linear.

    ====================================  ==========================================
    x_train                               the bytes
    ====================================  ==========================================
    uint8                                 as it is (0 and 255 stand for 0 and 1)
    bool, floats that span half of 0..1   times 255
    int8                                  plus 128
    whole numbers from 0 to 255           as they are
    anything else                         its own range, from minimum to maximum
    ====================================  ==========================================
    """

    low: float
    high: float
    family: str
    measured: bool
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, array: npt.NDArray[Any], source: str) -> Scale:
        """Return the scale for a training set of these values."""
        family = _family(array, source)
        if family in {"uint8", "bool"} or not array.size:
            return cls(0.0, 1.0, family, measured=False)
        if family == "int8":
            note = "x_train is int8: 128 is added, so -128 to 127 become the bytes"
            return cls(-128.0, 127.0, family, measured=False, notes=(note,))
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(f"{source} holds NaN or infinity; replace those values")
        if low == high:
            raise DataError(f"{source} holds one value only, {low:g}; look at the data")
        if family == "floats" and low >= 0 and high <= 1 and high - low >= 0.5:
            note = f"x_train is {array.dtype}, 0 to 1: times 255, rounded to bytes"
            return cls(0.0, 1.0, family, measured=False, notes=(note,))
        if low >= 0 and high <= 255 and (family == "integers" or _whole(array)):
            note = f"x_train is {array.dtype} of whole numbers, 0 to 255: bytes as they are"
            return cls(0.0, 255.0, family, measured=False, notes=(note,))
        note = (
            f"x_train is {array.dtype}, {low:g} to {high:g}: that range becomes the bytes "
            f"0 to 255, in steps of {(high - low) / 255:.3g}"
        )
        notes = (note, *_lonely(array, low, high))
        return cls(low, high, family, measured=True, notes=notes)

    def applied(
        self, array: npt.NDArray[Any], source: str
    ) -> tuple[npt.NDArray[np.uint8], int]:
        """Return the bytes and the number of values clipped to the range."""
        family = _family(array, source)
        if family != self.family:
            raise DataError(
                f"{source} is {array.dtype}, but x_train {self.family}; give all parts "
                "in one type"
            )
        if family == "uint8":
            return np.asarray(array, dtype=np.uint8), 0
        scaled = np.empty(array.shape, dtype=np.uint8)
        outside = 0
        factor = 255 / (self.high - self.low)
        for start in range(0, len(array), _CHUNK):
            chunk = array[start : start + _CHUNK].astype(np.float64)
            # Written this way round so that NaN fails, too.
            within = (chunk >= self.low) & (chunk <= self.high)
            beyond = chunk.size - int(within.sum())
            if beyond and (not self.measured or not np.isfinite(chunk).all()):
                raise DataError(
                    f"{source} has values outside {self.low:g} to {self.high:g} or NaN, "
                    "and x_train has not; scale both alike"
                )
            outside += beyond
            scaled[start : start + _CHUNK] = np.rint(
                (chunk.clip(self.low, self.high) - self.low) * factor
            )
        return scaled, outside


def _family(array: npt.NDArray[Any], source: str) -> str:
    if array.dtype in (np.uint8, np.int8, np.bool_):
        return str(array.dtype)
    family = {"f": "floats", "i": "integers", "u": "integers"}.get(array.dtype.kind)
    if family is None:
        raise DataError(f"{source} is {array.dtype}; give numbers, such as uint8")
    return family


def _whole(array: npt.NDArray[Any]) -> bool:
    return all(
        bool((chunk == np.rint(chunk)).all())
        for chunk in (
            array[start : start + _CHUNK] for start in range(0, len(array), _CHUNK)
        )
    )


def _lonely(array: npt.NDArray[Any], low: float, high: float) -> list[str]:
    """Return a warning if a few outliers leave the other values few steps."""
    sample = array.reshape(-1)[:: max(1, array.size // _SAMPLE)]
    inner = np.quantile(sample.astype(np.float64), [0.001, 0.999])
    if inner[1] - inner[0] >= (high - low) / 8:
        return []
    warning = (
        f"warning: 99.8 % of the values are from {inner[0]:g} to {inner[1]:g}, an eighth "
        "of the range or less: cut the few beyond (numpy.clip) to keep finer steps"
    )
    return [warning]


def _labels(
    source: str, arrays: Mapping[str, Any], parts: Sequence[str]
) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...] | None, list[str]]:
    """Return the labels as numbers by part, the class names and notes."""
    notes: list[str] = []
    labels = {
        part: _flat(arrays[f"y_{part}"], f"{source}: y_{part}", notes) for part in parts
    }
    names = None
    if "class_names" in arrays:
        names = tuple(np.asarray(arrays["class_names"]).ravel().astype(str).tolist())
        if len(set(names)) != len(names):
            raise DataError(
                f"{source}: class_names has a name twice; give each its own"
            )
    texts = [part for part in parts if labels[part].dtype.kind in "US"]
    if not texts:
        return labels, names, list(dict.fromkeys(notes))
    if texts != list(parts):
        raise DataError(
            f"{source}: y_{texts[0]} holds texts and another part numbers; give one kind"
        )
    words = {part: labels[part].astype(str) for part in parts}
    if names is None:
        names = tuple(np.unique(words["train"]).tolist())
        notes.append(f"text labels: the classes are {listed(names)}, in this order")
    place = {name: number for number, name in enumerate(names)}
    for part in parts:
        unknown = sorted(set(words[part].tolist()) - set(place))
        if unknown:
            raise DataError(
                f"{source}: y_{part} has {listed(unknown)}, which "
                + ("class_names" if "class_names" in arrays else "y_train")
                + " does not"
            )
    numbers = {
        part: np.array([place[word] for word in words[part].tolist()], dtype=np.int64)
        for part in parts
    }
    return numbers, names, list(dict.fromkeys(notes))


def _flat(array: Any, source: str, notes: list[str]) -> npt.NDArray[Any]:
    """Return labels as [N]."""
    if isinstance(array, np.ndarray) and array.ndim == 2:
        # Keras' own data sets have labels of shape [N, 1].
        if array.shape[1] == 1:
            return array[:, 0]
        if array.dtype.kind in "iufb" and array.size:
            single = ((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()
            if single:
                notes.append("one-hot labels: the column with the 1 is the class")
                return np.asarray(array.argmax(axis=1))
    if not isinstance(array, np.ndarray) or array.ndim != 1:
        raise DataError(
            f"{source} has shape {np.shape(array)}; give one label per image, [N]"
        )
    return array
