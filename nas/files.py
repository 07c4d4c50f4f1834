"""Writing files whole or not at all; finding those that come with nas."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from nas.errors import StudyError

_REMEDIES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "raise the limit on the size of a file",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOTDIR: "choose a path that leads through folders only",
    errno.EEXIST: "choose a path that leads through folders only",
    errno.EISDIR: "move the folder of that name away",
}


def shipped(folder: str) -> Path:
    """Return a folder of data that comes with nas, such as ``search_spaces``."""
    # An installed nas carries it inside the package, a checkout beside it.
    inside = Path(str(resources.files("nas"))) / folder
    return inside if inside.is_dir() else inside.parent.parent / folder


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write the whole file or leave the old one as it is; text becomes UTF-8.

    Its folder is made where missing. Whoever reads the file meanwhile, or after a
    crash at any moment, sees either all of the old or all of the new one.

    Raises StudyError where the file cannot be written.
    """
    write_together({path: data})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Write several files, each as write_atomically does, and all of them or none.

    All are on the disk before the first takes its name, so a disk that fills up
    leaves every old file; only a crash or an error in the renaming at the end can
    leave some files old and some new, each of them whole.

    Raises StudyError where one of them cannot be written.
    """
    staged: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # In the same folder, since a rename across file systems is a copy.
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            staged[path] = temporary
            _write(temporary, data.encode() if isinstance(data, str) else data)
        for path, temporary in staged.items():
            temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        for temporary in staged.values():
            _discard(temporary)


def check_writable(folder: Path, names: Iterable[str] = ()) -> None:
    """Raise StudyError where these files could not be written into the folder.

    So that hours of work need not end with that. Nothing is left of the attempt.
    """
    path, probe = folder, folder / f".{secrets.token_hex(4)}.tmp"
    missing: list[Path] = []
    try:
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        _write(probe, bytes(2**16))  # a full disk takes empty files
        for path in (folder / name for name in names):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        _discard(probe)
        with suppress(OSError):
            for made in missing:
                made.rmdir()


def append_json(path: Path, entry: dict[str, Any]) -> None:
    """Append an entry to the JSON list in the file; begin one where there is none.

    Raises StudyError where it cannot be written. A file that holds no list is begun
    anew: it is a log, and worth less than the search that wants to write it.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = []
    if not isinstance(entries, list):
        entries = []
    write_atomically(path, json.dumps([*entries, entry], indent=1) + "\n")


def _cannot_write(path: Path, error: OSError) -> StudyError:
    cause = error.strerror or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "check the folder and try again")
    return StudyError(f"cannot write {path}: {cause}: {remedy}")


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        # Without this a power cut after the rename could leave an empty file.
        os.fsync(file.fileno())


def _discard(path: Path) -> None:
    """Remove a temporary file if it is still there, whatever state the disk is in."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the error that led here is the one to tell
        return
