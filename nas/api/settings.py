"""Values that default to environment variables, as for the command line."""

from __future__ import annotations

import os
from pathlib import Path

from nas.errors import UsageError


def studies_folder(given: str | Path | None) -> Path:
    """Return the folder of the studies: as given, from NAS_STUDIES, or studies/."""
    return Path(given or os.environ.get("NAS_STUDIES") or "studies")


def storage_url(given: str | None) -> str | None:
    """Return the storage's address: as given, from NAS_STORAGE, or None."""
    return given or os.environ.get("NAS_STORAGE") or None


def path_of(given: str | Path | None) -> Path | None:
    """Return the value as a Path, or None."""
    return None if given is None else Path(given)


def image_size_of(given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return height and width in pixels; one number is both. UsageError if invalid."""
    if given is None:
        return None
    size = (given, given) if isinstance(given, int) else tuple(given)
    if len(size) != 2 or not all(isinstance(n, int) and n >= 4 for n in size):
        raise UsageError(
            f"--image-size {given!r}: give 32, or (48, 64) for height and width, at least 4"
        )
    return size
