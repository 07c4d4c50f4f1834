"""Squeeze-and-excitation: a feature map times numbers that are made of its own means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from nas.architecture import Gate
from nas.architecture.activations import ACTIVATIONS
from nas.architecture.definition import sizes_of_gates
from nas.importing.byhand import CURVES, Curve, activation_behind, run_node
from nas.importing.dense import as_linear
from nas.importing.layer import Layer, is_tensor, shape_of, target_of
from nas.importing.operations import Operations
from nas.importing.refusals import OTHER_ACTIVATION, refuse

_PRODUCTS = {"mul", "imul", "mul_"}
# A hard sigmoid, and what an activation written by hand may begin with.
_HARD = {"hardsigmoid", "clamp", "clip", "hardtanh"} | {
    f"{place}{name}"
    for name in ("add", "sub", "mul", "div", "truediv")
    for place in ("", "i")
}
# They bring the numbers to the feature map's shape.
_SHAPING = {"unsqueeze", "getitem", "expand", "expand_as", "broadcast_to"}
_CURVES = CURVES | {"hardsigmoid": functional.hardsigmoid}
# The division may stand behind the product with the feature map.
_SIXFOLD: dict[str, Curve] = {"hardsigmoid": lambda x: functional.relu6(x + 3)}
_GATES: dict[str, Gate] = {"sigmoid": "sigmoid", "hardsigmoid": "hard_sigmoid"}
_WAY = ["gap", "dense", "activation", "dense", "activation"]
_NEAREST = (
    "nas makes gates by global average pooling, a linear layer or 1x1 convolution, ReLU or "
    "the like, another one to one number for each channel, both with biases or without, "
    "and sigmoid or hard sigmoid, relu6(x + 3) / 6; the nearest is that"
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
    sixfold = False
    while current is not product:
        _add(current, way)
        following = [user for user in current.users if is_tensor(user)]
        by_hand = len(following) > 1 or any(
            _kind(user, way.root) in _HARD for user in following
        )
        found = activation_behind(current, way.root, _CURVES) if by_hand else None
        if by_hand and found is None:
            found = activation_behind(current, way.root, _SIXFOLD)
            sixfold = found is not None
        if found is not None:
            current, activation = found
            way.put(
                "activation", way.name(current), shape_of(current), value=activation
            )
            following = [user for user in current.users if is_tensor(user)]
        if len(following) != 1:
            return None
        (current,) = following
    layer = _layer(way.layers, taken.name(product), shape_of(product))
    if sixfold:
        product = _sixth(product, taken)
    return product, layer


def _sixth(product: fx.Node, taken: Operations) -> fx.Node:
    """Return where a product with gates from 0 to 6 is divided by 6."""
    users = list(product.users)
    if (
        len(users) == 1
        and users[0].all_input_nodes == [product]
        and _kind(users[0], taken.root) in _HARD
    ):
        six = torch.full((1,), 6.0)
        if torch.allclose(run_node(users[0], taken.root, lambda _: six), six / 6):
            return users[0]
    raise refuse(taken.name(product), _NEAREST)


def _add(node: fx.Node, way: Operations) -> None:
    """Add what a node on the way to the gates is."""
    kind = _kind(node, way.root)
    if kind in _HARD:
        raise refuse(way.name(node), _NEAREST)
    if kind not in _SHAPING:
        way.add(node)


def _kind(node: fx.Node, root: nn.Module) -> str:
    """Return the name of a module's class or of a function, in place or not."""
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))).__name__.lower()
    return target_of(node).rstrip("_")


def _layer(layers: Sequence[Layer], name: str, out_shape: tuple[int, ...]) -> Layer:
    kept = [layer for layer in layers if layer.kind != "flatten"]
    if all(layer.kind == "activation" for layer in kept):
        raise refuse(name, OTHER_ACTIVATION)
    modules = tuple(module for layer in kept for module in layer.modules)
    activations = [layer.value for layer in kept if layer.kind == "activation"]
    if (
        [_step_of(layer) for layer in kept] != _WAY
        or activations[0] not in ACTIVATIONS
        or activations[1] not in _GATES
        or kept[3].out_shape[0] != out_shape[0]
        or len({module.bias is None for module in modules}) > 1
    ):
        raise refuse(name, _NEAREST)
    return Layer(
        kind="gates",
        name=name,
        modules=modules,
        value=activations,
        out_shape=out_shape,
    )


def _step_of(layer: Layer) -> str:
    kind = as_linear(layer).kind
    return "dense" if kind == "linear" else kind


def gates_of(layer: Layer, channels: int) -> dict[str, Any]:
    """Return the values of a block with these gates of so many channels."""
    first, (activation, gate) = layer.modules[0], layer.value
    hidden = int(first.weight.shape[0])  # type: ignore[index]
    return sizes_of_gates(channels, hidden) | {
        "gate_activation": activation,
        "gate_bias": "no" if first.bias is None else "yes",
        "gate": _GATES[gate],
    }
