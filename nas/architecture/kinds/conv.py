"""One convolution; and the gates that blocks of several may have."""

from __future__ import annotations

from nas.architecture.block import Block
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Convolution, Part, SqueezeExcitation


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


def gates_of(block: Block, channels: int) -> SqueezeExcitation | None:
    """Return the gates that the block has for so many channels, if any."""
    if not block.gated:
        return None
    hidden = block.gate_width or max(1, channels // block.squeeze_excitation)
    bias = block.gate_bias == "yes"
    return SqueezeExcitation(channels, hidden, block.gate_activation, bias, block.gate)


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    return (Part((main_convolution("conv", block, in_channels),)),)


KIND = Kind(letter="c", plural="convolutions", parts=_parts, grouped=True)
