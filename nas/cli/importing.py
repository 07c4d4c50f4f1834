"""`nas import`: converts a user's own torch module to a reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nas.cli.options import Storage, Studies, read


def import_(
    module: Annotated[
        str,
        Argument(
            metavar="FILE.py:NAME",
            help="FILE.py:NAME of a torch module, its class, or a function that "
            "returns one; the file is run.",
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="File to write [default: NAME.toml]."),
    ] = None,
    input_shape: Annotated[
        str | None,
        Option(
            metavar="CxHxW",
            help="Channels, height and width of the images [default: 1x28x28, or those "
            "of --compare].",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        Option(metavar="STUDY", help="Also compare it with this study's front."),
    ] = None,
    html: Annotated[
        Path | None, Option(help="Write that comparison as an HTML file.")
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Convert a torch module to an architecture file.

    This runs your code. The module must consist of layers and blocks that nas has;
    otherwise the first other one is named. The result is checked: with the same weights
    it computes the same.
    """
    if html is not None and compare is None:
        raise typer.BadParameter("give --compare, too", param_hint="--html")
    shape = None if input_shape is None else _read_shape(input_shape)
    from nas.architecture.notation import describe
    from nas.files import write_atomically
    from nas.importing import assemble, check_same, load_module, trace
    from nas.references.bundled import Reference, write_reference

    opened = None if compare is None else read(compare, studies, storage)
    if shape is None:
        shape = (1, 28, 28) if opened is None else opened.settings.input_shape
    model = load_module(module)
    chain = trace(model, shape)
    architecture, notes = assemble(chain, shape)
    check_same(model, chain, architecture)
    path = output or Path(f"{module.rpartition(':')[2]}.toml")
    reference = Reference(
        name=path.stem, architecture=architecture, source=f"imported from {module}"
    )
    write_atomically(path, write_reference(reference))
    typer.echo(f"{describe(architecture)}, {reference.num_params:,} parameters")
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"written to {path}: `nas train {path}` trains it")
    if opened is not None:
        from nas.cli.comparing import show_comparison

        show_comparison(opened, [reference], html=html)


def _read_shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,5})", text)
    if match is None or "0" in match.groups():
        raise typer.BadParameter(
            f"{text!r} is no shape: write 1x28x28", param_hint="--input-shape"
        )
    channels, height, width = map(int, match.groups())
    return channels, height, width
