"""Printing on terminals that cannot show every character."""

from __future__ import annotations

import codecs
import io
import sys

_NAME = "nas"
# What nas itself prints beyond ASCII, each as one character, so that tables stay in line.
_PLAIN = str.maketrans("▁▂▃▄▅▆▇█×–…→·━┃│─", "12345678x-.>.-||-")


def print_on_any_terminal() -> None:
    """Let stdout and stderr replace what their encoding lacks instead of failing.

    What nas draws with becomes plain characters, anything else is escaped as in
    Python's source: a name is still to be told from another.
    """
    codecs.register_error(_NAME, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
