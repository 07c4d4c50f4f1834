"""Extends a space with what an architecture needs, so that the space can draw it.

Options are added and ranges stretched; what the space has stays, and random draws take
an added option as often as the rarest that was there.
"""

from __future__ import annotations

import bisect
import copy
import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tomli_w

from nas.architecture import POOLING, Architecture, feature_shapes
from nas.architecture.kinds import KINDS
from nas.errors import SpaceError
from nas.space.completion import Caps
from nas.space.definition import SearchSpace, key_of, own_options
from nas.space.drawing import usual_finish
from nas.space.encoding import encode
from nas.space.reading import read_space, value_in

T = TypeVar("T")

# Deviations of a space that had none are as rare as in the default space.
_DEVIATION_SHARE = 0.03
# Keys that hold [fewest, most], and those that bound the nets from below or above.
_RANGES = {("blocks", "depth"), ("downsampling", "count")}
_LEAST = {("widths", "min"), ("downsampling", "smallest_side")}
_MOST = {("widths", "max"), ("widths", "spread"), ("deviation", "share")}


def include(
    space: SearchSpace, architecture: Architecture, caps: Caps
) -> tuple[SearchSpace, list[str]]:
    """Return the space with what the architecture has, and what was added, in words.

    Nothing is where the space can draw it already. What no space can hold, such as an
    even kernel, stays out; then `encode` still gives None for the result.
    """
    if encode(space, architecture, caps) is not None:
        return space, []
    added: list[str] = []
    for table, key, value in _needs(space, architecture):
        data = tomllib.loads(space.text)
        if not _add(data, table, key, value):
            continue
        try:
            space = read_space(tomli_w.dumps(data), space.name)
        except SpaceError:
            continue  # and the next one may still be added
        place = key if table == "blocks" else f"{table} {key}"
        added.append(f"{place} {value}")
    return space, added


def _needs(
    space: SearchSpace, architecture: Architecture
) -> Iterator[tuple[str, str, Any]]:
    """Yield table, key and value of all that a space needs to draw the architecture."""
    blocks, head = architecture.blocks, architecture.head
    depth = len(blocks)
    if option := architecture.resolution:
        yield "input", "resolution", option
    elif 0 not in space.resolutions.options:
        # As they are they belong beside the others, at the end of the list.
        yield "input", "resolution", min(architecture.input_shape[1:])
    yield "blocks", "depth", depth
    for block in blocks:
        # Before the kind, which may not do without, and behind it.
        own = [
            ("blocks", key_of(name), getattr(block, name))
            for name in own_options(space)
            if KINDS[block.kind].knows(name)
            and (block.pool != "none" or name not in POOLING)
        ]
        yield from own
        yield "blocks", "kinds", block.kind
        yield "blocks", "kernel_sizes", block.kernel_size
        # No space has numbers of zeros.
        if block.kernel != (1, 1) and isinstance(block.padding, str):
            yield "blocks", "paddings", block.padding
        yield "blocks", "repeats", block.repeats
        yield from own
    ways = [block.downsampling for block in blocks]
    halving = [way for way in ways if way != "none"]
    yield "downsampling", "count", len(halving)
    for way in halving:
        yield "downsampling", "kinds", way
    sides = [side for shape in feature_shapes(architecture)[1:] for side in shape[1:]]
    yield "downsampling", "smallest_side", min(sides, default=1)
    widths = [block.out_channels for block in blocks] or [1]
    yield "widths", "min", min(widths)
    yield "widths", "max", max(widths)
    # Rounded up, so that the rounding of the widths has room.
    ratio = math.sqrt(max(widths) / min(widths))
    yield "widths", "spread", math.ceil(10 * ratio) / 10
    yield "head", "kinds", head.kind
    if head.kind == "conv":
        yield "head", "kernel_sizes", head.kernel_size
    elif head.kind != "pool" and isinstance(head.hidden, int):
        yield "head", "hidden", head.hidden
    norm = _commonest([b.norm for b in blocks], "batch")
    activation = _commonest([b.activation for b in blocks], "relu")
    dropout = head.dropout
    if head.kind == "pool":
        dropout = _commonest([b.dropout for b in blocks], 0.0)
    yield "blocks", "norms", norm
    yield "blocks", "activations", activation
    yield "dropout", "values", float(dropout)
    usual = {"norm": norm, "bias": "auto", "order": "early_pool"}
    for number, block in enumerate(blocks, start=1):
        finish = usual | usual_finish(number, depth, head, activation, dropout)
        if all(getattr(block, name) == value for name, value in finish.items()):
            continue
        yield "deviation", "share", _DEVIATION_SHARE
        yield "deviation", "norms", block.norm
        yield "deviation", "biases", block.bias
        yield "deviation", "activations", block.activation
        yield "deviation", "orders", block.order
        yield "deviation", "dropouts", float(block.dropout)


def _add(data: dict[str, Any], table: str, key: str, value: Any) -> bool:
    """Add the value to the TOML of a space; return whether it was not there."""
    has = copy.deepcopy(value_in(data, table, key))
    content = data.setdefault(table, {})
    if (table, key) in _RANGES:
        content[key] = [min(has[0], value), max(has[1], value)]
    elif (table, key) in _LEAST:
        content[key] = min(has, value)
    elif (table, key) in _MOST:
        content[key] = max(has, value)
    elif value not in has:
        # Numbers go to their place: what does not fit becomes the nearest option.
        in_order = not isinstance(value, str) and has == sorted(has)
        place = bisect.bisect(has, value) if in_order else len(has)
        content[key] = [*has[:place], value, *has[place:]]
        if weights := content.get(f"{key}_weights"):
            weights.insert(place, min(weights))
    return bool(content.get(key, has) != has)


def _commonest(values: Sequence[T], default: T) -> T:
    return Counter(values).most_common(1)[0][0] if values else default
