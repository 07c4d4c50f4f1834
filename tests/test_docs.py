"""docs/cli.md tells every command and option, in the words of --help.

Run as a program, it writes the tables' rows anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

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
    table = section.partition("| Argument or option | |\n")[2]
    found = re.findall(r"^\| (`.+?) \| (.+) \|$", table, re.MULTILINE)
    return {re.sub(r"[`]| \(optional\)", "", names): text for names, text in found}


def explanation(parameter: Any) -> str:
    """Return the help with what --help adds: the values, the default, the variable."""
    text: str = parameter.help
    described = parameter.type_descriptor.annotation
    if get_origin(described) is Literal:
        text += f" Values: {', '.join(get_args(described))}."
    default = parameter.default
    if default not in (None, False) and "[default:" not in text:
        text += f" [default: {default}]"
    return text + (f" [env var: {parameter.envvar}]" if parameter.envvar else "")


def expected_rows(name: str) -> dict[str, str]:
    """Return what the table of a command should have."""
    expected = {}
    for parameter in COMMANDS[name].params:
        if parameter.name == "help":
            continue
        assert parameter.help, f"{parameter.name} has no help"
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            names = [parameter.name.upper()]
        expected[", ".join(names)] = explanation(parameter)
    return expected


def test_each_command_has_its_section_and_no_other_has() -> None:
    """What is new in the program is new on the page, what is gone is gone."""
    assert list(sections()) == [f"nas {name}" for name in COMMANDS]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_explained_in_the_words_of_its_help(name: str) -> None:
    """Names, help, values, default and environment variable stand in the table."""
    assert rows(sections()[f"nas {name}"]) == expected_rows(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_begins_with_its_help(name: str) -> None:
    """The first paragraph is the command's own."""
    text = " ".join(COMMANDS[name].help.split())
    assert " ".join(sections()[f"nas {name}"].split()).startswith(text)


def test_the_list_of_commands_fits_a_terminal() -> None:
    """`nas --help` cuts no command's first sentence at 80 columns."""
    for name, command in COMMANDS.items():
        sentence = " ".join(command.help.split("\n\n")[0].split())
        assert len(sentence) <= 63, name


def test_the_examples_name_real_commands_and_options() -> None:
    """Every `nas ...` on the page and in --help is one that the program understands."""
    text = PAGE.read_text(encoding="utf-8")
    examples = re.findall(r"^    nas (\w+)(.*)$", text, re.MULTILINE)
    for name, command in COMMANDS.items():
        examples += re.findall(rf"^Example: nas ({name})( .*)$", command.epilog)
    assert {name for name, _ in examples} == set(COMMANDS)
    assert examples
    for name, rest in examples:
        known = {o for p in COMMANDS[name].params for o in p.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


def main() -> None:
    """Write the explanations of all rows anew."""
    text = PAGE.read_text(encoding="utf-8")
    for name in COMMANDS:
        head, mark, rest = text.partition(f"## nas {name}\n")
        section, sign, others = rest.partition("\n## nas ")
        for names, words in expected_rows(name).items():
            cell = ", ".join(f"`{part}`" for part in names.split(", "))
            section = re.sub(
                rf"^\| {re.escape(cell)}( \(optional\))? \| .+ \|$",
                lambda m, c=cell, w=words: f"| {c}{m[1] or ''} | {w} |",
                section,
                flags=re.MULTILINE,
            )
        text = head + mark + section + sign + others
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
