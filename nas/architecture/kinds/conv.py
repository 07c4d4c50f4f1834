"""One convolution."""

from __future__ import annotations

from nas.architecture.block import Block
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Convolution, Part


def main_convolution(name: str, block: Block, in_channels: int) -> Convolution:
    """Return the convolution that a block's sizes are those of."""
    return Convolution(
        name,
        in_channels,
        block.out_channels,
        block.kernel_size,
        stride=block.stride,
        padding=block.zeros,
        bias=block.has_bias,
        kernel_width=block.kernel_width,
        dilation=block.dilation,
        groups=block.groups,
    )


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    return (Part((main_convolution("conv", block, in_channels),)),)


KIND = Kind(letter="c", plural="convolutions", parts=_parts, grouped=True)
