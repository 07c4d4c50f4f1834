"""The cause of an error, short enough for a one-line message."""

from __future__ import annotations

from urllib.error import URLError


def reason(error: BaseException) -> str:
    """Return an exception's text on one line, or its type's name if it has none."""
    # urllib wraps the cause; the wrapper's own text is in angle brackets.
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        error = error.reason
    text = error.strerror if isinstance(error, OSError) else None
    return " ".join((text or str(error)).split()) or type(error).__name__
