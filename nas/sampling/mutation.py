"""Mutates an architecture: changes a few decisions and resizes it.

The steps of the local search: a block more or less, another kernel, a pooling moved ...
The result is within the caps, or there is none. A few results are outside the space: only
the encoding of their draws tells, which takes longer than the change itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from nas.architecture import POOLING, Architecture, Block, Head
from nas.architecture.cost import cost
from nas.architecture.kinds import KINDS, least_width
from nas.errors import ArchitectureError
from nas.space.completion import Caps, way_of_downsampling
from nas.space.definition import (
    POOLS,
    Choice,
    SearchSpace,
    options_of,
    own_options,
    used_resolution,
)
from nas.space.drawing import deviations, usual_finish
from nas.space.groups import divisible
from nas.space.widening import widen

T = TypeVar("T")

# Number of attempts if a change leads over the caps or to no architecture.
_ATTEMPTS = 30


@dataclass(frozen=True, slots=True)
class BlockGenes:
    """The decisions for one block; ``own`` is what it has of its own, if it deviates."""

    kind: str
    kernel_size: int
    padding: str | tuple[int, int]
    downsampling: str  # "none" or how
    repeats: int
    options: dict[str, Any]  # those that not every kind has
    width: float  # only the proportions matter
    own: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Genome:
    """An architecture as the decisions of a space, without sizes."""

    norm: str
    activation: str
    dropout: float
    head: Head
    blocks: tuple[BlockGenes, ...]
    resolution: int = 0


def mutate(
    space: SearchSpace,
    architecture: Architecture,
    caps: Caps,
    *,
    num_params: int,
    changes: int,
    rng: random.Random,
) -> Architecture | None:
    """Return the architecture with so many decisions changed, resized to a size.

    It is as wide as ``num_params`` and the ``caps`` allow; ``changes`` 0 only resizes
    it. None where no attempt stayed within the caps.
    """
    within = replace(caps, num_params=num_params)
    genome = genome_of(space, architecture)
    for _ in range(_ATTEMPTS if changes else 1):
        changed = genome
        for _ in range(changes):
            changed = _change(space, changed, rng)
        found = express(space, changed, architecture, within)
        if found is not None:
            return found
    return None


def genome_of(space: SearchSpace, architecture: Architecture) -> Genome:
    """Return the decisions that an architecture is made of."""
    blocks, head = architecture.blocks, architecture.head
    norm = space.norms.commonest(b.norm for b in blocks)
    activation = space.activations.commonest(b.activation for b in blocks)
    dropout = (
        space.dropouts.commonest(b.dropout for b in blocks)
        if head.kind == "pool"
        else head.dropout
    )
    genes = []
    for number, block in enumerate(blocks, start=1):
        usual = {"norm": norm, "bias": "auto", "order": "early_pool"} | usual_finish(
            number, len(blocks), head, activation, dropout
        )
        own = {name: getattr(block, name) for name in usual}
        genes.append(
            BlockGenes(
                kind=block.kind,
                kernel_size=block.kernel_size,
                padding=block.padding,
                downsampling=block.downsampling,
                repeats=block.repeats,
                options={name: getattr(block, name) for name in own_options(space)},
                width=block.out_channels,
                own=None if own == usual else own,
            )
        )
    return Genome(
        norm,
        activation,
        dropout,
        replace(head, dropout=0.0),
        tuple(genes),
        architecture.resolution,
    )


def express(
    space: SearchSpace, genome: Genome, like: Architecture, caps: Caps
) -> Architecture | None:
    """Return the widest architecture of these decisions within the caps, if any.

    It takes the images and gives the classes of the architecture that it is ``like``.
    """
    depth = len(genome.blocks)
    blocks: list[Block] = []
    for number, genes in enumerate(genome.blocks, start=1):
        width = max(space.min_width, least_width(genes.kind, genes.kernel_size))
        last = number == depth and genome.head.kind == "pool"
        values: dict[str, Any] = {
            "kind": genes.kind,
            "out_channels": like.num_classes if last else width,
            "kernel_size": genes.kernel_size,
            "padding": genes.padding,
            "norm": genome.norm,
            "repeats": genes.repeats,
            **way_of_downsampling(genes.downsampling),
            **_possible(space, genes),
        }
        finish = usual_finish(
            number, depth, genome.head, genome.activation, genome.dropout
        )
        block = Block(**values | finish | (genes.own or {}))
        if block.tied and blocks and not last:
            block = replace(block, out_channels=blocks[-1].out_channels)
        blocks.append(block)
    dropout = 0.0 if genome.head.kind == "pool" else genome.dropout
    try:
        narrow = replace(
            like,
            blocks=divisible(blocks),
            head=replace(genome.head, dropout=dropout),
            resolution=used_resolution(genome.resolution, like.input_shape),
        )
        if not caps.allow(cost(narrow, caps.board)):
            return None
        widths = [genes.width for genes in genome.blocks]
        found = widen(narrow, widths, caps, least=space.min_width, most=space.max_width)
        # The widths of blocks as wide as their inputs can lead to channels that do not fit.
        return found if caps.allow(cost(found, caps.board)) else None
    except ArchitectureError:
        return None


def _possible(space: SearchSpace, genes: BlockGenes) -> dict[str, Any]:
    """Return the block's options, those of a pooling where and as the space has them."""
    pooling = {
        name: options[0]
        for name, options in options_of(
            space, genes.kind, pools=genes.downsampling in POOLS
        ).items()
        if name in POOLING and genes.options[name] not in options
    }
    return genes.options | pooling


Change = Callable[[SearchSpace, Genome, random.Random], Genome]


def _change(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    """Return the genome with one decision changed."""
    # A space without such options is changed as before there were any.
    own = any(len(choice.options) > 1 for choice in own_options(space).values())
    changes = _CHANGES | ({_other_option: 3} if own else {})
    if len(space.resolutions.options) > 1:
        changes |= {_other_resolution: 2}
    change = rng.choices(list(changes), list(changes.values()))[0]
    return change(space, genome, rng)


def _other_kernel(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    places = _places(genome, rng)
    value = _another(space.kernel_sizes, genome.blocks[places[0]].kernel_size, rng)
    for place in places:
        genome = _with(genome, place, kernel_size=value)
    return genome


def _other_kind(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    places = _places(genome, rng)
    kind = _another(space.kinds, genome.blocks[places[0]].kind, rng)
    for place in places:
        genes = genome.blocks[place]
        kernel_size = genes.kernel_size
        longer = max(kernel_size, genes.options["kernel_width"])
        if not KINDS[kind].drawn(longer, "same") and longer == 1:
            kernel_size = _another(space.kernel_sizes, 1, rng)
        options = _taken(space, kind, genes.options, rng)
        changes: dict[str, Any] = {"kernel_size": kernel_size, "options": options}
        genome = _with(genome, place, kind=kind, **changes)
    return genome


def _taken(
    space: SearchSpace, kind: str, options: dict[str, Any], rng: random.Random
) -> dict[str, Any]:
    """Return the options, with those that such blocks cannot have redrawn."""
    changed = dict(options)
    for name, left in options_of(space, kind).items():
        if changed[name] not in left:
            choice = own_options(space)[name]
            shares = dict(zip(choice.options, choice.shares, strict=True))
            changed[name] = rng.choices(left, [shares.get(one, 1) for one in left])[0]
    return changed


def usual_options(space: SearchSpace, kind: str, *, as_wide: bool) -> dict[str, Any]:
    """Return options for a block of that kind, ``as_wide`` as its input or not."""
    found = {}
    for name, left in options_of(space, kind).items():
        preferred = ["identity"] * as_wide + ["conv", "none", *left]
        found[name] = next(one for one in preferred if one in left)
    return found


def _other_option(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    """Change one of the options that not every kind has."""
    place = rng.randrange(len(genome.blocks))
    genes = genome.blocks[place]
    free = options_of(space, genes.kind, pools=genes.downsampling in POOLS)
    names = [name for name, options in free.items() if len(options) > 1]
    if not names:
        return genome
    name = rng.choice(names)
    others = [one for one in free[name] if one != genes.options[name]]
    return _with(genome, place, options=genes.options | {name: rng.choice(others)})


def _other_padding(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    places = _places(genome, rng)
    padding: Any = genome.blocks[places[0]].padding
    value = _another(space.paddings, padding, rng)
    for place in places:
        genome = _with(genome, place, padding=value)
    return genome


def _other_repeats(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    if len(genome.blocks) < 2:
        return genome
    places = _places(genome, rng, first=1)
    value = _another(space.repeats, genome.blocks[places[0]].repeats, rng)
    for place in places:
        changes: dict[str, Any] = {"repeats": value}
        if value > 1:
            changes["width"] = genome.blocks[place - 1].width
            if genome.blocks[place].downsampling == "stride":
                changes["downsampling"] = "max"
            changes["padding"] = "same"
        genome = _with(genome, place, **changes)
    return genome


def _other_width(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    place = rng.randrange(len(genome.blocks))
    factor = math.exp(rng.uniform(-1, 1) * math.log(space.spread))
    return _with(genome, place, width=genome.blocks[place].width * factor)


def _insert(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    """Insert a block: a copy of a neighbour or a new one."""
    if len(genome.blocks) >= space.depth[1]:
        return genome
    place = rng.randrange(len(genome.blocks) + 1)
    near = genome.blocks[min(place, len(genome.blocks) - 1)]
    new = replace(near, downsampling="none", own=None)
    if rng.random() < 0.5:
        kind = _drawn(space.kinds, rng)
        new = replace(
            new,
            kind=kind,
            kernel_size=_drawn(space.kernel_sizes, rng),
            padding="same",
            repeats=1,
            options=_taken(space, kind, new.options, rng),
        )
    blocks = (*genome.blocks[:place], new, *genome.blocks[place:])
    return replace(genome, blocks=blocks)


def _remove(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    """Remove a block; its downsampling moves to a neighbour."""
    if len(genome.blocks) <= space.depth[0]:
        return genome
    place = rng.randrange(len(genome.blocks))
    removed = genome.blocks[place]
    blocks = [*genome.blocks[:place], *genome.blocks[place + 1 :]]
    near = min(max(place - 1, 0), len(blocks) - 1)
    if removed.downsampling != "none" and blocks[near].downsampling == "none":
        blocks[near] = _downsampling_as(blocks[near], removed)
    return replace(genome, blocks=tuple(blocks))


def _move_downsampling(
    space: SearchSpace, genome: Genome, rng: random.Random
) -> Genome:
    del space
    halving = [p for p, g in enumerate(genome.blocks) if g.downsampling != "none"]
    if not halving:
        return genome
    place = rng.choice(halving)
    target = place + rng.choice((-1, 1))
    if not 0 <= target < len(genome.blocks) or target in halving:
        return genome
    blocks = list(genome.blocks)
    blocks[target] = _downsampling_as(blocks[target], blocks[place])
    blocks[place] = replace(blocks[place], downsampling="none")
    return replace(genome, blocks=tuple(blocks))


def _downsampling_as(genes: BlockGenes, other: BlockGenes) -> BlockGenes:
    """Return the block's decisions with the other's downsampling."""
    pooling = {name: other.options[name] for name in POOLING}
    return replace(
        genes, downsampling=other.downsampling, options=genes.options | pooling
    )


def _other_downsampling(
    space: SearchSpace, genome: Genome, rng: random.Random
) -> Genome:
    """Add, remove or change a downsampling."""
    place = rng.randrange(len(genome.blocks))
    way = genome.blocks[place].downsampling
    if way == "none":
        return _with(genome, place, downsampling=_drawn(space.downsampling_kinds, rng))
    if rng.random() < 0.5 or len(space.downsampling_kinds.options) == 1:
        return _with(genome, place, downsampling="none")
    other = _another(space.downsampling_kinds, way, rng)
    return _with(genome, place, downsampling=other)


def _other_resolution(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    value = _another(space.resolutions, genome.resolution, rng)
    return replace(genome, resolution=value)


def _other_head(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    kind: Any = _drawn(space.heads, rng)
    head = Head(kind=kind)
    if kind == "conv":
        head = replace(head, kernel_size=_drawn(space.head_kernel_sizes, rng))
    elif kind != "pool":
        head = replace(head, hidden=_drawn(space.hidden, rng))
    return replace(genome, head=head)


def _other_activation(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    value = _another(space.activations, genome.activation, rng)
    return replace(genome, activation=value)


def _other_dropout(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    return replace(genome, dropout=_another(space.dropouts, genome.dropout, rng))


def _other_norm(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    return replace(genome, norm=_another(space.norms, genome.norm, rng))


def _other_finish(space: SearchSpace, genome: Genome, rng: random.Random) -> Genome:
    """Switch a block's deviation on or off."""
    place = rng.randrange(len(genome.blocks))
    if genome.blocks[place].own is not None:
        return _with(genome, place, own=None)
    if not space.deviation.share:
        return genome
    return _with(genome, place, own=rng.choice(deviations(space.deviation)))


# How often each kind of change is made, relative to the others.
_CHANGES: dict[Change, float] = {
    _other_kernel: 4,
    _other_width: 4,
    _other_repeats: 3,
    _other_kind: 2,
    _insert: 3,
    _remove: 2,
    _move_downsampling: 3,
    _other_downsampling: 2,
    _other_padding: 1,
    _other_head: 1,
    _other_activation: 1,
    _other_dropout: 1,
    _other_norm: 0.5,
    _other_finish: 0.5,
}


# How often such a change is made to all blocks but the first, so that regular nets stay so.
_EVERYWHERE = 0.25


def _places(genome: Genome, rng: random.Random, *, first: int = 0) -> Sequence[int]:
    """Return which blocks to change: one from ``first`` on, now and then all but the first."""
    depth = len(genome.blocks)
    if depth > 1 and rng.random() < _EVERYWHERE:
        return range(1, depth)
    return [rng.randrange(first, depth)]


def _with(genome: Genome, place: int, **changes: Any) -> Genome:
    """Return the genome with other decisions for the block at that place."""
    blocks = list(genome.blocks)
    blocks[place] = replace(blocks[place], **changes)
    return replace(genome, blocks=tuple(blocks))


def _drawn(choice: Choice[T], rng: random.Random) -> T:
    return rng.choices(choice.options, choice.shares)[0]


def _another(choice: Choice[T], current: T, rng: random.Random) -> T:
    """Draw an option other than the current one, if there is another."""
    others = [
        (option, share)
        for option, share in zip(choice.options, choice.shares, strict=True)
        if option != current
    ]
    if not others:
        return current
    options, shares = zip(*others, strict=True)
    return rng.choices(options, shares)[0]  # type: ignore[no-any-return]
