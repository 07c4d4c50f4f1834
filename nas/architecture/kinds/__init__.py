"""The kinds of blocks: a file each, and a line each in this table.

What costs, models, exports and draws need of a block follows from its parts.
"""

from __future__ import annotations

from nas.architecture.block import POOLING, Block
from nas.architecture.kinds import (
    bottleneck,
    conv,
    full_bottleneck,
    inception,
    inverted_bottleneck,
    mobilenet,
    residual,
    separable,
)
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Convolution, Part

KINDS: dict[str, Kind] = {
    "conv": conv.KIND,
    "separable": separable.KIND,
    "inception": inception.KIND,
    "residual": residual.KIND,
    "inverted_bottleneck": inverted_bottleneck.KIND,
    "mobilenet": mobilenet.KIND,
    "bottleneck": bottleneck.KIND,
    "full_bottleneck": full_bottleneck.KIND,
}
"""The order is that of the dashboard's filter: a new kind goes to the end."""

ORDERS = {
    "early_pool": ("pool", "norm", "activation", "dropout"),
    "late_pool": ("norm", "activation", "dropout", "pool"),
    "activation_first": ("activation", "norm", "dropout", "pool"),
    "norm_last": ("activation", "pool", "norm", "dropout"),
}
"""What may follow a block's last convolution, by its ``order``."""


def parts_of(block: Block, in_channels: int) -> tuple[Part, ...]:
    """Return the parts of a block that takes so many channels, in their order."""
    return KINDS[block.kind].parts(block, in_channels)


def shortcut_of(block: Block, in_channels: int) -> Part | None:
    """Return the 1x1 convolution of the block's shortcut, if it has one."""
    if not block.shortcut.endswith("conv"):
        return None
    plain = block.shortcut in {"bias_conv", "bare_conv"}
    conv1x1 = Convolution(
        "conv",
        in_channels,
        block.out_channels,
        1,
        stride=block.stride,
        bias=block.shortcut == "bias_conv" if plain else block.has_bias,
    )
    activation = block.activation if block.shortcut == "activated_conv" else "none"
    return Part(
        (conv1x1,), norm=block.norm == "batch" and not plain, activation=activation
    )


def channels_beside(block: Block, in_channels: int) -> tuple[int, int]:
    """Return how many channels shortcut "pad" puts before the block's input and behind.

    Below 0 it takes as many away.
    """
    more = block.out_channels - in_channels
    return more // 2, more - more // 2


def has_order(block: Block) -> bool:
    """Return whether the block's order is one of several: where it adds, none is."""
    return block.shortcut == "none" and KINDS[block.kind].repeatable


def finish_of(block: Block) -> tuple[str, ...]:
    """Return what follows the block's last convolution, in order: norm, pool, ..."""
    order = ORDERS[block.order] if has_order(block) else ORDERS["late_pool"]
    present = {
        "pool": block.pool != "none",
        "norm": block.norm == "batch",
        "activation": block.activation != "none" and not KINDS[block.kind].linear,
        "dropout": block.dropout > 0,
    }
    return tuple(name for name in order if present[name])


def pools_apart(block: Block) -> bool:
    """Return whether the exports pool in a layer of its own, behind the convolution's.

    So they do behind an addition, where windows overlap, since each convolution is then
    computed once, and for a mean of finished numbers that is not of four.
    """
    pooling = block.pooling
    if pooling is None:
        return False
    late = pooling.kind == "avg" and finish_of(block)[0] != "pool"
    return (
        block.shortcut != "none"
        or not pooling.plain
        or (late and pooling.window != (2, 2))
    )


def least_width(kind: str, kernel_size: int) -> int:
    """Return the fewest output channels of such a block."""
    return KINDS[kind].least_width(kernel_size)


def refusal(block: Block) -> str | None:
    """Return why there can be no such block, with the remedy, or None."""
    kind = KINDS[block.kind]
    if (why := kind.refusal(block)) is not None:
        return why
    if block.shortcut not in kind.shortcuts:
        return (
            f"shortcut is {block.shortcut!r}; a {block.kind} block takes "
            f"{' or '.join(kind.shortcuts)}"
        )
    if block.expansion != 1 and not kind.expands:
        return f"expansion is {block.expansion}; a {block.kind} block has none: leave 1"
    if block.gated and not kind.gates:
        gated = " or ".join(name for name, one in KINDS.items() if one.gates)
        name = "squeeze_excitation" if block.squeeze_excitation else "gate_width"
        return (
            f"{name} is {getattr(block, name)}; a {block.kind} block has none: leave 0, or "
            f"take {gated}"
        )
    if block.squeeze_excitation and block.gate_width:
        return (
            f"squeeze_excitation is {block.squeeze_excitation} and gate_width "
            f"{block.gate_width}: give one of them"
        )
    if (block.kernel_width, block.dilation) != (0, 1) and not kind.shaped:
        return (
            f"an {block.kind} block has square kernels without dilation: leave "
            "kernel_width 0 and dilation 1"
        )
    if block.groups > 1 and not kind.grouped:
        grouped = " or ".join(name for name, one in KINDS.items() if one.grouped)
        return (
            f"groups is {block.groups}; a {block.kind} block has none: leave 1, or take "
            f"{grouped}"
        )
    if block.out_channels % block.groups:
        return (
            f"out_channels is {block.out_channels}, which groups {block.groups} does not "
            "divide: make it a multiple, or take fewer groups"
        )
    if (why := _refused_pooling(block)) is not None:
        return why
    if block.shortcut != "none" and not block.keeps_size:
        return "a shortcut needs same padding, so that what is added has one size"
    if block.shortcut == "identity" and block.stride > 1:
        return 'an identity shortcut needs stride 1: take shortcut "conv"'
    if block.order != "early_pool" and not has_order(block):
        return (
            f"order is {block.order!r}; in a block with a shortcut or several parts the "
            'pooling comes last, so leave order "early_pool"'
        )
    if block.repeats > 1 and not (kind.repeatable and block.shortcut == "none"):
        return "a block with a shortcut or several parts is not repeated: repeats 1"
    if block.repeats > 1 and (block.stride > 1 or not block.keeps_size):
        return (
            "a block with repeats needs stride 1 and same padding, so that its output "
            "can be its input"
        )
    return None


def _refused_pooling(block: Block) -> str | None:
    pooling = block.pooling
    for name, usual in POOLING.items():
        value = getattr(block, name)
        if pooling is None and value != usual:
            return f"{name} is {value} in a block without pooling: leave {usual}"
    if pooling is None:
        return None
    if pooling.window == (1, 1):
        return (
            'a pooling of 1x1 changes nothing: take a larger pool_size, or pool "none"'
        )
    if pooling.kind == "avg" and block.pool_padding:
        return (
            f"pool_padding is {block.pool_padding}; only maxima are padded: leave 0, or "
            'take pool "max"'
        )
    return None
