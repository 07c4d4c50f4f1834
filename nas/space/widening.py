"""Scales an architecture's widths, in fixed proportions, as far as the caps allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from math import prod

from nas.architecture import Architecture, Block, Shape, feature_shapes
from nas.architecture.cost import Cost, cost, head_layers, resize_layers, total
from nas.architecture.kinds import least_width, parts_of, shortcut_of
from nas.errors import ArchitectureError
from nas.space.completion import Caps
from nas.space.groups import rounded_up, steps_of
from nas.space.limits import milliseconds

# No image needs more, and with no cap but MACs something has to end the widening.
_MOST_CHANNELS = 4096


def resize(architecture: Architecture, caps: Caps) -> Architecture:
    """Return the architecture as wide as the caps allow, in its own proportions.

    Depth, kernels and all else stay. Raises ArchitectureError where even blocks of one
    channel are over a cap.
    """
    widths = [block.out_channels for block in architecture.blocks]
    sized = widen(architecture, widths, caps, least=1, most=_MOST_CHANNELS)
    costs = cost(sized, caps.board)
    if not caps.allow(costs):
        time = f", {milliseconds(costs.latency)} ms" if caps.board else ""
        raise ArchitectureError(
            f"at its narrowest it has {costs.num_params} parameters, {costs.macs} "
            f"multiply-accumulates an image, {costs.peak_memory} bytes of "
            f"activations, {costs.flash} bytes of flash{time}, which is over the cap: give "
            "a larger one"
        )
    return sized


def widen(
    narrow: Architecture,
    relative: Sequence[float],
    caps: Caps,
    *,
    least: int,
    most: int,
) -> Architecture:
    """Return the architecture with the widest blocks of these proportions that fit.

    ``relative`` has one width for each block, of which only the proportions matter.
    Widths are from ``least`` to ``most`` channels; where not even the least fit, they
    are what is returned.
    """
    cost_of = _device_cost(narrow, caps) if caps.of_device else widths_to_cost(narrow)
    blocks = narrow.blocks
    classifiers = _classifiers(narrow)
    steps = steps_of(blocks)
    lowest = [
        rounded_up(max(least, least_width(block.kind, block.kernel_size)), step)
        for block, step in zip(blocks, steps, strict=True)
    ]

    def allowed(wished: Sequence[float]) -> list[int]:
        """Return the widths that come nearest to those that are wished."""
        widths: list[int] = []
        for number, (wish, block) in enumerate(zip(wished, blocks, strict=True)):
            if number in classifiers:
                widths.append(narrow.num_classes)
            elif block.tied:
                widths.append(widths[-1] if widths else narrow.input_shape[0])
            else:
                step = steps[number]
                wanted = min(round(wish / step), most // step) * step
                widths.append(max(lowest[number], wanted))
        return widths

    def at(factor: float) -> list[int]:
        return allowed([factor * share for share in relative])

    def fits(widths: Sequence[int]) -> bool:
        return caps.allow(cost_of(widths))

    # Costs never fall as the factor grows, so bisection finds the largest that fits.
    low, high = 0.0, most / min(relative, default=1.0)
    if fits(at(high)):
        low = high
    while high - low > 1e-3:
        middle = (low + high) / 2
        if fits(at(middle)):
            low = middle
        else:
            high = middle
    widths = at(low)
    if any(block.shortcut == "identity" or block.groups > 1 for block in blocks):
        # Rows of blocks widen together, and groups by several channels at a time: one
        # step of the factor may be a large one.
        wished = [low * share for share in relative]
        widths = _filled(widths, wished, steps, allowed, fits)
    widest = tuple(
        replace(block, out_channels=width)
        for block, width in zip(blocks, widths, strict=True)
    )
    return replace(narrow, blocks=widest)


def _filled(
    widths: list[int],
    wished: Sequence[float],
    steps: Sequence[int],
    allowed: Callable[[Sequence[float]], list[int]],
    fits: Callable[[Sequence[int]], bool],
) -> list[int]:
    """Return the widths with single blocks one step wider, as long as that fits.

    Those that rounding took most from come first; none gets two.
    """
    places = range(len(widths))
    for place in sorted(places, key=lambda one: widths[one] - wished[one]):
        wider = allowed(
            [
                width + (steps[one] if one == place else 0)
                for one, width in enumerate(widths)
            ]
        )
        if wider != widths and fits(wider):
            widths = wider
    return widths


def narrowest(architecture: Architecture, least: int) -> Architecture:
    """Return the architecture with blocks as narrow as ``least`` and their kinds allow."""
    nothing = Caps(num_params=0)
    relative = [1.0] * len(architecture.blocks)
    return widen(architecture, relative, nothing, least=least, most=least)


def with_widths(architecture: Architecture, widths: Mapping[int, int]) -> Architecture:
    """Return the architecture with these output channels, by the blocks' places.

    Where a block is a classifier or is as wide as its input its width is not free: it
    stays, or follows that of the block before.
    """
    classifiers = _classifiers(architecture)
    blocks: list[Block] = []
    for number, block in enumerate(architecture.blocks):
        width = widths.get(number, block.out_channels)
        if number in classifiers:
            width = architecture.num_classes
        elif block.tied:
            width = blocks[-1].out_channels if blocks else architecture.input_shape[0]
        blocks.append(replace(block, out_channels=width))
    return replace(architecture, blocks=tuple(blocks))


def _classifiers(architecture: Architecture) -> set[int]:
    """Return the blocks whose width is the number of classes.

    That is the last one before a bare pooling; where it is as wide as its input, the
    block before it has that width, too.
    """
    if architecture.head.kind != "pool" or not architecture.blocks:
        return set()
    number = len(architecture.blocks) - 1
    found = {number}
    while number and architecture.blocks[number].tied:
        number -= 1
        found.add(number)
    return found


def widths_to_cost(architecture: Architecture) -> Callable[[Sequence[int]], Cost]:
    """Return a function from the blocks' output channels to the cost.

    Its result is `nas.architecture.cost.cost`'s of the architecture with these widths,
    but for flash and latency, some twenty times faster: all that does not depend on the
    widths is computed once.
    """
    shapes = feature_shapes(architecture)
    rows = [
        _block_cost(block, shape)
        for block, shape in zip(architecture.blocks, shapes, strict=False)
    ]
    sides = shapes[-1][1:]
    start = total(resize_layers(architecture.input_shape, shapes[0])).peak_memory

    @cache
    def head(channels: int) -> Cost:
        shape = (channels, *sides)
        found = total(
            list(head_layers(architecture.head, shape, architecture.num_classes))
        )
        return Cost(found.num_params, found.macs, found.peak_memory)

    def cost_of(widths: Sequence[int]) -> Cost:
        channels = architecture.input_shape[0]
        num_params = macs = 0
        peak = start
        for block_cost, width in zip(rows, widths, strict=True):
            found = block_cost(channels, width)
            num_params += found[0]
            macs += found[1]
            peak = max(peak, found[2])
            channels = width
        return Cost(num_params, macs, peak).then(head(channels))

    return cost_of


def _device_cost(
    architecture: Architecture, caps: Caps
) -> Callable[[Sequence[int]], Cost]:
    """Return what widths_to_cost does, but with flash and latency, and slowly."""

    def cost_of(widths: Sequence[int]) -> Cost:
        blocks = zip(architecture.blocks, widths, strict=True)
        wide = tuple(replace(block, out_channels=width) for block, width in blocks)
        return cost(replace(architecture, blocks=wide), caps.board)

    return cost_of


# The children of a search have most blocks in common, each as narrow as it can be.
@lru_cache(maxsize=256)
def _block_cost(
    block: Block, shape: Shape
) -> Callable[[int, int], tuple[int, int, int]]:
    """Return a function from a block's channels to parameters, MACs and peak memory.

    It takes the channels before and after the block, on an input of that height and
    width.
    """
    sides = shape[1:]
    areas = [prod(sides)]
    for part in parts_of(block, shape[0]):
        sides = part.sides(*sides)
        areas.append(prod(sides))
    pooled = prod(block.pooling.sides(*sides)) if block.pooling is not None else 0
    norms = 2 * block.repeats if block.norm == "batch" else 0
    adds, apart = block.shortcut != "none", block.shortcut not in {"none", "identity"}

    @lru_cache(maxsize=64)
    def found(channels: int, width: int) -> tuple[int, int, int]:
        wide = replace(block, out_channels=width)
        num_params, macs, peak = norms * width, 0, 0
        before, kept = channels * areas[0], 0
        parts = parts_of(wide, channels)
        for number, part in enumerate(parts):
            weights, area = part.weights, areas[number + 1]
            num_params += weights + part.own
            macs += weights * area * block.repeats
            after = part.out_channels * area
            if part.gates is not None:
                num_params += part.gates.weights + part.gates.biases
                macs += part.gates.weights
                beside = part.gates.channels + part.gates.hidden
                peak = max(peak, after + beside + (channels * areas[0] if adds else 0))
            if number == len(parts) - 1:
                # It adds in place to what the shortcut gave just before.
                kept = 0
                if apart:
                    waiting = before if number else 0
                    peak = max(peak, channels * areas[0] + after + waiting)
            peak = max(peak, before + after + kept)
            kept = channels * areas[0] if adds else 0
            before = after
        if (shortcut := shortcut_of(wide, channels)) is not None:
            num_params += shortcut.weights + shortcut.own
            macs += shortcut.weights * areas[-1]
        if pooled:
            peak = max(peak, before + width * pooled)
        return num_params, macs, peak

    return found
