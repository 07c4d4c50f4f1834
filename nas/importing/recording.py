"""A module's operations as an fx graph, recorded while real values flow through it.

Sizes, dimensions and types are plain Python values to the module's forward, so it may
compute with them, compare them and assert on them.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import getitem, setitem
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd import Function
from torch.nn import functional

from nas.architecture import Shape
from nas.errors import ArchitectureError
from nas.importing.byhand import activation_of
from nas.importing.layer import target_of
from nas.importing.refusals import refuse

_LIBRARY = str(Path(torch.__file__).parent)


class Images(nn.Module):
    """Calls the module with images alone, so that its other arguments are defaults."""

    def __init__(self, model: nn.Module) -> None:
        """Take the user's module."""
        super().__init__()
        self.model = model

    def forward(self, images: Any) -> Any:
        """Return what the module makes of them."""
        return self.model(images)


def record(model: nn.Module, input_shape: Shape) -> tuple[Images, fx.Graph]:
    """Return the graph of a module, with the root that its targets start from.

    A node's meta has ``value``, what it gave for two images, and ``line``, the place in
    the user's file. Raises ArchitectureError where forward depends on the images.
    """
    root = Images(model)
    root.train(model.training)
    tracer = _Recorder(input_shape)
    with torch.no_grad(), _values_as_tensors():
        graph = tracer.trace(root)
    _prune(graph)
    return root, graph


def _prune(graph: fx.Graph) -> None:
    """Erase what no one takes."""
    for node in reversed(graph.nodes):
        if node.op not in {"output", "placeholder"} and not node.users:
            graph.erase_node(node)


def keep_last(graph: fx.Graph) -> tuple[int, int] | None:
    """Let the graph return the last of several tensors, which the others lead to.

    They are features that a net returns, too. Whole numbers are no logits but classes.
    Return which one the last is, of how many; None where the others do not lead to it.
    """
    (output,) = graph.find_nodes(op="output")
    returned: list[fx.Node] = []
    fx.node.map_arg(output.args, returned.append)
    order = {node: place for place, node in enumerate(graph.nodes)}
    if not returned:
        return 0, 0
    scores = [n for n in returned if not _is_whole(n.meta["value"])] or returned
    last = max(scores, key=order.__getitem__)
    before = {last}
    for node in reversed(list(graph.nodes)[: order[last]]):
        if not before.isdisjoint(node.users):
            before.add(node)
    if not before.issuperset(scores):
        return None
    output.args = (last,)
    _prune(graph)
    return returned.index(last), len(returned)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point()


def user_line() -> str:
    """Return "FILE line N" of the user's innermost frame, "" where there is none."""
    frame = inspect.currentframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if path == __file__ and frame.f_code.co_name == "record":
            return ""
        if path != __file__ and not path.startswith((_LIBRARY, "<")):
            return f"{Path(path).name} line {frame.f_lineno}"
        frame = frame.f_back
    return ""


class _Value(fx.Proxy):  # type: ignore[misc,unused-ignore]
    """A tensor, or several, on the way through the module."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.node.meta["value"], name)
        plain = not callable(found) and not isinstance(found, torch.Tensor)
        return found if plain else super().__getattr__(name)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", setitem, (self, index, value), {})

    def __len__(self) -> int:
        return len(self.node.meta["value"])


@contextmanager
def _values_as_tensors() -> Iterator[None]:
    """Let forward ask isinstance(images, torch.Tensor).

    Only Python code may be told so: what torch has compiled would read a value as a
    tensor's memory, and crash. So would a function with a gradient of its own. Both are
    taken as the activation that they compute, or refused. All threads see the changes,
    as they see those of torch.fx: one import at a time.
    """
    plain, apply = builtins.isinstance, vars(Function)["apply"]
    call = torch.jit.ScriptFunction.__call__

    def is_instance(one: Any, kinds: Any) -> bool:
        if plain(one, kinds):
            return True
        return type(one) is _Value and plain(one.node.meta.get("value", one), kinds)

    def apply_known(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        own = "a torch.autograd.Function, with a gradient of its own"
        return _as_known(apply.__get__(None, cls), cls.__name__, own, args, kwargs)

    def call_known(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _as_known(call.__get__(self), self.name, "TorchScript", args, kwargs)

    builtins.isinstance = is_instance
    Function.apply = classmethod(apply_known)
    torch.jit.ScriptFunction.__call__ = call_known  # type: ignore[method-assign]
    try:
        yield
    finally:
        builtins.isinstance, Function.apply = plain, apply
        torch.jit.ScriptFunction.__call__ = call  # type: ignore[method-assign]


def _as_known(
    function: Callable[..., Any], name: str, kind: str, args: Any, kwargs: Any
) -> Any:
    """Return what a function without Python code gives, for a value by its activation."""
    values = [one for one in (*args, *kwargs.values()) if type(one) is _Value]
    if not values:
        return function(*args, **kwargs)
    # Not by ==, which the trace would record.
    if len(values) == 1 and args and args[0] is values[0]:
        known = activation_of(lambda numbers: function(numbers, *args[1:], **kwargs))
        if known is not None:
            return getattr(functional, known)(args[0])
    line = user_line()
    raise refuse(
        f"{name} ({line})" if line else name,
        f"it is {kind}, and no activation of its first argument that nas has; the "
        "nearest is a layer or function of torch",
    )


class _Recorder(fx.Tracer):
    def __init__(self, input_shape: Shape) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.running = False

    def proxy(self, node: fx.Node) -> _Value:
        return _Value(node, self)

    def create_arg(self, a: Any) -> Any:
        # Not by isinstance: to that a value is a tensor.
        return a.node if issubclass(type(a), _Value) else super().create_arg(a)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether it is one of torch's layers, or a subclass that does the same."""
        if super().is_leaf_module(m, module_qualified_name):
            return True
        containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
        own = (type(m).forward, getattr(type(m), "_conv_forward", type(m).forward))
        return not isinstance(m, containers) and all(
            method.__module__.startswith("torch.nn.modules") for method in own
        )

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **names: Any
    ) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **names)
        if kind == "output":
            return proxy
        node = proxy.node
        node.meta["line"] = user_line()
        self.running = True
        try:
            value = self.compute(node)
        finally:
            self.running = False
        if node.target is setitem:
            value = args[0].node.meta["value"]
        if not _has_tensors(value):
            return value
        node.meta["value"] = value
        if self.changes_in_place(node) and type(args[0]) is _Value:
            # Whoever has what was changed has what it was changed to.
            args[0].node = node
        return proxy

    def changes_in_place(self, node: fx.Node) -> bool:
        """Tell whether the node changes its first argument, as relu_ does."""
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            return bool(getattr(module, "inplace", False))
        name = target_of(node)
        if name == "setitem":
            return True
        called = name.endswith("_") and not name.endswith("__")
        return called or bool(node.kwargs.get("inplace", False))

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "get_attr" and isinstance(found := self.attribute(target), Tensor):
            node.meta["value"] = found
        return node

    def compute(self, node: fx.Node) -> Any:
        """Return what the node gives for two images, so that a squeeze keeps them."""
        if node.op == "placeholder":
            return torch.zeros(2, *self.input_shape)
        if node.op == "get_attr":
            return self.attribute(str(node.target))
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs),
            lambda n: _alone(n.meta["value"] if "value" in n.meta else self.compute(n)),
        )
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            training = module.training
            # Batch norm's running statistics stay as they are.
            module.eval()
            try:
                return module.forward(*args, **kwargs)
            finally:
                module.train(training)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def attribute(self, path: str) -> Any:
        before, self.running = self.running, True
        try:
            found: Any = self.root
            for name in path.split("."):
                found = getattr(found, name)
        finally:
            self.running = before
        return found

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        if self.running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if self.running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def path_of_module(self, mod: nn.Module) -> str:
        try:
            return super().path_of_module(mod)
        except NameError:
            raise ArchitectureError(
                f"{_at(user_line())}a {type(mod).__name__} is no part of the module, so "
                "that its weights would not be trained: keep it in an attribute, an "
                "nn.ModuleList or an nn.ModuleDict"
            ) from None

    def to_bool(self, obj: fx.Proxy) -> bool:
        if _is_check(obj.node):
            return bool(obj.node.meta["value"])
        raise ArchitectureError(
            f"{_at(user_line())}forward looks at the values of the images: it has to "
            "do the same for all of them"
        )

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        parts = range(len(obj.node.meta["value"]))
        return iter(
            [self.create_proxy("call_function", getitem, (obj, n), {}) for n in parts]
        )


def _is_check(node: fx.Node) -> bool:
    """Return whether the node tells of numbers that no image of a net should give."""
    while target_of(node) not in {"isnan", "isinf", "isfinite"}:
        if len(node.all_input_nodes) != 1:
            return False
        (node,) = node.all_input_nodes
    return True


def _at(line: str) -> str:
    return f"{line}: " if line else ""


def _alone(value: Any) -> Any:
    """Return a tensor of the same numbers whose shape may change by itself."""
    return value.detach() if isinstance(value, Tensor) else value


def _has_tensors(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_has_tensors(one) for one in value)
    return isinstance(value, torch.Tensor)
