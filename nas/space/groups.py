"""Widths that groups divide: of a block's output, and of what it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import lcm

from nas.architecture import Block


def steps_of(blocks: Sequence[Block]) -> list[int]:
    """Return what the width of each block is a multiple of: 1 but for groups.

    A block's groups divide its width and that of the block before it. Blocks that are
    as wide as their input share all that divides one of them.
    """
    steps = [block.groups for block in blocks]
    for number in range(len(blocks) - 1, 0, -1):
        block = blocks[number]
        taken = steps[number] if block.tied else block.groups
        steps[number - 1] = lcm(steps[number - 1], taken)
    for number in range(1, len(blocks)):
        if blocks[number].tied:
            steps[number] = steps[number - 1]
    return steps


def divisible(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Return the blocks, each widened as far as groups need it."""
    if all(block.groups == 1 for block in blocks):
        return tuple(blocks)
    return tuple(
        replace(block, out_channels=rounded_up(block.out_channels, step))
        for block, step in zip(blocks, steps_of(blocks), strict=True)
    )


def rounded_up(width: int, step: int) -> int:
    """Return the smallest multiple of the step that is at least that width."""
    return -(-width // step) * step


def steps_up_to(most: int, groups: Iterable[int]) -> set[int]:
    """Return what widths of at most that may have to be multiples of."""
    steps = {1}
    for one in groups:
        steps |= {step for other in steps if (step := lcm(one, other)) <= most}
    return steps
