"""Keeping passwords out of everything that is shown or written."""

from __future__ import annotations

import re

# Up to the last @ of the word: a password may hold one that nobody encoded.
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]*://[^\s/:@]*):\S*@", re.IGNORECASE)
_AS_OPTION = re.compile(
    r"\b(password|passwd|pwd|passfile)(\s*=\s*)('(?:\\.|[^'\\])*'|[^\s&;,)]+)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return the text with *** in the place of each password of a database's address.

    Both ways of giving one are known: ``scheme://user:password@host`` and
    ``password=...``. User, host and database stay, so that a message still helps.
    """
    return _AS_OPTION.sub(r"\1\2***", _IN_URL.sub(r"\1:***@", text))
