"""The layers that a module is traced to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx, nn

Kind = Literal[
    "convolution",
    "norm",
    "activation",
    "pool",
    "dropout",
    "gap",
    "flatten",
    "linear",
    "sum",
    "gates",
    "pad",
    "resize",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer in the order of its execution.

    ``name`` is for messages. ``modules`` are those that hold its weights: several for
    convolutions side by side. ``value`` is the name of an activation, a pooling, or
    the share of a dropout. ``padding`` is how many rows and columns of zeros were put on
    either side of the feature map before. ``out_shape`` has no batch. A "sum" adds what
    ``body`` and ``shortcut`` make of its input; "gates" multiply it with what two linear
    layers do. A "pad" has as its value the step between the rows and columns that it
    takes, and the channels of zeros that it puts before and behind.
    """

    kind: Kind
    name: str
    modules: tuple[nn.Module, ...] = ()
    value: Any = None
    padding: tuple[int, int] = (0, 0)
    out_shape: tuple[int, ...] = ()
    body: tuple[Layer, ...] = ()
    shortcut: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """All layers, and the function behind the logits that was left out, if any.

    ``notes`` say what nas does otherwise in training. ``normalise`` is what forward
    does with the images before the first layer. ``logits`` is their place among the
    tensors that forward returns.
    """

    layers: tuple[Layer, ...]
    ending: str | None
    notes: tuple[str, ...] = ()
    normalise: Callable[[Tensor], Tensor] = lambda images: images
    logits: int = 0


def target_of(node: fx.Node) -> str:
    """Return the name of what the node calls."""
    return str(getattr(node.target, "__name__", node.target))


def is_tensor(node: fx.Node) -> bool:
    """Tell the values from the sizes that a forward computes with."""
    return "value" in node.meta


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of the node's value, without the batch."""
    return tuple(node.meta["value"].shape[1:])
