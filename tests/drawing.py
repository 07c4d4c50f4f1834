"""Draws for the tests of spaces, and what is asked of the nets drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from nas.architecture import Architecture, Head, Shape
from nas.architecture.cost import cost
from nas.space import (
    Caps,
    Draws,
    RandomDraws,
    SearchSpace,
    find_space,
    sample,
    smallest,
)
from nas.space.completion import Completion, State
from nas.space.limits import heads_of

CAPS = [300, 1_000, 3_000, 10_000, 50_000]
SHAPE = (1, 28, 28)
ALL = Caps(1, 1, 1)


def draw(
    space: SearchSpace,
    draws: int | Draws,
    caps: Caps,
    shape: Shape = SHAPE,
    classes: int = 10,
) -> Architecture:
    """Draw an architecture, by default for MNIST's images; an int is a seed."""
    if isinstance(draws, int):
        draws = RandomDraws(draws)
    return sample(space, draws, input_shape=shape, num_classes=classes, caps=caps)


def is_classifier(architecture: Architecture, place: int) -> bool:
    """Return whether the block in that place (from 0) makes the logits."""
    last = place == len(architecture.blocks) - 1
    return last and architecture.head.kind == "pool"


def check_coverage(name: str, cap: int, seeds: Iterable[int]) -> None:
    """Assert that the draws keep the cap and cover all that the space offers."""
    space = find_space(name)
    least = smallest(space, SHAPE, 10, Caps(cap))
    seen: Counter[Any] = Counter()
    for seed in seeds:
        architecture = draw(space, seed, Caps(cap))
        size = cost(architecture).num_params
        # A block's own way may leave out its norm, which the smallest net has.
        assert size <= cap
        assert least <= size or space.deviation.share
        share = math.log(size / least) / math.log(cap / least)
        ways = [block.downsampling for block in architecture.blocks]
        seen.update(
            [
                ("bin", min(9, int(10 * share))),
                ("depth", len(ways)),
                ("count", sum(one != "none" for one in ways)),
                ("head", architecture.head.kind),
                ("hidden", architecture.head.hidden),
            ]
        )
        for block, one in zip(architecture.blocks, ways, strict=True):
            seen.update(
                [
                    ("way", one),
                    ("kind", block.kind),
                    ("kernel_size", block.kernel_size),
                    ("padding", block.padding),
                    ("activation", block.activation),
                ]
            )
    assert sum(name == "bin" for name, _ in seen) >= 8
    expected: dict[str, set[Any]] = {
        "depth": set(range(space.depth[0], space.depth[1] + 1)),
        "count": set(range(space.downsamplings[0], space.downsamplings[1] + 1)),
        "way": {"none", *space.downsampling_kinds.options},
        "kind": set(space.kinds.options),
        "kernel_size": set(space.kernel_sizes.options),
        "padding": set(space.paddings.options),
        "activation": set(space.activations.options),
        "head": {head.kind for head in possible_heads(space, cap)},
        "hidden": {head.hidden for head in possible_heads(space, cap)},
    }
    own_ways = {"activation": {"none", *space.deviation.activations}}
    for what, options in expected.items():
        found = {value for name, value in seen if name == what}
        assert options <= found <= options | own_ways.get(what, set()), what


def possible_heads(space: SearchSpace, cap: int) -> list[Head]:
    """Return the heads with which some net of the space is under the cap."""
    table = Completion(space, 10, Caps(1))
    return [
        head
        for head in heads_of(space)
        if any(
            table.fits(State(norm, head, SHAPE, depth, count), Caps(cap))
            for norm in space.norms.options
            for depth in range(space.depth[0], space.depth[1] + 1)
            for count in range(space.downsamplings[0], space.downsamplings[1] + 1)
        )
    ]
