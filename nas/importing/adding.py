"""Residual additions: two ways from one feature map to where they are added."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from nas.importing.layer import Layer, is_tensor, target_of

_SUMS = {"add", "iadd", "add_"}


def branches(users: Sequence[fx.Node]) -> tuple[fx.Node, list[list[fx.Node]]] | None:
    """Return where the ways that begin at these nodes are added, and how each begins.

    None where they are not two ways to one addition. One of them may begin with several
    convolutions side by side.
    """
    ends = {user: _first_join(user) for user in users}
    sums = [end for end in ends.values() if end and target_of(end) in _SUMS]
    if not sums:
        return None
    join = sums[0]
    direct = [user for user in users if ends[user] is join]
    others = [user for user in users if ends[user] is not join]
    if len(direct) == 2 and not others:
        return join, [[user] for user in direct]
    if len(direct) == 1 and others:
        return join, [others, direct]
    return None


def in_order(ways: list[list[Layer]]) -> tuple[list[Layer], list[Layer]]:
    """Return what the block computes, then the shortcut, which is the simpler of both."""
    first, second = ways
    if _is_shortcut(first) and not (
        _is_shortcut(second) and _weighed(second) <= _weighed(first)
    ):
        return second, first
    return first, second


def _weighed(way: Sequence[Layer]) -> int:
    """Return how many layers with weights the way has."""
    return sum(bool(layer.modules) for layer in way)


def _is_shortcut(way: Sequence[Layer]) -> bool:
    """Return whether a shortcut of nas could be this: nothing, 1x1 convolution, zeros."""
    kinds = [layer.kind for layer in way]
    plain = [kind for kind in kinds if kind not in {"norm", "activation"}]
    if kinds not in ([], ["pad"]) and plain != ["convolution"]:
        return False
    convolutions = way[0].modules if way else ()
    return all(
        isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1) for one in convolutions
    )


def _first_join(node: fx.Node) -> fx.Node | None:
    """Return the first node from this one on that takes several tensors."""
    while len([n for n in node.all_input_nodes if is_tensor(n)]) < 2:
        users = [u for u in node.users if u.op == "output" or is_tensor(u)]
        if len(users) != 1 or users[0].op == "output":
            return None
        node = users[0]
    return node
