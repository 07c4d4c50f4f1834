"""Writes the winner as files that do not need nas: weights, source and report."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from nas.architecture import Architecture, Shape
from nas.architecture.cost import cost
from nas.architecture.notation import describe
from nas.export import source_template
from nas.export.contract import BYTES, FIXED_RANGES, contract, origin
from nas.export.layer_source import LINE_LENGTH, classes, layers
from nas.files import write_together
from nas.training.model import build

_FILE_NAME = "model.py"

WRITTEN = ("weights.safetensors", "architecture.json", _FILE_NAME, "report.json")
"""The files of `write_best`."""


def write_best(
    folder: Path,
    architecture: Architecture,
    text: str,
    state: Mapping[str, Tensor],
    report: Mapping[str, Any],
) -> None:
    """Write weights.safetensors, architecture.json, model.py and report.json.

    ``text`` is what ``source`` returns. ``state`` is the state dict of the model that
    nas.training.model.build returns, on any device. ``report`` is plain data for JSON.
    Either all four files are written or none.
    Raises StudyError if they cannot be written, RuntimeError if the state does not fit
    the architecture and ValueError for a report with a NaN or infinity.
    """
    build(architecture).load_state_dict(dict(state), strict=True)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in state.items()
    }
    write_together(
        {
            folder / "weights.safetensors": save(
                tensors, metadata={"architecture": architecture.to_json()}
            ),
            folder / "architecture.json": _json(architecture.to_dict()),
            folder / _FILE_NAME: text,
            folder / "report.json": _json(report),
        }
    )


def source(
    architecture: Architecture,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str],
    value_range: tuple[float, float] = BYTES,
    signal_length: int = 0,
    notes: Sequence[str] = (),
) -> str:
    """Return a Python module with this one network in plain torch, without nas.

    ``mean``, ``std`` (one number per channel, for pixels of 0 to 1), ``value_range``
    and ``signal_length`` are as in nas.data.Dataset. ``class_names`` has one name per
    class. ``notes`` are lines for the module's docstring, such as the test accuracy and
    how it was measured.
    """
    costs = cost(architecture)
    return source_template.MODEL.substitute(
        num_params=f"{costs.num_params:,}",
        num_params_literal=costs.num_params,
        macs=f"{costs.macs:,}",
        summary=_paragraph(describe(architecture), indent="    ").strip(),
        notes="".join(f"{_paragraph(note)}\n" for note in notes) + "\n" * bool(notes),
        file_name=_FILE_NAME,
        contract=_paragraph(
            f"{contract(architecture.input_shape)} "
            f"{origin(value_range, signal_length)}".strip()
            + " In Python, images in the layout and the values of the data set work, too."
        ),
        resized="self.resize(images)" if architecture.resolution else "images",
        layouts=_layouts(signal_length),
        layout_names=_layout_names(architecture.input_shape, signal_length),
        value_range=_tuple("VALUE_RANGE = ", map(repr, value_range)),
        signal_length=source_template.SIGNAL_LENGTH.format(signal_length)
        if signal_length
        else "",
        value_margin=f"VALUE_MARGIN = {_margin(value_range)!r}",
        shape=", ".join(map(str, architecture.input_shape)),
        input_shape=_tuple("INPUT_SHAPE = ", map(repr, architecture.input_shape)),
        num_classes=architecture.num_classes,
        mean=_tuple("MEAN = ", (repr(float(value)) for value in mean)),
        std=_tuple("STD = ", (repr(float(value)) for value in std)),
        class_names=_tuple("CLASS_NAMES = ", map(_string, class_names)),
        classes=classes(architecture),
        layers="\n".join(layers(architecture)),
    )


def _margin(value_range: tuple[float, float]) -> float:
    """Return how far new values may plausibly exceed a measured range."""
    low, high = value_range
    return 0.0 if value_range in FIXED_RANGES else high - low


def _layouts(signal_length: int) -> str:
    """Return the source lines that bring every layout to channels first."""
    lines = source_template.IMAGE_LAYOUTS
    if signal_length:
        lines = source_template.SIGNAL_LAYOUTS
    return textwrap.indent(lines, "    ")


def _layout_names(input_shape: Shape, signal_length: int) -> str:
    """Return the layouts as text without quotes that fits on a line."""
    channels, height, width = input_shape
    if signal_length:
        return f"(N, {channels}, {signal_length})"
    return f"(N, {channels}, {height}, {width})"


def _tuple(start: str, items: Iterable[str]) -> str:
    """Return ``start`` and a tuple, with the formatter's line breaks."""
    listed = list(items)
    line = f"{start}({', '.join(listed)}{',' * (len(listed) == 1)})"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"{start}(", *(f"    {item}," for item in listed), ")"])


def _string(text: str) -> str:
    """Return a string literal in double quotes, unless they would need escapes."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _paragraph(text: str, indent: str = "") -> str:
    """Return text wrapped for a docstring, without characters that could end it."""
    # Python source allows no null byte, and a file no lone surrogate.
    safe = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.fill(
        safe.replace("\\", "\\\\").replace('"""', "'''"),
        LINE_LENGTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _json(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Put each row of a table on one line; no string has a line break within brackets.
    return re.sub(
        r"\[\n[-+.\de,\s]+\]",
        lambda row: " ".join(row[0].split()).replace("[ ", "[").replace(" ]", "]"),
        text,
    )
