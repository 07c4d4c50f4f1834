"""Looks the installed packages up in databases of known holes; CI runs it.

    python audit.py PIP_AUDIT SITE_PACKAGES

pip-audit says "none found" also where it could look nothing up, and ends alike where it
found a hole and where the database did not answer; so its words are counted here.
Fails only on a hole that a newer version mends. Where no database answers it says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

SECONDS = 45
SERVICES = ("pypi", "osv")
OPTIONS = ("--format=json", "--progress-spinner=off", "--timeout=10")
# It comes with Python's own environments and is no dependency of nas.
NOT_OURS = {"nas-under-cap", "pip"}


def looked_up(packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the packages that the database knows; of the others nothing is known."""
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


def answers(program: str, folder: str) -> list[list[dict[str, Any]]]:
    """Return what each database says of the packages in the folder; [] for nothing."""
    running = [
        subprocess.Popen(
            [
                program,
                f"--path={folder}",
                f"--vulnerability-service={service}",
                *OPTIONS,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for service in SERVICES
    ]
    found = []
    deadline = time.monotonic() + SECONDS
    for process in running:
        try:
            left = max(0.1, deadline - time.monotonic())
            output, _ = process.communicate(timeout=left)
            found.append(json.loads(output)["dependencies"])
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            process.kill()
            found.append([])
    return found


def main() -> int:
    """Ask every database; return 1 if one knows of a hole that can be mended."""
    program, folder = sys.argv[1:]
    checked, code = False, 0
    for service, packages in zip(SERVICES, answers(program, folder), strict=True):
        known = looked_up(packages)
        if not known:
            print(f"{service} does not answer")
            continue
        checked = True
        print(f"{service}: {len(known)} of {len(packages)} packages looked up")
        mended, open_ones = holes(known)
        for line in mended + open_ones:
            print(f"  {line}")
        code = 1 if mended else code
    if not checked:
        print("not checked: no vulnerability database answers")
    return code


if __name__ == "__main__":
    sys.exit(main())
