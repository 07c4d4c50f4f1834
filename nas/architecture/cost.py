"""What a network costs, by exact arithmetic on its description; nothing is built.

Five costs, the first three of which any device has:

parameters
    Trainable ones: batch norm's scale and shift count, its running statistics don't.
multiply-accumulates (MACs)
    Of convolutions and linear layers. Batch norm folds into the convolution before
    it, and pooling, activations and biases are not counted, as is the custom.
peak memory
    Bytes of int8 activations, the largest sum of one layer's input and output and of
    what a shortcut keeps meanwhile. A layer is a convolution, a pooling or a linear
    layer; batch norm, activation, dropout and a shortcut's addition work in place.
    Weights are not in it.
flash
    Bytes of the C code that `nas export --to c` writes, constants and instructions,
    for a Cortex-M (arm-none-eabi-gcc 12, -O2): the constants to the byte or a few more,
    the instructions as measured, rounded up.
latency
    Nanoseconds on a board: multiply-accumulates by that board's rates; an estimate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from nas.architecture import Architecture, Block, Head, Shape, feature_shapes
from nas.architecture.activations import ACTIVATIONS, SIGMOIDAL
from nas.architecture.boards import Board, Operation
from nas.architecture.kinds import finish_of, parts_of, pools_apart, shortcut_of
from nas.architecture.parts import Convolution, Part, Pooling, SqueezeExcitation


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a network and its costs; shapes are (channels, height, width)."""

    name: str
    description: str
    input_shape: Shape
    output_shape: Shape
    num_params: int
    macs: int
    operation: Operation = "pool"
    flash: int = 0
    """Bytes of its constants in the C code."""
    kept: int = 0
    """Bytes that wait meanwhile for a shortcut's addition."""
    convolution: Convolution | None = None
    """What it convolves with, of several side by side the one with the largest kernel."""

    @property
    def memory(self) -> int:
        """Bytes of its input and output, and of what is kept, as int8."""
        return prod(self.input_shape) + prod(self.output_shape) + self.kept


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters, multiply-accumulates of one image, bytes of int8 activations.

    ``flash`` is in bytes, ``latency`` in nanoseconds, 0 where no board was given.
    """

    num_params: int
    macs: int
    peak_memory: int
    flash: int = 0
    latency: int = 0

    def then(self, other: Cost) -> Cost:
        """Return the cost of running this part of a network, then the other."""
        return Cost(
            self.num_params + other.num_params,
            self.macs + other.macs,
            max(self.peak_memory, other.peak_memory),
            self.flash + other.flash,
            self.latency + other.latency,
        )


STACK = 512
"""Bytes of stack that the C code needs at most, on a Cortex-M."""


def cost(architecture: Architecture, board: Board | None = None) -> Cost:
    """Return all costs of the network."""
    blocks = architecture.blocks
    gated = any(block.gated for block in blocks)
    activations: set[str] = {block.activation for block in blocks}
    for block in blocks:
        activations |= {block.gate_activation, block.gate} if block.gated else set()
    activations |= {architecture.head.activation} if architecture.head.widths else set()
    code = code_size(
        activations,
        gating=gated,
        resizing=architecture.resolution > 0,
        shaped=any(is_shaped(block.zeros, block.dilation) for block in blocks),
        grouping=any(block.groups > 1 for block in blocks),
        depthwise=architecture.head.kind in {"gap", "pool"}
        or any(needs_depthwise(block) for block in blocks),
        adding=any(block.shortcut != "none" for block in blocks),
        widening=any(block.shortcut == "pad" for block in blocks),
        overlapping=any(b.pooling is not None and not b.pooling.plain for b in blocks),
    )
    gated = gated and not activations <= _SATURATING
    shapes = feature_shapes(architecture)
    resizing = resize_layers(architecture.input_shape, shapes[0])
    found = Cost(0, 0, 0, code).then(total(resizing, board, gated=gated))
    for block, shape in zip(blocks, shapes, strict=False):
        found = found.then(_block_cost(block, shape, board, gated=gated))
    table = head_layers(architecture.head, shapes[-1], architecture.num_classes)
    return found.then(total(list(table), board, gated=gated))


# Architectures that are like each other have most blocks in common.
@lru_cache(maxsize=1024)
def _block_cost(
    block: Block, shape: Shape, board: Board | None, *, gated: bool
) -> Cost:
    return total(block_layers(block, shape), board, gated=gated)


def is_shaped(padding: tuple[int, int], dilation: int) -> bool:
    """Return whether the C code needs its fields for uneven padding and for dilation."""
    return len(set(padding)) > 1 or dilation > 1


def needs_depthwise(block: Block) -> bool:
    """Return whether the C code of the block convolves channels by themselves.

    So does a pooling that is apart from a convolution, as it is behind an addition.
    """
    return pools_apart(block) or any(part.depthwise for part in parts_of(block, 1))


def code_size(
    activations: Collection[str],
    *,
    depthwise: bool,
    adding: bool,
    gating: bool,
    shaped: bool,
    grouping: bool,
    resizing: bool,
    widening: bool,
    overlapping: bool,
) -> int:
    """Return the bytes of the C code's instructions, besides the calls.

    ``activations`` include what makes gates: a hard sigmoid needs no instructions.

    Measured on nets of one to ten layers for Cortex-M3 and M4; see tests/test_device.py.
    """
    sigmoid = 0 if SIGMOIDAL.isdisjoint(activations) else 580
    # Dilation and groups go through the kernel's columns in the same way.
    columns = 0 if shaped else 460
    return (
        1735
        + (650 if depthwise else 0)
        + (170 if adding else 0)
        + (65 if gating else 0)
        + sigmoid
        + (530 if shaped else 0)
        + (120 + columns if grouping else 0)
        + (320 if resizing else 0)
        + (100 if widening else 0)
        + (200 if overlapping else 0)
        + sum(f.flash for name, f in ACTIVATIONS.items() if name in activations)
    )


def count_params(architecture: Architecture) -> int:
    """Return the number of trainable parameters."""
    return cost(architecture).num_params


def layers(architecture: Architecture) -> list[Layer]:
    """Return the network's layers in order, with the costs of each."""
    shapes = feature_shapes(architecture)
    table = resize_layers(architecture.input_shape, shapes[0])
    for number, (block, shape) in enumerate(
        zip(architecture.blocks, shapes, strict=False), start=1
    ):
        table += block_layers(block, shape, f"block {number}")
    return table + list(
        head_layers(architecture.head, shapes[-1], architecture.num_classes)
    )


def resize_layers(images: Shape, shape: Shape) -> list[Layer]:
    """Return what averages the images to that shape, if they have another."""
    if images == shape:
        return []
    sides = "x".join(map(str, shape[1:]))
    return [Layer("input", f"area average to {sides}", images, shape, 0, 0)]


def total(
    table: list[Layer], board: Board | None = None, *, gated: bool = False
) -> Cost:
    """Return the cost of running these layers one after the other.

    In the C code of a net that is ``gated`` somewhere, and has activations that do more
    than cut off, each layer's table is larger.
    """
    extra = 14 * len(table) if gated else 0
    return Cost(
        sum(layer.num_params for layer in table),
        sum(layer.macs for layer in table),
        max((layer.memory for layer in table), default=0),
        sum(layer.flash for layer in table) + extra,
        sum(board.nanoseconds(layer.operation, layer.macs) for layer in table)
        if board
        else 0,
    )


def block_layers(block: Block, shape: Shape, name: str = "block") -> list[Layer]:
    """Return the layers of one block on an input of that shape.

    A block with ``repeats`` has its convolutions so many times; their weights are
    counted at the first.
    """
    table: list[Layer] = []
    for application in range(block.repeats):
        table += _convolutions(block, shape, name, shared=application > 0)
        shape = table[-1].output_shape
    if block.pooling is not None:
        channels, *sides = shape
        pooled = (channels, *block.pooling.sides(*sides))
        flash = 0
        if pools_apart(block):
            # The sign of batch norm's scale stays behind a pooling before it.
            early = finish_of(block)[:2] == ("pool", "norm")
            flash = _constants(channels, channels if early else 1)
        words = _pooling_in_words(block.pooling)
        table.append(Layer(name, words, shape, pooled, 0, 0, flash=flash))
    return table


def _pooling_in_words(pooling: Pooling) -> str:
    """Return a pooling in words, such as ``max pool 3x3 stride 2 padding 1``."""
    words = [pooling.kind, "pool", "x".join(map(str, pooling.window))]
    if pooling.strides != pooling.window:
        words += ["stride", "x".join(map(str, dict.fromkeys(pooling.strides)))]
    if pooling.padding != (0, 0):
        words += ["padding", "x".join(map(str, dict.fromkeys(pooling.padding)))]
    return " ".join(words)


def _convolutions(
    block: Block, shape: Shape, name: str, *, shared: bool
) -> Iterator[Layer]:
    """Yield the layers of one application of the block, up to its pooling.

    A shortcut's convolution comes just before the last layer, which adds to what it
    gave, or to the block's input, in place.
    """
    *inner, last = parts_of(block, shape[0])
    start = shape
    for number, part in enumerate(inner):
        waiting = prod(start) if number and block.shortcut != "none" else 0
        yield (
            layer := _part_layer(block, part, shape, name, shared=shared, kept=waiting)
        )
        shape = layer.output_shape
        if part.gates is not None:
            # The block's input waits from its first part on.
            kept = prod(start) if block.shortcut != "none" else 0
            yield from _gate_layers(part.gates, shape, name, kept)
    shortcut = shortcut_of(block, start[0])
    kept = prod(shape) if inner else 0
    if shortcut is not None:
        yield _part_layer(block, shortcut, start, name, title="shortcut", kept=kept)
    elif block.shortcut == "pad":
        strided = f" stride {block.stride}" if block.stride > 1 else ""
        padded = (block.out_channels, *last.sides(*shape[1:]))
        yield Layer(
            name, f"shortcut pad{strided}", start, padded, 0, 0, flash=44, kept=kept
        )
    yield _part_layer(block, last, shape, name, shared=shared, last=True)


def _part_layer(
    block: Block,
    part: Part,
    shape: Shape,
    name: str,
    *,
    title: str = "",
    shared: bool = False,
    last: bool = False,
    kept: int = 0,
) -> Layer:
    """Return the layer that a part is on an input of that shape."""
    sides = part.sides(*shape[1:])
    biases = sum(one.out_channels for one in part.convolutions if one.bias)
    norms = (
        2 * part.out_channels if part.norm or (last and block.norm == "batch") else 0
    )
    activation = part.activation
    if last and "activation" in finish_of(block):
        activation = block.activation
    fixed_point = _second_numbers(block, part, activation)
    return Layer(
        name,
        _described(block, part, title, shared=shared, last=last),
        shape,
        (part.out_channels, *sides),
        norms + (0 if shared else part.weights + biases),
        part.weights * prod(sides),
        "depthwise" if part.depthwise else "conv",
        _constants(
            0 if shared else part.weights,
            part.out_channels,
            branches=len(part.convolutions),
            fixed_point=fixed_point,
            adds=last and block.shortcut != "none",
        ),
        kept,
        part.convolutions[-1],  # the largest kernel
    )


def _gate_layers(
    gates: SqueezeExcitation, shape: Shape, name: str, kept: int
) -> Iterator[Layer]:
    """Yield what makes the gates of a feature map of that shape, which waits meanwhile.

    The last layer multiplies them with it, in place.
    """
    channels, hidden = gates.channels, gates.hidden
    means, inside = (channels, 1, 1), (hidden, 1, 1)
    weights = channels * hidden
    bias = ", bias" if gates.bias else ""
    fixed_point = int(gates.activation not in _SATURATING)
    words = gates.gate.replace("_", " ")
    yield Layer(
        name, "squeeze: global average pool", shape, means, 0, 0,
        flash=_constants(channels, 1), kept=kept,
    )  # fmt: skip
    yield Layer(
        name, f"squeeze: conv 1x1{bias}, {gates.activation}", means, inside,
        weights + gates.bias * hidden, weights,
        "conv", _constants(weights, hidden, fixed_point=fixed_point), prod(shape) + kept,
        Convolution("squeeze", channels, hidden, 1),
    )  # fmt: skip
    yield Layer(
        name, f"excite: conv 1x1{bias}, {words}, times features", inside, shape,
        weights + gates.bias * channels, weights, "conv",
        # Another table, with one bias and multiplier, for the product.
        _constants(weights, channels, fixed_point=int(gates.gate not in _SATURATING))
        + _constants(0, 1), channels + kept,
        Convolution("excite", hidden, channels, 1),
    )  # fmt: skip


def _described(
    block: Block, part: Part, title: str, *, shared: bool, last: bool
) -> str:
    """Return a part in words, such as ``conv 3x3 stride 2, batch norm, relu``."""
    first = part.convolutions[0]
    sizes = "|".join("x".join(map(str, one.kernel)) for one in part.convolutions)
    usual = "inception" if len(part.convolutions) > 1 else "conv"
    words = [title, "depthwise" if part.depthwise else usual, sizes]
    if first.stride > 1:
        words.append(f"stride {first.stride}")
    if first.dilation > 1:
        words.append(f"dilation {first.dilation}")
    if first.groups > 1:
        words.append(f"groups {first.groups}")
    extent = [first.dilation * (side - 1) + 1 for side in first.kernel]
    if [2 * zeros + 1 for zeros in first.padding] != extent:
        padded = "x".join(map(str, first.padding))
        words.append(f"padding {padded}" if any(first.padding) else "valid")
    if shared:
        words.append("shared")
    after = [
        "bias" if first.bias and (part.norm or last) and block.norm == "batch" else "",
        "batch norm" if part.norm else "",
        part.activation if part.activation != "none" else "",
    ]
    if last:
        after[1:] = [
            {"norm": "batch norm", "activation": block.activation}[step]
            for step in finish_of(block)
            if step in {"norm", "activation"}
        ]
        if block.shortcut != "none":
            place = 1 + (block.norm == "batch")
            after.insert(
                place, "+ input" if block.shortcut == "identity" else "+ shortcut"
            )
    return ", ".join([" ".join(word for word in words if word), *filter(None, after)])


def head_layers(head: Head, shape: Shape, num_classes: int) -> Iterator[Layer]:
    """Yield the layers of a head on a feature map of that shape."""
    channels, height, width = shape
    logits = (num_classes, 1, 1)
    if head.kind == "conv":
        sides = (height - head.kernel_size + 1, width - head.kernel_size + 1)
        output = (num_classes, *sides)
        weights = channels * num_classes * head.kernel_size**2
        yield Layer(
            "head",
            f"conv {head.kernel_size}x{head.kernel_size}",
            shape,
            output,
            weights + num_classes,
            weights * prod(sides),
            "conv",
            _constants(weights, num_classes),
            convolution=Convolution("conv", channels, num_classes, head.kernel_size),
        )
        if prod(sides) > 1:
            yield Layer("head", "global average pool", output, logits, 0, 0)
        return
    if head.kind in {"gap", "pool"}:
        flat = (channels, 1, 1)
        if height * width > 1:
            yield Layer(
                "head",
                "global average pool",
                shape,
                flat,
                0,
                0,
                # A weight of one each channel, one bias and one multiplier for all.
                flash=_constants(channels, 1),
            )
        if head.kind == "pool":
            return
    else:
        flat = (prod(shape), 1, 1)
    for width in head.widths:
        hidden = (width, 1, 1)
        yield _linear(flat, hidden, head.activation)
        flat = hidden
    yield _linear(flat, logits, "none")


def _linear(source: Shape, target: Shape, activation: str) -> Layer:
    weights = source[0] * target[0]
    return Layer(
        "head",
        "linear" if activation == "none" else f"linear, {activation}",
        source,
        target,
        weights + target[0],
        weights,
        "linear",
        _constants(weights, target[0], fixed_point=int(activation not in _SATURATING)),
    )


def _constants(
    weights: int,
    channels: int,
    *,
    branches: int = 1,
    fixed_point: int = 0,
    adds: bool = False,
) -> int:
    """Return the bytes of a convolution's constants and calls in the C code.

    A weight is one byte, bias and multiplier are four each; a table of sizes, its zero
    point and the call, for each branch, are 92. An activation in fixed point brings
    ``fixed_point`` numbers of twelve bytes.
    """
    return weights + 8 * channels + (92 + 16 * adds) * branches + 12 * fixed_point


_SATURATING = {"none", "hard_sigmoid"}
_SATURATING |= {n for n, f in ACTIVATIONS.items() if f.saturates}


def _second_numbers(block: Block, part: Part, activation: str) -> int:
    """Return how many numbers an activation that is no mere saturation needs."""
    if block.order in {"activation_first", "norm_last"} and block.norm == "batch":
        return 0 if activation == "none" else part.out_channels
    if activation in _SATURATING:
        return 0
    return len(part.convolutions)
