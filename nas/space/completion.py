"""Which half-made architectures can still be completed under the caps.

The drawing of an architecture decides one thing after the other. Before each decision
it asks here which options leave at least one way to the end that fits. So every
draw fits by construction; nothing is ever drawn, found too large and thrown away.

The answer is exact. With every width at its minimum, costs add up block by block (peak
memory: the maximum), and what is still to come depends only on the shape of the feature
map, the blocks and the downsamplings left. So a table, filled once by dynamic
programming, holds for each such state the costs of all completions that no other beats
in every cost at once. Widening any block raises every cost, so if no completion of
minimal width fits, none does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product

from nas.architecture import Block, Head, Shape, conv_size
from nas.architecture.cost import Cost, block_layers, head_layers, total
from nas.space.reading import SearchSpace


@dataclass(frozen=True, slots=True)
class Caps:
    """The hard limits; None where there is none.

    ``num_params`` is the parameter budget, ``macs`` multiply-accumulates of one
    image, ``peak_memory`` bytes of int8 activations.
    """

    num_params: int | None = None
    macs: int | None = None
    peak_memory: int | None = None

    def allow(self, cost: Cost) -> bool:
        """Return whether the cost is at or under every cap."""
        return (
            (self.num_params is None or cost.num_params <= self.num_params)
            and (self.macs is None or cost.macs <= self.macs)
            and (self.peak_memory is None or cost.peak_memory <= self.peak_memory)
        )

    def after(self, spent: Cost) -> Caps:
        """Return the caps for what comes next once that much is spent."""
        num_params, macs = self.num_params, self.macs
        return Caps(
            None if num_params is None else num_params - spent.num_params,
            None if macs is None else macs - spent.macs,
            # Peaks do not add up: what was spent earlier leaves no less for later.
            self.peak_memory,
        )

    def relevant(self, cost: Cost) -> Cost:
        """Return the cost with what no cap limits set to 0, so that fewer differ."""
        return Cost(
            cost.num_params if self.num_params is not None else 0,
            cost.macs if self.macs is not None else 0,
            cost.peak_memory if self.peak_memory is not None else 0,
        )


@dataclass(frozen=True, slots=True)
class State:
    """How far a drawing has come: what decides which completions there are."""

    norm: str
    head: Head
    shape: Shape
    blocks_left: int
    downsamplings_left: int

    def after(self, shape: Shape, *, downsampling: bool) -> State:
        """Return the state after one more block, whose output has that shape."""
        return State(
            self.norm,
            self.head,
            shape,
            self.blocks_left - 1,
            self.downsamplings_left - downsampling,
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
        self.best = cache(self._best)
        # Bounded: drawing comes back to few states, but the table has thousands.
        self.moves = lru_cache(maxsize=4096)(self._moves)
        self._steps = cache(self._possible_steps)
        self._cheapest = cache(self._cheapest_steps)

    def fits(self, state: State, left: Caps) -> bool:
        """Return whether some completion of the state is under the caps left."""
        return any(left.allow(rest) for rest in self.best(state))

    def _moves(self, state: State) -> tuple[Move, ...]:
        """Return every block of minimal width that the space and the image allow."""
        moves = []
        for step in self._steps(
            state.norm, state.shape, _ways(state), self._classes(state)
        ):
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
            return (self.caps.relevant(total(table)),)
        found = set()
        for (shape, downsampling), costs in self._cheapest(
            state.norm, state.shape, _ways(state), self._classes(state)
        ):
            for rest in self.best(state.after(shape, downsampling=downsampling)):
                found |= {cost.then(rest) for cost in costs}
        return _unbeaten(found)

    def _classes(self, state: State) -> int | None:
        """Return the channels of the next block where it is itself the classifier."""
        last = state.blocks_left == 1 and state.head.kind == "pool"
        return self.num_classes if last else None

    def _possible_steps(
        self, norm: str, shape: Shape, ways: tuple[bool, bool], classes: int | None
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
        for kind, kernel_size, padding, way in product(
            space.kinds.options,
            space.kernel_sizes.options,
            space.paddings.options,
            options,
        ):
            if kind == "separable" and kernel_size == 1:
                # A 1x1 convolution with a needless factor for each channel before it.
                continue
            if kind == "inception" and (kernel_size == 1 or padding == "valid"):
                continue
            width = least_width(kind, kernel_size)
            if classes and classes < width:
                continue
            width = classes or max(space.min_width, width)
            block = narrow_block(width, kind, kernel_size, padding, norm, way)
            after = _sides_after(block, shape)
            if min(after) >= smallest_side:
                cost = self.caps.relevant(total(block_layers(block, shape)))
                output = (block.out_channels, *after)
                steps.append(_Step(block, cost, output, way != "none"))
        return tuple(steps)

    def _cheapest_steps(
        self, norm: str, shape: Shape, ways: tuple[bool, bool], classes: int | None
    ) -> tuple[tuple[tuple[Shape, bool], tuple[Cost, ...]], ...]:
        """Return, for each place that a block leads to, the unbeaten costs of it."""
        costs: dict[tuple[Shape, bool], set[Cost]] = {}
        for step in self._steps(norm, shape, ways, classes):
            costs.setdefault((step.shape, step.downsampling), set()).add(step.cost)
        return tuple((place, _unbeaten(found)) for place, found in costs.items())


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


def _sides_after(block: Block, shape: Shape) -> tuple[int, int]:
    height, width = (
        conv_size(side, block.kernel_size, block.stride, block.padding)
        for side in shape[1:]
    )
    if block.pool == "none":
        return height, width
    return height // 2, width // 2


def least_width(kind: str, kernel_size: int) -> int:
    """Return the fewest channels of such a block: one for each of its branches."""
    return (kernel_size + 1) // 2 if kind == "inception" else 1


def narrow_block(
    width: int, kind: str, kernel_size: int, padding: str, norm: str, way: str
) -> Block:
    """Return the block of that width; ``way`` is how it downsamples, or "none"."""
    return Block(
        kind=kind,  # type: ignore[arg-type]  # the reader has checked the names
        out_channels=width,
        kernel_size=kernel_size,
        stride=2 if way == "stride" else 1,
        padding=padding,  # type: ignore[arg-type]
        norm=norm,  # type: ignore[arg-type]
        pool="none" if way == "stride" else way,  # type: ignore[arg-type]
    )


def _unbeaten(costs: set[Cost]) -> tuple[Cost, ...]:
    """Return the costs that no other is at most as high as in all three."""
    kept: list[Cost] = []
    for cost in sorted(costs, key=lambda c: (c.num_params, c.macs, c.peak_memory)):
        if not any(
            other.macs <= cost.macs and other.peak_memory <= cost.peak_memory
            for other in kept
        ):
            kept.append(cost)
    return tuple(kept)
