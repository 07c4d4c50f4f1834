"""Activations that people write by hand, known by what they compute.

``x * torch.sigmoid(x)``, ``x.clamp(min=0)`` and ``torch.where(x > 0, x, 0.01 * x)`` are
SiLU, ReLU and leaky ReLU in other words. There is no end of such words, so the
operations are run on two ranges of numbers and compared with the activations of nas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import setitem
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from nas.architecture.activations import ACTIVATIONS

Curve = Callable[[Tensor], Tensor]
CURVES: dict[str, Curve] = {name: getattr(functional, name) for name in ACTIVATIONS}
# No activation takes more operations than this.
_MOST_OPERATIONS = 12


def activation_behind(
    node: fx.Node, root: nn.Module, curves: Mapping[str, Curve] = CURVES
) -> tuple[fx.Node, str] | None:
    """Return the node at which one of these activations of its values ends, and its name.

    None where what follows computes something else, or also takes other tensors.
    """
    value = node.meta["value"]
    if not isinstance(value, Tensor) or not value.numel():
        return None
    # A few values, as between a map's means and its gates, tell no curves apart.
    images = len(value) * -(-64 // value.numel())
    numbers = _numbers((images, *value.shape[1:]))
    ranges: list[dict[fx.Node, Any]] = [{node: one} for one in numbers]
    later = node.next
    while len(ranges[0]) <= _MOST_OPERATIONS and later.op != "output":
        if later.op != "get_attr" and any(
            n in ranges[0] for n in later.all_input_nodes
        ):
            try:
                for computed in ranges:
                    computed[later] = _run(later, computed, root)
            except Exception:  # noqa: BLE001 - whatever torch raises for such numbers
                return None
            if _closed(ranges[0], later):
                for name, curve in curves.items():
                    if all(_is(curve, one[node], one[later]) for one in ranges):
                        return later, name
        later = later.next
    return None


def activation_of(function: Callable[[Tensor], Any]) -> str | None:
    """Return the activation that a function computes, with the same gradient, or None."""
    numbers = _numbers((64,))
    try:
        found = [_with_slope(function, one) for one in numbers]
    except Exception:  # noqa: BLE001 - whatever the user's code raises
        return None
    for name, curve in CURVES.items():
        if all(
            _is(curve, one, value)
            and torch.allclose(slope, _with_slope(curve, one)[1], rtol=1e-4, atol=1e-5)
            for one, (value, slope) in zip(numbers, found, strict=True)
        ):
            return name
    return None


def _with_slope(
    function: Callable[[Tensor], Any], numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the function gives for these numbers, and its gradient there."""
    numbers = numbers.clone().requires_grad_()
    with torch.enable_grad():
        # One that works in place may not change what the gradient is asked of.
        found = function(numbers.clone())
        (slope,) = torch.autograd.grad(found.sum(), numbers)
    return found.detach(), slope


def _numbers(shape: tuple[int, ...]) -> list[Tensor]:
    """Return numbers near zero, where the curves differ, and far from it.

    There, from 8 to 10,000, their bounds differ.
    """
    places = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
    return [8 * places, places.sign() * 8 * 1250 ** places.abs()]


def _run(node: fx.Node, computed: dict[fx.Node, Any], root: nn.Module) -> Any:
    """Return what the node makes of the numbers; raise where it takes anything else."""

    def value(argument: fx.Node) -> Any:
        if argument in computed:
            return computed[argument]
        known = argument.meta["value"]  # raises KeyError for what is no tensor
        if argument.op != "get_attr" or isinstance(known, nn.Parameter):
            raise ValueError(argument)
        return known

    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if isinstance(module, _DropoutNd) or [*module.parameters()]:
            raise ValueError(module)
    return run_node(node, root, value)


def run_node(node: fx.Node, root: nn.Module, value: Callable[[fx.Node], Any]) -> Any:
    """Return what the node gives for such values of its arguments, which stay."""
    args, kwargs = fx.node.map_arg(
        (node.args, node.kwargs),
        # In place it would change what others take.
        lambda n: v.clone() if isinstance(v := value(n), Tensor) else v,
    )
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "call_module":
        return root.get_submodule(str(node.target))(*args, **kwargs)
    assert callable(node.target)
    found = node.target(*args, **kwargs)
    return args[0] if node.target is setitem else found


def _closed(computed: dict[fx.Node, Any], end: fx.Node) -> bool:
    """Tell whether nothing else takes what was computed before the end."""
    return all(
        user in computed or (user.op != "output" and "value" not in user.meta)
        for node in computed
        if node is not end
        for user in node.users
    )


def _is(curve: Curve, numbers: Tensor, found: Any) -> bool:
    """Tell whether that is what the activation makes of the numbers."""
    if not isinstance(found, Tensor) or found.shape != numbers.shape:
        return False
    wanted = curve(numbers)
    # One by exponentials overflows far from zero.
    known = torch.where(found.isnan() & (numbers.abs() > 40), wanted, found)
    return known.dtype == wanted.dtype and torch.allclose(
        known, wanted, rtol=1e-4, atol=1e-5
    )
