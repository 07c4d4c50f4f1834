"""What a forward does with the images before its first layer: scale and shift them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from nas.importing.byhand import run_node

SAME = {"contiguous", "float", "to", "type", "cpu", "clone", "alias"}
"""Operations that leave the values as they are."""

_SCALING = {"add", "sub", "rsub", "mul", "div", "truediv", *SAME}


def end_of_scaling(images: fx.Node) -> fx.Node:
    """Return the last node that only scales or shifts the images by constants."""
    node = end = images
    while True:
        users = [user for user in node.users if "value" in user.meta]
        if len(users) != 1 or not _scales(users[0], node):
            return end
        (node,) = users
        if _name(node) not in SAME:
            end = node


def part_of(
    root: nn.Module, first: fx.Node, last: fx.Node
) -> Callable[[Tensor], Tensor]:
    """Return the function from the one node's values to the other's."""
    nodes = _until(first, last)

    def compute(images: Tensor) -> Tensor:
        values: dict[fx.Node, Any] = {first: images}
        for node in nodes:
            values[node] = run_node(
                node, root, lambda n: values[n] if n in values else n.meta["value"]
            )
        return values[last]  # type: ignore[no-any-return]

    return compute


def _until(first: fx.Node, last: fx.Node) -> list[fx.Node]:
    """Return the nodes of a chain behind the first, to the last."""
    nodes: list[fx.Node] = []
    while last is not first:
        nodes.insert(0, last)
        last = next(n for n in last.all_input_nodes if n.op != "get_attr")
    return nodes


def _scales(node: fx.Node, images: fx.Node) -> bool:
    """Tell whether the node scales or shifts the images by constants."""
    others = [n for n in node.all_input_nodes if n is not images]
    return (
        node.op in {"call_function", "call_method"}
        and isinstance(node.meta["value"], Tensor)
        and _name(node) in _SCALING
        and node.meta["value"].shape == images.meta["value"].shape
        and not any(
            n.op != "get_attr" or isinstance(n.meta["value"], nn.Parameter)
            for n in others
        )
    )


def _name(node: fx.Node) -> str:
    """Return the operation's name, the same for one in place."""
    return str(getattr(node.target, "__name__", node.target)).rstrip("_")
