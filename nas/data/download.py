"""The cache, and downloads with time limits."""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import platformdirs

from nas.data.reason import reason
from nas.errors import DataError, StudyError
from nas.files import write_together

ANSWER_SECONDS = 3.0
"""Time limit for a mirror's first answer and for each later read."""

TOTAL_SECONDS = 900.0
"""Time limit for one whole file."""

MAX_BYTES = 1 << 30
"""Size limit for one file; the largest here is SVHN's, under 200 MB."""

logger = logging.getLogger("nas")


def cache_dir() -> Path:
    """Return the folder for downloads: NAS_CACHE_DIR, or the system's cache folder."""
    chosen = os.environ.get("NAS_CACHE_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("nas")


def md5(data: bytes | memoryview) -> str:
    """Return the md5 of bytes, 32 hex digits."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def store(contents: Mapping[str, bytes]) -> None:
    """Write files into the cache, by their paths below it, all of them or none.

    Readers never see a partly written file. Processes that store the same files at the
    same time all succeed. Raises DataError if they cannot be written.
    """
    folder = cache_dir()
    try:
        write_together({folder / path: data for path, data in contents.items()})
    except StudyError as error:
        raise DataError(f"{error}, or set NAS_CACHE_DIR to another folder") from error


def fetch(urls: Sequence[str], expected_md5: str | None = None) -> bytes:
    """Return the content of the first of ``urls`` that works.

    No step waits longer than ANSWER_SECONDS, not even a name look-up that hangs.
    Raises OSError with one reason for each address if all fail.
    """
    reasons: list[str] = []
    for url in urls:
        try:
            content = _fetch_one(url)
        except (OSError, HTTPException, ValueError) as error:
            reasons.append(f"{_host(url)}: {reason(error)}")
            continue
        if expected_md5 is None or md5(content) == expected_md5:
            logger.info("downloaded %s", url)
            return content
        reasons.append(f"{_host(url)}: other bytes than the checksum wants")
    raise OSError("; ".join(reasons) or "no mirrors are known")


def _fetch_one(url: str) -> bytes:
    deadline = time.monotonic() + TOTAL_SECONDS
    with _open(url) as response:
        content = bytearray()
        while part := response.read1(1 << 20):
            content += part
            if len(content) > MAX_BYTES:
                raise OSError("more data than expected")
            if time.monotonic() > deadline:
                raise TimeoutError("too slow")
    return bytes(content)


def _open(url: str) -> Any:
    """Open an address within ANSWER_SECONDS, in a thread.

    A name look-up has no time limit of its own. A hanging thread is abandoned; as a
    daemon it does not delay the exit.
    """
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=ANSWER_SECONDS))  # noqa: S310 - torchvision's addresses
        except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
            if isinstance(error, HTTPError):
                error.close()  # it holds the open response
            answer.put(error)

    threading.Thread(target=ask, daemon=True, name="nas-download").start()
    try:
        response = answer.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer in {ANSWER_SECONDS:g} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def _host(url: str) -> str:
    return urllib.request.Request(url).host or url  # noqa: S310 - opens nothing
