"""`nas dashboard` and `nas report`: web pages of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nas.cli.options import Storage, Studies, StudyName


def dashboard(
    study: Annotated[
        str | None,
        Argument(help="Name of the study [default: all studies of the folder]."),
    ] = None,
    *,
    port: Annotated[
        int, Option(min=0, max=65535, help="Port to listen on; 0 takes any free port.")
    ] = 8765,
    open_browser: Annotated[
        bool, Option("--open", help="Open the page in the browser.")
    ] = False,
    host: Annotated[
        str,
        Option(
            help="Address to listen on; any other than this machine's needs a token."
        ),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        Option(
            envvar="NAS_TOKEN",
            help="Token that every request must carry: 8 to 200 letters, digits, and "
            ". _ ~ - [default: generated if needed].",
        ),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Serve a live web page of the studies.

    It only reads. Ctrl-C stops it.
    """
    from nas.dashboard import serve

    serve(
        studies,
        study,
        storage=storage,
        host=host,
        port=port,
        token=token,
        open_browser=open_browser,
        say=lambda address: typer.echo(f"dashboard at {address} (Ctrl-C stops it)"),
    )


def report(
    study: StudyName = None,
    *,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="File to write [default: report.html in the study's folder].",
        ),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Write a study's dashboard as one HTML file."""
    from nas.dashboard import write_report
    from nas.study.folders import find_study, only_study, report_file

    folder = find_study(studies, study) if study else only_study(studies)
    path = output or report_file(folder)
    write_report(folder.parent, folder.name, path, storage)
    size = path.stat().st_size / 1e6
    typer.echo(f"written to {path} ({size:.1f} MB)")
