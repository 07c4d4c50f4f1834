"""Encoding: the decisions that draw a given architecture from a space.

So a network that somebody made by hand can be told to a sampler as if it had been drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar

from nas.architecture import Architecture, Block
from nas.architecture.cost import count_params
from nas.errors import NasError
from nas.space.completion import Caps
from nas.space.definition import Choice, SearchSpace, own_options, used_resolution
from nas.space.drawing import deviations, sample, size_of, usual_finish
from nas.space.limits import smallest

T = TypeVar("T")


@dataclass(frozen=True)
class FixedDraws:
    """Fixed decisions, by name."""

    values: dict[str, float]

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return the number of that name; KeyError when there is none."""
        return min(max(self.values[name], low), high)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return the whole number of that name; KeyError when there is none."""
        return min(max(int(self.values[name]), low), high)


def encode(
    space: SearchSpace, architecture: Architecture, caps: Caps
) -> dict[str, float] | None:
    """Return the draws that `sample` makes this architecture of, under these caps.

    None when it is not in the space, or over the caps; the caps must have a parameter
    budget. The architecture that they give has the same key.
    """
    activations = Counter(block.activation for block in architecture.blocks)
    known = [
        name
        for name, _ in activations.most_common()
        if name in space.activations.options
    ]
    # Mostly it is the commonest, and the others deviate.
    for activation in known or space.activations.options[:1]:
        try:
            values = _values(space, architecture, caps, activation)
            again = sample(
                space,
                FixedDraws(values),
                input_shape=architecture.input_shape,
                num_classes=architecture.num_classes,
                caps=caps,
            )
        except (KeyError, ValueError, IndexError, NasError):
            continue  # It has something that the space does not know.
        if again.key == architecture.key:
            return values
    return None


def _values(
    space: SearchSpace, architecture: Architecture, caps: Caps, activation: str
) -> dict[str, float]:
    blocks, head = architecture.blocks, architecture.head
    norm = space.norms.commonest(b.norm for b in blocks)
    if head.kind == "pool":
        dropout = space.dropouts.commonest(b.dropout for b in blocks)
    else:
        dropout = head.dropout
    halving = [
        number
        for number, block in enumerate(blocks, start=1)
        if block.downsampling != "none"
    ]
    values: dict[str, float] = {
        "size": _share_of_size(space, architecture, caps),
        "norm": _point(space.norms, norm),
        "head": _point(space.heads, head.kind),
        "depth": len(blocks),
        "downsamplings": len(halving),
        "activation": _point(space.activations, activation),
        "dropout": _point(space.dropouts, dropout),
    }
    if len(space.resolutions.options) > 1:
        values["resolution"] = _point(space.resolutions, option_of(space, architecture))
    if head.kind == "conv":
        values["head_kernel_size"] = _point(space.head_kernel_sizes, head.kernel_size)
    elif head.kind != "pool":
        hidden: Any = head.hidden
        values["head_hidden"] = _point(space.hidden, hidden)
    for order, number in enumerate(halving, start=1):
        values[f"downsampling_{order}.position"] = (number - 0.5) / len(blocks)
    usual = [
        {"norm": norm, "bias": "auto", "order": "early_pool"}
        | usual_finish(number, len(blocks), head, activation, dropout)
        for number in range(1, len(blocks) + 1)
    ]
    for number, (block, finish, width) in enumerate(
        zip(
            blocks,
            usual,
            _widths(space, blocks, pooled=head.kind == "pool"),
            strict=True,
        ),
        start=1,
    ):
        name = f"block_{number}."
        if (way := block.downsampling) != "none":
            values[name + "downsampling"] = _point(space.downsampling_kinds, way)
        values[name + "kind"] = _point(space.kinds, block.kind)
        values[name + "kernel_size"] = _point(space.kernel_sizes, block.kernel_size)
        padding: Any = block.padding
        if block.kernel == (1, 1) and padding not in space.paddings.options:
            padding = space.paddings.options[0]
        values[name + "padding"] = _point(space.paddings, padding)
        for option, choice in own_options(space).items():
            value = getattr(block, option)
            if len(choice.options) > 1 and value in choice.options:
                values[name + option] = _point(choice, value)
        values[name + "repeats"] = _point(space.repeats, block.repeats)
        values[name + "deviation"] = _deviation(space, block, finish)
        values[name + "width"] = width
    return values


def option_of(space: SearchSpace, architecture: Architecture) -> int:
    """Return the space's option of its resolution; ValueError where there is none."""
    for option in space.resolutions.options:
        used = used_resolution(option, architecture.input_shape)
        if used == architecture.resolution:
            return option
    raise ValueError(architecture.resolution)


def _share_of_size(space: SearchSpace, architecture: Architecture, caps: Caps) -> float:
    """Return the draw that selects the architecture's own size."""
    shape, num_classes = architecture.input_shape, architecture.num_classes
    least = smallest(space, shape, num_classes, caps)
    wanted, cap = count_params(architecture), caps.num_params or 0
    if cap <= least:
        return 0.0
    position = math.log(wanted / least) / math.log(cap / least)
    share = math.pow(max(position, 0.0), space.towards_cap)
    if size_of(share, least, cap, space) != wanted:
        message = f"{wanted} parameters are not between {least} and {cap}"
        raise ValueError(message)
    return share


def _widths(
    space: SearchSpace, blocks: Sequence[Block], *, pooled: bool
) -> list[float]:
    """Return the draws of the relative widths: in proportion to the widths.

    Whole channels can lie a little further apart than what they were rounded from: 19
    and 2 where at most 9 times as many are drawn.
    """
    widths = [block.out_channels for block in blocks]
    if pooled:
        # The last block has one channel for each class, whatever is drawn.
        widths[-1] = widths[-2] if len(widths) > 1 else 1
    middle = math.sqrt(min(widths) * max(widths))
    spread = math.log(space.spread) or 1.0
    draws = [math.log(width / middle) / spread for width in widths]
    return [min(max(draw, -1.0), 1.0) for draw in draws]


def _deviation(space: SearchSpace, block: Block, usual: dict[str, object]) -> float:
    """Return the draw that gives the block what follows its convolution."""
    if replace(block, **usual) == block:  # type: ignore[arg-type]
        return 0.0
    ways = deviations(space.deviation)
    own = {name: getattr(block, name) for name in ways[0]}
    share = space.deviation.share
    return 1 - share + share * (ways.index(own) + 0.5) / len(ways)


def _point(choice: Choice[T], option: T) -> float:
    """Return the middle of the range of draws that pick the option."""
    place = choice.options.index(option)
    ends = [0.0, *accumulate(choice.shares)]
    return (ends[place] + ends[place + 1]) / 2
