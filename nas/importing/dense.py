"""Stacks of linear layers as the convolutions that they are.

A head of nas has one linear layer, or two with ReLU between them. A linear layer of a
flattened feature map is a convolution whose kernel covers the map, and of one pixel a
1x1 convolution; so LeNet's three, or any with batch norm between them, are blocks.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from nas.architecture import Shape
from nas.importing.layer import Layer


def with_blocks_for_linear(
    layers: tuple[Layer, ...], input_shape: Shape
) -> list[Layer]:
    """Return the layers, all linear ones but the last as convolutions if no head fits."""
    kinds = [layer.kind for layer in layers]
    if "linear" not in kinds or "gap" in kinds:
        return list(layers)
    first = kinds.index("linear")
    before = [layer for layer in layers[:first] if layer.kind != "flatten"]
    behind = [layer for layer in layers[first:] if layer.kind != "flatten"]
    if _is_head(behind):
        return list(layers)
    shape = before[-1].out_shape if before else input_shape
    # Of pooled or of already flattened values the convolution before tells the map.
    maps = [layer.out_shape for layer in before if len(layer.out_shape) == 3]
    if len(shape) != 3:
        shape = maps[-1] if maps else input_shape
    last = max(n for n, layer in enumerate(behind) if layer.kind == "linear")
    blocks: list[Layer] = []
    for layer in behind[:last]:
        if layer.kind == "linear":
            converted = _convolution(layer, shape)
            blocks.append(converted)
            shape = converted.out_shape
        else:
            blocks.append(replace(layer, out_shape=shape))
    return [*before, *blocks, *behind[last:]]


def _is_head(layers: list[Layer]) -> bool:
    kinds = [layer.kind for layer in layers if layer.kind != "dropout"]
    if kinds == ["linear"]:
        return True
    return kinds == ["linear", "activation", "linear"] and any(
        layer.value == "relu" for layer in layers
    )


def _convolution(layer: Layer, shape: tuple[int, ...]) -> Layer:
    (linear,) = layer.modules
    assert isinstance(linear, nn.Linear)
    conv = nn.Conv2d(
        shape[0],
        linear.out_features,
        (shape[1], shape[2]),
        bias=linear.bias is not None,
        device="meta",
    )
    return replace(
        layer,
        kind="convolution",
        modules=(conv,),
        out_shape=(linear.out_features, 1, 1),
    )
