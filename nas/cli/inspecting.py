"""`nas front`, `show` and `studies`: what prints what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from nas.cli.options import (
    BoardName,
    Format,
    Storage,
    Studies,
    StudyName,
    console,
    read,
)


def front(
    study: StudyName = None,
    *,
    output_format: Format = "table",
    board: BoardName = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Print the Pareto front: the fully trained nets that no other beats."""
    from nas.architecture.boards import find_board
    from nas.candidates.candidate import front as front_of

    chosen = find_board(board) if board else None
    opened = read(study, studies, storage)
    if output_format == "table":
        from nas.cli.display import front_table

        members = front_of(opened.candidates())
        title = f"{opened.settings.name}: accuracy on the validation split"
        if members:
            console().print(front_table(members, title, chosen))
        else:
            typer.echo(
                f"no fully trained candidate in {opened.settings.name} yet: go on with "
                f"`nas search --study {opened.settings.name}`"
            )
        return
    from nas.report import format_frame, front_frame

    frame = front_frame(opened.candidates(), chosen)
    typer.echo(format_frame(frame, output_format), nl=False)


def show(
    trial: Annotated[int, Argument(min=0, help="Number of the trial.")],
    study: StudyName = None,
    *,
    board: BoardName = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Print one candidate layer by layer, with its costs and learning curve."""
    from nas.architecture.boards import find_board
    from nas.cli.display import candidate_view

    chosen = find_board(board) if board else None
    opened = read(study, studies, storage)
    console().print(candidate_view(opened.candidate(trial), chosen))


def list_studies(
    *,
    output_format: Annotated[
        Literal["table", "json"], Option("--format", help="How to print.")
    ] = "table",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """List the studies with their counts of trials."""
    from nas.study.folders import overview

    rows, faults = overview(studies, storage)
    if output_format == "json":
        typer.echo(json.dumps(rows))
    elif rows:
        from nas.cli.display import studies_table

        console().print(studies_table(rows))
    else:
        typer.echo(f"no studies in {studies}: `nas search --budget 10000` begins one")
    for fault in faults:
        typer.echo(fault, err=True)
