"""What tests need beyond Python's packages: asked for here, or the test is skipped.

A skip says what is missing and stands in pytest's summary. With
``NAS_REQUIRE_SYSTEM_PROGRAMS=1``, as .ci/run sets it, it is a failure: there nothing may
go untested.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from nas.training import kernels

# The system's packages, by the programs that tests ask for; Debian's names.
_PACKAGES = {
    "chromium": "chromium",
    "initdb": "postgresql",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "make": "make",
    "cc": "gcc libc6-dev",
    "c++": "g++",
    "mount": "mount",
    "unshare": "util-linux",
}
# Debian keeps PostgreSQL's programs out of the PATH.
POSTGRES = Path("/usr/lib/postgresql")


def missing(what: str) -> NoReturn:
    """Skip the test for want of something, or fail it where that is required."""
    if os.environ.get("NAS_REQUIRE_SYSTEM_PROGRAMS") == "1":
        pytest.fail(f"{what}, and NAS_REQUIRE_SYSTEM_PROGRAMS is set")
    pytest.skip(what)


def need(*programs: str) -> None:
    """Skip the test unless all of these programs are there."""
    lacking = [name for name in programs if shutil.which(name) is None]
    if lacking:
        packages = " ".join(_PACKAGES[name] for name in lacking)
        missing(f"no {', '.join(lacking)} here: apt-get install {packages}")


def need_kernels() -> None:
    """Skip the test unless the C kernels could be compiled."""
    need("cc")
    if not kernels.available():
        missing("the C kernels cannot be compiled here, or are switched off")


def chromium() -> str:
    """Return the path of Chromium or of what is like it."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("no chromium here: apt-get install chromium")
    return path


def postgres() -> Path:
    """Return the folder of initdb and the like, of the newest version there is."""
    found = sorted(
        POSTGRES.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    path = found[-1] if found else shutil.which("initdb")
    if path is None:
        missing("no PostgreSQL server here: apt-get install postgresql")
    return Path(path).parent
