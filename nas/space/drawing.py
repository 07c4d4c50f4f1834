"""Draws an architecture from a space, under hard caps, by construction.

First a size is drawn, then what gives the net its shape (head, depth, where and how it
downsamples, kinds and kernels), each decision among the options that can still be
completed within that size. Then a few blocks deviate from what follows the others'
convolutions, or are applied repeatedly, where that fits. Last come the widths: each
block has a relative width, and one common factor makes the net as large as the size
allows. So the whole range under the cap is covered, and no draw ever fails.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate, product
from typing import Any, Protocol, TypeVar

from nas.architecture import Architecture, Block, Head, Shape
from nas.architecture.cost import cost
from nas.architecture.kinds import refusal
from nas.errors import ArchitectureError, SpaceError
from nas.space.completion import Caps, Move, State
from nas.space.definition import Choice, Deviation, SearchSpace, own_options
from nas.space.groups import divisible
from nas.space.limits import (
    completion,
    counts,
    heads_of,
    inputs_of,
    kinds_of_caps,
    smallest,
)
from nas.space.widening import widen

T = TypeVar("T")


class Draws(Protocol):
    """Where the decisions come from; an Optuna trial is one.

    The same name always comes with the same range, whatever was decided before, so
    that every sampler can learn from every trial.
    """

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return a number from low to high."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""


class RandomDraws:
    """Independent uniform draws, fixed by the seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_float(self, name: str, low: float, high: float) -> float:  # noqa: ARG002
        """Return a uniform number from low to high."""
        return self._random.uniform(low, high)

    def suggest_int(self, name: str, low: int, high: int) -> int:  # noqa: ARG002
        """Return a uniform whole number from low to high, both included."""
        return self._random.randint(low, high)


def sample(
    space: SearchSpace,
    draws: Draws,
    *,
    input_shape: Shape,
    num_classes: int,
    caps: Caps,
) -> Architecture:
    """Draw one architecture of at most the caps.

    Takes a bounded number of steps. Raises SpaceError only where the caps allow no net
    of the space at all. ``caps.num_params`` must be given.
    """
    least = smallest(space, input_shape, num_classes, caps)
    if caps.num_params is None:
        raise SpaceError("no parameter budget: give the largest number of parameters")
    size = size_of(draws.suggest_float("size", 0.0, 1.0), least, caps.num_params, space)
    caps = replace(caps, num_params=size)
    resolution, blocks, head = _structure(space, draws, input_shape, num_classes, caps)
    activation = _pick(draws, "activation", space.activations, lambda _: True)
    dropout = _pick(draws, "dropout", space.dropouts, lambda _: True)
    narrow = Architecture(
        input_shape=input_shape,
        num_classes=num_classes,
        blocks=tuple(
            replace(
                block, **usual_finish(number, len(blocks), head, activation, dropout)
            )
            for number, block in enumerate(blocks, start=1)
        ),
        head=head if head.kind == "pool" else replace(head, dropout=dropout),
        resolution=resolution,
    )
    narrow = _deviate(narrow, space, draws, caps)
    narrow = _repeat(narrow, space, draws, caps)
    spread = math.log(space.spread)
    relative = [
        math.exp(spread * draws.suggest_float(f"block_{number}.width", -1.0, 1.0))
        for number in range(1, len(blocks) + 1)
    ]
    # The narrowest one fits by construction.
    return widen(narrow, relative, caps, least=space.min_width, most=space.max_width)


def usual_finish(
    number: int, depth: int, head: Head, activation: str, dropout: float
) -> dict[str, Any]:
    """Return activation and dropout of a block that does not deviate.

    ``number`` counts from 1 to ``depth``. The last block has no dropout, as the head
    drops its input; where it is itself the classifier it has no activation either.
    """
    if number < depth:
        return {"activation": activation, "dropout": dropout}
    if head.kind == "pool":
        return {"activation": "none", "dropout": 0.0}
    return {"activation": activation, "dropout": 0.0}


@lru_cache
def deviations(ways: Deviation) -> tuple[dict[str, Any], ...]:
    """Return every possible deviation of a block."""
    names = ("norm", "bias", "activation", "order", "dropout")
    return tuple(
        dict(zip(names, values, strict=True))
        for values in product(
            ways.norms, ways.biases, ways.activations, ways.orders, ways.dropouts
        )
    )


def _deviate(
    narrow: Architecture, space: SearchSpace, draws: Draws, caps: Caps
) -> Architecture:
    """Let some blocks deviate, as far as the caps allow."""
    share = space.deviation.share
    if not share:
        return narrow
    ways = deviations(space.deviation)
    for number in range(1, len(narrow.blocks) + 1):
        point = draws.suggest_float(f"block_{number}.deviation", 0.0, 1.0)
        if point < 1 - share:
            continue
        place = int((point - (1 - share)) / share * len(ways))
        block = replace(narrow.blocks[number - 1], **ways[min(place, len(ways) - 1)])
        if refusal(block) is not None:
            continue
        other = with_block(narrow, number, block)
        if caps.allow(cost(other, caps.board)):
            narrow = other
    return narrow


def _repeat(
    narrow: Architecture, space: SearchSpace, draws: Draws, caps: Caps
) -> Architecture:
    """Apply some blocks several times, where they can be and the caps allow it."""
    for number in range(2, len(narrow.blocks) + 1):
        before, block = narrow.blocks[number - 2 : number]
        if not repeatable(block, before) or (
            narrow.head.kind == "pool" and number == len(narrow.blocks)
        ):
            continue
        again = partial(applied, narrow, number)
        times = _pick(
            draws,
            f"block_{number}.repeats",
            space.repeats,
            lambda t: _allowed(caps, again(t)),  # noqa: B023 - asked at once
        )
        narrow = again(times) or narrow
    return narrow


def _allowed(caps: Caps, architecture: Architecture | None) -> bool:
    return architecture is not None and caps.allow(cost(architecture, caps.board))


def applied(narrow: Architecture, number: int, times: int) -> Architecture | None:
    """Return the architecture with that block applied so many times.

    None where a block behind it cannot take so few channels.
    """
    if times == 1:
        return narrow
    blocks = list(narrow.blocks)
    blocks[number - 1] = replace(blocks[number - 1], repeats=times)
    # Its output is its input again.
    for place in range(number - 1, len(blocks)):
        if not blocks[place].tied:
            break
        width = blocks[place - 1].out_channels
        blocks[place] = replace(blocks[place], out_channels=width)
    try:
        return replace(narrow, blocks=divisible(blocks))
    except ArchitectureError:
        return None


def repeatable(block: Block, before: Block) -> bool:
    """Return whether the block can be applied to its own output, after that block."""
    again = replace(block, repeats=2, out_channels=before.out_channels)
    return refusal(again) is None


def with_block(architecture: Architecture, number: int, block: Block) -> Architecture:
    """Return the architecture with another block in the place of that number."""
    blocks = list(architecture.blocks)
    blocks[number - 1] = block
    return replace(architecture, blocks=tuple(blocks))


def size_of(share: float, least: int, cap: int, space: SearchSpace) -> int:
    """Return the parameters to aim at: log-uniform, leaning towards the cap."""
    leaning = math.pow(share, 1 / space.towards_cap)
    return min(cap, round(least * math.pow(cap / least, leaning)))


def _structure(
    space: SearchSpace,
    draws: Draws,
    input_shape: Shape,
    num_classes: int,
    caps: Caps,
) -> tuple[int, list[Block], Head]:
    """Draw everything but widths, activation and dropout; widths are minimal."""
    table = completion(space, num_classes, kinds_of_caps(caps))
    depths = range(space.depth[0], space.depth[1] + 1)
    heads = heads_of(space)
    inputs = inputs_of(space, input_shape)

    def fits(option: int) -> bool:
        _, shape, start = inputs[option]
        states = (
            State(norm, head, shape, depth, count)
            for norm, head, depth in product(space.norms.options, heads, depths)
            for count in counts(space, depth)
        )
        return caps.allow(start) and any(table.fits(state, caps) for state in states)

    option = _pick(draws, "resolution", space.resolutions, fits)
    resolution, shape, _ = inputs[option]

    def completable(norm: str, head: Head, depths: Iterable[int]) -> bool:
        return any(
            table.fits(State(norm, head, shape, depth, count), caps)
            for depth in depths
            for count in counts(space, depth)
        )

    norm = _pick(
        draws,
        "norm",
        space.norms,
        lambda n: any(completable(n, head, depths) for head in heads),
    )
    kind = _pick(
        draws,
        "head",
        space.heads,
        lambda k: any(completable(norm, h, depths) for h in heads if h.kind == k),
    )
    head = Head(kind=kind)  # type: ignore[arg-type]
    if kind == "conv":
        kernel_size = _pick(
            draws,
            "head_kernel_size",
            space.head_kernel_sizes,
            lambda k: completable(norm, replace(head, kernel_size=k), depths),
        )
        head = replace(head, kernel_size=kernel_size)
    elif kind != "pool":
        hidden = _pick(
            draws,
            "head_hidden",
            space.hidden,
            lambda h: completable(norm, replace(head, hidden=h), depths),
        )
        head = replace(head, hidden=hidden)

    depth = _nearest(
        draws.suggest_int("depth", *space.depth),
        [d for d in depths if completable(norm, head, [d])],
    )
    count = _nearest(
        draws.suggest_int("downsamplings", *space.downsamplings),
        [
            c
            for c in counts(space, depth)
            if table.fits(State(norm, head, shape, depth, c), caps)
        ],
    )
    wanted = _positions(draws, depth, count)

    paths = [_Path([], State(norm, head, shape, depth, count), caps)]
    for number in range(1, depth + 1):
        moves: list[Move] = []
        before: dict[int, _Path] = {}
        for path in paths:
            fitting = [m for m in table.moves(path.state) if m.fits(path.caps)]
            moves += fitting
            before |= dict.fromkeys(map(id, fitting), path)
        # A downsampling that does not fit is postponed to the next block that has one.
        due = sum(position <= number for position in wanted)
        done = count - paths[0].state.downsamplings_left
        drawn = _moves(space, draws, number, moves, downsample=due > done)
        paths = _narrowest((before[id(move)], move) for move in drawn)
    return resolution, paths[0].blocks, head


@dataclass(frozen=True, slots=True)
class _Path:
    """Blocks drawn so far, and what is left of the caps.

    All paths of a drawing are of the same decisions. There are several where the groups
    of the next block may need the last one wider.
    """

    blocks: list[Block]
    state: State
    caps: Caps


def _narrowest(drawn: Iterable[tuple[_Path, Move]]) -> list[_Path]:
    """Return the paths after these moves: for each width of the last block one.

    It is the one whose other blocks are the narrowest, which comes first.
    """
    found: dict[int, _Path] = {}
    for path, move in drawn:
        width = move.block.out_channels
        if width not in found:
            blocks = [*path.blocks, move.block]
            found[width] = _Path(blocks, move.state, path.caps.after(move.cost))
    return [found[width] for width in sorted(found)]


def _moves(
    space: SearchSpace,
    draws: Draws,
    number: int,
    moves: list[Move],
    *,
    downsample: bool,
) -> list[Move]:
    """Draw among the moves that can be completed; downsample if asked and possible.

    What is left are moves of the same decisions, which differ in their width.
    """
    ways = {move.block.downsampling for move in moves}
    if "none" in ways and (not downsample or ways == {"none"}):
        way = "none"
    else:
        way = _pick(
            draws,
            f"block_{number}.downsampling",
            space.downsampling_kinds,
            ways.__contains__,
        )
    moves = [move for move in moves if move.block.downsampling == way]

    choices: tuple[tuple[str, Choice[Any]], ...] = (
        ("kind", space.kinds),
        ("kernel_size", space.kernel_sizes),
        ("padding", space.paddings),
    )
    for name, choice in choices:
        left = {getattr(move.block, name) for move in moves}
        value: Any = _pick(draws, f"block_{number}.{name}", choice, left.__contains__)
        moves = [move for move in moves if getattr(move.block, name) == value]
    for name, own in own_options(space).items():
        left = {getattr(move.block, name) for move in moves}
        value = (
            _pick(draws, f"block_{number}.{name}", own, left.__contains__)
            if len(left) > 1
            else left.pop()
        )
        moves = [move for move in moves if getattr(move.block, name) == value]
    return moves


def _pick(
    draws: Draws, name: str, choice: Choice[T], allowed: Callable[[T], bool]
) -> T:
    """Draw one of the options; if it is not allowed, take the nearest that is."""
    if len(choice.options) == 1:
        return choice.options[0]
    point = draws.suggest_float(name, 0.0, 1.0)
    # The last share ends at 1, whatever the sum's rounding.
    ends = list(accumulate(choice.shares))[:-1]
    drawn = bisect_right(ends, point)
    # Mostly it is; whether the others are costs much more than the draw.
    if allowed(choice.options[drawn]):
        return choice.options[drawn]
    indices = range(len(choice.options))
    left = [index for index in indices if allowed(choice.options[index])]
    return choice.options[_nearest(drawn, left)]


def _nearest(wanted: int, allowed: Sequence[int]) -> int:
    return min(allowed, key=lambda value: (abs(value - wanted), value))


def _positions(draws: Draws, depth: int, count: int) -> list[int]:
    """Draw after which blocks (from 1) to downsample: distinct, ascending."""
    positions: list[int] = []
    for number in range(1, count + 1):
        share = draws.suggest_float(f"downsampling_{number}.position", 0.0, 1.0)
        free = [p for p in range(1, depth + 1) if p not in positions]
        positions.append(_nearest(min(depth, 1 + int(share * depth)), free))
    return sorted(positions)
