"""What can be completed under the caps, and what widths cost, against brute force."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from typing import Any

from drawing import ALL, is_classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import net_of
from strategies import architectures, examples, shapes, spaces

from nas.architecture import Architecture, Block, feature_shapes, resized
from nas.architecture.cost import Cost, cost
from nas.architecture.kinds import KINDS, least_width, refusal
from nas.errors import ArchitectureError
from nas.space import (
    Caps,
    SearchSpace,
    read_space,
    smallest,
)
from nas.space.completion import Completion, State
from nas.space.definition import used_resolution
from nas.space.groups import rounded_up, steps_of
from nas.space.limits import heads_of, inputs_of, smallest_costs
from nas.space.widening import widths_to_cost


@settings(max_examples=examples(40))
@given(spaces(tiny=True), shapes(4, 9), st.integers(2, 4), st.data())
def test_completion_table_equals_brute_force(
    text: str, shape: tuple[int, int, int], num_classes: int, data: st.DataObject
) -> None:
    """Enumerate a tiny space: what fits, what is smallest, which moves there are."""
    space = read_space(text, "tiny")
    everything = [
        (state, architecture, ALL.relevant(cost(architecture)))
        for state, architecture in enumerate_space(space, shape, num_classes)
    ]
    costs = {found for _, _, found in everything}
    unbeaten = {one for one in costs if not any(beats(two, one) for two in costs)}
    least = smallest_costs(space, shape, num_classes, ALL)
    assert {one for one in least if not any(beats(two, one) for two in least)} == (
        unbeaten
    )
    if not everything:
        return
    assert smallest(space, shape, num_classes, Caps()) == min(
        found.num_params for found in costs
    )

    table = Completion(space, num_classes, ALL)
    corner = data.draw(st.sampled_from(sorted(costs, key=repr)), label="corner")
    shift = data.draw(st.integers(-2, 2), label="shift")
    caps = Caps(
        corner.num_params + shift, corner.macs + shift, corner.peak_memory + shift
    )
    fitting = [(s, a) for s, a, found in everything if caps.allow(found)]
    ((_, _, start),) = inputs_of(space, shape).values()
    if not caps.allow(start):
        assert not fitting
        return
    for state in {state for state, _, _ in everything}:
        here = [architecture for s, architecture in fitting if s == state]
        assert table.fits(state, caps) == bool(here)
        firsts = {a.blocks[0] for a in here if is_minimal(a, 0, space)}
        moves = [move for move in table.moves(state) if move.fits(caps)]
        assert {move.block for move in moves} == firsts
        for move in moves:
            seconds = {
                a.blocks[1]
                for a in here
                if a.blocks[0] == move.block and len(a.blocks) > 1
                if is_minimal(a, 1, space)
            }
            left = caps.after(move.cost)
            if move.state.blocks_left:
                after = [m for m in table.moves(move.state) if m.fits(left)]
                assert {m.block for m in after} == seconds


def enumerate_space(
    space: SearchSpace, shape: tuple[int, int, int], num_classes: int
) -> Iterator[tuple[State, Architecture]]:
    """Yield every architecture of a space (but for activation and dropout)."""
    # A tiny space has one.
    resolution = used_resolution(space.resolutions.options[0], shape)
    for norm, head in product(space.norms.options, heads_of(space)):
        for depth in range(space.depth[0], space.depth[1] + 1):
            one = [
                block
                for kind, kernel_size, padding, how, shortcut in product(
                    space.kinds.options,
                    space.kernel_sizes.options,
                    space.paddings.options,
                    ["none", *space.downsampling_kinds.options],
                    space.shortcuts.options,
                )
                for block in of_all_widths(
                    space, kind, kernel_size, padding, norm, how, shortcut
                )
            ]
            lasts = one
            if head.kind == "pool":
                found = {replace(block, out_channels=num_classes) for block in one}
                lasts = [
                    b
                    for b in found
                    if least_width(b.kind, b.kernel_size) <= num_classes
                ]
            for chain in product(*[one] * (depth - 1), lasts):
                count = sum(block.downsampling != "none" for block in chain)
                if not space.downsamplings[0] <= count <= space.downsamplings[1]:
                    continue
                try:
                    architecture = net_of(
                        *chain,
                        shape=shape,
                        classes=num_classes,
                        head=head,
                        resolution=resolution,
                    )
                except ArchitectureError:
                    continue
                # An identity of the images, or to the classes, is no space's.
                first, last = chain[0], chain[-1]
                if first.shortcut in {"identity", "pad"} or (
                    head.kind == "pool" and last.shortcut == "identity"
                ):
                    continue
                if roomy(architecture, space):
                    start = resized(shape, resolution)
                    yield State(norm, head, start, depth, count), architecture


def of_all_widths(
    space: SearchSpace,
    kind: str,
    kernel_size: int,
    padding: Any,
    norm: Any,
    how: Any,
    shortcut: Any,
) -> list[Block]:
    """Return the blocks of these options in each width that the space allows."""
    adds = "none" not in KINDS[kind].shortcuts
    if (kind == "inception" or adds) and padding == "valid":
        return []
    shaped = KINDS[kind].shaped
    branches = (kernel_size + 1) // 2 if kind == "inception" else 1
    least = max(space.min_width, branches)
    most = max(space.max_width, least)
    if shortcut == "identity":
        # As wide as the block before it, of whatever kind that is.
        widest = (max(space.kernel_sizes.options) + 1) // 2
        most = max(most, widest if "inception" in space.kinds.options else 0)
    expansions = space.expansions.options if KINDS[kind].expands else (1,)
    gated = space.squeeze_excitations.options if KINDS[kind].gates else (0,)
    found = [
        Block(
            kind=kind,
            out_channels=width,
            kernel_size=kernel_size,
            padding=padding,
            norm=norm,
            stride=2 if how == "stride" else 1,
            pool="none" if how == "stride" else how,
            shortcut=shortcut,
            expansion=expansion,
            squeeze_excitation=gates,
            kernel_width=kernel_width,
            dilation=dilation,
            groups=groups,
        )
        for width in range(least, most + 1)
        for expansion in expansions
        for gates in gated
        for kernel_width in (space.kernel_widths.options if shaped else (0,))
        for dilation in (space.dilations.options if shaped else (1,))
        for groups in (space.groups.options if KINDS[kind].grouped else (1,))
        if kind == "conv" or max(kernel_size, kernel_width) > 1
    ]
    return [block for block in found if refusal(block) is None]


def roomy(architecture: Architecture, space: SearchSpace) -> bool:
    """Return whether every feature map has the space's smallest side."""
    height, width = feature_shapes(architecture)[0][1:]
    for place, block in enumerate(architecture.blocks):
        if block.padding == "valid":
            height -= block.extent[0] - 1
            width -= block.extent[1] - 1
        if block.downsampling == "stride":
            height, width = -(-height // 2), -(-width // 2)
        elif block.downsampling != "none":
            height, width = height // 2, width // 2
        smallest_side = 1 if is_classifier(architecture, place) else space.smallest_side
        if min(height, width) < smallest_side:
            return False
    return True


def beats(one: Cost, other: Cost) -> bool:
    """Return whether one is nowhere higher than the other, and not equal."""
    return one != other and all(
        getattr(one, name) <= getattr(other, name)
        for name in ("num_params", "macs", "peak_memory")
    )


def is_minimal(architecture: Architecture, place: int, space: SearchSpace) -> bool:
    """Return whether the block there has the smallest width that it can have.

    Of groups, its own or of a later block, each has a smallest width of its own.
    """
    block = architecture.blocks[place]
    if is_classifier(architecture, place) or block.shortcut == "identity":
        return True
    least = max(space.min_width, least_width(block.kind, block.kernel_size))
    options = space.groups.options
    steps = [
        math.lcm(*some)
        for count in range(len(options) + 1)
        for some in combinations(options, count)
    ]
    return block.out_channels in {-(-least // step) * step for step in steps}


@given(architectures(), st.data())
def test_widths_to_cost_equals_cost(
    architecture: Architecture, data: st.DataObject
) -> None:
    """The fast cost of changed widths is that of the changed architecture."""
    widths: list[int] = []
    steps = steps_of(architecture.blocks)
    for place, block in enumerate(architecture.blocks):
        before = widths[-1] if widths else architecture.input_shape[0]
        width = data.draw(st.integers(least_width(block.kind, block.kernel_size), 70))
        width = before if block.tied else rounded_up(width, steps[place])
        widths.append(
            block.out_channels if is_classifier(architecture, place) else width
        )
    if any(
        least_width(block.kind, block.kernel_size) > width
        for block, width in zip(architecture.blocks, widths, strict=True)
    ):
        return
    if architecture.head.kind == "pool" and architecture.blocks[-1:]:
        last = architecture.blocks[-1]
        if last.tied:
            return  # no space draws a classifier that is as wide as its input
    blocks = tuple(
        replace(block, out_channels=width)
        for block, width in zip(architecture.blocks, widths, strict=True)
    )
    wide = replace(architecture, blocks=blocks)
    assert widths_to_cost(architecture)(widths) == ALL.relevant(cost(wide))
