"""Looks the installed packages up in what is known of their holes; CI runs it.

    python audit.py SITE_PACKAGES [PIP_AUDIT]

The package index that pip is set up with tells the holes of a version beside its files,
in its JSON interface. Where pip-audit is there, OSV's database is asked, too; pip-audit
says "none found" also where it could look nothing up, and ends alike where it found a
hole and where the database did not answer, so its words are counted here.

Ends with 1 on a hole that a newer version mends, and with 3 where nobody answers: then
nothing is known, which is neither a success nor a failure.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

NOT_CHECKED = 3
SECONDS = 45
SECONDS_A_PACKAGE = 10
# It comes with Python's own environments and is no dependency of nas.
NOT_OURS = {"nas-under-cap", "pip"}


def installed(folder: str) -> list[tuple[str, str]]:
    """Return names and versions of the packages in the folder."""
    found = importlib.metadata.distributions(path=[folder])
    pairs = {(each.metadata["Name"], each.version) for each in found}
    return sorted(pair for pair in pairs if pair[0] not in NOT_OURS)


def index() -> str:
    """Return where pip's index has its JSON interface, beside its list of files."""
    simple = os.environ.get("PIP_INDEX_URL", "")
    if not simple:
        asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        simple = done.stdout.strip()
    if not simple:
        from pip._internal.models.index import PyPI

        return str(PyPI.pypi_url)
    return simple.rstrip("/").removesuffix("/simple") + "/pypi"


def from_index(address: str, name: str, version: str) -> dict[str, Any] | None:
    """Return the package with its holes, as pip-audit tells it; None for no answer."""
    try:
        with urllib.request.urlopen(  # noqa: S310 - the address is pip's own
            f"{address}/{name}/{version}/json", timeout=SECONDS_A_PACKAGE
        ) as answer:
            told = json.load(answer)["vulnerabilities"]
        holes_of_it = [
            {"id": hole["id"], "fix_versions": hole["fixed_in"]}
            for hole in told
            if not hole.get("withdrawn")
        ]
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        # TypeError: what answers is no such index.
        return None
    return {"name": name, "version": version, "vulns": holes_of_it}


def ask_index(packages: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return those that the index knows."""
    address = index()
    # Where it knows none of three, the others would wait in vain.
    if not any(from_index(address, *pair) for pair in packages[:3]):
        return []
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda pair: from_index(address, *pair), packages)
        return [package for package in found if package is not None]


def ask_osv(program: str, folder: str) -> list[dict[str, Any]]:
    """Return those that OSV knows, by way of pip-audit."""
    options = ["--vulnerability-service=osv", "--format=json", "--timeout=10"]
    try:
        done = subprocess.run(
            [program, f"--path={folder}", *options, "--progress-spinner=off"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        packages = json.loads(done.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        return []
    return [
        package
        for package in packages
        if "skip_reason" not in package and package["name"] not in NOT_OURS
    ]


def holes(packages: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return a line for each known hole: those that a version mends, and the others."""
    mended, open_ones = [], []
    for package in packages:
        for hole in package.get("vulns", []):
            line = f"{package['name']} {package['version']}: {hole['id']}"
            if hole["fix_versions"]:
                mended.append(f"{line}, mended in {', '.join(hole['fix_versions'])}")
            else:
                open_ones.append(f"{line}, not mended yet")
    return mended, open_ones


def main() -> int:
    """Ask everybody; return 1 if one knows of a hole that can be mended."""
    folder, *programs = sys.argv[1:]
    packages = installed(folder)
    answers = {"the package index": ask_index(packages)}
    for program in programs:
        answers["OSV"] = ask_osv(program, folder)
    code = 0
    for who, known in answers.items():
        if not known:
            print(f"{who} does not answer")
            continue
        print(f"{who}: {len(known)} of {len(packages)} packages looked up")
        mended, open_ones = holes(known)
        for line in mended + open_ones:
            print(f"  {line}")
        code = 1 if mended else code
    return code if any(answers.values()) else NOT_CHECKED


if __name__ == "__main__":
    sys.exit(main())
