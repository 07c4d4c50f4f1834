"""The smallest nets of a space, and what to say where a cap allows none."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from nas.architecture import Head, Shape
from nas.architecture.cost import Cost
from nas.errors import SpaceError
from nas.space.completion import Caps, Completion, State
from nas.space.reading import SearchSpace


def smallest(
    space: SearchSpace, input_shape: Shape, num_classes: int, caps: Caps
) -> int:
    """Return the parameters of the smallest net of the space that the caps allow.

    Raises SpaceError that names what would be enough when the caps allow none.
    """
    counting = replace(caps, num_params=caps.num_params or 2**62)
    sizes = [
        found.num_params
        for found in smallest_costs(space, input_shape, num_classes, counting)
        if caps.allow(found)
    ]
    if sizes:
        return min(sizes)
    raise SpaceError(_too_tight(space, input_shape, num_classes, caps))


def counts(space: SearchSpace, depth: int) -> range:
    """Return how many blocks of a net of that depth may downsample."""
    least, most = space.downsamplings
    return range(least, min(most, depth) + 1)


def heads_of(space: SearchSpace) -> list[Head]:
    """Return every head of the space, without dropout."""
    heads = []
    for kind in space.heads.options:
        if kind == "conv":
            heads += [
                Head(kind="conv", kernel_size=k)
                for k in space.head_kernel_sizes.options
            ]
        elif kind == "pool":
            heads.append(Head(kind="pool"))
        else:
            heads += [
                Head(kind=kind, hidden=h)  # type: ignore[arg-type]
                for h in space.hidden.options
            ]
    return heads


def kinds_of_caps(caps: Caps) -> Caps:
    """Return caps that differ only in which of them there are."""
    limits = (caps.num_params, caps.macs, caps.peak_memory)
    return Caps(*(None if limit is None else 0 for limit in limits))


@lru_cache(maxsize=16)
def completion(space: SearchSpace, num_classes: int, which: Caps) -> Completion:
    """Return the table for the space, kept once it was filled."""
    return Completion(space, num_classes, which)


@lru_cache(maxsize=64)
def smallest_costs(
    space: SearchSpace, input_shape: Shape, num_classes: int, caps: Caps
) -> tuple[Cost, ...]:
    """Return the costs of the nets that no other beats in all that is capped."""
    table = completion(space, num_classes, kinds_of_caps(caps))
    return tuple(
        found
        for norm in space.norms.options
        for head in heads_of(space)
        for depth in range(space.depth[0], space.depth[1] + 1)
        for count in counts(space, depth)
        for found in table.best(State(norm, head, input_shape, depth, count))
    )


def _too_tight(
    space: SearchSpace, input_shape: Shape, num_classes: int, caps: Caps
) -> str:
    """Say which caps would do."""
    each = {
        "--budget": (caps.num_params, Caps(num_params=1), "num_params", "parameters"),
        "--max-macs": (caps.macs, Caps(macs=1), "macs", "MACs"),
        "--max-memory": (
            caps.peak_memory,
            Caps(peak_memory=1),
            "peak_memory",
            "bytes of activations",
        ),
    }
    size = "x".join(map(str, input_shape))
    fits_nothing = (
        f"the space {space.name!r} holds no net for images of {size}: allow fewer "
        "downsamplings, smaller kernels or same padding"
    )
    for option, (limit, which, field, unit) in each.items():
        if limit is None:
            continue
        found = smallest_costs(space, input_shape, num_classes, which)
        if not found:
            return fits_nothing
        least = min(getattr(one, field) for one in found)
        if limit < least:
            return (
                f"{option} {limit} is below the smallest net of the space "
                f"{space.name!r} for {size} images and {num_classes} classes, which "
                f"has {least} {unit}: give at least {option} {least}"
            )
    if caps.macs is None and caps.peak_memory is None:
        return fits_nothing
    given = ", ".join(
        f"{option} {limit}" for option, (limit, *_) in each.items() if limit is not None
    )
    loose = replace(caps, num_params=2**62)
    found = tuple(
        c
        for c in smallest_costs(space, input_shape, num_classes, loose)
        if loose.allow(c)
    )
    hint = (
        f"with the others as they are --budget {min(c.num_params for c in found)} would do"
        if found
        else "raise --max-macs or --max-memory"
    )
    return (
        f"no net of the space {space.name!r} is within all of {given} at once: {hint}"
    )
