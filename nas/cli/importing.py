"""`nas import`: a user's own torch module as a reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option


def import_(
    module: Annotated[
        str,
        Argument(
            metavar="FILE.py:NAME",
            help="A torch module, or what returns one when called; the file is run.",
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="File to write [default: NAME.toml]."),
    ] = None,
    input_shape: Annotated[
        str, Option(help="Channels, height and width of the images.")
    ] = "1x28x28",
) -> None:
    """Write a net of your own, given as torch code, as an architecture file.

    It runs your code. Only chains of layers that nas has can be written; of others the
    first layer that has no place is named. The result is checked: with the same weights
    it computes the same.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,5})", input_shape)
    if match is None or "0" in match.groups():
        raise typer.BadParameter(
            f"{input_shape!r} is no shape: write 1x28x28", param_hint="--input-shape"
        )
    from nas.architecture.notation import describe
    from nas.files import write_atomically
    from nas.importing import assemble, check_same, load_module, trace
    from nas.references.bundled import Reference, write_reference

    channels, height, width = map(int, match.groups())
    shape = (channels, height, width)
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
