"""Stacks of linear layers as the convolutions that they are.

Behind a flattened feature map one linear layer, or two with ReLU between them, are taken
as the head. Such a layer is a convolution whose kernel covers the map, and the next, of
one pixel, a 1x1 convolution; so LeNet's three, or any with batch norm between them, are
blocks: a search can change these. So are layers without bias, which a head has not.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from nas.architecture import Shape
from nas.importing.layer import Layer


def with_blocks_for_linear(
    layers: tuple[Layer, ...], input_shape: Shape
) -> tuple[list[Layer], list[str]]:
    """Return the layers, linear ones as convolutions if no head fits, and notes."""
    kinds = [layer.kind for layer in layers]
    if "gap" in kinds:
        return _before_pooling(layers)
    if "linear" not in kinds:
        return list(layers), []
    first = kinds.index("linear")
    before = [layer for layer in layers[:first] if layer.kind != "flatten"]
    behind = [layer for layer in layers[first:] if layer.kind != "flatten"]
    if _is_head(behind):
        return list(layers), []
    shape = before[-1].out_shape if before else input_shape
    # Of pooled or of already flattened values the convolution before tells the map.
    maps = [layer.out_shape for layer in before if len(layer.out_shape) == 3]
    if len(shape) != 3:
        shape = maps[-1] if maps else input_shape
    last = max(n for n, layer in enumerate(behind) if layer.kind == "linear")
    # A convolution may lack a bias; the linear layer that classifies may not.
    count = last if _biased(behind[last]) else last + 1
    blocks: list[Layer] = []
    for layer in behind[:count]:
        if layer.kind == "linear":
            converted = _convolution(layer, shape)
            blocks.append(converted)
            shape = converted.out_shape
        else:
            blocks.append(replace(layer, out_shape=shape))
    return [*before, *blocks, *behind[count:]], []


def _before_pooling(layers: tuple[Layer, ...]) -> tuple[list[Layer], list[str]]:
    """Return the layers, a last one without bias before the global average pooling.

    The mean of what it gives is what it gives for the mean.
    """
    every = [layer for layer in layers if layer.kind != "flatten"]
    place = [layer.kind for layer in every].index("gap")
    gap, *behind = every[place:]
    if [layer.kind for layer in behind] not in (["linear"], ["convolution"]):
        return list(layers), []
    last, shape = behind[0], every[place - 1].out_shape if place else ()
    plain = last.kind == "linear" or as_linear(last).kind == "linear"
    if not plain or _biased(last) or len(shape) != 3:
        return list(layers), []
    conv = _convolution(last, (shape[0], 1, 1))
    out_shape = (conv.out_shape[0], *shape[1:])
    note = (
        f"{last.name} stands before the global average pooling, because nas has no "
        "classifier without bias behind it; it computes the same with more "
        "multiply-accumulates"
    )
    pooled = replace(gap, out_shape=(conv.out_shape[0],))
    return [*every[:place], replace(conv, out_shape=out_shape), pooled], [note]


def _is_head(layers: list[Layer]) -> bool:
    linear = [layer for layer in layers if layer.kind == "linear"]
    if not all(_biased(layer) for layer in linear):
        return False
    kinds = [layer.kind for layer in layers if layer.kind != "dropout"]
    if kinds == ["linear"]:
        return True
    return kinds == ["linear", "activation", "linear"] and any(
        layer.value == "relu" for layer in layers
    )


def _biased(layer: Layer) -> bool:
    return layer.modules[0].bias is not None


def as_linear(layer: Layer) -> Layer:
    """Return a convolution of a single pixel as the linear layer that it is."""
    if layer.kind != "convolution" or len(layer.modules) != 1:
        return layer
    (conv,) = layer.modules
    assert isinstance(conv, nn.Conv2d)
    if (
        conv.kernel_size != (1, 1)
        or conv.groups != 1
        or conv.padding not in {(0, 0), "valid", "same"}
        or any(layer.padding)
    ):
        return layer
    return replace(layer, kind="linear")


def _convolution(layer: Layer, shape: tuple[int, ...]) -> Layer:
    (linear,) = layer.modules
    if isinstance(linear, nn.Conv2d):
        return layer
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
