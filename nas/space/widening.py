"""Gives an architecture of minimal widths the widest blocks that its caps allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from nas.architecture import Architecture, conv_size, feature_shapes
from nas.cost import Cost, head_layers, total
from nas.space.completion import Caps
from nas.space.reading import SearchSpace


def widen(
    narrow: Architecture, relative: Sequence[float], space: SearchSpace, caps: Caps
) -> Architecture:
    """Return the architecture with the widest blocks of these proportions that fit.

    ``relative`` has one width for each block, of which only the proportions matter.
    ``narrow`` has minimal widths and fits.
    """
    cost_of = widths_to_cost(narrow)

    def at(factor: float) -> list[int]:
        return [
            min(max(space.min_width, round(factor * share)), space.max_width)
            for share in relative
        ]

    # Costs never fall as the factor grows, so halving finds the largest that fits.
    # All widths are minimal at the lower end, which fits by construction.
    low, high = 0.0, space.max_width / min(relative)
    if caps.allow(cost_of(at(high))):
        low = high
    while high - low > 1e-3:
        middle = (low + high) / 2
        if caps.allow(cost_of(at(middle))):
            low = middle
        else:
            high = middle
    blocks = tuple(
        replace(block, out_channels=width)
        for block, width in zip(narrow.blocks, at(low), strict=True)
    )
    return replace(narrow, blocks=blocks)


def widths_to_cost(architecture: Architecture) -> Callable[[Sequence[int]], Cost]:
    """Return a function from the blocks' output channels to the cost.

    Its result is `nas.cost.cost`'s of the architecture with these widths, some twenty
    times faster: all that does not depend on the widths is computed once.
    """
    shapes = feature_shapes(architecture)
    rows = []
    for block, shape, after in zip(
        architecture.blocks, shapes, shapes[1:], strict=False
    ):
        height, width = (
            conv_size(side, block.kernel_size, block.stride, block.padding)
            for side in shape[1:]
        )
        rows.append(
            (
                block.kind == "separable",
                block.kernel_size**2,
                2 if block.norm == "batch" else 1,
                shape[1] * shape[2],
                height * width,
                0 if block.pool == "none" else after[1] * after[2],
            )
        )
    sides = shapes[-1][1:]

    @cache
    def head(channels: int) -> Cost:
        shape = (channels, *sides)
        return total(
            list(head_layers(architecture.head, shape, architecture.num_classes))
        )

    def cost_of(widths: Sequence[int]) -> Cost:
        channels = architecture.input_shape[0]
        num_params = macs = peak = 0
        for (separable, taps, own, start, convolved, pooled), width in zip(
            rows, widths, strict=True
        ):
            if separable:
                weights = channels * (taps + width)
                peak = max(peak, channels * (start + convolved))
                area = convolved
            else:
                weights = channels * taps * width
                area = start
            num_params += weights + own * width
            macs += weights * convolved
            peak = max(peak, channels * area + width * convolved)
            if pooled:
                peak = max(peak, width * (convolved + pooled))
            channels = width
        return Cost(num_params, macs, peak).then(head(channels))

    return cost_of
