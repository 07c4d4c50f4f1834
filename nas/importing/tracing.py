"""From a torch module to the chain of its layers, by torch.fx."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from nas.architecture import Shape
from nas.errors import ArchitectureError

Kind = Literal[
    "convolution", "norm", "activation", "pool", "dropout", "gap", "flatten", "linear"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer in the order of its execution.

    ``name`` is for messages. ``modules`` are those that hold its weights: several for
    convolutions side by side. ``value`` is the name of an activation or pooling, or
    the share of a dropout. ``out_shape`` has no batch.
    """

    kind: Kind
    name: str
    modules: tuple[nn.Module, ...] = ()
    value: Any = None
    out_shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """All layers, and the function behind the logits that was left out, if any."""

    layers: tuple[Layer, ...]
    ending: str | None


_ACTIVATIONS = {
    "relu": "relu",
    "relu_": "relu",
    "leaky_relu": "leaky_relu",
    "hardswish": "hardswish",
    "silu": "silu",
}
_FLATTENING = {"flatten", "view", "reshape", "squeeze"}
_ENDINGS = {"softmax", "log_softmax"}


def refuse(name: str, why: str) -> ArchitectureError:
    """Return the error of a layer that nas cannot say."""
    return ArchitectureError(f"{name} cannot be expressed: {why}")


def trace(model: nn.Module, input_shape: Shape) -> Chain:
    """Return the layers of a module that takes images of that shape.

    Raises ArchitectureError for one that is no chain of layers that nas knows.
    """
    # In training mode a functional dropout is one.
    model.train()
    try:
        graph = fx.Tracer().trace(model)
        traced = fx.GraphModule(model, graph)
    except Exception as error:
        raise ArchitectureError(
            f"torch.fx cannot trace the module ({_first_line(error)}): its forward has "
            "to be the same for all images"
        ) from error
    try:
        # Two images, so that a squeeze leaves the batch alone. What goes wrong torch
        # also prints, traceback and all.
        with contextlib.redirect_stderr(io.StringIO()):
            ShapeProp(traced.eval()).propagate(torch.zeros(2, *input_shape))
    except Exception as error:
        shape = "x".join(map(str, input_shape))
        raise ArchitectureError(
            f"the module does not take {shape} images ({_first_line(error)}): give "
            "theirs with --input-shape"
        ) from error
    return _Walk(traced).chain()


class _Walk:
    """Goes from the images to the logits, node by node."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.layers: list[Layer] = []
        self.ending: str | None = None

    def chain(self) -> Chain:
        inputs = [n for n in self.traced.graph.nodes if n.op == "placeholder"]
        if not inputs:
            raise ArchitectureError("the module's forward takes no images")
        node = inputs[0]
        while True:
            users = [u for u in node.users if u.op == "output" or _is_tensor(u)]
            if len(users) > 1:
                node = self.side_by_side(node, users)
                continue
            if not users:
                raise ArchitectureError(
                    f"{self.name(node)} leads nowhere: a net has to be one chain of layers"
                )
            (user,) = users
            if user.op == "output":
                if user.args[0] is not node:
                    raise ArchitectureError(
                        "the module returns more than the logits: a net returns one tensor"
                    )
                return Chain(tuple(self.layers), self.ending)
            self.add(user)
            node = user

    def name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            return f"{node.target} ({type(module).__name__})"
        if node.op == "placeholder":
            return "the input"
        return str(getattr(node.target, "__name__", node.target))

    def add(self, node: fx.Node) -> None:
        name = self.name(node)
        if self.ending is not None:
            raise refuse(name, f"it stands behind the {self.ending}")
        if len(node.all_input_nodes) > 1 and any(
            _is_tensor(n) for n in node.all_input_nodes[1:]
        ):
            raise refuse(name, "it joins several tensors, and only inception's cat may")
        before, after = _shape(node.all_input_nodes[0]), _shape(node)
        if node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            self.add_module(module, name, before, after)
        else:
            self.add_function(node, name, before, after)

    def add_module(
        self, module: nn.Module, name: str, before: Shapes, after: Shapes
    ) -> None:
        match module:
            case nn.Conv2d():
                self.put("convolution", name, after, modules=(module,))
            case nn.BatchNorm2d():
                self.put("norm", name, after, modules=(module,))
            case nn.Linear():
                if len(before) != 1:
                    raise refuse(name, "it does not stand behind a flatten")
                self.put("linear", name, after, modules=(module,))
            case nn.LeakyReLU() if module.negative_slope != 0.01:
                raise refuse(name, f"slope {module.negative_slope:g}; nas has 0.01")
            case nn.ReLU() | nn.LeakyReLU() | nn.Hardswish() | nn.SiLU():
                value = type(module).__name__.lower()
                value = value.replace("leakyrelu", "leaky_relu")
                self.put("activation", name, after, value=value)
            case nn.MaxPool2d() | nn.AvgPool2d():
                kind = "max" if isinstance(module, nn.MaxPool2d) else "avg"
                self.pool(kind, name, vars(module), before, after)
            case nn.AdaptiveAvgPool2d():
                self.global_pool(name, after)
            case nn.Flatten():
                self.flatten(name, after)
            case nn.Dropout() | nn.Dropout2d():
                self.put("dropout", name, after, value=float(module.p))
            case nn.Identity():
                pass
            case nn.Softmax() | nn.LogSoftmax():
                log = isinstance(module, nn.LogSoftmax)
                self.end("log_softmax" if log else "softmax", name, after)
            case _:
                raise refuse(name, "nas has no such layer")

    def add_function(
        self, node: fx.Node, name: str, before: Shapes, after: Shapes
    ) -> None:
        arguments = self.arguments(node)
        if name in _ACTIVATIONS:
            slope = arguments.get("negative_slope", 0.01)
            if slope != 0.01:
                raise refuse(name, f"slope {slope:g}; nas has 0.01")
            self.put("activation", name, after, value=_ACTIVATIONS[name])
        elif name in {"max_pool2d", "avg_pool2d"}:
            self.pool(name[:3], name, arguments, before, after)
        elif name == "adaptive_avg_pool2d":
            self.global_pool(name, after)
        elif name == "mean":
            if len(before) != 3 or math.prod(after) != before[0]:
                raise refuse(name, "it is no mean over height and width")
            self.put("gap", name, after)
        elif name in _FLATTENING:
            self.flatten(name, after)
        elif name in {"dropout", "dropout2d"}:
            if arguments.get("training", True):
                self.put("dropout", name, after, value=float(arguments.get("p", 0.5)))
        elif name in _ENDINGS:
            self.end(name, name, after)
        elif name != "contiguous":
            raise refuse(name, "nas has no such layer")

    def arguments(self, node: fx.Node) -> dict[str, Any]:
        found = node.normalized_arguments(
            self.traced, normalize_to_only_use_kwargs=True
        )
        return dict(node.kwargs) if found is None else dict(found.kwargs)

    def put(
        self,
        kind: Kind,
        name: str,
        out_shape: Shapes,
        *,
        modules: tuple[nn.Module, ...] = (),
        value: Any = None,
    ) -> None:
        self.layers.append(
            Layer(
                kind=kind, name=name, modules=modules, value=value, out_shape=out_shape
            )
        )

    def pool(
        self,
        kind: str,
        name: str,
        arguments: dict[str, Any],
        before: Shapes,
        after: Shapes,
    ) -> None:
        size = _pair(arguments["kernel_size"])
        stride = _pair(arguments.get("stride") or arguments["kernel_size"])
        if kind == "avg" and size == tuple(before[1:]) and size != (2, 2):
            self.put("gap", name, after)
            return
        plain = (
            _pair(arguments.get("padding", 0)) == (0, 0)
            and _pair(arguments.get("dilation", 1)) == (1, 1)
            and not arguments.get("return_indices")
            and arguments.get("divisor_override") is None
            # With even sides rounding up or down is the same.
            and after[1:] == tuple(side // 2 for side in before[1:])
        )
        if size != (2, 2) or stride != (2, 2) or not plain:
            raise refuse(name, "nas pools 2x2 with stride 2, without padding")
        self.put("pool", name, after, value=kind)

    def global_pool(self, name: str, after: Shapes) -> None:
        if after[1:] != (1, 1):
            raise refuse(name, "nas pools 2x2, or the whole feature map to one pixel")
        self.put("gap", name, after)

    def flatten(self, name: str, after: Shapes) -> None:
        if len(after) != 1:
            raise refuse(name, "it does not flatten each image to one row of values")
        self.put("flatten", name, after)

    def end(self, kind: str, name: str, after: Shapes) -> None:
        if len(after) != 1:
            raise refuse(name, "it does not stand behind the logits")
        self.ending = kind

    def side_by_side(self, node: fx.Node, users: list[fx.Node]) -> fx.Node:
        """Add the convolutions that take this node; return where they are joined."""
        branches: dict[fx.Node, tuple[fx.Node, fx.Node | None]] = {}
        for user in users:
            module = (
                self.traced.get_submodule(str(user.target))
                if user.op == "call_module"
                else None
            )
            if not isinstance(module, nn.Conv2d):
                raise refuse(
                    self.name(user),
                    f"it takes what other layers take, too ({self.name(node)}), and only "
                    "inception's convolutions may",
                )
            end = user
            activation: fx.Node | None = None
            followers = list(user.users)
            if len(followers) == 1 and self.activation(followers[0]) is not None:
                end = activation = followers[0]
            branches[end] = (user, activation)
        ends = {follower for end in branches for follower in end.users}
        join = next(iter(ends))
        if (
            len(ends) != 1
            or self.name(join) != "cat"
            or set(join.all_input_nodes) != set(branches)
        ):
            raise refuse(
                self.name(users[0]),
                "convolutions side by side have to be joined at once by cat",
            )
        arguments = self.arguments(join)
        if arguments.get("dim", 0) not in {1, -3}:
            raise refuse("cat", "it does not join channels (dim=1)")
        ordered = [branches[end] for end in join.all_input_nodes]
        activations = {
            None if node is None else self.activation(node) for _, node in ordered
        }
        if len(activations) != 1:
            raise refuse("cat", "the activations before it differ")
        names = ", ".join(self.name(user) for user, _ in ordered)
        modules = tuple(
            self.traced.get_submodule(str(user.target)) for user, _ in ordered
        )
        self.put("convolution", names, _shape(join), modules=modules)
        if (common := activations.pop()) is not None:
            self.put("activation", "cat", _shape(join), value=common)
        return join

    def activation(self, node: fx.Node) -> str | None:
        """Return the activation that a node is, if it is one."""
        if node.op == "output":
            return None
        probe = _Walk(self.traced)
        try:
            probe.add(node)
        except ArchitectureError:
            return None
        layers = probe.layers
        if len(layers) == 1 and layers[0].kind == "activation":
            return str(layers[0].value)
        return None


Shapes = tuple[int, ...]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_tensor(node: fx.Node) -> bool:
    """Tell the values from the sizes that a forward computes with."""
    return "tensor_meta" in node.meta


def _shape(node: fx.Node) -> Shapes:
    return tuple(node.meta["tensor_meta"].shape[1:])


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)
