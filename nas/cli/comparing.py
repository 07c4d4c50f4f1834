"""`nas compare`, and the same output for one net in `nas import --compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from nas.cli.options import Format, Storage, Studies, console, read

if TYPE_CHECKING:
    from nas.references.bundled import Reference
    from nas.study.study import Study


def compare(
    references: Annotated[
        list[str] | None,
        Argument(
            metavar="[NAME|FILE|FOLDER|STUDY:TRIAL]...",
            help="Networks to compare with [default: all references for the data set].",
        ),
    ] = None,
    *,
    study: Annotated[
        str | None,
        Option(help="Name of the study; optional if there is only one."),
    ] = None,
    output_format: Format = "table",
    html: Annotated[
        Path | None, Option(help="Also write the comparison as an HTML file.")
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Compare a study's front with hand-made networks, or with yours."""
    from nas.references.comparison import references_for
    from nas.search.resolve import resolve

    opened = read(study, studies, storage)
    chosen = [resolve(name, studies, storage).reference for name in references or []]
    show_comparison(
        opened,
        chosen or references_for(opened.settings),
        output_format=output_format,
        html=html,
    )


def show_comparison(
    opened: Study,
    references: Sequence[Reference],
    *,
    output_format: Format = "table",
    html: Path | None = None,
) -> None:
    """Print the comparison with the study's front; ``html`` also gets it as a page."""
    from nas.references.comparison import compare as set_against
    from nas.references.comparison import read_winners

    settings, candidates = opened.settings, opened.candidates()
    winners = read_winners(opened.folder)
    rows = set_against(references, candidates, winners, settings)
    if not rows:
        why = (
            f"no reference is for {settings.dataset}; name one, such as s0, or your own "
            "network: nas compare NAME"
            if any(c.state == "complete" for c in candidates)
            else f"{settings.name} has no fully trained candidate yet"
        )
        typer.echo(f"nothing to compare: {why}", err=output_format != "table")
        if output_format == "table":
            return
    title = f"{settings.name}: {settings.data_title}, the front and references"
    if html is not None:
        from nas.report import comparison_figure, write_comparison

        figure = comparison_figure(
            rows, candidates, winners, param_budget=settings.param_budget, title=title
        )
        write_comparison(html, figure)
    if output_format == "table":
        from nas.cli.display import comparison_view

        console().print(comparison_view(rows, title))
    else:
        from nas.report import comparison_frame, format_frame

        typer.echo(format_frame(comparison_frame(rows), output_format), nl=False)
    for row in rows:
        if row.accuracy is None:
            typer.echo(
                f"{row.reference} has not been measured on {settings.data_title}: "
                "`nas train` with --output measures it, and then its folder can be compared; "
                "or start a study with it as --start-from",
                err=True,
            )
    if html is not None:
        typer.echo(f"written to {html}", err=True)
