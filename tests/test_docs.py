"""docs/cli.md tells every command and option, in the words of --help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from nas.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
COMMANDS: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009


def sections() -> dict[str, str]:
    """Return the text of each section of the page by its heading."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> dict[str, str]:
    """Return the table of arguments and options: names to explanation."""
    found = re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.MULTILINE)
    return {re.sub(r"[`]| \(optional\)", "", names): text for names, text in found}


def test_each_command_has_its_section_and_no_other_has() -> None:
    """What is new in the program is new on the page, what is gone is gone."""
    assert list(sections()) == [f"nas {name}" for name in COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_explained_in_the_words_of_its_help(name: str) -> None:
    """Names, help and environment variable stand in the table, and nothing else."""
    expected = {}
    for parameter in COMMANDS[name].params:
        if parameter.name == "help":
            continue
        assert parameter.help, f"{parameter.name} has no help"
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            names = [parameter.name.upper()]
        env = f" [env: {parameter.envvar}]" if parameter.envvar else ""
        expected[", ".join(names)] = parameter.help + env
    assert rows(sections()[f"nas {name}"]) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_begins_with_its_help(name: str) -> None:
    """The first paragraph is the command's own."""
    text = " ".join(COMMANDS[name].help.split())
    assert " ".join(sections()[f"nas {name}"].split()).startswith(text)


def test_the_examples_name_real_commands_and_options() -> None:
    """Every `nas ...` on the page is one that the program understands."""
    text = PAGE.read_text(encoding="utf-8")
    examples = re.findall(r"^    nas (\w+)(.*)$", text, re.MULTILINE)
    assert examples
    for name, rest in examples:
        known = {o for p in COMMANDS[name].params for o in p.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known
