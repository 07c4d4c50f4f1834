"""`nas resize`: a net widened or narrowed to a cap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from nas.cli.options import ArchitectureName, MaxMacs, MaxMemory, Storage, Studies


def resize(
    architecture: ArchitectureName,
    *,
    budget: Annotated[
        int, Option(min=1, help="Hard cap: most trainable parameters of the net.")
    ],
    max_macs: MaxMacs = None,
    max_memory: MaxMemory = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="File to write [default: NAME-BUDGET.toml]."),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Widen or narrow a net to a cap and write it as an architecture file.

    Its blocks keep their proportions; depth, kernels and all else stay.
    """
    from nas.architecture.cost import cost
    from nas.architecture.notation import describe
    from nas.files import write_atomically
    from nas.references.bundled import Reference, write_reference
    from nas.search.resolve import find
    from nas.space import Caps
    from nas.space import resize as resized

    found = find(architecture, studies, storage).reference
    sized = resized(found.architecture, Caps(budget, max_macs, max_memory))
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
