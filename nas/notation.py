"""A short notation for architectures, for tables and plots that people read.

Blocks and head stand in their order, parted by `` - ``::

    8c3 - 16c3/max - 10s5v/2 silu - gap

====================  =====================================================
``8c3``               conv: 8 output channels, 3x3 kernel
``10s5``              separable: depthwise 5x5, then 1x1 to 10 channels
``v`` behind these    valid padding (else same)
``/2``                stride 2 (else 1)
``/max``, ``/avg``    2x2 pooling
``silu``, ...         activation (else relu); ``linear`` is none
``bias``              no batch norm but a bias (else batch norm)
``drop0.1``           dropout
``gap``               head: global average pooling, linear
``conv3``             head: 3x3 conv to the classes, global average pooling
``flatten``           head: linear on all values
``hidden32``          in the head: one more linear layer of 32 before the last
====================  =====================================================

Architectures of one input shape and number of classes that differ have different
notations.
"""

from __future__ import annotations

from nas.architecture import Architecture, Block, Head


def describe(architecture: Architecture) -> str:
    """Return the architecture in one line, as drawn above."""
    parts = [describe_block(block) for block in architecture.blocks]
    return " - ".join([*parts, describe_head(architecture.head)])


def describe_block(block: Block) -> str:
    """Return one block, such as ``16c3/max silu``."""
    letter = "c" if block.kind == "conv" else "s"
    core = f"{block.out_channels}{letter}{block.kernel_size}"
    if block.padding == "valid":
        core += "v"
    if block.stride != 1:
        core += f"/{block.stride}"
    if block.pool != "none":
        core += f"/{block.pool}"
    words = [core]
    if block.activation != "relu":
        words.append("linear" if block.activation == "none" else block.activation)
    if block.norm == "none":
        words.append("bias")
    return " ".join(words + _dropout(block.dropout))


def describe_head(head: Head) -> str:
    """Return the head, such as ``flatten hidden32``."""
    shows_kernel = head.kind == "conv" or head.kernel_size != 1
    words = [f"{head.kind}{head.kernel_size}" if shows_kernel else head.kind]
    if head.hidden:
        words.append(f"hidden{head.hidden}")
    return " ".join(words + _dropout(head.dropout))


def _dropout(dropout: float) -> list[str]:
    return [f"drop{dropout}"] if dropout else []
