"""CI's look for known holes in the dependencies, with an index that is made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
AUDIT = ROOT / ".ci" / "audit.py"
FINE = {"name": "numpy", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "not found"}
OURS = {"name": "nas-under-cap", "version": "1.0", "vulns": []}
Holes = dict[str, list[dict[str, Any]]]


def bad(*mended: str) -> dict[str, Any]:
    """Return a package with a hole that these versions mend, as pip-audit tells it."""
    vulns = [{"id": "CVE-1", "fix_versions": list(mended), "aliases": []}]
    return {"name": "pillow", "version": "1.0", "vulns": vulns}


def hole(*mended: str, withdrawn: str | None = None) -> dict[str, Any]:
    """Return a hole as the index tells it."""
    return {"id": "CVE-1", "fixed_in": list(mended), "withdrawn": withdrawn}


@pytest.fixture
def index() -> Iterator[Callable[[Holes | None], str]]:
    """Serve a package index that knows the holes of these, or answers with a page."""
    servers: list[ThreadingHTTPServer] = []

    def serve(known: Holes | None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, name, version, last = self.path.split("/")
                found = known is None or (name in known and version == "1.0")
                assert last == "json"
                self.send_response(200 if found else 404)
                self.end_headers()
                told = (
                    "hello" if known is None else {"vulnerabilities": known.get(name)}
                )
                self.wfile.write(json.dumps(told).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/simple"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder with three installed packages and nas."""
    folder = tmp_path / "site-packages"
    for name in ("pillow", "numpy", "torch", "nas-under-cap"):
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    return folder


def audit(
    packages: Path, address: str, *programs: Path
) -> subprocess.CompletedProcess[str]:
    """Run it against this index."""
    return subprocess.run(
        [sys.executable, AUDIT, packages, *programs],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PIP_INDEX_URL": address},
    )


NOBODY = "http://127.0.0.1:1/simple"


@pytest.mark.parametrize(
    ("known", "code", "said"),
    [
        ({"numpy": [], "torch": []}, 0, "the package index: 2 of 3 packages looked up"),
        ({"pillow": [hole("1.1", "1.2")]}, 1, "pillow 1.0: CVE-1, mended in 1.1, 1.2"),
        ({"pillow": [hole()]}, 0, "pillow 1.0: CVE-1, not mended yet"),
        ({"pillow": [hole("1.1", withdrawn="2026")]}, 0, "1 of 3 packages looked up\n"),
        ({}, 3, "the package index does not answer"),
        (None, 3, "the package index does not answer"),
    ],
)
def test_the_index_itself_is_asked(
    packages: Path,
    index: Callable[[Holes | None], str],
    known: Holes | None,
    code: int,
    said: str,
) -> None:
    """Whichever pip is set up with."""
    done = audit(packages, index(known))
    assert done.returncode == code, done.stderr
    assert said in done.stdout


def test_a_password_in_the_index_s_address_is_not_shown(packages: Path) -> None:
    """Such an address cannot be asked; that is neither a failure nor a success."""
    done = audit(packages, "http://user:s3cret@127.0.0.1:1/simple")
    assert done.returncode == 3
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        ([FINE, OURS], 0, "OSV: 1 of 3 packages looked up"),
        ([FINE, bad("1.1")], 1, "pillow 1.0: CVE-1, mended in 1.1"),
        ([FINE, bad()], 0, "pillow 1.0: CVE-1, not mended yet"),
        # It ends with 0 and "none found" where it could look nothing up.
        ([UNKNOWN, OURS], 3, "OSV does not answer"),
        (None, 3, "OSV does not answer"),
    ],
)
def test_a_database_is_asked_beside_an_index_that_does_not_answer(
    tmp_path: Path,
    packages: Path,
    told: list[dict[str, Any]] | None,
    code: int,
    said: str,
) -> None:
    """Nothing looked up is neither a failure nor a success."""
    text = "" if told is None else json.dumps({"dependencies": told})
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit 1\n")
    program.chmod(0o755)
    done = audit(packages, NOBODY, program)
    assert done.returncode == code, done.stderr
    assert said in done.stdout
    assert "the package index does not answer" in done.stdout


def test_the_summary_tells_what_was_not_checked() -> None:
    """The last lines of CI's run, with the checks themselves left out."""
    script = (ROOT / ".ci" / "run").read_text()
    begin, end = script.index("unchecked=()"), script.index("check pytest")
    summary = script[script.index("for what in") :]
    for code, words in {0: "all checks", 3: "NOT CHECKED: known", 1: "failed:"}.items():
        text = f"failed=()\npip_audit=()\npython() {{ return {code}; }}\n"
        text += script[begin:end] + summary
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == (1 if code == 1 else 0), done.stderr
        assert words in done.stdout
        assert ("NOT CHECKED" in done.stdout) == (code == 3)
