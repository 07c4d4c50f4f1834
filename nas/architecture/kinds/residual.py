"""Two convolutions with norm and activation between them, added to what they take.

He et al. 2015, "Deep Residual Learning for Image Recognition": the basic block.
"""

from __future__ import annotations

from dataclasses import replace

from nas.architecture.block import Block
from nas.architecture.kinds.conv import main_convolution
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Part


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
    shortcuts=("identity", "conv"),
    repeatable=False,
)
