"""From a torch module to the chain of its layers, by torch.fx."""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from nas.architecture import Shape
from nas.errors import ArchitectureError
from nas.importing.adding import branches, in_order
from nas.importing.layer import Chain, Kind, Layer
from nas.importing.layer import is_tensor as _is_tensor
from nas.importing.layer import target_of as _target
from nas.importing.recording import record
from nas.importing.refusals import OWN_WEIGHTS, join_reason, nearest, refuse

_ACTIVATIONS = {
    "relu": "relu",
    "relu_": "relu",
    "leaky_relu": "leaky_relu",
    "hardswish": "hardswish",
    "silu": "silu",
    "relu6": "relu6",
}
_FLATTENING = {"flatten", "view", "reshape", "squeeze"}
_ENDINGS = {"softmax", "log_softmax"}


def trace(model: nn.Module, input_shape: Shape) -> Chain:
    """Return the layers of a module that takes images of that shape.

    Raises ArchitectureError for one that is no chain of layers that nas knows.
    """
    model.eval()
    _check_runs(model, input_shape)
    try:
        _, evaluated = record(model, input_shape)
        # In training mode a functional dropout is one.
        root, graph = record(model.train(), input_shape)
    except ArchitectureError:
        raise
    except Exception as error:
        raise ArchitectureError(
            f"{_place(error)}forward does with the images what nas cannot follow: write "
            "it with torch's layers and functions, the same for all images"
        ) from error
    always = {node.meta["line"] for node in evaluated.nodes if _drops(node, root)}
    return _Walk(root, graph, always).chain()


# Torch's own errors for sizes that do not fit; others are slips in the code.
_SIZES = (RuntimeError, ValueError, IndexError, AssertionError)
_COMMON = ((1, 28, 28), (3, 32, 32), (1, 32, 32), (3, 28, 28), (1, 8, 8))


def _check_runs(model: nn.Module, input_shape: Shape) -> None:
    """Raise ArchitectureError unless the module takes images of that shape."""
    try:
        with torch.no_grad():
            model(torch.zeros(2, *input_shape))
    except Exception as error:
        place = _place(error)
        if not isinstance(error, _SIZES) or isinstance(error, NotImplementedError):
            raise ArchitectureError(
                f"{place}the module's forward raises {type(error).__name__}: "
                f"{_first_line(error)}"
            ) from error
        shape = "x".join(map(str, input_shape))
        fitting = [
            "x".join(map(str, other)) for other in _COMMON if _takes(model, other)
        ]
        remedy = (
            f"it takes {' or '.join(fitting)}, so give --input-shape {fitting[0]}"
            if fitting
            else "give the size that it was made for with --input-shape"
        )
        raise ArchitectureError(
            f"{place}the module does not take {shape} images: {remedy}"
        ) from error


def _takes(model: nn.Module, shape: Shape) -> bool:
    try:
        with torch.no_grad():
            model(torch.zeros(2, *shape))
    except Exception:  # noqa: BLE001 - whatever the user's code raises
        return False
    return True


def _place(error: BaseException) -> str:
    """Return the user's line at which it was raised, "" where there is none."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(ours):
            return f"{Path(frame.filename).name} line {frame.lineno}: "
    return ""


def _drops(node: fx.Node, root: nn.Module) -> bool:
    """Tell whether the node is a function that drops values."""
    if node.op == "call_module" or "dropout" not in _target(node):
        return False
    arguments = _arguments(node, root)
    return bool(arguments.get("training", arguments.get("train", True)))


class _Walk:
    """Goes from the images to the logits, node by node."""

    def __init__(self, root: nn.Module, graph: fx.Graph, always: set[str]) -> None:
        self.root = root
        self.graph = graph
        self.always = always
        self.layers: list[Layer] = []
        self.ending: str | None = None
        self.notes: list[str] = []
        # The channels of a feature map that is being averaged in several steps.
        self.averaging: int | None = None

    def chain(self) -> Chain:
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"]
        if not inputs:
            raise ArchitectureError("the module's forward takes no images")
        node = inputs[0]
        while True:
            users = [u for u in node.users if u.op == "output" or _is_tensor(u)]
            if len(users) > 1 and any(user.op == "output" for user in users):
                raise ArchitectureError(_RETURNS_MORE)
            if len(users) > 1:
                node = self.fork(node, users)
                continue
            if not users:
                raise ArchitectureError(
                    f"{self.name(node)} does not lead to what forward returns: a net is one chain of torch's layers"
                )
            (user,) = users
            if user.op == "output":
                if user.args[0] is not node:
                    raise ArchitectureError(_RETURNS_MORE)
                return Chain(tuple(self.layers), self.ending, tuple(self.notes))
            self.add(user)
            node = user

    def name(self, node: fx.Node) -> str:
        """Return what messages call the node, with the line of the user's file."""
        line = node.meta.get("line", "")
        if node.op == "placeholder":
            return "the input"
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            path = str(node.target).removeprefix("model").removeprefix(".")
            kind = type(module).__name__
            inside = f"{kind}, {line}" if line else kind
            return f"{path} ({inside})" if path else inside
        return f"{_target(node)} ({line})" if line else _target(node)

    def add(self, node: fx.Node) -> None:
        name = self.name(node)
        if self.ending is not None:
            raise refuse(name, f"it stands behind the {self.ending}")
        tensors = [n for n in node.all_input_nodes if _is_tensor(n)]
        if any(n.op == "get_attr" for n in tensors):
            raise refuse(name, OWN_WEIGHTS)
        if len(tensors) > 1:
            raise refuse(name, join_reason(_target(node)))
        if not isinstance(node.meta["value"], torch.Tensor) or not isinstance(
            tensors[0].meta["value"], torch.Tensor
        ):
            raise refuse(
                name, "nas has one chain of layers, without parts side by side"
            )
        before, after = _shape(tensors[0]), _shape(node)
        if self.averaging is not None and _target(node) != "mean":
            raise refuse(name, "nas averages over height and width, or not at all")
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
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
            case nn.ReLU() | nn.ReLU6() | nn.LeakyReLU() | nn.Hardswish() | nn.SiLU():
                value = type(module).__name__.lower()
                value = value.replace("leakyrelu", "leaky_relu")
                self.put("activation", name, after, value=value)
            case nn.MaxPool2d() | nn.AvgPool2d():
                kind = "max" if isinstance(module, nn.MaxPool2d) else "avg"
                self.pool(kind, name, vars(module), before, after)
            case nn.AdaptiveAvgPool2d():
                self.global_pool(name, after)
            case nn.Flatten():
                self.flatten(name, after, before)
            case nn.Dropout() | nn.Dropout2d():
                self.dropout(type(module).__name__, name, float(module.p), after)
            case nn.Identity():
                pass
            case nn.Unflatten() if before == after:
                pass
            case nn.Softmax() | nn.LogSoftmax():
                log = isinstance(module, nn.LogSoftmax)
                self.end("log_softmax" if log else "softmax", name, after)
            case _:
                raise refuse(name, nearest(type(module).__name__))

    def add_function(
        self, node: fx.Node, name: str, before: Shapes, after: Shapes
    ) -> None:
        arguments = _arguments(node, self.root)
        target = _target(node)
        if target in _ACTIVATIONS:
            slope = arguments.get("negative_slope", 0.01)
            if slope != 0.01:
                raise refuse(name, f"slope {slope:g}; nas has 0.01")
            self.put("activation", name, after, value=_ACTIVATIONS[target])
        elif target in {"max_pool2d", "avg_pool2d"}:
            self.pool(target[:3], name, arguments, before, after)
        elif target == "adaptive_avg_pool2d":
            self.global_pool(name, after)
        elif target == "mean":
            self.mean(name, before, after)
        elif target in _FLATTENING or (target == "getitem" and before[1:] == (1, 1)):
            self.flatten(name, after, before)
        elif target in {"dropout", "dropout1d", "dropout2d"}:
            if arguments.get("training", arguments.get("train", True)):
                share = float(arguments.get("p", 0.5))
                self.dropout(target, name, share, after)
                if node.meta["line"] in self.always:
                    self.notes.append(
                        f"{name} is on in evaluation, too, because it lacks "
                        "training=self.training; in nas it is on in training alone"
                    )
        elif target in _ENDINGS:
            self.end(target, name, after)
        elif target not in _SAME:
            raise refuse(name, nearest(target))

    def mean(self, name: str, before: Shapes, after: Shapes) -> None:
        """Take a mean over the map, or one of several steps towards it."""
        channels = before[0] if self.averaging is None else self.averaging
        if math.prod(after) == after[0] == channels and before:
            if self.averaging is not None or len(before) == 3:
                self.put("gap", name, after)
            self.averaging = None
        elif len(before) == 3 and after and after[0] == channels:
            self.averaging = channels
        else:
            raise refuse(name, "it is no mean over height and width")

    def dropout(self, kind: str, name: str, share: float, after: Shapes) -> None:
        if share == 0:
            return
        if kind.lower() != "dropout":
            self.notes.append(
                f"{name} drops whole channels in training; nas has nn.Dropout instead, "
                "which drops single values"
            )
        self.put("dropout", name, after, value=share)

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
            raise refuse(
                name,
                "nas pools 2x2 with stride 2, without padding; that is the nearest, or a "
                "convolution with stride",
            )
        self.put("pool", name, after, value=kind)

    def global_pool(self, name: str, after: Shapes) -> None:
        if after[1:] != (1, 1):
            raise refuse(name, "nas pools 2x2, or the whole feature map to one pixel")
        self.put("gap", name, after)

    def flatten(self, name: str, after: Shapes, before: Shapes) -> None:
        if after == before or (
            math.prod(after) == before[0] == after[0] and len(after) > 1
        ):
            return
        if len(after) == 2 and after == (before[0], math.prod(before[1:])):
            self.averaging = before[0]
            return
        if len(after) != 1:
            raise refuse(name, "it does not flatten each image to one row of values")
        self.put("flatten", name, after)

    def end(self, kind: str, name: str, after: Shapes) -> None:
        if len(after) != 1:
            raise refuse(name, "it does not stand behind the logits")
        self.ending = kind

    def fork(self, node: fx.Node, users: list[fx.Node]) -> fx.Node:
        """Add what several take of this node; return where it is joined."""
        found = branches(users)
        if found is None:
            return self.side_by_side(node, users)
        join, starts = found
        body, shortcut = in_order([self.branch(node, one, join) for one in starts])
        modules = [m for layer in (*body, *shortcut) for m in layer.modules]
        self.layers.append(
            Layer(
                kind="sum",
                name=self.name(join),
                modules=tuple(modules),
                out_shape=_shape(join),
                body=tuple(body),
                shortcut=tuple(shortcut),
            )
        )
        return join

    def branch(self, node: fx.Node, users: list[fx.Node], join: fx.Node) -> list[Layer]:
        """Return the layers from a node, by these users, to where they are added."""
        walk = _Walk(self.root, self.graph, self.always)
        while users != [join]:
            if len(users) > 1:
                node = walk.fork(node, users)
            else:
                (node,) = users
                walk.add(node)
            users = [u for u in node.users if u.op == "output" or _is_tensor(u)]
        self.notes += walk.notes
        return walk.layers

    def side_by_side(self, node: fx.Node, users: list[fx.Node]) -> fx.Node:
        """Add the convolutions that take this node; return where they are joined."""
        branches: dict[fx.Node, tuple[fx.Node, fx.Node | None]] = {}
        for user in users:
            module = (
                self.root.get_submodule(str(user.target))
                if user.op == "call_module"
                else None
            )
            if not isinstance(module, nn.Conv2d):
                join = self.join_behind(node)
                if join is not None:
                    raise refuse(self.name(join), join_reason(_target(join)))
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
        behind = self.join_behind(node)
        if len(ends) != 1 and behind is not None and _target(behind) != "cat":
            raise refuse(self.name(behind), join_reason(_target(behind)))
        if (
            len(ends) != 1
            or _target(join) not in {"cat", "concat"}
            or set(join.all_input_nodes) != set(branches)
        ):
            raise refuse(
                self.name(users[0]),
                "convolutions side by side have to be joined at once by cat",
            )
        arguments = _arguments(join, self.root)
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
            self.root.get_submodule(str(user.target)) for user, _ in ordered
        )
        self.put("convolution", names, _shape(join), modules=modules)
        if (common := activations.pop()) is not None:
            self.put("activation", "cat", _shape(join), value=common)
        return join

    def join_behind(self, node: fx.Node) -> fx.Node | None:
        """Return the first node behind this one that takes several tensors."""
        nodes = list(self.graph.nodes)
        for later in nodes[nodes.index(node) + 1 :]:
            if len([n for n in later.all_input_nodes if _is_tensor(n)]) > 1:
                return later if later.op != "output" else None
        return None

    def activation(self, node: fx.Node) -> str | None:
        """Return the activation that a node is, if it is one."""
        if node.op == "output":
            return None
        probe = _Walk(self.root, self.graph, self.always)
        try:
            probe.add(node)
        except ArchitectureError:
            return None
        layers = probe.layers
        if len(layers) == 1 and layers[0].kind == "activation":
            return str(layers[0].value)
        return None


Shapes = tuple[int, ...]


_RETURNS_MORE = "the module returns more than the logits: a net returns one tensor"
_SAME = {"contiguous", "float", "to", "clone", "alias"}


def _arguments(node: fx.Node, root: nn.Module) -> dict[str, Any]:
    try:
        found = node.normalized_arguments(root, normalize_to_only_use_kwargs=True)
    except RuntimeError:
        # Scalar functions such as torch.tanh have several signatures.
        found = None
    return dict(node.kwargs) if found is None else dict(found.kwargs)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _shape(node: fx.Node) -> Shapes:
    return tuple(node.meta["value"].shape[1:])


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)
