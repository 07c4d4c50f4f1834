"""What each operation of a module's graph is as a layer, or why it is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from nas.architecture import Block
from nas.architecture.parts import Pooling
from nas.errors import ArchitectureError
from nas.importing.layer import Kind, Layer, is_tensor, shape_of, target_of
from nas.importing.normalising import SAME
from nas.importing.refusals import join_reason, nearest, refuse
from nas.importing.weights import TAKING_WEIGHTS, check_plain_weights, with_its_weights
from nas.training.model import ACTIVATION_MODULES

# Arguments of activations that nas has as torch has them by default.
_USUAL = {"negative_slope": 0.01, "alpha": 1.0, "approximate": "none"}
_FLATTENING = {"flatten", "view", "reshape", "squeeze"}
_ENDINGS = {"softmax", "log_softmax"}

Shapes = tuple[int, ...]


class Operations:
    """Collects the layers of one way through a graph.

    ``always`` has the lines of dropouts that are on in evaluation, too.
    """

    def __init__(self, root: nn.Module, always: set[str]) -> None:
        """Begin without layers; ``root`` holds the graph's modules."""
        self.root = root
        self.always = always
        self.layers: list[Layer] = []
        self.ending: str | None = None
        self.notes: list[str] = []
        # The channels of a feature map that is being averaged in several steps.
        self.averaging: int | None = None
        # Zeros that were put around the map, with the name of what did.
        self.padding: tuple[str, tuple[int, int]] | None = None
        # Modules made of functions that take parameters.
        self.modules: dict[tuple[int, ...], nn.Module] = {}

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
        return f"{target_of(node)} ({line})" if line else target_of(node)

    def add(self, node: fx.Node) -> None:
        """Add what a node computes; raise ArchitectureError where nas has no such layer."""
        name = self.name(node)
        tensors = [n for n in node.all_input_nodes if is_tensor(n)]
        takes_weights = len(tensors) > 1 and target_of(node) in TAKING_WEIGHTS
        if takes_weights or any(n.op == "get_attr" for n in tensors):
            module = self._own(node, name)
            self._add_module(module, name, shape_of(tensors[0]), shape_of(node))
            return
        if len(tensors) > 1:
            raise refuse(name, join_reason(target_of(node)))
        if not isinstance(node.meta["value"], torch.Tensor) or not isinstance(
            tensors[0].meta["value"], torch.Tensor
        ):
            raise refuse(
                name,
                "nas has one chain of layers, without parts side by side; the nearest is "
                "the whole feature map",
            )
        before, after = shape_of(tensors[0]), shape_of(node)
        if self.averaging is not None and target_of(node) != "mean":
            raise refuse(
                name,
                "before it height and width are made one side, or one is averaged; nas "
                "averages over height and width or over neither; the nearest is their mean",
            )
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            self._add_module(module, name, before, after)
        else:
            self._add_function(node, name, before, after)

    def _own(self, node: fx.Node, name: str) -> nn.Module:
        """Return the module of a function that takes parameters; the same again."""
        attributes = [n for n in node.all_input_nodes if n.op == "get_attr"]
        values = tuple(id(n.meta["value"]) for n in attributes)
        if values not in self.modules:
            self.modules[values] = with_its_weights(node, target_of(node), name)
        return self.modules[values]

    def _add_module(
        self, module: nn.Module, name: str, before: Shapes, after: Shapes
    ) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            check_plain_weights(module, name)
        for activation, known in ACTIVATION_MODULES.items():
            if isinstance(module, known):
                self._activation(activation, name, vars(module), after)
                return
        match module:
            case nn.Conv2d():
                self.put("convolution", name, after, modules=(module,))
            case nn.BatchNorm2d() | nn.BatchNorm1d():
                self.put("norm", name, after, modules=(module,))
            case nn.ConstantPad2d():
                self._pad(name, module.padding, float(module.value))
            case nn.Linear():
                if len(before) != 1:
                    raise refuse(
                        name,
                        "it does not stand behind a flatten; the nearest is nn.Flatten "
                        "before it",
                    )
                self.put("linear", name, after, modules=(module,))
            case nn.MaxPool2d() | nn.AvgPool2d():
                kind = "max" if isinstance(module, nn.MaxPool2d) else "avg"
                self._pool(kind, name, vars(module), before, after)
            case nn.AdaptiveAvgPool2d():
                self._adaptive_pool("avg", name, before, after)
            case nn.AdaptiveMaxPool2d() if not module.return_indices:
                self._adaptive_pool("max", name, before, after)
            case nn.Flatten() | nn.Unflatten():
                self._flatten(name, after, before)
            case nn.Dropout() | nn.Dropout2d():
                self._dropout(type(module).__name__, name, float(module.p), after)
            case nn.Identity():
                pass
            case nn.Softmax() | nn.LogSoftmax():
                log = isinstance(module, nn.LogSoftmax)
                self._end("log_softmax" if log else "softmax", name, after)
            case _:
                raise refuse(name, nearest(type(module).__name__))

    def _add_function(
        self, node: fx.Node, name: str, before: Shapes, after: Shapes
    ) -> None:
        arguments = arguments_of(node, self.root)
        # Names of what works in place end so.
        target = target_of(node).rstrip("_")
        if target in ACTIVATION_MODULES:
            self._activation(target, name, arguments, after)
        elif target in {"max_pool2d", "avg_pool2d"}:
            self._pool(target[:3], name, arguments, before, after)
        elif target == "pad":
            given: dict[str, Any] = dict(
                zip(("input", "pad", "mode", "value"), node.args, strict=False)
            )
            given |= dict(node.kwargs)
            if given.get("mode", "constant") != "constant":
                raise refuse(
                    name, "nas pads with zeros; the nearest is mode='constant'"
                )
            value = float(given.get("value") or 0)
            if not value and len(given["pad"]) == 6 and not any(given["pad"][:4]):
                self._pad_channels(name, after, 1, *given["pad"][4:])
            else:
                self._pad(name, given["pad"], value)
        elif target == "adaptive_avg_pool2d" or (
            target == "interpolate" and arguments.get("mode") == "area"
        ):
            self._adaptive_pool("avg", name, before, after)
        elif target == "adaptive_max_pool2d":
            self._adaptive_pool("max", name, before, after)
        elif target == "amax" and after and math.prod(after) == after[0] == before[0]:
            self._adaptive_pool("max", name, before, (before[0], 1, 1))
            self._flatten(name, after, before)
        elif target == "mean":
            self._mean(node, name, before, after)
        elif target == "getitem" and (step := _step_of(node.args[1], before)):
            self._pad_channels(name, after, step, 0, 0)
        elif target in _FLATTENING or (
            target == "getitem"
            and before[1:] == (1, 1)
            and math.prod(after) == before[0]
        ):
            self._flatten(name, after, before)
        elif target in {"dropout", "dropout1d", "dropout2d"}:
            if arguments.get("training", arguments.get("train", True)):
                share = float(arguments.get("p", 0.5))
                self._dropout(target, name, share, after)
                if node.meta["line"] in self.always:
                    self.notes.append(
                        f"{name} is on in evaluation, too, because it lacks "
                        "training=self.training; in nas it is on in training alone"
                    )
        elif target == "log" and self.ending == "softmax":
            self.ending = "log_softmax"
        elif target in _ENDINGS:
            self._end(target, name, after)
        # Python's sum begins with 0.
        elif target not in SAME and not (target == "add" and 0 in node.args):
            raise refuse(name, nearest(target))

    def _activation(
        self, activation: str, name: str, arguments: dict[str, Any], after: Shapes
    ) -> None:
        for key, usual in _USUAL.items():
            if (value := arguments.get(key, usual)) != usual:
                raise refuse(
                    name, f"{key}={value!r}; nas has {usual!r}; the nearest is that"
                )
        self.put("activation", name, after, value=activation)

    def _mean(self, node: fx.Node, name: str, before: Shapes, after: Shapes) -> None:
        """Take a mean over the map, or one of several steps towards it."""
        channels = before[0] if self.averaging is None else self.averaging
        given = node.kwargs.get("dim", [*node.args, None][1])
        dims = given if isinstance(given, tuple | list) else (given,)
        if len(before) == 3 and (1 in dims or -3 in dims):
            channels = 0  # it averages these, too
        if math.prod(after) == after[0] == channels and before:
            if self.averaging is not None or len(before) == 3:
                self.put("gap", name, after)
            self.averaging = None
        elif len(before) == 3 and after and after[0] == channels:
            self.averaging = channels
        else:
            raise refuse(
                name, "it is no mean over height and width; the nearest is that"
            )

    def _dropout(self, kind: str, name: str, share: float, after: Shapes) -> None:
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
        """Add a layer of that kind; a convolution takes the zeros before it."""
        if self.ending is not None and kind != "flatten":
            raise self.behind_ending(name)
        padding = 0, 0
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

    def _pad(self, name: str, sides: Sequence[int], value: float) -> None:
        """Keep the zeros for the convolution that has to follow."""
        beside, above = sides[:2], sides[2:]
        uneven = len(above) != 2 or len({*above}) > 1 or len({*beside}) > 1
        if value or uneven or min(sides) < 0:
            raise refuse(
                name,
                f"it pads the sides by {', '.join(map(str, sides))}; nas pads opposite "
                "sides alike, with zeros, where it convolves; the nearest is the "
                "convolution's own padding",
            )
        before = (0, 0) if self.padding is None else self.padding[1]
        self.padding = name, (before[0] + above[0], before[1] + beside[0])

    def _pad_channels(
        self, name: str, after: Shapes, step: int, before: int, behind: int
    ) -> None:
        """Add what only a shortcut can have, in one layer with what it began with."""
        if (step, before, behind) == (1, 0, 0):
            return
        if self.layers and self.layers[-1].kind == "pad":
            last = self.layers.pop().value
            step, before, behind = step * last[0], before + last[1], behind + last[2]
        self.put("pad", name, after, value=(step, before, behind))

    def no_padding(self) -> ArchitectureError:
        """Return the error of zeros around a map that no convolution takes."""
        assert self.padding is not None
        return refuse(
            self.padding[0],
            "nas pads where it convolves; the nearest is a convolution right behind it",
        )

    def _pool(
        self,
        kind: str,
        name: str,
        arguments: dict[str, Any],
        before: Shapes,
        after: Shapes,
    ) -> None:
        size = _pair(arguments["kernel_size"])
        stride = _pair(arguments.get("stride") or arguments["kernel_size"])
        pooling = Pooling(kind, size, stride, _pair(arguments.get("padding", 0)))
        plain = not any(pooling.padding) and not arguments.get("divisor_override")
        if kind == "avg" and size == tuple(before[1:]) and size != (2, 2) and plain:
            self.put("gap", name, after)
            return
        if size == (1, 1) and stride[0] == stride[1] and plain:
            self._pad_channels(name, after, stride[0], 0, 0)
            return
        if (how := _other_pooling(pooling, arguments, before, after)) is not None:
            raise refuse(name, f"nas pools {how}")
        self.put("pool", name, after, value=pooling)

    def _adaptive_pool(
        self, kind: str, name: str, before: Shapes, after: Shapes
    ) -> None:
        """Take a pooling that is given by its result's size."""
        if after == before:
            return
        if kind == "avg" and after[1:] == (1, 1):
            self.put("gap", name, after)
            return
        if kind == "avg" and not self.layers:
            self.put("resize", name, after)
            return
        high, wide = (a // b for a, b in zip(before[1:], after[1:], strict=True))
        if before[1:] != (high * after[1], wide * after[2]):
            raise refuse(
                name,
                f"it pools {_times(before[1:])} to {_times(after[1:])}; nas pools windows "
                "of one size; the nearest are sides that divide those of the map",
            )
        pooling = Pooling(kind, (high, wide), (high, wide))
        self.put("pool", name, after, value=pooling)

    def _flatten(self, name: str, after: Shapes, before: Shapes) -> None:
        if after == before or (
            math.prod(after) == before[0] == after[0] and len(after) > 1
        ):
            return
        if len(after) == 2 and after == (before[0], math.prod(before[1:])):
            self.averaging = before[0]
            return
        if len(after) > 3:
            raise refuse(
                name,
                "it splits a feature map into parts, as a channel shuffle does; nas keeps "
                "it as channels, height, width; the nearest is without it",
            )
        if len(after) != 1:
            raise refuse(
                name,
                "it does not flatten each image to one row of values; nas keeps a feature "
                "map as channels, height, width until then; the nearest is without it",
            )
        self.put("flatten", name, after)

    def _end(self, kind: str, name: str, after: Shapes) -> None:
        if self.ending is not None:
            raise self.behind_ending(name)
        if math.prod(after) != after[0]:
            raise refuse(
                name,
                "it does not stand behind the logits; the nearest is one behind them, or "
                "none",
            )
        self.ending = kind

    def behind_ending(self, name: str) -> ArchitectureError:
        """Return the error of what stands behind the last function of the logits."""
        return refuse(
            name,
            f"it stands behind the {self.ending}, which has to be the last; the nearest "
            "is without it",
        )


def _step_of(index: Any, before: Shapes) -> int:
    """Return the step between the rows and columns that an index takes; 0 for others."""
    each = list(index) if isinstance(index, tuple) else [index]
    if each[:1] == [...]:
        each = [slice(None)] * (5 - len(each)) + each[1:]
    if len(before) != 3 or len(each) != 4:
        return 0
    found = [
        1 if one.step is None else one.step
        for one in each
        if isinstance(one, slice) and not one.start and one.stop is None
    ]
    if len(found) != 4 or found[:2] != [1, 1]:
        return 0
    # Of a single row or column any step is the same.
    steps = [
        step for step, side in zip(found[2:], before[1:], strict=True) if side > 1
    ] or found[2:]
    return steps[0] if len({*steps}) == 1 and isinstance(steps[0], int) else 0


def _other_pooling(
    pooling: Pooling, arguments: dict[str, Any], before: Shapes, after: Shapes
) -> str | None:
    """Return how nas pools where that differs, and what comes nearest, or None."""
    if _pair(arguments.get("dilation", 1)) != (1, 1):
        return "neighbouring values; the nearest is dilation=1"
    if arguments.get("return_indices"):
        return "without indices; the nearest is return_indices=False"
    if arguments.get("divisor_override") is not None:
        return "means of whole windows; the nearest is divisor_override=None"
    if pooling.kind == "avg" and pooling.padding != (0, 0):
        return "means without padding; the nearest is padding=0"
    # Where windows fill the map rounding up or down is the same.
    if after[1:] != pooling.sides(*before[1:]):
        return "whole windows alone; the nearest is ceil_mode=False"
    if Block(out_channels=1, **pooling_values(pooling)).pooling != pooling:
        return (
            "with one stride for height and width, of at most a window, and one padding; "
            "the nearest is that"
        )
    return None


def pooling_values(pooling: Pooling) -> dict[str, Any]:
    """Return a block's values for the pooling."""
    (high, wide), strides = pooling.window, pooling.strides
    return {
        "pool": pooling.kind,
        "pool_size": high,
        "pool_width": 0 if high == wide else wide,
        "pool_stride": 0 if strides == pooling.window else max(strides),
        "pool_padding": max(pooling.padding),
    }


def _times(sides: Shapes) -> str:
    return "x".join(map(str, sides))


def arguments_of(node: fx.Node, root: nn.Module) -> dict[str, Any]:
    """Return a call's arguments by their names, as far as torch knows them."""
    try:
        found = node.normalized_arguments(root, normalize_to_only_use_kwargs=True)
    except RuntimeError:
        # Scalar functions such as torch.tanh have several signatures.
        found = None
    return dict(node.kwargs) if found is None else dict(found.kwargs)


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return int(height), int(width)
