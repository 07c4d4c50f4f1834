"""Every command on terminals that cannot show every character, and at 80 columns."""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import typer
from cli_runner import Invoke
from nets import net_of
from rich.console import Console
from studying import command, complete_candidate, environment, run_nas

from nas.architecture import Block
from nas.architecture.boards import find_board
from nas.cli import app
from nas.cli.display import candidate_view, front_table, studies_table
from nas.references.bundled import Published, Reference, find_reference, write_reference
from nas.training.recipe import Recipe

ALL: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009
NET = "from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
KNOWN = Reference(
    name="known",
    architecture=net_of(Block(out_channels=6)),
    source="by hand",
    published=Published(
        num_params=200,
        epochs=4,
        accuracy=0.97,
        recipe=Recipe(epochs=4),
        dataset="digits",
    ),
)
HEADINGS = ("name", "complete", "pruned", "failed", "running", "budget")
WHERE = ["--studies", "Prüfung ✓"]
FAST = ["--device", "cpu", "--workers", 1]
# In an order in which each finds what it needs.
COMMANDS: dict[str, list[object]] = {
    "search": [
        *("--dataset", "digits", "--budget", 900, "--trials", 3, "--epochs", 2),
        *(*WHERE, *FAST),
    ],
    "best": [*WHERE, *FAST, "--epochs", 2, "--finalists", 1],
    "train": ["digits-900:0", *WHERE, *FAST, "--epochs", 1, "-o", "Prüfung ✓/out"],
    "export": ["Prüfung ✓/out", "--to", "c"],
    "import": ["net.py:net", "--input-shape", "1x8x8", "-o", "Prüfung ✓/net.toml"],
    "resize": ["digits-900:0", *WHERE, "--budget", 700, "-o", "Prüfung ✓/r.toml"],
    "front": WHERE,
    "show": ["0", *WHERE],
    "compare": ["known.toml", "--study", "digits-900", *WHERE],
    "studies": WHERE,
    "dashboard": WHERE,
    "report": WHERE,
    "data": ["digits", "--sheet", "Prüfung ✓/sheet.png"],
}


def say_in(encoding: str, monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Let what is printed go through such an encoding; return where it goes."""
    there = io.BytesIO()
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(there, encoding=encoding, write_through=True)
        monkeypatch.setattr(sys, name, stream)
    return there


def serve_nothing(*_: object, **options: Any) -> None:
    """Say the line of the dashboard and end."""
    options["say"]("http://127.0.0.1:1/é")


@pytest.mark.parametrize(
    "encoding", ["ascii", pytest.param("latin-1", marks=pytest.mark.slow)]
)
def test_every_command_prints_in_any_encoding(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """None fails, and no line of a table is longer than the terminal is wide."""
    assert set(COMMANDS) == set(ALL)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "known.toml").write_text(write_reference(KNOWN))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("nas.dashboard.serve", serve_nothing)
    for name, arguments in COMMANDS.items():
        there = say_in(encoding, monkeypatch)
        answer = invoke(name, *arguments)
        # Click takes ASCII for a mistake and writes what users named in UTF-8.
        text = there.getvalue().decode(encoding, "replace")
        assert answer.code == 0, (name, text)
        assert text.strip(), name
        rows = [line for line in text.splitlines() if line[:1] in "|+"]
        assert all(len(row) <= 80 for row in rows), name
        assert not rows or "\ufffd" not in "".join(rows), name
        if name == "show":
            assert re.search(r"\| +[1-8] \|$", text, re.MULTILINE)


def test_a_real_terminal_of_that_encoding(tmp_path: Path) -> None:
    """As PYTHONIOENCODING sets it, and LANG=C would over ssh; errors as well."""
    done = run(
        command("front", "--studies", "naïve ✓"),
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        b"nas: no studies in na\\xefve \\u2713: `nas search` begins one\n"
    )


def test_a_name_that_is_no_text_can_be_told(tmp_path: Path) -> None:
    """A file's name may be bytes that are no UTF-8."""
    done = run_nas("front", "--studies", "stud\udce9", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "nas: no studies in stud\\udce9: `nas search` begins one\n"


def test_nas_draws_with_characters_of_one_column() -> None:
    """So what stands for them keeps tables in line."""
    from nas.cli.encodings import _PLAIN

    for drawn, plain in _PLAIN.items():
        assert unicodedata.east_asian_width(chr(drawn)) != "W"
        assert plain < 128


@pytest.mark.parametrize("board", [None, "esp32"])
def test_a_narrow_terminal_loses_no_digit(board: str | None) -> None:
    """At 80 columns what is too wide goes on in the next line; nothing is left out."""
    architecture = find_reference("s0").architecture
    candidate = complete_candidate(123, architecture, 0.9987)
    found = board and find_board(board)
    for view in (
        candidate_view(candidate, found or None),
        front_table([candidate], "the front", found or None),
        studies_table([dict.fromkeys(HEADINGS, "1234567890" * 2)]),
    ):
        there = io.StringIO()
        Console(file=there, width=80).print(view)
        text = there.getvalue()
        assert "…" not in text
        assert all(len(line) <= 80 for line in text.splitlines())
