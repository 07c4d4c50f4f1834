"""From an architecture to a torch model of plain, exportable layers.

Every model is ``blocks`` (one ``nn.Sequential`` a block) and ``head``, so that weights
have names such as ``blocks.0.conv.weight`` and ``head.classifier.bias``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from nas.architecture import Architecture, Block, Head, Shape, feature_shapes

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}
_POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def build(architecture: Architecture, *, seed: int | None = None) -> nn.Sequential:
    """Return a freshly initialised model on the CPU.

    It takes float images ``[N, *architecture.input_shape]`` and returns logits
    ``[N, num_classes]``. The same ``seed`` gives the same weights; torch's global
    random state is then left as it was. Without a seed the weights follow from that
    global state.
    """
    if seed is None:
        return _build(architecture)
    state = torch.get_rng_state()
    # Not torch.manual_seed: that one would reseed every GPU, too.
    torch.default_generator.manual_seed(seed)
    try:
        return _build(architecture)
    finally:
        torch.set_rng_state(state)


def _build(architecture: Architecture) -> nn.Sequential:
    shapes = feature_shapes(architecture)
    blocks = [
        _block(block, in_channels=shape[0])
        for block, shape in zip(architecture.blocks, shapes, strict=False)
    ]
    head = _head(architecture.head, shapes[-1], architecture.num_classes)
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks), head=head))


def _block(block: Block, in_channels: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    bias = block.norm == "none"
    padding = block.kernel_size // 2 if block.padding == "same" else 0
    if block.kind == "conv":
        layers["conv"] = nn.Conv2d(
            in_channels,
            block.out_channels,
            block.kernel_size,
            stride=block.stride,
            padding=padding,
            bias=bias,
        )
    else:
        layers["depthwise"] = nn.Conv2d(
            in_channels,
            in_channels,
            block.kernel_size,
            stride=block.stride,
            padding=padding,
            groups=in_channels,
            bias=False,
        )
        layers["pointwise"] = nn.Conv2d(in_channels, block.out_channels, 1, bias=bias)
    if block.pool != "none":
        layers["pool"] = _POOLS[block.pool](2)
    if block.norm == "batch":
        layers["norm"] = nn.BatchNorm2d(block.out_channels)
    if block.activation != "none":
        layers["activation"] = _ACTIVATIONS[block.activation]()
    if block.dropout > 0:
        layers["dropout"] = nn.Dropout(block.dropout)
    return nn.Sequential(layers)


def _head(head: Head, in_shape: Shape, num_classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = in_shape
    if head.kind == "conv":
        if head.dropout > 0:
            layers["dropout"] = nn.Dropout(head.dropout)
        layers["classifier"] = nn.Conv2d(channels, num_classes, head.kernel_size)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        return nn.Sequential(layers)
    features = channels * height * width
    if head.kind == "gap":
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        features = channels
    layers["flatten"] = nn.Flatten()
    if head.hidden:
        layers["hidden"] = nn.Linear(features, head.hidden)
        layers["activation"] = nn.ReLU()
        features = head.hidden
    if head.dropout > 0:
        layers["dropout"] = nn.Dropout(head.dropout)
    layers["classifier"] = nn.Linear(features, num_classes)
    return nn.Sequential(layers)
