"""The order of the modules: who may import whom, and what stays light."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import nas

CHECKOUT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"][
    "importlinter"
]["contracts"]
LIGHT = next(
    c["source_modules"] for c in CONTRACTS if "torch" in c.get("forbidden_modules", [])
)


def test_each_file_imports_only_files_above_it(tmp_path: Path) -> None:
    """import-linter finds the contracts of pyproject.toml kept."""
    # From elsewhere, and told where nas lies: the one that these tests import.
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            str(Path(nas.__file__).parent.parent),
            "--config",
            str(CHECKOUT / "pyproject.toml"),
            "--no-cache",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_only_describes_loads_no_framework() -> None:
    """Importing all of it in a fresh process loads neither torch nor optuna."""
    assert LIGHT
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    __import__(name)\n"
        "    found = {'torch', 'optuna'} & set(sys.modules)\n"
        "    assert not found, (name, found)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(nas.__file__).parent.parent), *LIGHT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_installed_nas_carries_the_spaces() -> None:
    """In site-packages the spaces lie inside the package, references included."""
    package = Path(nas.__file__).parent
    if package.parent == Path(sysconfig.get_paths()["purelib"]):
        spaces = package / "search_spaces"
    else:
        spaces = package.parent / "search_spaces"
    expected = {
        path.relative_to(CHECKOUT / "search_spaces")
        for path in (CHECKOUT / "search_spaces").rglob("*.toml")
    }
    assert {path.relative_to(spaces) for path in spaces.rglob("*.toml")} == expected
