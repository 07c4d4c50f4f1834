"""`nas resize`: widens or narrows a net to a cap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from nas.cli.options import (
    ArchitectureName,
    MaxFlash,
    MaxLatency,
    MaxMacs,
    MaxMemory,
    Storage,
    Studies,
)


def resize(
    architecture: ArchitectureName,
    *,
    budget: Annotated[
        int, Option(min=1, help="Hard cap: trainable parameters of the network.")
    ],
    max_macs: MaxMacs = None,
    max_memory: MaxMemory = None,
    max_flash: MaxFlash = None,
    max_latency: MaxLatency = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="File to write [default: NAME-BUDGET.toml]."),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Scale a network's widths to a cap.

    All widths are scaled by one factor; everything else stays. The result is written as
    an architecture file.
    """
    from nas.architecture.boards import read_limit
    from nas.architecture.cost import cost
    from nas.architecture.notation import describe
    from nas.files import write_atomically
    from nas.references.bundled import Reference, write_reference
    from nas.search.resolve import resolve
    from nas.space import Caps
    from nas.space import resize as resized

    found = resolve(architecture, studies, storage).reference
    caps = Caps(budget, max_macs, max_memory, max_flash)
    if max_latency is not None:
        board, milliseconds = read_limit(max_latency)
        caps = replace(caps, latency=int(milliseconds * 1e6), board=board)
    sized = resized(found.architecture, caps)
    stem = Path(found.name).stem.replace(":", "-")
    path = output or Path(f"{stem}-{budget}.toml")
    reference = Reference(
        name=path.stem,
        architecture=sized,
        source=f"{found.name}, of {found.num_params:,} parameters, resized",
    )
    write_atomically(path, write_reference(reference))
    costs = cost(sized)
    typer.echo(
        f"{describe(sized)}, {costs.num_params:,} parameters, {costs.macs:,} MACs, "
        f"{costs.peak_memory:,} bytes of activations"
    )
    typer.echo(f"written to {path}: `nas train {path}` trains it")
