"""Which half-made architectures can still be completed under the caps.

The drawing of an architecture decides one thing after the other. Before each decision
it asks here which options leave at least one way to the end that fits. So every
draw fits by construction; nothing is ever drawn, found too large and thrown away.

The answer is exact. With every width at its minimum, costs add up block by block (peak
memory: the maximum), and what is still to come depends only on the shape of the feature
map, the blocks and the downsamplings left. So a table, filled once by dynamic
programming, holds for each such state the costs of all completions that no other beats
in every cost at once. Widening any block raises every cost, so if no completion of
minimal width fits, none does. A block whose groups need more channels of the block
before it is no exception: that one then comes in several minimal widths, one for each
number of channels that groups of the space may need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from itertools import product
from operator import attrgetter
from typing import Any

from nas.architecture import Block, Head, Shape, sides_after
from nas.architecture.boards import Board
from nas.architecture.cost import (
    Cost,
    block_layers,
    code_size,
    head_layers,
    total,
)
from nas.architecture.kinds import KINDS, least_width, refusal
from nas.space.definition import POOLS, SearchSpace, options_of
from nas.space.groups import rounded_up, steps_up_to


@dataclass(frozen=True, slots=True)
class Caps:
    """The hard caps; None means no cap.

    ``num_params`` is the parameter budget, ``macs`` multiply-accumulates of one
    image, ``peak_memory`` bytes of int8 activations, ``flash`` bytes of the C code and
    its constants, ``latency`` nanoseconds on ``board``.
    """

    num_params: int | None = None
    macs: int | None = None
    peak_memory: int | None = None
    flash: int | None = None
    latency: int | None = None
    board: Board | None = None

    def allow(self, cost: Cost) -> bool:
        """Return whether the cost is at or under every cap.

        With a cap on latency it has to be the board's: ``cost(architecture, board)``.
        """
        if self.latency is not None and cost.macs and not cost.latency:
            raise ValueError("a cap on latency needs the cost on its board")
        return (
            (self.num_params is None or cost.num_params <= self.num_params)
            and (self.macs is None or cost.macs <= self.macs)
            and (self.peak_memory is None or cost.peak_memory <= self.peak_memory)
            and (self.flash is None or cost.flash <= self.flash)
            and (self.latency is None or cost.latency <= self.latency)
        )

    @property
    def of_device(self) -> bool:
        """Whether there is a cap on flash or latency."""
        return self.flash is not None or self.latency is not None

    @property
    def capped(self) -> list[str]:
        """The quantities that have a cap, by their names in Cost."""
        return [f.name for f in fields(Cost) if getattr(self, f.name) is not None]

    def after(self, spent: Cost) -> Caps:
        """Return the caps that are left after this cost is spent."""
        left = {n: getattr(self, n) - getattr(spent, n) for n in self.capped}
        # Peak memory is a maximum, so earlier blocks do not reduce what is left.
        return replace(self, **left | {"peak_memory": self.peak_memory})

    def relevant(self, cost: Cost) -> Cost:
        """Return the cost with uncapped quantities set to 0, so that fewer costs differ."""
        names = self.capped
        return Cost(
            *(getattr(cost, f.name) if f.name in names else 0 for f in fields(Cost))
        )


@dataclass(frozen=True, slots=True)
class State:
    """The state of a drawing: what determines its possible completions."""

    norm: str
    head: Head
    shape: Shape
    blocks_left: int
    downsamplings_left: int
    first: bool = True
    """Whether the next block takes the images."""

    def after(self, shape: Shape, *, downsampling: bool) -> State:
        """Return the state after one more block, whose output has that shape."""
        return State(
            self.norm,
            self.head,
            shape,
            self.blocks_left - 1,
            self.downsamplings_left - downsampling,
            first=False,
        )


@dataclass(frozen=True, slots=True)
class Move:
    """One block of minimal width that can come next, and what follows from it."""

    block: Block
    cost: Cost
    state: State
    """The state after the block."""
    totals: tuple[Cost, ...]
    """The costs of the block and each completion after it."""

    def fits(self, left: Caps) -> bool:
        """Return whether the block and some completion after it are under the caps."""
        return any(left.allow(total) for total in self.totals)


class Completion:
    """The table for one space, one number of classes and one set of caps.

    The caps' values only matter in the question `fits`; which of them there are
    decides what the table distinguishes.
    """

    def __init__(self, space: SearchSpace, num_classes: int, caps: Caps) -> None:
        self.space, self.num_classes, self.caps = space, num_classes, caps
        # Activations are drawn later, so assume the one that needs the most flash.
        activations = space.activations.options
        self._activation = max(activations, key=_flash_of_activation)
        self._steps_of_width = steps_up_to(space.max_width, space.groups.options)
        self._gated = space.squeeze_excitations.options != (0,)
        self._code = code_size(
            {*activations, *space.deviation.activations}
            | ({"sigmoid"} if self._gated else set()),
            depthwise=True,
            adding=space.shortcuts.options != ("none",),
            widening="pad" in space.shortcuts.options,
            shaped=space.kernel_widths.options != (0,)
            or space.dilations.options != (1,),
            grouping=space.groups.options != (1,),
            gating=self._gated,
            resizing=space.resolutions.options != (0,),
            overlapping=space.pool_strides.options != (0,)
            or space.pool_paddings.options != (0,),
        )
        self.best = cache(self._best)
        # Bounded: drawing comes back to few states, but the table has thousands, each
        # of which takes some 6 kB.
        self.moves = lru_cache(maxsize=512)(self._moves)
        self._steps = cache(self._possible_steps)
        self._cheapest = cache(self._cheapest_steps)

    def fits(self, state: State, left: Caps) -> bool:
        """Return whether some completion of the state is under the caps left."""
        return any(left.allow(rest) for rest in self.best(state))

    def _moves(self, state: State) -> tuple[Move, ...]:
        """Return every block of minimal width that the space and the image allow."""
        moves = []
        for step in self._steps(*self._place(state)):
            after = state.after(step.shape, downsampling=step.downsampling)
            rest = self.best(after)
            if rest:
                totals = tuple(step.cost.then(one) for one in rest)
                moves.append(Move(step.block, step.cost, after, totals))
        return tuple(moves)

    def _best(self, state: State) -> tuple[Cost, ...]:
        if state.blocks_left == 0:
            head = state.head
            if head.kind == "conv" and head.kernel_size > min(state.shape[1:]):
                return ()
            table = list(head_layers(head, state.shape, self.num_classes))
            end = total(table, self.caps.board, gated=self._gated)
            end = end.then(Cost(0, 0, 0, self._code))
            return (self.caps.relevant(end),)
        found = set()
        for (shape, downsampling), costs in self._cheapest(*self._place(state)):
            for rest in self.best(state.after(shape, downsampling=downsampling)):
                found |= {cost.then(rest) for cost in costs}
        return _unbeaten(found)

    def _place(self, state: State) -> _Place:
        """Return what decides which blocks can come next."""
        # The channels of the next block, where it is itself the classifier.
        last = state.blocks_left == 1 and state.head.kind == "pool"
        classes = self.num_classes if last else None
        return state.norm, state.shape, _ways(state), classes, state.first

    def _possible_steps(
        self,
        norm: str,
        shape: Shape,
        ways: tuple[bool, bool],
        classes: int | None,
        first: bool,  # noqa: FBT001 - one of the keys of the cache
    ) -> tuple[_Step, ...]:
        """Return the blocks that have room on a feature map of that shape."""
        space = self.space
        # What a classifier leaves is a head's business, not a feature map.
        smallest_side = 1 if classes else space.smallest_side
        keep, downsample = ways
        options = ["none"] if keep else []
        if downsample:
            options += space.downsampling_kinds.options
        steps = []
        for values in _combinations(space, norm, options):
            least = max(
                space.min_width, least_width(values["kind"], values["kernel_size"])
            )
            widths = {classes} if classes else self._widths(least)
            if values["shortcut"] == "identity":
                # It is as wide as its input, which is not for images or classes.
                widths = {shape[0]}
                if first or classes or shape[0] < least:
                    continue
            if values["shortcut"] == "pad" and first:
                # The C code has no images that wait for an addition.
                continue
            if shape[0] % values["groups"]:
                continue
            for width in sorted(widths):
                block = Block(out_channels=width, **values)
                if refusal(block) is not None:
                    continue
                after = sides_after(block, shape[1:])
                if min(after) >= smallest_side:
                    dearest = replace(block, activation=self._activation)  # type: ignore[arg-type]
                    table = block_layers(dearest, shape)
                    costs = total(table, self.caps.board, gated=self._gated)
                    cost = self.caps.relevant(costs)
                    output = (block.out_channels, *after)
                    halves = block.downsampling != "none"
                    steps.append(_Step(block, cost, output, halves))
        return tuple(steps)

    def _widths(self, least: int) -> set[int]:
        """Return the minimal widths of a block: more than one where groups need them."""
        most = max(least, self.space.max_width)
        widths = {rounded_up(least, step) for step in self._steps_of_width}
        return {width for width in widths if width <= most}

    def _cheapest_steps(
        self, *place: *_Place
    ) -> tuple[tuple[tuple[Shape, bool], tuple[Cost, ...]], ...]:
        """Return, for each place that a block leads to, the unbeaten costs of it."""
        costs: dict[tuple[Shape, bool], set[Cost]] = {}
        for step in self._steps(*place):
            costs.setdefault((step.shape, step.downsampling), set()).add(step.cost)
        return tuple((place, _unbeaten(found)) for place, found in costs.items())


_Place = tuple[str, Shape, tuple[bool, bool], int | None, bool]


@dataclass(frozen=True, slots=True)
class _Step:
    block: Block
    cost: Cost
    shape: Shape
    downsampling: bool


def _ways(state: State) -> tuple[bool, bool]:
    """Return whether the next block may keep the feature map's size, or halve it."""
    return (
        state.blocks_left > state.downsamplings_left,
        state.downsamplings_left > 0,
    )


def _combinations(
    space: SearchSpace, norm: str, ways: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the values of every possible block of the space, except its width."""
    for kind, kernel_size, padding, way in product(
        space.kinds.options, space.kernel_sizes.options, space.paddings.options, ways
    ):
        values = {
            "kind": kind,
            "kernel_size": kernel_size,
            "padding": padding,
            "norm": norm,
        } | way_of_downsampling(way)
        own = options_of(space, kind, pools=way in POOLS)
        for combination in product(*own.values()):
            drawn = dict(zip(own, combination, strict=True))
            if KINDS[kind].drawn(max(kernel_size, drawn["kernel_width"]), padding):
                yield values | drawn


def way_of_downsampling(way: str) -> dict[str, Any]:
    """Return stride and pooling of a block that downsamples so, or "none"."""
    return {
        "stride": 2 if way == "stride" else 1,
        "pool": "none" if way == "stride" else way,
    }


def _flash_of_activation(activation: str) -> int:
    block = Block(out_channels=1, activation=activation)  # type: ignore[arg-type]
    return total(block_layers(block, (1, 1, 1))).flash


_IN_ORDER = attrgetter(*(field.name for field in fields(Cost)))


def _unbeaten(costs: set[Cost]) -> tuple[Cost, ...]:
    """Return the non-dominated costs."""
    kept: list[Cost] = []
    for cost in sorted(costs, key=_IN_ORDER):
        if not any(
            other.macs <= cost.macs
            and other.peak_memory <= cost.peak_memory
            and other.flash <= cost.flash
            and other.latency <= cost.latency
            for other in kept
        ):
            kept.append(cost)
    return tuple(kept)
