"""From a chain of layers to an Architecture, or to the layer that has no place in one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from nas.architecture import POOLING, Architecture, Block, Head, Shape, resized
from nas.architecture.definition import MONOTONE
from nas.architecture.kinds import KINDS, ORDERS, finish_of, parts_of
from nas.architecture.parts import Pooling
from nas.errors import ArchitectureError
from nas.importing.convolutions import (
    check_plain,
    dilations,
    kernel_of,
    padding_of,
    stride_of,
)
from nas.importing.dense import as_linear, as_one_dropout, with_blocks_for_linear
from nas.importing.layer import Chain, Layer
from nas.importing.operations import pooling_values
from nas.importing.refusals import GATES_PLACE, LEFT_OUT, MOVED, PAD_PLACE, refuse
from nas.importing.summing import depthwise_block, finish_of_sum, summed


def assemble(chain: Chain, input_shape: Shape) -> tuple[Architecture, list[str]]:
    """Return the architecture, and notes on what it does otherwise in training.

    Raises ArchitectureError that names the first layer nas cannot express.
    """
    parts = _Parts(chain, input_shape)
    parts.take_blocks()
    head = parts.take_head()
    if not chain.layers:
        raise ArchitectureError("the module has no layers")
    out_shape = chain.layers[-1].out_shape
    if len(out_shape) != 1:
        raise ArchitectureError(
            f"the module ends with {'x'.join(map(str, out_shape))} values an image: it "
            "has to end with one logit a class"
        )
    architecture = Architecture(
        input_shape=input_shape,
        num_classes=out_shape[0],
        blocks=tuple(_merged(parts.blocks)),
        head=head,
        resolution=parts.resolution,
    )
    return architecture, list(dict.fromkeys(parts.notes))


class _Parts:
    def __init__(self, chain: Chain, input_shape: Shape) -> None:
        self.layers, notes = with_blocks_for_linear(chain.layers, input_shape)
        self.blocks: list[tuple[Block, Layer, tuple[nn.Module, ...]]] = []
        self.notes: list[str] = [*chain.notes, *notes]
        self.norms: set[int] = set()
        self.shape: tuple[int, ...] = input_shape
        self.resolution = 0
        if self.layers and _resizes(self.layers[0], input_shape):
            self.take_resize(self.layers.pop(0), input_shape)
        kinds = [layer.kind for layer in self.layers]
        dropped = kinds[:1] == ["dropout"] and "convolution" in kinds
        if dropped and not self.classifies(1):
            self.leave_out(self.layers.pop(0))

    def take_resize(self, layer: Layer, input_shape: Shape) -> None:
        """Take what averages the images to a lower resolution."""
        resolution = min(layer.out_shape[1:])
        if resolution >= min(input_shape[1:]):
            raise refuse(layer.name, "nas makes images smaller, never larger")
        if (expected := resized(input_shape, resolution)) != layer.out_shape:
            sides = "x".join(map(str, expected[1:]))
            raise refuse(
                layer.name,
                f"nas keeps the proportions of the images; the nearest is {sides}",
            )
        self.resolution, self.shape = resolution, layer.out_shape

    def take_blocks(self) -> None:
        while self.layers and self.layers[0].kind in {"convolution", "sum"}:
            if self.classifies(0):
                return
            first = self.layers.pop(0)
            norms: list[Layer] = []
            following: dict[str, Layer] | None = None
            if first.kind == "sum":
                first = self.without_dropouts(first)
                following = self.following(first)
                found = summed(
                    first, self.convolved, activated="activation" in following
                )
                values, modules, norms = found.values, found.modules, found.norms
                last_conv = found.last
            elif (taken := depthwise_block([first, *self.layers])) is not None:
                values, modules, norms = taken.values, taken.modules, taken.norms
                last_conv = taken.runs[-1].modules[-1]
                del self.layers[: taken.count - 1]
            else:
                values, modules = self.convolution(first)
                last_conv = modules[-1]
            following = self.following(first) if following is None else following
            if first.kind == "sum" or not KINDS[values["kind"]].repeatable:
                if "norm" in following:
                    raise refuse(
                        following["norm"].name,
                        "nas has batch norm before an addition; the nearest is behind "
                        "the last convolution",
                    )
                values |= finish_of_sum(first, following, values, MONOTONE)
                self.note_dropout(following, first)
            else:
                values["order"] = self.order(following, first)
                values["activation"] = (
                    following["activation"].value
                    if "activation" in following
                    else "none"
                )
                values["norm"] = "batch" if "norm" in following else "none"
            for norm in [*norms, *([following["norm"]] if "norm" in following else [])]:
                self.check_norm(norm)
            if "dropout" in following:
                values["dropout"] = following["dropout"].value
            if "pool" in following:
                values |= pooling_values(following["pool"].value)
            last = list(following.values())[-1] if following else first
            self.shape = last.out_shape
            block = Block(**values)
            self.blocks.append((_bias(block, last_conv), first, modules))
        if self.layers and self.layers[0].kind == "gates":
            raise refuse(self.layers[0].name, GATES_PLACE)
        if self.layers and self.layers[0].kind == "pad":
            raise refuse(self.layers[0].name, PAD_PLACE)

    def without_dropouts(self, added: Layer) -> Layer:
        """Return an addition without the dropouts on its two ways."""
        body, shortcut = [
            tuple(layer for layer in way if layer.kind != "dropout")
            for way in (added.body, added.shortcut)
        ]
        for layer in (*added.body, *added.shortcut):
            if layer.kind == "dropout":
                self.leave_out(layer)
        return replace(added, body=body, shortcut=shortcut)

    def following(self, first: Layer) -> dict[str, Layer]:
        """Take what follows a block's convolutions off the front, by its kind."""
        following: dict[str, Layer] = {}
        while self.layers and self.layers[0].kind in ORDERS["early_pool"]:
            layer = self.layers[0]
            if layer.kind == "dropout" and self.classifies(1):
                break
            if _again(layer, following):
                self.layers.pop(0)
                continue
            if (both := _as_one_pooling(layer, following)) is not None:
                following["pool"] = both
                self.layers.pop(0)
                continue
            if layer.kind in following:
                if layer.kind == "dropout" and self.flattens_next():
                    break
                if [*following][-1] == layer.kind == "dropout":
                    following["dropout"], note = as_one_dropout(
                        following["dropout"], self.layers.pop(0)
                    )
                    self.notes.append(note)
                    continue
                raise refuse(
                    layer.name,
                    f"there is a second {layer.kind} behind {first.name}; the "
                    "nearest is one of them, or a convolution between them",
                )
            following[layer.kind] = self.layers.pop(0)
        return following

    def note_dropout(self, following: dict[str, Layer], first: Layer) -> None:
        """Note where a dropout behind an addition stands elsewhere in nas."""
        kinds = list(following)
        if "dropout" in kinds and kinds != [
            kind for kind in ("activation", "dropout", "pool") if kind in kinds
        ]:
            self.notes.append(MOVED.format(first.name))

    def convolved(
        self, layers: list[Layer]
    ) -> tuple[dict[str, Any], tuple[nn.Module, ...]]:
        """Take one block's convolutions off the front of the layers of a branch."""
        outside, self.layers = self.layers, layers
        try:
            return self.convolution(layers.pop(0))
        finally:
            self.layers = outside

    def classifies(self, place: int) -> bool:
        """Tell whether there the last layer is, a convolution to the logits."""
        kinds = [layer.kind for layer in self.layers[place:] if layer.kind != "flatten"]
        if kinds != ["convolution", "gap"] or len(self.layers[place].modules) != 1:
            return False
        conv = self.layers[place].modules[0]
        assert isinstance(conv, nn.Conv2d)
        return (
            conv.bias is not None
            and conv.groups == 1
            and conv.stride == (1, 1)
            and conv.kernel_size[0] == conv.kernel_size[1]
            and conv.dilation == (1, 1)
            and (
                conv.padding in {(0, 0), "valid"}
                or (conv.padding, conv.kernel_size) == ("same", (1, 1))
            )
            and not any(self.layers[place].padding)
        )

    def flattens_next(self) -> bool:
        return len(self.layers) > 1 and self.layers[1].kind == "flatten"

    def convolution(self, layer: Layer) -> tuple[dict[str, Any], tuple[nn.Module, ...]]:
        """Return kind, sizes and padding of a block, and its convolutions."""
        convs = [m for m in layer.modules if isinstance(m, nn.Conv2d)]
        for conv in convs:
            check_plain(conv, layer)
        first = convs[0]
        values: dict[str, Any] = {
            "out_channels": sum(conv.out_channels for conv in convs),
            **kernel_of(max(convs, key=lambda conv: conv.kernel_size)),
            "stride": stride_of(first, layer),
            "padding": padding_of(first, layer),
        }
        if len(convs) > 1:
            if any(apart > 1 for conv in convs for apart in dilations(conv)):
                raise refuse(
                    layer.name,
                    "nas has no dilation where convolutions stand side by side; the "
                    "nearest is dilation=1",
                )
            values |= {"kind": "inception", "padding": "same"}
            (part,) = parts_of(Block(**values), first.in_channels)
            expected = [(c.kernel, c.out_channels) for c in part.convolutions]
            if [(c.kernel_size, c.out_channels) for c in convs] != expected:
                words = ", ".join(f"{n} of {h}x{w}" for (h, w), n in expected)
                raise refuse(layer.name, f"nas shares the channels out as {words}")
            if any(conv.groups > 1 for conv in convs):
                raise refuse(
                    layer.name,
                    "nas has no groups where convolutions stand side by side; the "
                    "nearest is groups=1",
                )
            alike = {(c.stride, c.bias is None) for c in convs}
            if len(alike) > 1 or any(padding_of(c, layer) != "same" for c in convs):
                raise refuse(
                    layer.name,
                    "convolutions side by side have in nas one stride, all a bias or "
                    "none, and padding that keeps the size; the nearest is that",
                )
            return values, layer.modules
        second = self.pointwise_behind(first)
        if second is None:
            groups = {"groups": first.groups} if first.groups > 1 else {}
            return values | {"kind": "conv"} | groups, layer.modules
        after = self.layers[0]
        check_plain(second, after)
        padding_of(second, after)
        self.layers.pop(0)
        sizes = {"kind": "separable", "out_channels": second.out_channels}
        return values | sizes, (first, second)

    def pointwise_behind(self, conv: nn.Conv2d) -> nn.Conv2d | None:
        """Return the 1x1 convolution that makes this depthwise one a separable block.

        Of one channel they are, too, where what is behind is not the classifier.
        """
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        after = self.layers[0] if self.layers else None
        if not depthwise or conv.bias is not None or after is None:
            return None
        if conv.groups == 1 and self.classifies(0):
            return None
        second = after.modules[0] if len(after.modules) == 1 else None
        if (
            isinstance(second, nn.Conv2d)
            and second is not conv
            and second.kernel_size == second.stride == (1, 1)
            and second.groups == 1
        ):
            return second
        return None

    def order(self, following: dict[str, Layer], first: Layer) -> str:
        """Return the block's order; notes where a dropout changes its place."""
        kinds = list(following)
        pool, activation = following.get("pool"), following.get("activation")
        tries = [kinds]
        if (
            pool is not None
            and pool.value.kind == "max"
            and activation is not None
            and activation.value in MONOTONE
            and abs(kinds.index("pool") - kinds.index("activation")) == 1
        ):
            # They may change places.
            swap = {"pool": "activation", "activation": "pool"}
            swapped = [swap.get(kind, kind) for kind in kinds]
            cheaper = kinds == ["activation", "pool", "dropout"]
            tries = [swapped, kinds] if cheaper else [kinds, swapped]
        for wanted in tries:
            for name, order in ORDERS.items():
                if [kind for kind in order if kind in following] == wanted:
                    return name
        quiet = [kind for kind in kinds if kind != "dropout"]
        for name in ("late_pool", "early_pool", "activation_first", "norm_last"):
            if [k for k in ORDERS[name] if k in quiet] == quiet:
                self.notes.append(MOVED.format(first.name))
                return name
        there = [
            ", ".join(kind for kind in order if kind in following)
            for order in ORDERS.values()
        ]
        raise refuse(
            first.name,
            f"behind it stand {', '.join(kinds)}; the nearest are "
            + ", or ".join(dict.fromkeys(there)),
        )

    def check_norm(self, layer: Layer) -> None:
        (norm,) = layer.modules
        if id(norm) in self.norms:
            raise refuse(
                layer.name,
                "it is used twice; nas gives each its own batch norm; the nearest is one "
                "for each use",
            )
        self.norms.add(id(norm))
        assert isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d)
        if not norm.affine or not norm.track_running_stats:
            raise refuse(
                layer.name,
                "nas has affine batch norm with running statistics; the nearest is "
                "nn.BatchNorm2d with its defaults",
            )
        if norm.eps != 1e-5 or norm.momentum != 0.1:
            self.notes.append(
                "batch norm gets torch's usual eps 1e-5 and momentum 0.1 instead of "
                f"{norm.eps:g} and {norm.momentum}"
            )

    def take_head(self) -> Head:
        layers = self.layers
        drops = bool(layers) and layers[0].kind == "dropout"
        kinds = [layer.kind for layer in layers]
        before = kinds[:1] != ["gap"] and not (drops and self.classifies(1))
        if not self.blocks and before and "convolution" in kinds[1:]:
            why = _BEFORE_BLOCKS.get(kinds[0], "the nearest is without it")
            raise refuse(layers[0].name, f"it stands before all layers; {why}")
        if self.classifies(int(drops)):
            conv = layers[int(drops)].modules[0]
            assert isinstance(conv, nn.Conv2d)
            return Head(
                kind="conv",
                kernel_size=conv.kernel_size[0],
                dropout=layers[0].value if drops else 0.0,
            )
        gap = bool(layers) and layers[0].kind == "gap"
        if gap:
            layers.pop(0)
        rest = [
            as_linear(layer) if gap else layer
            for layer in layers
            if layer.kind != "flatten"
        ]
        kinds = [layer.kind for layer in rest]
        early: Layer | None = None
        if kinds[:3] == ["dropout", "linear", "activation"]:
            early = rest.pop(0)
            kinds.pop(0)
        if not rest:
            if gap or tuple(self.shape[1:]) == (1, 1):
                return Head(kind="pool")
            raise ArchitectureError(
                "the module ends without classifier: pool the feature map to one pixel, "
                "or put a linear layer behind it"
            )
        widths, names = list[int](), list[str]()
        behind = rest.pop(0) if kinds[0] == "dropout" else None
        while (kinds := [layer.kind for layer in rest]).count("linear") > 1:
            if kinds[0] != "linear":
                break
            if behind:
                self.leave_out(behind)
            widths.append(self.linear(rest.pop(0)))
            activated = kinds[1] == "activation"
            names.append(rest[0].value if activated else "none")
            if names[-1] != names[0]:
                raise refuse(
                    rest[0].name,
                    "nas has one activation behind all hidden linear layers; the nearest "
                    "is that behind the first",
                )
            rest = rest[activated:]
            behind = rest.pop(0) if rest[0].kind == "dropout" else None
        dropout = behind.value if behind else 0.0
        if not rest or rest[0].kind != "linear":
            where = rest[0].name if rest else layers[-1].name
            raise refuse(where, _HEAD)
        self.linear(rest[0])
        if len(rest) > 1:
            raise refuse(rest[1].name, _HEAD)
        if early:
            dropout = self.move_dropout(early, dropout, gap=gap)
        return Head(
            kind="gap" if gap else "flatten",
            hidden=widths[0] if len(widths) == 1 else tuple(widths) or 0,
            activation=names[0] if names else "relu",  # type: ignore[arg-type]
            dropout=dropout,
        )

    def linear(self, layer: Layer) -> int:
        """Return how many values it gives."""
        (linear,) = layer.modules
        assert isinstance(linear, nn.Linear | nn.Conv2d)
        if linear.bias is None:
            raise refuse(
                layer.name, "a linear layer has a bias in nas; the nearest is bias=True"
            )
        return int(linear.weight.shape[0])

    def move_dropout(self, early: Layer, behind: float, *, gap: bool) -> float:
        """Put a dropout before the hidden layer elsewhere; return that behind the layer.

        The last block may have it, or else the hidden layer itself.
        """
        if gap or not self.blocks or self.blocks[-1][0].dropout:
            if behind:
                self.leave_out(early)
                return behind
            self.notes.append(
                f"{early.name} stands behind the first linear layer, which matters in "
                "training alone"
            )
            return float(early.value)
        block, layer, modules = self.blocks[-1]
        self.blocks[-1] = (replace(block, dropout=early.value), layer, modules)
        if block.order != "early_pool" and block.pool != "none":
            self.notes.append(
                "the dropout before the first linear layer stands before the last "
                "block's pooling, which matters in training alone"
            )
        return behind

    def leave_out(self, dropout: Layer) -> None:
        self.notes.append(LEFT_OUT.format(dropout.name))


def _again(layer: Layer, following: dict[str, Layer]) -> bool:
    """Return whether the layer is a ReLU of values that a ReLU has already taken."""
    kinds = list(following)
    if layer.kind != "activation" or "activation" not in kinds:
        return False
    same = layer.value == following["activation"].value
    normed = "norm" in kinds[kinds.index("activation") :]
    return same and not normed and layer.value in {"relu", "relu6"}


def _as_one_pooling(layer: Layer, following: dict[str, Layer]) -> Layer | None:
    """Return a pooling right behind another one as the one that both are, if they are."""
    if layer.kind != "pool" or list(following)[-1:] != ["pool"]:
        return None
    first, second = following["pool"].value, layer.value
    if first.kind != second.kind or not (first.plain and second.plain):
        return None
    (high, wide), (down, right) = first.window, second.window
    window = high * down, wide * right
    return replace(layer, value=Pooling(first.kind, window, window))


def _resizes(layer: Layer, input_shape: Shape) -> bool:
    """Return whether the layer averages the images; so do means of windows that fill them."""
    if layer.kind != "pool" or layer.value.kind != "avg" or not layer.value.plain:
        return layer.kind == "resize"
    sides = zip(input_shape[1:], layer.value.window, strict=True)
    return all(side % window == 0 for side, window in sides)


def _merged(parts: list[tuple[Block, Layer, tuple[nn.Module, ...]]]) -> list[Block]:
    """Return the blocks, those with the same convolutions as one that is repeated."""
    blocks: list[Block] = []
    seen: set[int] = set()
    before: tuple[nn.Module, ...] = ()
    for block, layer, modules in parts:
        if modules == before:
            one = blocks[-1]
            ours = replace(one, repeats=1, order=block.order)
            unpooled = replace(block, pool="none", **POOLING)  # type: ignore[arg-type]
            # Without pooling some orders are the same.
            if ours != unpooled or finish_of(one) != finish_of(unpooled):
                raise refuse(
                    layer.name,
                    "what follows it differs from one use to the next; the nearest is the "
                    "same behind each, and a pooling behind the last alone",
                )
            blocks[-1] = replace(block, repeats=one.repeats + 1)
            continue
        if any(id(module) in seen for module in modules):
            raise refuse(
                layer.name,
                "it is used again with other layers in between; the nearest is a "
                "convolution of its own for each use",
            )
        seen |= {id(module) for module in modules}
        blocks.append(block)
        before = modules
    return blocks


_HEAD = (
    "behind the feature map nas has linear layers, with an activation between them, and "
    "the last gives the logits; the nearest is that"
)
_BEFORE_BLOCKS = {
    "norm": "nas itself normalises the images, so the nearest is without it",
    "pool": "nas pools behind a convolution; the nearest is one with stride, or smaller "
    "images (--image-size)",
}


def _bias(block: Block, conv: nn.Module) -> Block:
    """Return the block with the convolution's bias, "auto" where that says it."""
    has = getattr(conv, "bias", None) is not None
    return (
        block if block.has_bias == has else replace(block, bias="yes" if has else "no")
    )
