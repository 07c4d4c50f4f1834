"""CI's look for known holes in the dependencies, with a pip-audit that is made up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit.py"
FINE = {"name": "numpy", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}
OURS = {"name": "nas-under-cap", "version": "1.0", "vulns": []}


def bad(*mended: str) -> dict[str, Any]:
    """Return a package with a hole that these versions mend."""
    vulns = [{"id": "CVE-1", "fix_versions": list(mended), "aliases": []}]
    return {"name": "pillow", "version": "1.0", "vulns": vulns}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([FINE, OURS], 0, "1 of 2 packages looked up"),
        ([FINE, bad("1.1")], 1, "pillow 1.0: CVE-1, mended in 1.1"),
        ([FINE, bad()], 0, "pillow 1.0: CVE-1, not mended yet"),
        # It ends with 0 and "none found" where it could look nothing up.
        ([UNKNOWN, OURS], 0, "not checked: no vulnerability database answers"),
        (None, 0, "not checked: no vulnerability database answers"),
    ],
)
def test_it_fails_on_a_hole_that_can_be_mended_and_tells_what_it_did(
    tmp_path: Path, packages: list[dict[str, Any]] | None, code: int, said: str
) -> None:
    """Nothing looked up is neither a failure nor a success."""
    text = "" if packages is None else json.dumps({"dependencies": packages})
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit 1\n")
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, AUDIT, program, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout
