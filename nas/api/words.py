"""Notes on the data, and translation of command-line messages for Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from nas.errors import NasError

if TYPE_CHECKING:
    from nas.data import Dataset

Say = Callable[[str], None]
"""A function that shows one line to the user."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

_OPTION = re.compile(
    r"--([a-z][a-z-]*)"
    r"(?: ([\w.]+=[\d.]+|ray\b)| (-?\d[\d.]*|'[^']*'|\[[^]]*\]|(?:True|False|nan|inf)\b))?"
)

_KEYWORDS = {"dataset": "data"}


def say_notes(dataset: Dataset, say: Say) -> None:
    """Print conversions and warnings about the data, one line each."""
    for note in dataset.notes:
        say(f"data: {note}")


def in_python(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make the errors of a function name keywords instead of command-line options."""

    @wraps(function)
    def speaking(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except (NasError, KeyboardInterrupt) as error:
            error.args = tuple(
                translated(part) if isinstance(part, str) else part
                for part in error.args
            )
            raise

    return speaking


def translated(text: str) -> str:
    """Return the text with ``budget=9`` for ``--budget 9``; commands are unchanged."""
    parts = text.split("`")  # every second part is a shell command
    parts[::2] = [_OPTION.sub(_keyword, part) for part in parts[::2]]
    return "`".join(parts).replace("the same command", "the same call")


def _keyword(match: re.Match[str]) -> str:
    option, board, value = match.groups()
    name = _KEYWORDS.get(option, option.replace("-", "_"))
    end = f'"{board}"' if board else value or ""
    return f"{name}={end}"
