"""Enumerates all networks of a small space under the caps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from nas.architecture import Architecture, Block, Head, Shape
from nas.architecture.cost import cost
from nas.architecture.kinds import refusal
from nas.space.completion import Caps, Completion, State
from nas.space.definition import SearchSpace
from nas.space.drawing import (
    applied,
    deviations,
    repeatable,
    usual_finish,
    with_block,
)
from nas.space.encoding import encode
from nas.space.groups import steps_of
from nas.space.limits import completion, counts, heads_of, inputs_of, kinds_of_caps
from nas.space.widening import narrowest, with_widths

_TRIES = 5
"""So many nets are looked at for each that there may be: some cannot be drawn."""


def every_net(
    space: SearchSpace,
    *,
    input_shape: Shape,
    num_classes: int,
    caps: Caps,
    most: int = 1000,
) -> dict[str, tuple[Architecture, dict[str, float]]] | None:
    """Return all nets that can be drawn, by key, each with the draws that make it.

    None where there are, or may be, more than ``most``; that takes some seconds.
    """
    found: dict[str, tuple[Architecture, dict[str, float]]] = {}
    seen: set[str] = set()
    structures: set[Architecture] = set()
    table = completion(space, num_classes, kinds_of_caps(caps))
    looked = 0
    for resolution, blocks, head in _structures(space, table, input_shape, caps):
        drawn = Architecture(
            input_shape=input_shape,
            num_classes=num_classes,
            blocks=blocks,
            head=head,
            resolution=resolution,
        )
        narrow = narrowest(drawn, space.min_width)
        if narrow in structures:
            continue  # It was only wider, for groups that did not follow.
        structures.add(narrow)
        for net in _finished(narrow, space, caps):
            looked += 1
            if looked > _TRIES * most:
                return None
            if net.key in seen:
                continue
            seen.add(net.key)
            draws = encode(space, net, caps)
            if draws is not None:
                found[net.key] = net, draws
            if len(found) > most:
                return None
    return found


def _structures(
    space: SearchSpace, table: Completion, images: Shape, caps: Caps
) -> Iterator[tuple[int, tuple[Block, ...], Head]]:
    """Yield resolution, blocks of minimal width and head.

    What follows a convolution is chosen later.
    """

    def completed(
        state: State, left: Caps, blocks: tuple[Block, ...]
    ) -> Iterator[tuple[Block, ...]]:
        if not state.blocks_left:
            yield blocks
            return
        for move in table.moves(state):
            if move.fits(left):
                yield from completed(
                    move.state, left.after(move.cost), (*blocks, move.block)
                )

    depths = range(space.depth[0], space.depth[1] + 1)
    inputs = inputs_of(space, images).values()
    for (resolution, shape, start), norm, head, depth in product(
        inputs, space.norms.options, heads_of(space), depths
    ):
        for count in counts(space, depth):
            state = State(norm, head, shape, depth, count)
            if caps.allow(start) and table.fits(state, caps):
                for blocks in completed(state, caps, ()):
                    yield resolution, blocks, head


def _finished(
    narrow: Architecture, space: SearchSpace, caps: Caps
) -> Iterator[Architecture]:
    """Yield all that the draw may make of a structure, as `sample` does."""
    depth, head = len(narrow.blocks), narrow.head
    for activation, dropout in product(
        space.activations.options, space.dropouts.options
    ):
        usual = replace(
            narrow,
            blocks=tuple(
                replace(block, **usual_finish(number, depth, head, activation, dropout))
                for number, block in enumerate(narrow.blocks, start=1)
            ),
            head=head if head.kind == "pool" else replace(head, dropout=dropout),
        )
        for deviating in _deviating(usual, space, caps, 1):
            for repeating in _repeating(deviating, space, caps, 2):
                yield from _widened(narrowest(repeating, space.min_width), space, caps)


def _deviating(
    net: Architecture, space: SearchSpace, caps: Caps, number: int
) -> Iterator[Architecture]:
    """Yield the network with each deviation of each block from that number on."""
    if number > len(net.blocks) or not space.deviation.share:
        yield net
        return
    block = net.blocks[number - 1]
    ways = [replace(block, **way) for way in deviations(space.deviation)]
    for way in dict.fromkeys([block, *ways]):
        if refusal(way) is not None:
            continue
        other = with_block(net, number, way)
        if caps.allow(cost(other, caps.board)):
            yield from _deviating(other, space, caps, number + 1)


def _repeating(
    net: Architecture, space: SearchSpace, caps: Caps, number: int
) -> Iterator[Architecture]:
    """Yield the net with each number of applications of each block from there on."""
    if number > len(net.blocks):
        yield net
        return
    before, block = net.blocks[number - 2 : number]
    yield from _repeating(net, space, caps, number + 1)
    classifies = net.head.kind == "pool" and number == len(net.blocks)
    if classifies or not repeatable(block, before):
        return
    for times in space.repeats.options:
        other = applied(net, number, times) if times > 1 else None
        if other is not None and caps.allow(cost(other, caps.board)):
            yield from _repeating(other, space, caps, number + 1)


def _widened(
    narrow: Architecture, space: SearchSpace, caps: Caps
) -> Iterator[Architecture]:
    """Yield the net in all widths from its least to the space's most that fit."""
    free = [number for number, block in enumerate(narrow.blocks) if not block.tied]
    least = [narrow.blocks[number].out_channels for number in free]
    steps = steps_of(narrow.blocks)

    def of(widths: list[int]) -> Iterator[Architecture]:
        place = len(widths)
        widest = max(least[place], space.max_width)
        for width in range(least[place], widest + 1, steps[free[place]]):
            wanted = [*widths, width, *least[place + 1 :]]
            net = with_widths(narrow, dict(zip(free, wanted, strict=True)))
            # Costs never fall as a block widens: no wider one fits either.
            if not caps.allow(cost(net, caps.board)):
                return
            if place + 1 == len(free):
                yield net
            else:
                yield from of([*widths, width])

    yield from of([])
