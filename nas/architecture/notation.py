"""A short notation for architectures, for tables and plots that people read.

Blocks and head stand in their order, parted by `` - ``::

    8c3 - 16c3/max - 10s5v/2 silu - gap

====================  =====================================================
``14px``              the images averaged to a shorter side of 14 pixels
``8c3``               conv: 8 output channels, 3x3 kernel
``10s5``              separable: depthwise 5x5, then 1x1 to 10 channels
``8c(3,9)``           a kernel 3 high and 9 wide
``8c3d2``             dilation 2
``8c3g4``             four groups of channels, each convolved by itself
``12i5``              inception: 1x1, 3x3 and 5x5 side by side, 12 channels in all
``16r3``              residual: two 3x3 convolutions
``16b3e4``            inverted bottleneck: 1x1 to 4 times the input's channels, depthwise
                      3x3, 1x1 to 16
``16b3e4se8``         with gates whose hidden layer is an eighth of the channels
                      (squeeze-and-excitation)
``16f3``              the same without expansion: 1x1, depthwise 3x3, 1x1 to 16
``16n3e4``            bottleneck: 1x1 to a quarter of 16 channels, 3x3, 1x1 to 16
``se(12,silu,bare)``  gates with 12 values between, SiLU instead of ReLU, without biases
``se8(hard)``         gates by a hard sigmoid, relu6(x + 3) / 6
``16m3``              MobileNet v1: depthwise 3x3, norm and activation, 1x1 to 16
``x3``                applied three times with shared weights
``v`` behind these    valid padding (else same)
``p(5,1)``            5 rows of zeros above and below, 1 column at either side
``/2``                stride 2 (else 1)
``/max``, ``/avg``    2x2 pooling
``/max3``             3x3 pooling with stride 3
``/max(2,1)``         windows 2 high and 1 wide, each beside the next
``/max3s2p1``         3x3 pooling with stride 2 and padding 1
``+``                 adds its input (a shortcut)
``+1x1``              adds its input by way of a 1x1 convolution
``+1x1bias``          the same with a bias and without batch norm
``+1x1bare``          with neither
``+1x1act``           with activation behind batch norm
``+pad``              adds every so many-th pixel of its input, by the stride, with
                      channels of zeros before and behind
``silu``, ...         activation (else relu); ``linear`` is none
``bias``              no batch norm but a bias (else batch norm)
``bare``              neither batch norm nor bias
``bias+norm``         a bias and batch norm
``late``              pooling last, after dropout (else right after the convolution)
``first``             activation before batch norm, pooling last
``last``              activation, pooling, then batch norm
``drop0.1``           dropout
``gap``               head: global average pooling, linear
``conv3``             head: 3x3 conv to the classes, global average pooling
``flatten``           head: linear on all values
``pool``              head: global average pooling alone
``hidden32``          in the head: one more linear layer of 32 before the last
``hidden32,16 silu``  two more, of 32 and of 16, with SiLU behind each (else ReLU)
====================  =====================================================

Architectures of one input shape and number of classes that differ have different
notations.
"""

from __future__ import annotations

from nas.architecture import Architecture, Block, Head
from nas.architecture.kinds import KINDS
from nas.architecture.parts import Pooling


def describe(architecture: Architecture) -> str:
    """Return the architecture in one line, as drawn above."""
    parts = [describe_block(block) for block in architecture.blocks]
    if architecture.resolution:
        parts.insert(0, f"{architecture.resolution}px")
    return " - ".join([*parts, describe_head(architecture.head)])


def describe_block(block: Block) -> str:
    """Return one block, such as ``16c3/max silu``."""
    core = f"{block.out_channels}{kind_and_kernel(block)}"
    if block.expansion != 1:
        core += f"e{block.expansion}"
    if block.gated:
        core += _gates(block)
    if block.padding == "valid":
        core += "v"
    elif isinstance(block.padding, tuple):
        core += "p({},{})".format(*block.padding)
    if block.stride != 1:
        core += f"/{block.stride}"
    if block.pooling is not None:
        core += f"/{block.pool}{_pooling(block.pooling)}"
    if block.repeats > 1:
        core += f"x{block.repeats}"
    core += _SHORTCUTS[block.shortcut]
    words = [core]
    if block.activation != "relu":
        words.append(_activation(block.activation))
    if (block.norm, block.bias) != ("batch", "auto"):
        words.append(_NORMS[block.norm, block.bias])
    if block.order != "early_pool":
        words.append(_ORDERS[block.order])
    return " ".join(words + _dropout(block.dropout))


def _gates(block: Block) -> str:
    """Return the gates: ``se8``, or a width and what else differs in brackets."""
    inside = [str(block.gate_width)] if block.gate_width else []
    if block.gate_activation != "relu":
        inside.append(_activation(block.gate_activation))
    if block.gate_bias == "no":
        inside.append("bare")
    if block.gate == "hard_sigmoid":
        inside.append("hard")
    return f"se{block.squeeze_excitation or ''}" + (
        f"({','.join(inside)})" if inside else ""
    )


def kind_and_kernel(block: Block) -> str:
    """Return the kind's letter and the kernel, such as ``c3g4`` or ``s(3,9)d2``."""
    height, width = block.kernel
    size = f"({height},{width})" if block.kernel_width else str(height)
    dilation = f"d{block.dilation}" if block.dilation != 1 else ""
    groups = f"g{block.groups}" if block.groups != 1 else ""
    return f"{KINDS[block.kind].letter}{size}{dilation}{groups}"


_SHORTCUTS = {
    "none": "",
    "identity": "+",
    "conv": "+1x1",
    "bias_conv": "+1x1bias",
    "bare_conv": "+1x1bare",
    "activated_conv": "+1x1act",
    "pad": "+pad",
}


def _pooling(pooling: Pooling) -> str:
    """Return what of the pooling is not usual, such as ``3s2``."""
    high, wide = pooling.window
    size = str(high) if high == wide else f"({high},{wide})"
    stride = "" if pooling.strides == pooling.window else f"s{max(pooling.strides)}"
    padding = f"p{max(pooling.padding)}" if any(pooling.padding) else ""
    whole = size + stride + padding
    return "" if whole == "2" else whole


# Spellings that differ get different words, even where they mean the same.
_NORMS = {
    ("batch", "yes"): "bias+norm",
    ("batch", "no"): "norm",
    ("none", "auto"): "bias",
    ("none", "yes"): "biased",
    ("none", "no"): "bare",
}


_ORDERS = {"late_pool": "late", "activation_first": "first", "norm_last": "last"}


def describe_head(head: Head) -> str:
    """Return the head, such as ``flatten hidden32``."""
    shows_kernel = head.kind == "conv" or head.kernel_size != 1
    words = [f"{head.kind}{head.kernel_size}" if shows_kernel else head.kind]
    if head.hidden:
        words.append(f"hidden{','.join(map(str, head.widths))}")
    if head.activation != "relu":
        words.append(_activation(head.activation))
    return " ".join(words + _dropout(head.dropout))


def _activation(activation: str) -> str:
    return "linear" if activation == "none" else activation


def _dropout(dropout: float) -> list[str]:
    return [f"drop{dropout}"] if dropout else []
