"""The lock on a study's folder, and repair of a cut journal."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gzip
import json
import logging
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import IO

from nas.errors import StudyError

# Bytes; no record of the journal comes near it.
_LONGEST_RECORD = 2**20

_logger = logging.getLogger("nas")


def journal_of(folder: Path) -> Path | None:
    """Return the journal of the study in this folder, to be read; None if it has none.

    A study that is kept as a result may have its journal packed, as journal.log.gz; that
    is unpacked into a temporary folder, once, and nobody goes on writing it.
    """
    journal, packed = folder / "journal.log", folder / "journal.log.gz"
    if journal.is_file():
        return journal
    if not packed.is_file():
        return None
    return _unpacked(packed, packed.stat().st_mtime_ns)


def is_packed(folder: Path) -> bool:
    """Return whether the folder has its journal in packed form alone."""
    packed = (folder / "journal.log.gz").is_file()
    return packed and not (folder / "journal.log").is_file()


@functools.cache
def _unpacked(packed: Path, _written: int) -> Path:
    target = Path(tempfile.mkdtemp(prefix="nas-")) / "journal.log"
    atexit.register(shutil.rmtree, target.parent, ignore_errors=True)
    try:
        with gzip.open(packed) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except (OSError, EOFError, zlib.error) as error:
        raise StudyError(
            f"cannot read {packed} ({error}): restore it from a copy"
        ) from error
    return target


def take_lock(folder: Path) -> IO[str]:
    """Return the open lock file of a study; the system frees it with its owner.

    Raises StudyError when another process has it.
    """
    path = folder / ".lock"
    try:
        lock = path.open("a+")
    except OSError as error:
        raise StudyError(
            f"cannot write in the study's folder {folder} ({error.strerror}): nothing "
            "was changed; make it writable or give another folder with --studies"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(lock)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        lock.close()
        raise StudyError(
            f"the study {folder.name!r} is being searched by {owner}: wait for it or "
            "stop it first"
        ) from None
    except OSError as error:
        lock.close()
        raise StudyError(
            f"cannot lock {path} ({error.strerror}): give a folder on another file "
            "system with --studies"
        ) from error
    return lock


def _sign(lock: IO[str]) -> None:
    """Record who holds the lock, if the disk has room."""
    lock.truncate(0)
    with contextlib.suppress(OSError):
        os.write(lock.fileno(), f"process {os.getpid()}".encode())


def mend_journal(path: Path) -> None:
    """Remove an unfinished last record, left by a process that died.

    Only of a file that begins as a journal does: anything else is left as it is.
    """
    try:
        with path.open("rb+") as journal:
            first = journal.readline(_LONGEST_RECORD)
            size = journal.seek(0, os.SEEK_END)
            if first.endswith(b"\n") and not _is_record(first):
                raise _no_journal(path)
            begin = max(0, size - _LONGEST_RECORD)
            journal.seek(begin)
            tail = journal.read()
            whole = tail.rfind(b"\n") + 1
            last = tail[:whole].rstrip(b"\n").rfind(b"\n") + 1
            if whole and not _is_record(tail[last:whole]):
                whole = last
            if whole == len(tail):
                return
            if begin + whole == 0 and not tail.startswith(b'{"op_code"'[: len(tail)]):
                raise _no_journal(path)
            _logger.warning("cut an unfinished record off the end of %s", path)
            journal.truncate(begin + whole)
            os.fsync(journal.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror}") from error


def _no_journal(path: Path) -> StudyError:
    return StudyError(
        f"{path} is no study's journal: restore it from a copy, or move it away and "
        "start a new search"
    )


def _is_record(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line)
    except (ValueError, TypeError):
        return False
