"""The command line: each command parses, calls one function and prints.

Related commands share a file. They import what they need when they run, so that
`nas --help` works without torch. `handler.py` turns every error into one line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from typer import Option

from nas import __version__
from nas.cli import handler
from nas.cli.comparing import compare
from nas.cli.data import data
from nas.cli.exporting import export
from nas.cli.importing import import_
from nas.cli.inspecting import front, list_studies, show
from nas.cli.resizing import resize
from nas.cli.searching import search
from nas.cli.training import best, train
from nas.cli.web import dashboard, report

__all__ = ["app", "main"]

app = typer.Typer(
    help="Find the most accurate tiny image classifiers under a hard parameter cap.",
    epilog="Example: nas search --dataset digits --budget 2000 --trials 20",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would drop "[default: ...]" as markup
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001  # Typer passes the flag's value
    if wanted:
        typer.echo(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # used by its callback
        bool,
        Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def _add(name: str, function: Callable[..., None], example: str) -> None:
    """Add a command; its --help ends with the example."""
    app.command(name, epilog=f"Example: nas {name} {example}")(function)


# In the order of `nas --help` and docs/cli.md.
_add("search", search, "--dataset digits --budget 2000 --trials 20")
_add("best", best, "digits-2000 --seeds 3 --export c")
_add("train", train, "s0 --epochs 5 --output s0-trained")
_add("export", export, "digits-2000 --to onnx-int8")
_add("import", import_, "model.py:Net --output mynet.toml")
_add("resize", resize, "s4 --budget 10000")
_add("front", front, "digits-2000 --board nrf52840")
_add("show", show, "17 digits-2000")
_add("compare", compare, "s0 mynet.toml --study mnist-10000")
_add("studies", list_studies, "--format json")
_add("data", data, "photos/ --sheet photos.png")
_add("dashboard", dashboard, "--open")
_add("report", report, "digits-2000 --output report.html")


def main() -> None:
    """Run the command line; every error becomes one line and an exit code."""
    handler.run(app)
