"""Reads the reports of a study's winners."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")


def read_reports(folder: Path, read: Callable[[dict[str, Any], Path], _T]) -> list[_T]:
    """Return ``read(report, its folder)`` for each report below the study's folder.

    Leaves out files that cannot be parsed and those for which ``read`` raises
    ValueError, KeyError, TypeError or OSError: they are incomplete, of another version
    or not from `nas best`.
    """
    found = []
    for path in sorted(folder.glob("*/report.json")):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            found.append(read(report, path.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
