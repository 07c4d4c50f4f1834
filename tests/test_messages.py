"""What messages advise exists: every command and option that they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import nas
from nas.cli import app

PACKAGE = Path(nas.__file__).parent
COMMANDS: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009
OPTIONS = {
    name: {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    | {"--help"}
    for name, command in COMMANDS.items()
}
KNOWN = set().union(*OPTIONS.values()) | {"--version"}
# What is no option of nas: of other programs, and colours of pages.
OTHERS = {
    "export/c/target.py": re.compile("--logits"),
    "engines/ray_connection.py": re.compile("--head|--port"),
    "data/wheel.py": re.compile(r".*"),
    "report/page.py": re.compile(r"--[a-z0-9]+"),
    "dashboard/assets.py": re.compile(r"--[a-z0-9]+"),
}


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a file; what is filled in is a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "."
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


FILES = {
    str(path.relative_to(PACKAGE)): set(texts(ast.parse(path.read_text("utf-8"))))
    for path in PACKAGE.rglob("*.py")
}


def named(file: str) -> set[str]:
    """Return the options that the file's texts name."""
    found = {
        o for t in FILES[file] for o in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", t)
    }
    other = OTHERS.get(file)
    return {o for o in found if other is None or not other.fullmatch(o)}


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_option_that_a_message_names_exists(file: str) -> None:
    """In docstrings, too: some are the commands' help."""
    assert named(file) <= KNOWN


def test_the_options_are_found() -> None:
    """The search above sees what it is to see."""
    assert {"--budget", "--study", "--max-macs"} <= named("search/start.py")
    assert "--val-size" not in KNOWN


def test_every_command_that_a_message_names_has_its_options() -> None:
    """`nas search --study NAME` is a command with that option."""
    found = [
        match.groups()
        for file in FILES
        for text in FILES[file]
        for match in re.finditer(r"`nas ([a-z][\w-]*)([^`]*)`", text)
    ]
    assert len(found) > 10
    for name, rest in found:
        assert name in COMMANDS
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= OPTIONS[name]
