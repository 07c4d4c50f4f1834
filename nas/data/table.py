"""The user's own images listed in a CSV: path, label and, optionally, split."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nas.data.dataset import Dataset
from nas.data.folder import PARTS
from nas.data.own import assemble, listed
from nas.data.pictures import Size, read_pictures
from nas.data.reason import reason
from nas.errors import DataError

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image", "image_path"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "part", "subset", "set"),
}
"""The allowed headings of each column, in any case."""


def load_table(name: str, path: Path, image_size: Size | None = None) -> Dataset:
    """Return the data set that a CSV lists: per line path, label and optional split.

    Paths are relative to the file's own folder. The split is train, val or test;
    without that column all images are for training. Classes are ordered by number, or
    by name if not all are numbers. Without a heading the first column is the path and
    the second the label. Raises DataError naming the lines at fault.
    """
    rows, notes = _rows(path)
    parts: dict[str, tuple[list[Path], list[str]]] = {}
    faults: list[str] = []
    for number, file, label, split in rows:
        part = next((p for p, words in PARTS.items() if split.lower() in words), None)
        if part is None:
            faults.append(f"line {number}: {split!r} is not train, val or test")
        elif not file or not label:
            faults.append(f"line {number} lacks a path or a label")
        elif not (path.parent / file).is_file():
            faults.append(f"line {number}: {file} is not there")
        else:
            files, labels = parts.setdefault(part, ([], []))
            files.append(path.parent / file)
            labels.append(label)
    if faults:
        raise DataError(f"{path}: {listed(faults)}; correct the file")
    if "train" not in parts:
        raise DataError(f"{path} lists no training images; give some")
    parts = {part: parts[part] for part in PARTS if part in parts}
    names = _in_order({label for _, labels in parts.values() for label in labels})
    place = {label: number for number, label in enumerate(names)}
    images, told = read_pictures(
        {part: files for part, (files, _) in parts.items()}, image_size
    )
    return assemble(
        name,
        {
            part: (images[part], np.array([place[label] for label in labels]))
            for part, (_, labels) in parts.items()
        },
        tuple(names),
        [*notes, *told],
    )


def _rows(path: Path) -> tuple[list[tuple[int, str, str, str]], list[str]]:
    """Return (line, path, label, split) of each image, and notes on unused columns."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        # max returns the first of equals: the comma if the first line has none of them.
        delimiter = max(",;\t", key=first.count)
        lines = list(csv.reader(text.splitlines(), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file in UTF-8 ({reason(error)}); save it again"
        ) from error
    rows = [
        (number, [cell.strip() for cell in cells])
        for number, cells in enumerate(lines, start=1)
        if any(cell.strip() for cell in cells)
    ]
    if not rows:
        raise DataError(f"{path} is empty; give a path and a label per line")
    heading = [cell.lower() for cell in rows[0][1]]
    column = {
        what: next((n for n, head in enumerate(heading) if head in words), None)
        for what, words in COLUMNS.items()
    }
    notes = []
    if column["path"] is None or column["label"] is None:
        if len(heading) < 2 or not (path.parent / rows[0][1][0]).is_file():
            raise DataError(
                f"{path} has the columns {', '.join(rows[0][1])}; name one path and one "
                "label (and, for the split, one split)"
            )
        column = {"path": 0, "label": 1, "split": None}
        heading = ["path", "label"] + [
            f"column {n + 1}" for n in range(2, len(heading))
        ]
    else:
        rows = rows[1:]
    unused = [head for n, head in enumerate(heading) if n not in column.values()]
    if unused:
        notes.append(f"columns that are not used: {listed(unused)}")

    def cell(cells: Sequence[str], what: str, default: str = "") -> str:
        at = column[what]
        return default if at is None else (cells[at] if at < len(cells) else "")

    return [
        (
            number,
            cell(cells, "path"),
            cell(cells, "label"),
            cell(cells, "split", "train"),
        )
        for number, cells in rows
    ], notes


def _in_order(labels: set[str]) -> list[str]:
    """Return the class names in numeric order if all are numbers, else sorted."""
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)
