"""The smallest networks of a space, and the message if a cap allows none."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from nas.architecture import Head, Shape, resized
from nas.architecture.cost import Cost, resize_layers, total
from nas.errors import SpaceError
from nas.space.completion import Caps, Completion, State
from nas.space.definition import SearchSpace, used_resolution


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
    """Return caps of which only the presence matters."""
    return Caps(**dict.fromkeys(caps.capped, 0), board=caps.board)


@lru_cache(maxsize=64)
def inputs_of(
    space: SearchSpace, input_shape: Shape
) -> dict[int, tuple[int, Shape, Cost]]:
    """Return, by the space's options, a net's resolution, its first block's input, ...

    ... and what it costs to make that of the images.
    """
    found = {}
    for option in space.resolutions.options:
        used = used_resolution(option, input_shape)
        shape = resized(input_shape, used)
        found[option] = used, shape, total(resize_layers(input_shape, shape))
    return found


@lru_cache(maxsize=16)
def completion(space: SearchSpace, num_classes: int, which: Caps) -> Completion:
    """Return the space's table; it is filled once and cached."""
    return Completion(space, num_classes, which)


@lru_cache(maxsize=64)
def smallest_costs(
    space: SearchSpace, input_shape: Shape, num_classes: int, caps: Caps
) -> tuple[Cost, ...]:
    """Return the costs of the nets that no other beats in all that is capped."""
    table = completion(space, num_classes, kinds_of_caps(caps))
    return tuple(
        caps.relevant(start).then(found)
        for _, shape, start in inputs_of(space, input_shape).values()
        for norm in space.norms.options
        for head in heads_of(space)
        for depth in range(space.depth[0], space.depth[1] + 1)
        for count in counts(space, depth)
        for found in table.best(State(norm, head, shape, depth, count))
    )


def _too_tight(
    space: SearchSpace, input_shape: Shape, num_classes: int, caps: Caps
) -> str:
    """Say which caps would be enough."""
    each = {
        "--budget": (caps.num_params, Caps(num_params=1), "num_params", "parameters"),
        "--max-macs": (caps.macs, Caps(macs=1), "macs", "MACs"),
        "--max-memory": (
            caps.peak_memory,
            Caps(peak_memory=1),
            "peak_memory",
            "bytes of activations",
        ),
        "--max-flash": (caps.flash, Caps(flash=1), "flash", "bytes of flash"),
    }
    if caps.board is not None:
        which = Caps(latency=1, board=caps.board)
        each["--max-latency"] = (caps.latency, which, "latency", "milliseconds")
    size = "x".join(map(str, input_shape))
    fits_nothing = (
        f"the space {space.name!r} holds no net for images of {size}: allow fewer "
        "downsamplings, smaller kernels and pooling windows, or same padding"
    )
    for option, (limit, which, field, unit) in each.items():
        if limit is None:
            continue
        found = smallest_costs(space, input_shape, num_classes, which)
        if not found:
            return fits_nothing
        least = min(getattr(one, field) for one in found)
        if limit < least:
            amount = milliseconds(least) if field == "latency" else least
            return (
                f"{_given(option, limit, caps)} is below the smallest net of the space "
                f"{space.name!r} for {size} images and {num_classes} classes, which "
                f"has {amount} {unit}: give at least {_given(option, least, caps)}"
            )
    if caps == Caps(caps.num_params):
        return fits_nothing
    given = ", ".join(
        _given(option, limit, caps)
        for option, (limit, *_) in each.items()
        if limit is not None
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
        else "raise one of the others"
    )
    return (
        f"no net of the space {space.name!r} is within all of {given} at once: {hint}"
    )


def _given(option: str, limit: int, caps: Caps) -> str:
    """Return the option as a user gives it."""
    if option == "--max-latency" and caps.board is not None:
        return f"{option} {caps.board.name}={milliseconds(limit)}"
    return f"{option} {limit}"


def milliseconds(nanoseconds: int) -> str:
    """Return that many nanoseconds in milliseconds, rounded up to a microsecond."""
    return f"{math.ceil(nanoseconds / 1000) / 1000:g}"
