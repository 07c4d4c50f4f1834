"""Stacks of linear layers as the convolutions that they are.

Behind a flattened feature map one linear layer, or two with ReLU between them, are taken
as the head. Such a layer is a convolution whose kernel covers the map, and the next, of
one pixel, a 1x1 convolution; so LeNet's three, or any with batch norm between them, are
blocks: a search can change these. So are layers without bias, which a head has not, and a
last one that batch norm, an activation or dropout follows.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from nas.architecture import Shape
from nas.architecture.parts import Pooling
from nas.importing.layer import Layer
from nas.importing.refusals import LEFT_OUT, MOVED


def with_blocks_for_linear(
    layers: tuple[Layer, ...], input_shape: Shape
) -> tuple[list[Layer], list[str]]:
    """Return the layers, linear ones as convolutions if no head fits, and notes."""
    ordered, moved = _ordered(layers)
    every, notes = _without_gap(ordered)
    notes = [*moved, *notes]
    kinds = [layer.kind for layer in every]
    if "gap" in kinds or "linear" not in kinds:
        return every, notes
    first = kinds.index("linear")
    before = [layer for layer in every[:first] if layer.kind != "flatten"]
    behind = [layer for layer in every[first:] if layer.kind != "flatten"]
    if _is_head(behind):
        return every, notes
    shape = before[-1].out_shape if before else input_shape
    # Of pooled or of already flattened values the convolution before tells the map.
    maps = [layer.out_shape for layer in before if len(layer.out_shape) == 3]
    if len(shape) != 3:
        shape = maps[-1] if maps else input_shape
    # A convolution may lack a bias, and have something behind it; what classifies may not.
    last = behind[-1]
    count = len(behind) - (last.kind == "linear" and _biased(last))
    blocks: list[Layer] = []
    for layer in behind[:count]:
        if layer.kind == "linear":
            converted = _convolution(layer, shape)
            blocks.append(converted)
            shape = converted.out_shape
        else:
            blocks.append(replace(layer, out_shape=shape))
    return [*before, *blocks, *behind[count:]], notes


def _ordered(layers: tuple[Layer, ...]) -> tuple[list[Layer], list[str]]:
    """Return the layers, each linear one's dropout behind its activation, and notes.

    Dropouts in a row, which are there then, are one.
    """
    found: list[Layer] = []
    notes: list[str] = []
    for layer in layers:
        kinds = [one.kind for one in found]
        if kinds[-1:] != ["dropout"] or not {"linear", "gap"} & {*kinds}:
            found.append(layer)
        elif layer.kind == "dropout":
            found[-1], note = as_one_dropout(found[-1], layer)
            notes.append(note)
        elif layer.kind == "activation" and kinds[-2] == "linear":
            found.insert(-1, layer)
            # Zeros and larger values stay what they are to these.
            if layer.value not in {"relu", "leaky_relu"}:
                notes.append(MOVED.format(found[-3].name))
        else:
            found.append(layer)
    return found, notes


def as_one_dropout(first: Layer, second: Layer) -> tuple[Layer, str]:
    """Return the dropout that does what two in a row do, and a note."""
    share = round(1 - (1 - first.value) * (1 - second.value), 6)
    note = f"{first.name} and {second.name} are one dropout of {share:g}"
    return replace(first, value=share, out_shape=second.out_shape), note


def _without_gap(layers: list[Layer]) -> tuple[list[Layer], list[str]]:
    """Return the layers, and notes, without global average pooling that no head can have.

    It becomes the average pooling of the block before. Where that pools already, the
    first linear layer stands before it: the mean of what this gives is what it gives
    for the mean. So does a single one without bias, with the pooling as the head.
    """
    place = next((n for n, one in enumerate(layers) if one.kind == "gap"), None)
    if place is None:
        return layers, []
    every = [layer for layer in layers[:place] if layer.kind != "flatten"]
    behind = [as_linear(one) for one in layers[place + 1 :] if one.kind != "flatten"]
    kinds = {layer.kind for layer in behind}
    shape = every[-1].out_shape if every else ()
    if (
        "linear" not in kinds
        or not kinds <= {"linear", "norm", "activation", "dropout"}
        or len(shape) != 3
        or _is_head_behind_pooling(behind)
    ):
        return layers, []
    gap, sides = layers[place], shape[1:]
    if sides == (1, 1):
        return [*every, *behind], []
    pool = replace(gap, kind="pool", value=Pooling("avg", sides, sides))
    pooled = any(one.kind == "pool" for one in _block_behind(every))
    first_kind = next(one.kind for one in behind if one.kind != "dropout")
    if pooled and first_kind != "linear":
        return layers, []
    notes: list[str] = []
    if pooled and behind[0].kind == "dropout":
        notes.append(LEFT_OUT.format(behind.pop(0).name))
    first, *rest = behind
    if first.kind != "linear" or (rest and not pooled):
        return [*every, replace(pool, out_shape=(shape[0], 1, 1)), *behind], notes
    conv = _convolution(first, (shape[0], 1, 1))
    channels = conv.out_shape[0]
    pooling = [replace(pool, out_shape=(channels, 1, 1)), *rest]
    if not rest:
        pooling = [replace(gap, out_shape=(channels,))]
    why = "the block before it pools already"
    if not rest:
        why = "nas has no classifier without bias behind it"
    notes.append(
        f"{first.name} stands before the global average pooling, because {why}; it "
        "computes the same with more multiply-accumulates"
    )
    return [*every, replace(conv, out_shape=(channels, *sides)), *pooling], notes


def _block_behind(layers: list[Layer]) -> list[Layer]:
    """Return what follows the last convolution or addition."""
    starts = [
        place
        for place, layer in enumerate(layers)
        if layer.kind in {"convolution", "sum"}
    ]
    return layers[starts[-1] + 1 :] if starts else layers


def _is_head_behind_pooling(layers: list[Layer]) -> bool:
    """Tell whether they are linear layers with one activation between all, or none."""
    kinds = [layer.kind for layer in layers if layer.kind != "dropout"]
    names = {layer.value for layer in layers if layer.kind == "activation"}
    linear = [layer for layer in layers if layer.kind == "linear"]
    between = ["linear", "activation"] if names else ["linear"]
    return (
        kinds == [*between * (len(linear) - 1), "linear"]
        and len(names) <= 1
        and layers[-1].kind == "linear"
        and all(_biased(layer) for layer in linear)
    )


def _is_head(layers: list[Layer]) -> bool:
    linear = [layer for layer in layers if layer.kind == "linear"]
    if not all(_biased(layer) for layer in linear):
        return False
    if layers[-1].kind != "linear":
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
        return replace(layer, kind="convolution", out_shape=(linear.out_channels, 1, 1))
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
