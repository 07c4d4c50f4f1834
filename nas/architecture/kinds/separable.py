"""A depthwise convolution, then at once a 1x1 one, which has the bias if there is one."""

from __future__ import annotations

from dataclasses import replace

from nas.architecture.block import Block
from nas.architecture.kinds.conv import main_convolution
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Convolution, Part


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    depthwise = replace(
        main_convolution("depthwise", block, in_channels),
        out_channels=in_channels,
        depthwise=True,
        bias=False,
    )
    pointwise = Convolution(
        "pointwise", in_channels, block.out_channels, 1, bias=block.has_bias
    )
    return Part((depthwise,)), Part((pointwise,))


KIND = Kind(
    letter="s",
    plural="separable ones",
    parts=_parts,
    # Of size 1 it is a 1x1 convolution with a needless factor for each channel.
    drawn=lambda kernel_size, _: kernel_size > 1,
)
