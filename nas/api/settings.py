"""What keywords leave open and the environment may say, as for the command line."""

from __future__ import annotations

import os
from pathlib import Path


def studies_folder(given: str | Path | None) -> Path:
    """Return the folder of the studies: as given, or of NAS_STUDIES, or studies/."""
    return Path(given or os.environ.get("NAS_STUDIES") or "studies")


def storage_url(given: str | None) -> str | None:
    """Return the storage's address: as given, or of NAS_STORAGE, or none."""
    return given or os.environ.get("NAS_STORAGE") or None


def path_of(given: str | Path | None) -> Path | None:
    """Return a path, where there is one."""
    return None if given is None else Path(given)
