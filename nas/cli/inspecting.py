"""`nas front`, `show` and `studies`: print the content of studies."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, BadParameter, Option

from nas.cli.options import (
    BoardName,
    Storage,
    Studies,
    StudyName,
    console,
    read,
)


def front(
    study: StudyName = None,
    *,
    all_trials: Annotated[
        bool,
        Option(
            "--all",
            help="All trials instead of the front, with state, reason, decisions and "
            "seconds.",
        ),
    ] = False,
    output_format: Annotated[
        Literal["table", "csv", "json", "md", "parquet"],
        Option("--format", help="Output format; parquet needs pyarrow."),
    ] = "table",
    board: BoardName = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Print the Pareto front.

    A fully trained network is on it if no other of at most its size is as accurate. As
    long as none is fully trained, those with shorter trainings are shown (column epochs).
    """
    from nas.architecture.boards import find_board
    from nas.candidates.candidate import front as front_of

    if all_trials and board:
        raise BadParameter(
            "the table of all trials is without it", param_hint="--board"
        )
    if output_format == "parquet" and sys.stdout.isatty():
        raise BadParameter(
            "parquet is for a file: add > trials.parquet", param_hint="--format"
        )
    chosen = find_board(board) if board else None
    opened = read(study, studies, storage)
    if output_format == "table" and all_trials:
        from nas.cli.display import trials_table

        console().print(trials_table(opened.candidates(), opened.settings.name))
        return
    if output_format == "table":
        from nas.cli.display import front_table

        members = front_of(opened.candidates())
        title = f"{opened.settings.name}: {opened.settings.accuracy_name}"
        if members:
            console().print(front_table(members, title, chosen))
        else:
            name = opened.settings.name
            complete = any(c.state == "complete" for c in opened.candidates())
            what = (
                "no net better than always answering the largest class"
                if complete
                else "no fully trained candidate"
            )
            typer.echo(f"{what} in {name} yet: resume with `nas search --study {name}`")
        return
    from nas.report import format_frame, front_frame, parquet, trials_frame

    if all_trials:
        metric = opened.settings.metric
        frame = trials_frame(opened.candidates(), opened.decisions(), metric)
    else:
        frame = front_frame(opened.candidates(), chosen)
    text = (
        parquet(frame)
        if output_format == "parquet"
        else format_frame(frame, output_format)
    )
    typer.echo(text, nl=False)


def show(
    trial: Annotated[int, Argument(min=0, help="Number of the trial.")],
    study: StudyName = None,
    *,
    output_format: Annotated[
        Literal["table", "json"], Option("--format", help="Output format.")
    ] = "table",
    board: BoardName = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Print one candidate's layers, costs and curves."""
    from nas.architecture.boards import find_board
    from nas.cli.display import candidate_view
    from nas.report import candidate_record

    chosen = find_board(board) if board else None
    opened = read(study, studies, storage)
    if output_format == "json":
        found = opened.candidate(trial)
        record = candidate_record(found, opened.settings.metric, chosen)
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    console().print(candidate_view(opened.candidate(trial), chosen))


def list_studies(
    *,
    output_format: Annotated[
        Literal["table", "json"], Option("--format", help="Output format.")
    ] = "table",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """List the studies and their numbers of trials."""
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
