"""Prints on terminals whose encoding lacks some characters."""

from __future__ import annotations

import codecs
import io
import sys

_NAME = "nas"
# ASCII replacements for nas's own characters, one for one to keep tables aligned.
_PLAIN = str.maketrans("▁▂▃▄▅▆▇█×–…→·━┃│─", "12345678x-.>.-||-")


def print_on_any_terminal() -> None:
    """Make stdout and stderr replace characters that their encoding lacks.

    nas's drawing characters become ASCII. Others are escaped as in Python source, so
    that different names stay distinguishable.
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
