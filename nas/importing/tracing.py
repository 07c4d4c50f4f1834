"""From a torch module to the chain of its layers, by torch.fx."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from torch import fx, nn

from nas.architecture import Shape
from nas.errors import ArchitectureError
from nas.importing.adding import branches, in_order
from nas.importing.byhand import activation_behind
from nas.importing.gating import gates_behind
from nas.importing.layer import Chain, Layer, is_tensor, shape_of, target_of
from nas.importing.normalising import end_of_scaling, part_of
from nas.importing.operations import Operations, arguments_of
from nas.importing.recording import keep_last, record
from nas.importing.refusals import SIGMOID_END, join_reason, refuse
from nas.importing.trying import check_runs, place_of


def trace(
    model: nn.Module, input_shape: Shape, *, shape_from: str = "--input-shape"
) -> Chain:
    """Return the layers of a module that takes images of that shape.

    Raises ArchitectureError for one that is no chain of layers that nas knows.
    """
    model.eval()
    check_runs(model, input_shape, shape_from)
    try:
        evaluated_root, evaluated = record(model, input_shape)
        # In training mode a functional dropout is one.
        root, graph = record(model.train(), input_shape)
    except ArchitectureError:
        raise
    except Exception as error:
        raise ArchitectureError(
            f"{place_of(error)}forward does with the images what nas cannot follow: write "
            "it with torch's layers and functions, the same for all images"
        ) from error
    kept = keep_last(evaluated)
    if kept is None:
        raise ArchitectureError(_RETURNS_MORE)
    always = {node.meta["line"] for node in evaluated.nodes if _drops(node, root)}
    try:
        chain = _Walk(root, graph, always).chain()
        notes = list(chain.notes)
    except ArchitectureError as error:
        # Noise, stochastic depth and the like are there in training alone.
        try:
            chain = _Walk(evaluated_root, evaluated, always).chain()
        except ArchitectureError:
            raise error from None
        notes = [
            *chain.notes,
            f"forward is taken as it is in evaluation, without what is in training: {error}",
        ]
    place, count = kept
    notes += [_MORE] if count > 1 else []
    return replace(chain, logits=place, notes=tuple(notes))


def _drops(node: fx.Node, root: nn.Module) -> bool:
    """Tell whether the node is a function that drops values."""
    if node.op == "call_module" or "dropout" not in target_of(node):
        return False
    arguments = arguments_of(node, root)
    return bool(arguments.get("training", arguments.get("train", True)))


class _Walk:
    """Goes from the images to the logits, node by node."""

    def __init__(self, root: nn.Module, graph: fx.Graph, always: set[str]) -> None:
        self.root = root
        self.graph = graph
        self.taken = Operations(root, always)

    def chain(self) -> Chain:
        if keep_last(self.graph) is None:
            raise ArchitectureError(_RETURNS_MORE)
        inputs = [n for n in self.graph.nodes if n.op == "placeholder"]
        if not inputs:
            raise ArchitectureError("the module's forward takes no images")
        scaled = end_of_scaling(inputs[0])
        if scaled is not inputs[0]:
            self.taken.notes.append(
                f"{self.taken.name(scaled)} is left out: nas itself normalises the images, by "
                "the mean and deviation of the training images"
            )
        node = scaled
        while True:
            users = [u for u in node.users if u.op == "output" or is_tensor(u)]
            if len(users) > 1:
                node = self.by_hand(node) or self.fork(node, users)
                continue
            if not users:
                raise ArchitectureError(
                    f"{self.taken.name(node)} does not lead to what forward returns: "
                    "something behind it is not torch's, such as numpy, or makes a new "
                    "tensor; the nearest is torch's layers and functions"
                )
            (user,) = users
            if user.op == "output":
                if self.taken.padding is not None:
                    raise self.taken.no_padding()
                self.refuse_sigmoid_end()
                return Chain(
                    tuple(self.taken.layers),
                    self.taken.ending,
                    tuple(self.taken.notes),
                    part_of(self.root, inputs[0], scaled),
                )
            node = self.step(node, user)

    def refuse_sigmoid_end(self) -> None:
        """Raise ArchitectureError where a sigmoid is the last that changes the logits."""
        for last in reversed(self.taken.layers):
            if last.kind not in {"flatten", "dropout"}:
                if (
                    last.value == "sigmoid"
                    and prod(last.out_shape) == last.out_shape[0]
                ):
                    raise refuse(last.name, SIGMOID_END)
                return

    def step(self, node: fx.Node, user: fx.Node) -> fx.Node:
        """Add what takes the node; return where it ends."""
        try:
            self.taken.add(user)
        except ArchitectureError:
            end = self.by_hand(node)
            if end is None:
                raise
            return end
        return user

    def by_hand(self, node: fx.Node) -> fx.Node | None:
        """Add an activation that is written by hand; return where it ends, if it is."""
        found = None if self.taken.ending else activation_behind(node, self.root)
        if found is None:
            return None
        end, activation = found
        self.taken.put(
            "activation", self.taken.name(end), shape_of(end), value=activation
        )
        return end

    def fork(self, node: fx.Node, users: list[fx.Node]) -> fx.Node:
        """Add what several take of this node; return where it is joined."""
        gates = gates_behind(users, self.taken)
        if gates is not None:
            join, layer = gates
            self.taken.layers.append(layer)
            return join
        found = branches(users)
        if found is None:
            return self.side_by_side(node, users)
        join, starts = found
        if join.kwargs.get("alpha", 1) != 1:
            raise refuse(
                self.taken.name(join),
                "nas adds both as they are; the nearest is alpha=1",
            )
        body, shortcut = in_order([self.branch(node, one, join) for one in starts])
        modules = [m for layer in (*body, *shortcut) for m in layer.modules]
        self.taken.layers.append(
            Layer(
                kind="sum",
                name=self.taken.name(join),
                modules=tuple(modules),
                out_shape=shape_of(join),
                body=tuple(body),
                shortcut=tuple(shortcut),
            )
        )
        return join

    def branch(self, node: fx.Node, users: list[fx.Node], join: fx.Node) -> list[Layer]:
        """Return the layers from a node, by these users, to where they are added."""
        walk = _Walk(self.root, self.graph, self.taken.always)
        while users != [join]:
            if len(users) > 1:
                node = walk.by_hand(node) or walk.fork(node, users)
            else:
                (user,) = users
                node = walk.step(node, user)
            users = [u for u in node.users if u.op == "output" or is_tensor(u)]
        if walk.taken.padding is not None:
            raise walk.taken.no_padding()
        self.taken.notes += walk.taken.notes
        return walk.taken.layers

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
                    raise refuse(self.taken.name(join), join_reason(target_of(join)))
                raise refuse(
                    self.taken.name(user),
                    f"it takes what other layers take, too ({self.taken.name(node)}), and only "
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
        if len(ends) != 1 and behind is not None and target_of(behind) != "cat":
            raise refuse(self.taken.name(behind), join_reason(target_of(behind)))
        joined: list[fx.Node] = []
        fx.node.map_arg((join.args, join.kwargs), joined.append)
        if (
            len(ends) != 1
            or target_of(join) not in {"cat", "concat"}
            or len(joined) != len(branches)
            or set(joined) != set(branches)
        ):
            raise refuse(
                self.taken.name(users[0]),
                "nas joins convolutions side by side by cat, each once, with at most an "
                "activation before it; the nearest is that",
            )
        name = self.taken.name(join)
        arguments = arguments_of(join, self.root)
        if arguments.get("dim", 0) not in {1, -3}:
            raise refuse(name, "it does not join channels; the nearest is dim=1")
        ordered = [branches[end] for end in join.all_input_nodes]
        activations = {
            None if node is None else self.activation(node) for _, node in ordered
        }
        if len(activations) != 1:
            raise refuse(
                name,
                "the activations before it differ; the nearest is one for all, behind it",
            )
        names = ", ".join(self.taken.name(user) for user, _ in ordered)
        modules = tuple(
            self.root.get_submodule(str(user.target)) for user, _ in ordered
        )
        self.taken.put("convolution", names, shape_of(join), modules=modules)
        if (common := activations.pop()) is not None:
            self.taken.put("activation", name, shape_of(join), value=common)
        return join

    def join_behind(self, node: fx.Node) -> fx.Node | None:
        """Return the first node behind this one that takes several tensors."""
        nodes = list(self.graph.nodes)
        for later in nodes[nodes.index(node) + 1 :]:
            if len([n for n in later.all_input_nodes if is_tensor(n)]) > 1:
                return later if later.op != "output" else None
        return None

    def activation(self, node: fx.Node) -> str | None:
        """Return the activation that a node is, if it is one."""
        if node.op == "output":
            return None
        probe = _Walk(self.root, self.graph, self.taken.always)
        try:
            probe.taken.add(node)
        except ArchitectureError:
            return None
        layers = probe.taken.layers
        if len(layers) == 1 and layers[0].kind == "activation":
            return str(layers[0].value)
        return None


_MORE = "forward returns more than the logits; nas takes these alone"
_RETURNS_MORE = (
    "the module returns more than the logits, and what does not lead to them: the nearest "
    "is a forward that returns them alone, for instance by an argument whose default does "
    "so"
)
