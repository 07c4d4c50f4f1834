"""The command line: each command parses, calls one function and prints.

Related commands share a file. They import what they need when they run, so that
`nas --help` works without torch. `handler.py` turns every error into one line.
"""

from __future__ import annotations

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


# In the order of `nas --help` and docs/cli.md.
app.command()(search)
app.command()(best)
app.command()(train)
app.command()(export)
app.command("import")(import_)
app.command()(resize)
app.command()(front)
app.command()(show)
app.command()(compare)
app.command("studies")(list_studies)
app.command()(data)
app.command()(dashboard)
app.command()(report)


def main() -> None:
    """Run the command line; every error becomes one line and an exit code."""
    handler.run(app)
