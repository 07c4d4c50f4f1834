"""A depthwise convolution, then a 1x1 one, with norm and activation behind each.

Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile
Vision Applications"; Zhang et al. 2017, "Hello Edge", call nets of such blocks DS-CNN.
"""

from __future__ import annotations

from dataclasses import replace

from nas.architecture.block import Block
from nas.architecture.kinds.conv import gates_of, main_convolution
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Convolution, Part


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    depthwise = replace(
        main_convolution("depthwise", block, in_channels),
        out_channels=in_channels,
        depthwise=True,
    )
    pointwise = Convolution(
        "pointwise", in_channels, block.out_channels, 1, bias=block.has_bias
    )
    inner = Part(
        (depthwise,),
        norm=block.norm == "batch",
        activation=block.activation,
        gates=gates_of(block, in_channels),
    )
    return inner, Part((pointwise,))


KIND = Kind(
    letter="m",
    plural="MobileNet v1 blocks",
    parts=_parts,
    drawn=lambda kernel_size, _: kernel_size > 1,
    repeatable=False,
    gates=True,
)
