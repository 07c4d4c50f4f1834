"""Squeeze by a 1x1 convolution, convolve, widen by another, added to what they take.

He et al. 2015, "Deep Residual Learning for Image Recognition": the bottleneck block. The
convolution in the middle has the stride, and ``expansion`` says how many times as wide as
it the output is, rounded down.
"""

from __future__ import annotations

from dataclasses import replace

from nas.architecture.block import Block
from nas.architecture.kinds.conv import main_convolution
from nas.architecture.kinds.kind import Kind
from nas.architecture.kinds.residual import ADDED
from nas.architecture.parts import Convolution, Part


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    narrow = max(1, block.out_channels // block.expansion)
    norm, bias = block.norm == "batch", block.has_bias
    squeeze = Convolution("squeeze", in_channels, narrow, 1, bias=bias)
    middle = replace(main_convolution("middle", block, narrow), out_channels=narrow)
    widen = Convolution("widen", narrow, block.out_channels, 1, bias=bias)
    return (
        Part((squeeze,), norm=norm, activation=block.activation),
        Part((middle,), norm=norm, activation=block.activation),
        Part((widen,)),
    )


KIND = Kind(
    letter="n",
    plural="bottlenecks",
    parts=_parts,
    drawn=lambda kernel_size, padding: kernel_size > 1 and padding == "same",
    shortcuts=ADDED,
    repeatable=False,
    expands=True,
)
