"""Squeeze-and-excitation: a feature map times numbers that are made of its own means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from nas.architecture.definition import sizes_of_gates
from nas.importing.byhand import activation_behind
from nas.importing.dense import as_linear
from nas.importing.layer import Layer, is_tensor, shape_of, target_of
from nas.importing.operations import Operations
from nas.importing.refusals import OTHER_ACTIVATION, refuse

_PRODUCTS = {"mul", "imul", "mul_"}
_ARITHMETIC = {"add", "sub", "mul", "div", "truediv"}
# They bring the numbers to the feature map's shape.
_SHAPING = {"unsqueeze", "getitem", "expand", "expand_as", "broadcast_to"}
_WAY = ["gap", "dense", "activation", "dense", "activation"]
_NEAREST = (
    "nas makes gates by global average pooling, a linear layer or 1x1 convolution, ReLU or "
    "the like, another one to one number for each channel, and sigmoid, both with biases "
    "or without; the nearest is that"
)


def gates_behind(
    users: Sequence[fx.Node], taken: Operations
) -> tuple[fx.Node, Layer] | None:
    """Return where what these nodes take is multiplied with gates, and these as a layer.

    None where there are none. Raises ArchitectureError for gates
    that nas does not have.
    """
    products = [user for user in users if target_of(user) in _PRODUCTS]
    starts = [
        user
        for user in users
        if user not in products and target_of(user) not in _SHAPING
    ]
    if len(products) != 1 or len(starts) != 1:
        return None
    (product,), (current,) = products, starts
    way = Operations(taken.root, taken.always)
    while current is not product:
        _add(current, way)
        following = [user for user in current.users if is_tensor(user)]
        if len(following) > 1 and (found := activation_behind(current, way.root)):
            current, activation = found
            way.put(
                "activation", way.name(current), shape_of(current), value=activation
            )
            following = [user for user in current.users if is_tensor(user)]
        if len(following) != 1:
            return None
        (current,) = following
    return product, _layer(way.layers, taken.name(product), shape_of(product))


def _add(node: fx.Node, way: Operations) -> None:
    """Add what a node on the way to the gates is."""
    kind = target_of(node)
    if node.op == "call_module":
        kind = type(way.root.get_submodule(str(node.target))).__name__.lower()
    if kind == "hardsigmoid" or kind in _ARITHMETIC:  # as of one written by hand
        raise refuse(way.name(node), _NEAREST)
    if kind not in _SHAPING:
        way.add(node)


def _layer(layers: Sequence[Layer], name: str, out_shape: tuple[int, ...]) -> Layer:
    kept = [layer for layer in layers if layer.kind != "flatten"]
    if all(layer.kind == "activation" for layer in kept):
        raise refuse(name, OTHER_ACTIVATION)
    modules = tuple(module for layer in kept for module in layer.modules)
    activations = [layer.value for layer in kept if layer.kind == "activation"]
    if (
        [_kind_of(layer) for layer in kept] != _WAY
        or activations[1] != "sigmoid"
        or kept[3].out_shape[0] != out_shape[0]
        or len({module.bias is None for module in modules}) > 1
    ):
        raise refuse(name, _NEAREST)
    return Layer(
        kind="gates",
        name=name,
        modules=modules,
        value=activations[0],
        out_shape=out_shape,
    )


def _kind_of(layer: Layer) -> str:
    kind = as_linear(layer).kind
    return "dense" if kind == "linear" else kind


def gates_of(layer: Layer, channels: int) -> dict[str, Any]:
    """Return the values of a block with these gates of so many channels."""
    first = layer.modules[0]
    hidden = int(first.weight.shape[0])  # type: ignore[index]
    return sizes_of_gates(channels, hidden) | {
        "gate_activation": layer.value,
        "gate_bias": "no" if first.bias is None else "yes",
    }
