"""The frozen description of one network: data only, no framework.

A network is a chain of blocks and a head. A block is the convolutions of its kind
(kinds/) and what follows them, in its ``order``::

    early_pool        convolution -> pooling -> batch norm -> activation -> dropout
    late_pool         convolution -> batch norm -> activation -> dropout -> pooling
    activation_first  convolution -> activation -> batch norm -> dropout -> pooling
    norm_last         convolution -> activation -> pooling -> batch norm -> dropout

The first is the default, because what follows the pooling then works on a quarter of
the values; with max pooling and a monotone activation its function is that of the second
wherever batch norm's scale is positive. The others are what hand-made networks use. A
block with a shortcut has no order: it adds after batch norm, and pools last.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from nas.architecture.activations import ACTIVATIONS
from nas.architecture.block import (
    POOLING,
    Activation,
    Bias,
    Block,
    Gate,
    Norm,
    Order,
    Padding,
    Pool,
    Shortcut,
)
from nas.architecture.kinds import KINDS, parts_of, refusal, shortcut_of
from nas.errors import ArchitectureError

HeadKind = Literal["gap", "conv", "flatten", "pool"]

Shape = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What turns the last feature map into one logit a class.

    ``gap``
        Global average pooling, then a linear layer.
    ``conv``
        A valid convolution to the classes, then global average pooling of what is
        left; with ``kernel_size`` 1 the classic "1x1 conv + global average pooling".
    ``flatten``
        Every value into a linear layer.
    ``pool``
        Global average pooling alone: the channels of the last block are the classes.

    ``hidden`` is the width of one more linear layer before the last one, or the widths
    of several, 0 for none; the ``activation`` follows each of them. ``conv`` and ``pool``
    have none, and ``pool`` has no dropout.
    """

    kind: HeadKind = "gap"
    kernel_size: int = 1
    hidden: int | tuple[int, ...] = 0
    dropout: float = 0.0
    activation: Activation = "relu"

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the linear layers before the last one."""
        if isinstance(self.hidden, tuple):
            return self.hidden
        return (self.hidden,) if self.hidden else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A whole network: ``input_shape`` (channels, height, width), blocks and a head.

    ``resolution`` is how many pixels the shorter side of the images has for the first
    block, 0 for as many as there are: smaller ones are averaged over areas, in proportion.

    Raises ArchitectureError when it cannot be built: a value that no block knows, or
    a feature map that shrinks to nothing.
    """

    input_shape: Shape
    num_classes: int
    blocks: tuple[Block, ...]
    head: Head
    resolution: int = 0

    def __post_init__(self) -> None:
        for number, block in enumerate(self.blocks, start=1):
            _check_values(block, f"block {number}")
        _check_values(self.head, "head")
        if len(self.input_shape) != 3 or not all(
            _whole(s, 1) for s in self.input_shape
        ):
            raise ArchitectureError(
                f"input_shape is {self.input_shape}: give channels, height and width, "
                "each a whole number of at least 1"
            )
        shorter = min(self.input_shape[1:])
        if not _whole(self.resolution, 0) or self.resolution >= shorter:
            raise ArchitectureError(
                f"resolution is {self.resolution!r} and the shorter side of the images "
                f"has {shorter} pixels: give fewer, or 0 for the images as they are"
            )
        if not _whole(self.num_classes, 2):
            raise ArchitectureError(
                f"num_classes is {self.num_classes!r}, give a whole number of at least 2"
            )
        feature_shapes(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers that from_dict takes back."""
        data = asdict(self)
        if not self.resolution:
            del data["resolution"]
        if self.head.activation == "relu":
            del data["head"]["activation"]
        data["blocks"] = [
            {
                key: value
                for key, value in block.items()
                if key not in _LEFT_OUT or value != _LEFT_OUT[key]
            }
            for block in data["blocks"]
        ]
        return data

    def to_json(self) -> str:
        """Return one line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Any) -> Architecture:
        """Build from to_dict's result; raise ArchitectureError on anything else."""
        try:
            return cls(
                **data
                | {
                    "input_shape": tuple(data["input_shape"]),
                    "blocks": tuple(Block(**_hashable(b)) for b in data["blocks"]),
                    "head": Head(**_hashable(data["head"])),
                }
            )
        except (KeyError, TypeError) as error:
            raise ArchitectureError(
                f"not an architecture: {error}; the keys are "
                f"{', '.join(f.name for f in fields(cls))}"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Build from to_json's result; raise ArchitectureError on anything else."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArchitectureError(
                f"not an architecture: no JSON ({error})"
            ) from error
        return cls.from_dict(data)

    @property
    def key(self) -> str:
        """Sixteen hex digits, equal for two spellings of the same network.

        These are: the padding of a 1x1 convolution, "same" or "valid" in numbers, the
        stride of one that has a single place to stand, a 1x1 ``conv`` head (a ``gap``
        head), a ``conv`` head that covers its whole input (a ``flatten`` head), a
        ``flatten`` head on a single pixel (a ``gap`` head), a ``pool`` head after a bare
        convolution (a ``conv`` head), a bias written out that goes without saying, an
        order that makes no difference, how much narrower a hidden layer or the middle of
        a bottleneck of one width is, a shortcut's own word for what others do, what of a
        pooling makes no difference, and what a head does not use.
        """
        canonical = _canonical(self).to_json()
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def conv_size(size: int, extent: int, stride: int, zeros: int) -> int:
    """Return the height (or width) after a convolution; below 1 means it does not fit.

    ``extent`` is how many rows (or columns) its kernel covers, ``zeros`` how many of
    zeros are on either side.
    """
    return (size + 2 * zeros - extent) // stride + 1


def resized(shape: Shape, resolution: int) -> Shape:
    """Return the shape of images whose shorter side has so many pixels; 0: as it is."""
    channels, height, width = shape
    if not resolution:
        return shape
    shorter = min(height, width)
    height, width = (
        (2 * side * resolution + shorter) // (2 * shorter) for side in (height, width)
    )
    return channels, height, width


def sides_after(block: Block, sides: tuple[int, int]) -> tuple[int, int]:
    """Return height and width after the block; below 1 where it has no room."""
    height, width = (
        conv_size(side, extent, block.stride, zeros)
        for side, extent, zeros in zip(sides, block.extent, block.zeros, strict=True)
    )
    # Padding must not make something of a map that has no pixel.
    if block.pooling is None or min(height, width) < 1:
        return height, width
    return block.pooling.sides(height, width)


def feature_shapes(architecture: Architecture) -> list[Shape]:
    """Return the shape after each block, the first entry being the first one's input.

    Raises ArchitectureError where a feature map shrinks to nothing.
    """
    shapes = [resized(architecture.input_shape, architecture.resolution)]
    for number, block in enumerate(architecture.blocks, start=1):
        channels, height, width = shapes[-1]
        if channels % block.groups:
            raise ArchitectureError(
                f"block {number} takes {channels} channels, which groups {block.groups} "
                "does not divide: make them a multiple, or take fewer groups"
            )
        if block.repeats > 1 and channels != block.out_channels:
            raise ArchitectureError(
                f"block {number} is applied {block.repeats} times, but takes {channels} "
                f"channels and gives {block.out_channels}: make them equal"
            )
        if block.shortcut == "identity" and channels != block.out_channels:
            raise ArchitectureError(
                f"block {number} adds the {channels} channels that it takes to the "
                f"{block.out_channels} that it gives: make them equal, or take shortcut "
                '"conv"'
            )
        sizes = sides_after(block, (height, width))
        if min(sizes) < 1:
            raise ArchitectureError(
                f"block {number} shrinks its {height}x{width} input to nothing: use a "
                "smaller kernel, same padding, or fewer or smaller poolings"
            )
        shapes.append((block.out_channels, sizes[0], sizes[1]))
    channels, height, width = shapes[-1]
    head = architecture.head
    if head.kind == "pool" and channels != architecture.num_classes:
        raise ArchitectureError(
            f"a pool head makes the {channels} channels before it the "
            f"{architecture.num_classes} classes: make them equal or take another head"
        )
    if head.kind == "conv" and head.kernel_size > min(height, width):
        raise ArchitectureError(
            f"the head's {head.kernel_size}x{head.kernel_size} kernel is larger than its "
            f"{height}x{width} input: use a smaller one"
        )
    return shapes


# Keys that architectures did not have at first are only written where they differ from
# the default: so files and keys from before still hold.
_AT_FIRST = {
    *("kind", "out_channels", "kernel_size", "stride", "padding"),
    *("norm", "activation", "pool", "dropout"),
}
_LEFT_OUT = {f.name: f.default for f in fields(Block) if f.name not in _AT_FIRST}


def _canonical(architecture: Architecture) -> Architecture:
    shapes = feature_shapes(architecture)
    blocks = tuple(
        _canonical_block(block, shape)
        for block, shape in zip(architecture.blocks, shapes, strict=False)
    )
    head = architecture.head
    if head.kind == "pool":
        head = replace(head, hidden=0, dropout=0.0)
        if blocks and _bare_convolution(blocks[-1]):
            head = Head(kind="conv", kernel_size=blocks[-1].kernel_size)
            blocks, shapes = blocks[:-1], shapes[:-1]
    height, width = shapes[-1][1:]
    if head.kind == "conv":
        head = replace(head, hidden=0)
        if head.kernel_size == 1:
            head = replace(head, kind="gap")
        elif head.kernel_size == height == width:
            head = replace(head, kind="flatten")
    elif head.kind == "flatten" and height == width == 1:
        head = replace(head, kind="gap")
    if head.kind != "conv":
        head = replace(head, kernel_size=1)
    head = replace(head, dropout=float(head.dropout))
    if not head.hidden:
        head = replace(head, activation="relu")
    return replace(architecture, blocks=blocks, head=head)


def _canonical_block(block: Block, shape: Shape) -> Block:
    point = block.kernel == (1, 1)
    padding = block.padding
    if block.keeps_size:
        padding = "same"
    elif block.zeros == (0, 0):
        padding = "valid"
    # How far the kernel could move; a stride beyond that never makes a second step.
    reach = max(
        conv_size(side, extent, 1, zeros)
        for side, extent, zeros in zip(
            shape[1:], block.extent, block.zeros, strict=True
        )
    )
    usual = "no" if block.norm == "batch" else "yes"
    block = replace(block, stride=min(block.stride, reach))
    return replace(
        block,
        padding=padding,
        dropout=float(block.dropout),
        bias="auto" if block.bias == usual else block.bias,
        order=_canonical_order(block),
        shortcut=_canonical_shortcut(block, shape[0]),
        expansion=_canonical_expansion(block),
        **_canonical_gates(block, shape[0]),
        kernel_width=0 if len(set(block.kernel)) == 1 else block.kernel_width,
        dilation=1 if point else block.dilation,
        **_canonical_pooling(block, shape),
    )


def _canonical_pooling(block: Block, shape: Shape) -> dict[str, Any]:
    """Return the options of the block's pooling without what makes no difference."""
    pooling = block.pooling
    if pooling is None:
        return POOLING
    height, width = pooling.window
    single = sides_after(block, shape[1:]) == (1, 1)
    apart = pooling.strides != pooling.window and not single
    return {
        "pool_size": height,
        "pool_width": 0 if height == width else width,
        "pool_stride": block.pool_stride if apart else 0,
        "pool_padding": max(pooling.padding),
    }


def _canonical_gates(block: Block, in_channels: int) -> dict[str, Any]:
    """Return the largest reduction with the same hidden layer, or else its width."""
    for part in parts_of(block, in_channels):
        if part.gates:
            return sizes_of_gates(part.gates.channels, part.gates.hidden)
    return {"gate_activation": "relu", "gate_bias": "yes", "gate": "sigmoid"}


def sizes_of_gates(channels: int, hidden: int) -> dict[str, int]:
    """Return the values of a block whose gates have so many values between."""
    reduction = max(1, channels // hidden)
    if hidden == max(1, channels // reduction):
        return {"squeeze_excitation": reduction, "gate_width": 0}
    return {"squeeze_excitation": 0, "gate_width": hidden}


def _canonical_shortcut(block: Block, in_channels: int) -> Shortcut:
    keeps_shape = block.stride == 1 and block.out_channels == in_channels
    if block.shortcut == "pad" and keeps_shape:
        return "identity"
    usual = shortcut_of(replace(block, shortcut="conv"), in_channels)
    return "conv" if shortcut_of(block, in_channels) == usual else block.shortcut


def _canonical_expansion(block: Block) -> int:
    """Return the largest expansion with as wide a middle."""
    if block.kind != "bottleneck":
        return block.expansion
    middle = max(1, block.out_channels // block.expansion)
    return min(block.out_channels // middle, _BOUNDS["expansion"][1])


MONOTONE = {name for name, facts in ACTIVATIONS.items() if facts.monotone}
"""Activations of which the maximum may be taken before or after."""


def _canonical_order(block: Block) -> Order:
    order = block.order
    rises = block.pool == "max" and block.activation in MONOTONE
    if order == "norm_last" and block.pool == "none":
        order = "activation_first"
    elif order == "norm_last" and (
        block.activation == "none" or (rises and block.norm == "none")
    ):
        order = "early_pool"
    elif order == "norm_last" and block.norm == "none" and not block.dropout:
        order = "late_pool"
    if order == "activation_first" and "none" in (block.norm, block.activation):
        order = "late_pool"
    # What of norm, activation and dropout the pooling could be moved across.
    movable = block.norm == "none" and (block.activation == "none" or rises)
    if order == "late_pool" and (
        block.pool == "none" or (movable and not block.dropout)
    ):
        order = "early_pool"
    return order


def _bare_convolution(block: Block) -> bool:
    """Return whether the block is what a ``conv`` head begins with."""
    plain = Block(
        out_channels=block.out_channels,
        kernel_size=block.kernel_size,
        padding="same" if block.kernel_size == 1 else "valid",
        norm="none",
        activation="none",
    )
    return block == plain


_CHOICES: dict[str, tuple[str, ...]] = {
    "padding": get_args(Padding),
    "norm": get_args(Norm),
    "activation": get_args(Activation),
    "pool": get_args(Pool),
    "bias": get_args(Bias),
    "order": get_args(Order),
    "shortcut": get_args(Shortcut),
    "gate_activation": tuple(one for one in get_args(Activation) if one != "none"),
    "gate_bias": ("yes", "no"),
    "gate": get_args(Gate),
}
# The least and the most. Beyond the latter nothing tiny is meant, and building it would
# take for ever.
_BOUNDS = {
    "out_channels": (1, 65536),
    "kernel_size": (1, 255),
    "stride": (1, 255),
    "hidden": (0, 65536),
    "repeats": (1, 255),
    "expansion": (1, 64),
    "squeeze_excitation": (0, 65536),
    "kernel_width": (0, 255),
    "dilation": (1, 255),
    "groups": (1, 65536),
    "gate_width": (0, 65536),
    **dict.fromkeys(POOLING, (0, 255)),
    "pool_size": (1, 255),
}


def _check_values(part: Block | Head, where: str) -> None:
    choices = _CHOICES | {
        "kind": tuple(KINDS) if isinstance(part, Block) else get_args(HeadKind)
    }
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name == "hidden" and isinstance(value, tuple):
            most = _BOUNDS["hidden"][1]
            fitting = [width for width in value if _whole(width, 1) and width <= most]
            if len(value) < 2 or len(fitting) < len(value):
                raise ArchitectureError(
                    f"{where}: hidden is {list(value)}, give one whole number, or several "
                    f"of 1 to {most}"
                )
        elif field.name == "padding" and isinstance(value, tuple):
            if len(value) != 2 or not all(_whole(zeros, 0) for zeros in value):
                raise ArchitectureError(
                    f"{where}: padding is {list(value)}, give rows and columns, two whole "
                    "numbers of at least 0"
                )
        elif field.name in choices:
            if value not in choices[field.name]:
                raise ArchitectureError(
                    f"{where}: {field.name} is {value!r}, give one of "
                    f"{', '.join(choices[field.name])}"
                )
        elif field.name == "dropout":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < 1:
                raise ArchitectureError(
                    f"{where}: dropout is {value!r}, give a number from 0 to below 1"
                )
        else:
            least, most = _BOUNDS[field.name]
            if not _whole(value, least):
                raise ArchitectureError(
                    f"{where}: {field.name} is {value!r}, give a whole number of at least "
                    f"{least}"
                )
            if value > most:
                raise ArchitectureError(
                    f"{where}: {field.name} is {value}, give at most {most}"
                )
    if isinstance(part, Block):
        _check_block(part, where)


def _check_block(block: Block, where: str) -> None:
    """Check what depends on several values of a block at once."""
    names = "kernel_size", "kernel_width"
    for name, size, extent in zip(names, block.kernel, block.extent, strict=True):
        if extent % 2 == 0 and block.padding == "same":
            raise ArchitectureError(
                f"{where}: {name} {size} is even, which same padding cannot centre: use "
                "an odd one, or give padding as rows and columns, such as [1, 1]"
            )
    for zeros, extent in zip(block.zeros, block.extent, strict=True):
        if zeros >= extent:
            raise ArchitectureError(
                f"{where}: padding is {list(block.zeros)}, and the kernel covers "
                f"{'x'.join(map(str, block.extent))}: give fewer rows and columns than that"
            )
    if (why := refusal(block)) is not None:
        raise ArchitectureError(f"{where}: {why}")


def _hashable(data: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a block or head, as tuples where they may be lists."""
    lists = {
        name: tuple(data[name])
        for name in ("padding", "hidden")
        if isinstance({**data}.get(name), list)
    }
    return {**data, **lists}


def _whole(value: Any, least: int) -> bool:
    # JSON's true is an int in Python.
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
