"""The functions of nas have the options, defaults and errors of the command line."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calling import the_line
from studying import make_settings

import nas
from nas import cli
from nas.api.words import translated
from nas.errors import (
    ArchitectureError,
    DataError,
    DeviceError,
    NasError,
    SpaceError,
    StudyError,
    UsageError,
)
from nas.study.folders import create

COMMANDS = {"search": cli.search, "best": cli.best, "train": cli.train}

# Keyword: option, where the names differ.
RENAMED = {"data": "dataset"}
# The command that has it only there, and why.
ONLY_OPTIONS = {
    "search": set[str](),
    "best": {
        "study",  # the object whose method it is
        "studies",  # open_study has it
        "storage",  # likewise
        "output",  # Trained.save
        "export",  # Trained.export
        "front",  # Study.best_front
        "sizes",  # likewise
    },
    "train": {"output"},  # Trained.save
}
ONLY_KEYWORDS = {"progress"}  # a command always shows it
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "search": nas.search,
    "best": nas.Study.best,
    "train": nas.train,
}
# A keyword may be a path or not given; the command's default for these is spelt out.
FROM_ENVIRONMENT = {"studies", "storage"}


def options(command: str) -> dict[str, inspect.Parameter]:
    """Return the command's arguments and options by the names of their keywords."""
    return dict(inspect.signature(COMMANDS[command]).parameters)


def described(command: str) -> dict[str, tuple[Any, Any]]:
    """Return the type of each argument or option, and what Typer is told of it."""
    hints = typing.get_type_hints(COMMANDS[command], include_extras=True)
    return {
        name: (hints[name].__origin__, hints[name].__metadata__[0])
        for name in options(command)
    }


def keywords(command: str) -> dict[str, inspect.Parameter]:
    """Return the function's parameters, those renamed by their option's name."""
    found = inspect.signature(FUNCTIONS[command]).parameters
    return {
        RENAMED.get(name, name): parameter
        for name, parameter in found.items()
        if name != "self" and name not in ONLY_KEYWORDS
    }


@pytest.mark.parametrize("command", FUNCTIONS)
def test_each_option_has_its_keyword_and_the_reverse(command: str) -> None:
    """What stands on one side alone is listed above with its reason, and is there."""
    assert set(keywords(command)) == set(options(command)) - ONLY_OPTIONS[command]
    assert set(options(command)) >= ONLY_OPTIONS[command]
    assert set(inspect.signature(FUNCTIONS[command]).parameters) >= ONLY_KEYWORDS


@pytest.mark.parametrize("command", FUNCTIONS)
def test_the_defaults_are_those_of_the_command_line(command: str) -> None:
    """Each keyword that may be left out has its option's default."""
    for name, parameter in keywords(command).items():
        option = options(command)[name]
        if inspect.Parameter.empty in {parameter.default, option.default}:
            assert parameter.default is option.default
        elif name in FROM_ENVIRONMENT:
            assert parameter.default is None
            assert described(command)[name][1].envvar == f"NAS_{name.upper()}"
        else:
            assert (parameter.default or None) == (option.default or None), name


def test_best_front_has_the_keywords_of_best() -> None:
    """With the same defaults; for what limits one winner it has the sizes."""
    one = inspect.signature(nas.Study.best).parameters
    several = inspect.signature(nas.Study.best_front).parameters
    assert set(several) == set(one) - {"max_params", "min_accuracy"} | {"sizes"}
    for name in set(several) & set(one):
        assert several[name].default == one[name].default


def refused() -> list[tuple[str, str, Any]]:
    """Return command, keyword and value for values that the option refuses."""
    found: list[tuple[str, str, Any]] = []
    for command in FUNCTIONS:
        for name, (kind, option) in described(command).items():
            values: list[Any] = []
            if option.min is not None:
                values += [option.min - 1, "3", True, math.nan]
            if option.max is not None:
                values.append(option.max + 1)
            if "Literal" in str(kind):
                values.append("nonsense")
            if name not in ONLY_OPTIONS[command]:
                found += [(command, name, value) for value in values]
    return found


@pytest.mark.parametrize(("command", "name", "value"), refused())
def test_what_an_option_refuses_its_keyword_refuses(
    command: str, name: str, value: Any, tmp_path: Path
) -> None:
    """At once, as a UsageError that names keyword and value; nothing is written."""
    first: list[Any] = {"search": ["digits"], "train": ["s0"]}.get(command, [])
    if command == "best":
        with create(tmp_path / "small", make_settings()) as stored:
            first.append(nas.Study(stored))
    before = list(tmp_path.rglob("*"))
    place = {} if command == "best" else {"studies": tmp_path / "studies"}
    with pytest.raises(UsageError) as caught:
        FUNCTIONS[command](*first, **place | {name: value})
    assert str(caught.value).startswith(f"{name}={value!r}")
    assert list(tmp_path.rglob("*")) == before


def test_there_are_ranges_to_be_tested() -> None:
    """The test above is not empty: all numbers and choices of a search are in it."""
    names = {name for _, name, _ in refused()}
    assert {"budget", "trials", "seed", "sampler", "engine", "min_accuracy"} <= names


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"budget": 30}, SpaceError, "budget=30 is below the smallest net"),
        ({}, StudyError, "give budget=, the cap on parameters"),
        ({"budget": 900, "space": "mixd"}, SpaceError, "did you mean mixed"),
        ({"budget": 900, "device": "cuda:77"}, DeviceError, "no device 'cuda:77'"),
        ({"budget": 900, "time_limit": "soon"}, UsageError, "time_limit='soon' is no"),
        ({"budget": 900, "trial_time_limit": 0}, UsageError, "trial_time_limit=0 is"),
        ({"budget": 900, "address": "a:1"}, UsageError, 'need engine="ray"'),
        ({"budget": 900, "study": "../x"}, StudyError, "cannot be named"),
        ({"budget": 900, "data_dir": "nowhere", "data": "mnist"}, DataError, "nowhere"),
        (
            {"budget": 900, "data_dir": "x", "data": nas.Data("digits")},
            UsageError,
            "data_dir= is for a data set by its name",
        ),
        ({"budget": 900, "data": "digts"}, DataError, "did you mean digits"),
        ({"budget": 900, "data": 3}, DataError, "data is a int"),
        ({"budget": 900, "max_latency": "esp32=0.001"}, SpaceError, 'cy="esp32=0.0'),
        ({"budget": 900, "start_from": "s0"}, ArchitectureError, "s0 is for 1x28x28"),
        (
            {"budget": 900, "start_from": [7]},
            ArchitectureError,
            "a int is not a network",
        ),
        ({"budget": 900, "pruning": "no"}, UsageError, "pruning='no' is neither"),
    ],
)
def test_errors_are_those_of_the_command_line_in_the_words_of_python(
    given: dict[str, Any], kind: type[NasError], words: str, tmp_path: Path
) -> None:
    """One line of the same class; it names the keyword, not the option."""
    with pytest.raises(kind) as caught:
        nas.search(**{"data": "digits", "studies": tmp_path / "s"} | given)
    text = the_line(caught.value)
    assert words in text
    assert "--" not in text
    assert not (tmp_path / "s").exists()


def test_commands_in_a_message_stay_as_they_are_typed() -> None:
    """Only what is outside of backticks is Python's."""
    text = "over --budget 5: narrow it with `nas resize --budget 5`, or give --max-macs"
    assert translated(text) == (
        "over budget=5: narrow it with `nas resize --budget 5`, or give max_macs="
    )
    assert translated("resume with the same command") == "resume with the same call"
    assert translated("--sizes [9000]: give") == "sizes=[9000]: give"
