"""Two convolutions with norm and activation between them, added to what they take.

He et al. 2015, "Deep Residual Learning for Image Recognition": the basic block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from nas.architecture.block import Block, Shortcut
from nas.architecture.kinds.conv import main_convolution
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Part

ADDED = tuple(one for one in get_args(Shortcut) if one != "none")
"""The shortcuts of a block that cannot do without."""


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    first = main_convolution("conv1", block, in_channels)
    second = replace(first, name="conv2", in_channels=block.out_channels, stride=1)
    return (
        Part((first,), norm=block.norm == "batch", activation=block.activation),
        Part((second,)),
    )


KIND = Kind(
    letter="r",
    plural="residual",
    parts=_parts,
    drawn=lambda kernel_size, padding: kernel_size > 1 and padding == "same",
    shortcuts=ADDED,
    repeatable=False,
)
