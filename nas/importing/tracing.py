"""From a torch module to the chain of its layers, by torch.fx."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from nas.architecture import Shape
from nas.errors import ArchitectureError
from nas.importing.adding import branches, in_order
from nas.importing.byhand import activation_behind
from nas.importing.layer import Chain, Kind, Layer
from nas.importing.layer import is_tensor as _is_tensor
from nas.importing.layer import target_of as _target
from nas.importing.normalising import SAME, end_of_scaling, part_of
from nas.importing.recording import record
from nas.importing.refusals import SIGMOID_END, join_reason, nearest, refuse
from nas.importing.trying import check_runs, place_of
from nas.importing.weights import TAKING_WEIGHTS, check_plain_weights, with_its_weights

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
    check_runs(model, input_shape)
    try:
        _, evaluated = record(model, input_shape)
        # In training mode a functional dropout is one.
        root, graph = record(model.train(), input_shape)
    except ArchitectureError:
        raise
    except Exception as error:
        raise ArchitectureError(
            f"{place_of(error)}forward does with the images what nas cannot follow: write "
            "it with torch's layers and functions, the same for all images"
        ) from error
    always = {node.meta["line"] for node in evaluated.nodes if _drops(node, root)}
    return _Walk(root, graph, always).chain()


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
        # Zeros that were put around the map, with the name of what did.
        self.padding: tuple[str, int] | None = None
        # Modules made of functions that take parameters.
        self.modules: dict[tuple[int, ...], nn.Module] = {}

    def chain(self) -> Chain:
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"]
        if not inputs:
            raise ArchitectureError("the module's forward takes no images")
        scaled = end_of_scaling(inputs[0])
        if scaled is not inputs[0]:
            self.notes.append(
                f"{self.name(scaled)} is left out: nas itself normalises the images, by "
                "the mean and deviation of the training images"
            )
        node = scaled
        while True:
            users = [u for u in node.users if u.op == "output" or _is_tensor(u)]
            if len(users) > 1 and any(user.op == "output" for user in users):
                raise ArchitectureError(_RETURNS_MORE)
            if len(users) > 1:
                node = self.by_hand(node) or self.fork(node, users)
                continue
            if not users:
                raise ArchitectureError(
                    f"{self.name(node)} does not lead to what forward returns: a net is one chain of torch's layers"
                )
            (user,) = users
            if user.op == "output":
                if user.all_input_nodes != [node]:
                    raise ArchitectureError(_RETURNS_MORE)
                if self.padding is not None:
                    raise self.no_padding()
                return Chain(
                    tuple(self.layers),
                    self.ending,
                    tuple(self.notes),
                    part_of(self.root, inputs[0], scaled),
                )
            node = self.step(node, user)

    def step(self, node: fx.Node, user: fx.Node) -> fx.Node:
        """Add what takes the node; return where it ends."""
        try:
            self.add(user)
        except ArchitectureError:
            end = self.by_hand(node)
            if end is None:
                raise
            return end
        return user

    def by_hand(self, node: fx.Node) -> fx.Node | None:
        """Add an activation that is written by hand; return where it ends, if it is."""
        found = None if self.ending else activation_behind(node, self.root)
        if found is None:
            return None
        end, activation = found
        self.put("activation", self.name(end), _shape(end), value=activation)
        return end

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
        if _target(node) == "sigmoid" and len(_shape(node)) == 1:
            raise refuse(name, SIGMOID_END)
        takes_weights = len(tensors) > 1 and _target(node) in TAKING_WEIGHTS
        if takes_weights or any(n.op == "get_attr" for n in tensors):
            module = self.own(node, name)
            self.add_module(module, name, _shape(tensors[0]), _shape(node))
            return
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

    def own(self, node: fx.Node, name: str) -> nn.Module:
        """Return the module of a function that takes parameters; the same again."""
        attributes = [n for n in node.all_input_nodes if n.op == "get_attr"]
        values = tuple(id(n.meta["value"]) for n in attributes)
        if values not in self.modules:
            self.modules[values] = with_its_weights(node, _target(node), name)
        return self.modules[values]

    def add_module(
        self, module: nn.Module, name: str, before: Shapes, after: Shapes
    ) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            check_plain_weights(module, name)
        match module:
            case nn.Conv2d():
                self.put("convolution", name, after, modules=(module,))
            case nn.BatchNorm2d() | nn.BatchNorm1d():
                self.put("norm", name, after, modules=(module,))
            case nn.ConstantPad2d():
                self.pad(name, module.padding, float(module.value))
            case nn.Linear():
                if len(before) != 1:
                    raise refuse(name, "it does not stand behind a flatten")
                self.put("linear", name, after, modules=(module,))
            case nn.LeakyReLU() if module.negative_slope != 0.01:
                raise refuse(name, _slope(module.negative_slope))
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
                raise refuse(name, _slope(slope))
            self.put("activation", name, after, value=_ACTIVATIONS[target])
        elif target in {"max_pool2d", "avg_pool2d"}:
            self.pool(target[:3], name, arguments, before, after)
        elif target == "pad":
            given: dict[str, Any] = dict(
                zip(("input", "pad", "mode", "value"), node.args, strict=False)
            )
            given |= dict(node.kwargs)
            if given.get("mode", "constant") != "constant":
                raise refuse(
                    name, "nas pads with zeros; the nearest is mode='constant'"
                )
            self.pad(name, given["pad"], float(given.get("value") or 0))
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
        elif target not in SAME:
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
        padding = 0
        if self.padding is not None:
            if kind != "convolution" or len(modules) != 1:
                raise self.no_padding()
            (_, padding), self.padding = self.padding, None
        layer = Layer(
            kind=kind,
            name=name,
            modules=modules,
            value=value,
            padding=padding,
            out_shape=out_shape,
        )
        self.layers.append(layer)

    def pad(self, name: str, sides: Sequence[int], value: float) -> None:
        """Keep the zeros for the convolution that has to follow."""
        if value or len(set(sides)) != 1 or len(sides) != 4 or sides[0] < 0:
            raise refuse(
                name,
                f"it pads the sides by {', '.join(map(str, sides))}; nas pads all four "
                "alike, with zeros, where it convolves; the nearest is the convolution's "
                "own padding",
            )
        before = 0 if self.padding is None else self.padding[1]
        self.padding = (name, before + sides[0])

    def no_padding(self) -> ArchitectureError:
        assert self.padding is not None
        return refuse(
            self.padding[0],
            "nas pads where it convolves; the nearest is a convolution right behind it",
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
                node = walk.by_hand(node) or walk.fork(node, users)
            else:
                (user,) = users
                node = walk.step(node, user)
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


_RETURNS_MORE = (
    "the module returns more than the logits: the nearest is a forward that returns them "
    "alone, for instance by an argument whose default does so"
)


def _slope(slope: float) -> str:
    return f"slope {slope:g}; nas has 0.01; the nearest is that"


def _arguments(node: fx.Node, root: nn.Module) -> dict[str, Any]:
    try:
        found = node.normalized_arguments(root, normalize_to_only_use_kwargs=True)
    except RuntimeError:
        # Scalar functions such as torch.tanh have several signatures.
        found = None
    return dict(node.kwargs) if found is None else dict(found.kwargs)


def _shape(node: fx.Node) -> Shapes:
    return tuple(node.meta["value"].shape[1:])


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)
