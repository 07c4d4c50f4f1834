"""How long a board takes for a layer: multiply-accumulates a cycle, by kind of layer.

The boards that come with nas are in ``boards.toml``; a user's own are in a file like it.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from nas.errors import ArchitectureError

Operation = Literal["conv", "depthwise", "linear", "pool"]
"""What a layer does; a pooling takes no multiply-accumulates and no time here."""

_KEYS = ("mhz", "conv", "depthwise", "linear")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A clock in MHz, and multiply-accumulates a cycle of each kind of layer."""

    name: str
    mhz: float
    conv: float
    depthwise: float
    linear: float

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.mhz:g} MHz; {self.conv:g}, {self.depthwise:g} and "
            f"{self.linear:g} MACs a cycle)"
        )

    def nanoseconds(self, operation: Operation, macs: int) -> int:
        """Return the estimated time of so many multiply-accumulates, rounded up."""
        if operation == "pool":
            return 0
        rate: float = getattr(self, operation)
        return math.ceil(1000 * macs / (rate * self.mhz))


def find_board(name: str) -> Board:
    """Return a board by its name, or the one in a .toml file.

    Raises ArchitectureError for a name that is unknown, and for a file that has not
    exactly one board with a positive number for each key.
    """
    shipped = _read(Path(__file__).with_name("boards.toml"))
    if name in shipped:
        return shipped[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise ArchitectureError(
            f"unknown board {name!r}: give one of {', '.join(shipped)}, or a .toml file"
        )
    boards = _read(path)
    if len(boards) != 1:
        raise ArchitectureError(
            f"{path} has {len(boards)} boards: give a file with one"
        )
    return next(iter(boards.values()))


def read_limit(text: str) -> tuple[Board, float]:
    """Return the board and the milliseconds of ``BOARD=MS``.

    Raises ArchitectureError where it is nothing of the kind.
    """
    name, _, limit = text.rpartition("=")
    try:
        milliseconds = float(limit)
    except ValueError:
        milliseconds = math.nan
    if not name or not 0 < milliseconds < math.inf:
        raise ArchitectureError(
            f"{text!r} is not a latency: give BOARD=MS, such as nrf52840=50"
        )
    return find_board(name), milliseconds


@cache
def _read(path: Path) -> dict[str, Board]:
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArchitectureError(f"cannot read {path}: {error}") from error
    boards = {}
    for name, table in tables.items():
        if not isinstance(table, dict) or set(table) != set(_KEYS):
            raise ArchitectureError(
                f"{path}: [{name}] needs {', '.join(_KEYS)}, and no other key"
            )
        for key in _KEYS:
            value = table[key]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise ArchitectureError(
                    f"{path}: {name}.{key} is {value!r}, give a number above 0"
                )
        boards[name] = Board(name=name, **{k: float(table[k]) for k in _KEYS})
    return boards
