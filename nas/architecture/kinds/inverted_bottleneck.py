"""Expand by a 1x1 convolution, depthwise, project by another, without activation.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks". With
``expansion`` 1 the first convolution is left out. Gates stand before the projection, as
in Howard et al. 2019, "Searching for MobileNetV3".
"""

from __future__ import annotations

from dataclasses import replace

from nas.architecture.block import Block
from nas.architecture.kinds.conv import gates_of, main_convolution
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Convolution, Part


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    parts = expanded_parts(block, in_channels)
    return parts if block.expansion > 1 else parts[1:]


def expanded_parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    """Return the three convolutions, each in a part of its own."""
    wide = in_channels * block.expansion
    norm, bias = block.norm == "batch", block.has_bias
    expand = Convolution("expand", in_channels, wide, 1, bias=bias)
    depthwise = replace(
        main_convolution("depthwise", block, wide), out_channels=wide, depthwise=True
    )
    project = Convolution("project", wide, block.out_channels, 1, bias=bias)
    expanded = Part((expand,), norm=norm, activation=block.activation)
    gated = Part(
        (depthwise,),
        norm=norm,
        activation=block.activation,
        gates=gates_of(block, wide),
    )
    return expanded, gated, Part((project,))


KIND = Kind(
    letter="b",
    plural="inverted bottlenecks",
    parts=_parts,
    drawn=lambda kernel_size, _: kernel_size > 1,
    repeatable=False,
    linear=True,
    expands=True,
    gates=True,
)
