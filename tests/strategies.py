"""Hypothesis strategies: architectures, points and search spaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from hypothesis import settings
from hypothesis import strategies as st

from nas.architecture import (
    Activation,
    Architecture,
    Bias,
    Block,
    Gate,
    Head,
    HeadKind,
    Norm,
    Order,
    Padding,
    Pool,
    Shortcut,
    conv_size,
    resized,
    sides_after,
)
from nas.architecture.kinds import KINDS
from nas.candidates.pareto import Point


def examples(number: int) -> int:
    """Return how many examples to try of so many in .ci/run's profile of hypothesis."""
    return max(2, number * settings.default.max_examples // 100)


DROPOUTS = [0.0, 0.1, 0.5]
POOLINGS: list[dict[str, int]] = [
    {},
    {"pool_size": 3, "pool_stride": 2, "pool_padding": 1},
    {"pool_size": 3},
    {"pool_width": 1},
    {"pool_size": 1, "pool_width": 3, "pool_stride": 2},
    {"pool_stride": 1},
]


def shapes(least: int = 4, most: int = 40) -> st.SearchStrategy[tuple[int, int, int]]:
    """Draw channels (1 to 3), height and width of an image, square or not."""
    sides = st.integers(least, most)
    return st.tuples(st.integers(1, 3), sides, sides)


@st.composite
def blocks(
    draw: st.DrawFn, sides: tuple[int, int], channels: int | None = None
) -> Block:
    """Draw a block of any kind that has room on a feature map of that size.

    With the number of channels before it, it may be one that is applied repeatedly.
    """
    kind = draw(st.sampled_from(list(KINDS)))
    # Images, of at most three channels, are not added as they are, nor with zeros.
    as_wide = channels is not None and channels >= 4
    apart = {*KINDS[kind].shortcuts} - {"identity", "pad"}
    shortcuts = KINDS[kind].shortcuts if as_wide else sorted(apart)
    shortcut: Shortcut = draw(st.sampled_from(shortcuts))
    plain = shortcut == "none" and KINDS[kind].repeatable
    repeats = draw(st.integers(1, 3)) if channels and plain else 1
    free = kind != "inception" and repeats == 1 and shortcut == "none"
    # None for explicit numbers, which follow from the kernel.
    padding: Padding | None = draw(
        st.sampled_from([*get_args(Padding), None] if free else ["same"])
    )
    # Same padding takes no even kernels.
    sizes = [1, 3, 5, 7] if padding == "same" else [1, 2, 3, 4, 5, 7]
    kernel_size = draw(st.sampled_from(sizes[kind == "inception" :]))
    kernel_width, dilation = 0, 1
    if KINDS[kind].shaped:
        kernel_width = draw(st.sampled_from([0, 0, *sizes]))
        dilation = draw(st.sampled_from([1, 1, 2, 3]))
    strides = repeats == 1 and shortcut != "identity"
    stride = draw(st.integers(1, 3)) if strides else 1
    pool: Pool = draw(st.sampled_from(get_args(Pool)))
    extents = [
        dilation * (k - 1) + 1 for k in (kernel_size, kernel_width or kernel_size)
    ]
    zeros = [(extent - 1) // 2 if padding == "same" else 0 for extent in extents]
    if padding is None:
        zeros = [draw(st.integers(0, extent - 1)) for extent in extents]
    after = min(
        conv_size(side, extent, stride, around)
        for side, extent, around in zip(sides, extents, zeros, strict=True)
    )
    if after < 1:
        kernel_size, kernel_width, stride, pool = 1, 0, 1, "none"
        padding = padding or "valid"
    elif after < 2:
        pool = "none"
    out_channels = draw(st.integers(4 if kind == "inception" else 1, 9))
    if channels is not None and (repeats > 1 or shortcut == "identity"):
        if kind == "inception" and channels < 4:
            kind = "conv"
        out_channels = channels
    # Even a valid number of groups, of any kind of block, divides both widths.
    groups = [n for n in range(1, 10) if (channels or 1) % n == out_channels % n == 0]
    block = Block(
        kind=kind,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding or (zeros[0], zeros[1]),
        norm=draw(st.sampled_from(get_args(Norm))),
        activation=draw(st.sampled_from(get_args(Activation))),
        pool=pool,
        dropout=draw(st.sampled_from(DROPOUTS)),
        bias=draw(st.sampled_from(get_args(Bias))),
        order=draw(st.sampled_from(get_args(Order))) if plain else "early_pool",
        repeats=repeats,
        shortcut=shortcut,
        expansion=draw(st.integers(1, 3)) if KINDS[kind].expands else 1,
        **draw(gates() if KINDS[kind].gates else st.just({})),
        kernel_width=kernel_width,
        dilation=dilation,
        groups=draw(st.sampled_from(groups)) if KINDS[kind].grouped else 1,
    )
    if pool == "none":
        return block
    pooling = draw(st.sampled_from(POOLINGS))
    if pool == "avg":
        pooling = pooling | {"pool_padding": 0}
    other = replace(block, **pooling)  # type: ignore[arg-type]
    return other if min(sides_after(other, sides)) > 0 else block


@st.composite
def gates(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the values of a block that say which gates it has, if any."""
    reduction = draw(st.sampled_from([0, 2, 8]))
    width = 0 if reduction else draw(st.sampled_from([0, 3, 5]))
    if not (reduction or width):
        return {}
    return {
        "squeeze_excitation": reduction,
        "gate_width": width,
        "gate_activation": draw(st.sampled_from(["relu", "silu", "leaky_relu"])),
        "gate_bias": draw(st.sampled_from(["yes", "no"])),
        "gate": draw(st.sampled_from(get_args(Gate))),
    }


@st.composite
def heads(draw: st.DrawFn, sides: tuple[int, int]) -> Head:
    """Draw a head of any kind that has room on a feature map of that size."""
    kind: HeadKind = draw(st.sampled_from(get_args(HeadKind)))
    dropout = draw(st.sampled_from(DROPOUTS))
    if kind == "conv":
        kernel_size = draw(st.integers(1, min(5, *sides)))
        return Head(kind=kind, kernel_size=kernel_size, dropout=dropout)
    hidden = draw(st.sampled_from([0, 1, 6, (6, 3)]))
    activation = draw(st.sampled_from(get_args(Activation))) if hidden else "relu"
    return Head(kind=kind, hidden=hidden, dropout=dropout, activation=activation)


@st.composite
def architectures(draw: st.DrawFn, most_blocks: int = 5) -> Architecture:
    """Draw an architecture that can be built, with everything that blocks know."""
    shape = draw(shapes())
    resolution = draw(st.sampled_from([0, 0, min(shape[1:]) - 1, 4]))
    resolution = resolution if resolution < min(shape[1:]) else 0
    channels, height, width = resized(shape, resolution)
    sides = height, width
    chain: list[Block] = []
    for _ in range(draw(st.integers(0, most_blocks))):
        block = draw(blocks(sides, channels))
        chain.append(block)
        channels, sides = block.out_channels, sides_after(block, sides)
    head = draw(heads(sides))
    num_classes = draw(st.integers(2, 12))
    if head.kind == "pool":
        # There are at least two classes.
        num_classes, head = (channels, head) if channels > 1 else (2, Head())
    return Architecture(
        input_shape=shape,
        num_classes=num_classes,
        blocks=tuple(chain),
        head=head,
        resolution=resolution,
    )


def dominates(a: Point, b: Point) -> bool:
    """Return whether a is nowhere worse than b and somewhere better."""
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def points(most: int = 30) -> st.SearchStrategy[list[tuple[int, float]]]:
    """Draw lists of (size, accuracy), with ties in either."""
    sizes = st.integers(1, 1000) | st.integers(1, 4)
    accuracies = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])
    return st.lists(st.tuples(sizes, accuracies), max_size=most)


def some(options: list[Any], most: int | None = None) -> st.SearchStrategy[list[Any]]:
    """Draw at least one of the options, in any order."""
    return st.lists(
        st.sampled_from(options), min_size=1, max_size=most or len(options), unique=True
    )


@st.composite
def spaces(draw: st.DrawFn, *, tiny: bool = False) -> str:
    """Draw the TOML of a valid space; a tiny one can be enumerated."""
    least_depth = draw(st.integers(1, 2 if tiny else 4))
    most_depth = draw(st.integers(least_depth, 2 if tiny else 6))
    least_count = draw(st.integers(0, min(2, most_depth)))
    most_count = draw(st.integers(least_count, 2 if tiny else 4))
    width = draw(st.integers(1, 3 if tiny else 8))
    most_width = width + draw(st.integers(0, 1 if tiny else 60))
    most = 2 if tiny else None
    tables: dict[str, dict[str, Any]] = {
        "size": {"towards_cap": draw(st.floats(0.1, 10.0))},
        "blocks": {
            "depth": [least_depth, most_depth],
            "kinds": draw(some(list(KINDS), most)),
            "kernel_sizes": draw(some([1, 3, 5, 7], most)),
            "paddings": draw(some(["same", "valid"])),
            "norms": draw(some(["batch", "none"])),
            "activations": draw(
                some(["relu", "leaky_relu", "silu", "gelu", "none"], most)
            ),
            "shortcuts": draw(some(list(get_args(Shortcut)), most)),
            "repeats": [1] if tiny else sorted({1, *draw(some([1, 2, 3]))}),
        },
        "input": {"resolution": draw(some([0, 4, 7], 1 if tiny else 3))},
        "widths": {
            "min": width,
            "max": most_width,
            "spread": draw(st.floats(1.0, 8.0)),
        },
        "downsampling": {
            "count": [least_count, most_count],
            "kinds": draw(some(["max", "avg", "stride"], most)),
            "smallest_side": draw(st.integers(1, 3)),
        },
        "dropout": {"values": draw(some([0.0, 0.1, 0.25], most))},
        "head": {
            "kinds": draw(some(["gap", "conv", "flatten", "pool"], most)),
            "kernel_sizes": draw(some([1, 2, 3], most)),
            "hidden": draw(some([0, 1, 16], most)),
        },
    }
    # Of the further options one has several: a tiny space has to stay one.
    further = {
        "expansions": [1, 2, 3],
        "squeeze_excitations": [0, 2, 4],
        "kernel_widths": [0, 1, 3, 5],
        "dilations": [1, 2, 3],
        "groups": [1, 2, 3],
    }
    several = draw(st.sampled_from(list(further)))
    for key, options in further.items():
        found = draw(some(options, most if key == several else 1))
        tables["blocks"][key] = found
    tables["blocks"]["groups"] = sorted({1, *tables["blocks"]["groups"]})
    shortcuts = tables["blocks"]["shortcuts"]
    # Some kinds take none, others cannot do without, and images have no identity.
    tables["blocks"]["shortcuts"] = (
        sorted({*shortcuts, "none", "conv"})
        if any("none" not in KINDS[one].shortcuts for one in tables["blocks"]["kinds"])
        else sorted({*shortcuts, "none"})
    )
    if "conv" not in tables["blocks"]["kinds"]:
        # The others do not take 1x1 kernels, nor all of them valid padding.
        tables["blocks"]["kernel_sizes"] += [9]
        tables["blocks"]["paddings"] = ["valid", "same"]
    if not tiny and draw(st.booleans()):
        tables["deviation"] = {
            "share": draw(st.floats(0.0, 1.0)),
            "norms": draw(some(list(get_args(Norm)))),
            "biases": draw(some(list(get_args(Bias)))),
            "activations": draw(some(["relu", "silu", "none"])),
            "orders": draw(some(list(get_args(Order)))),
            "dropouts": draw(some([0.0, 0.1])),
        }
    for table, key in [("blocks", "kernel_sizes"), ("head", "kinds")]:
        if draw(st.booleans()):
            number = len(tables[table][key])
            weights = st.lists(st.integers(1, 9), min_size=number, max_size=number)
            tables[table][f"{key}_weights"] = draw(weights)
    lines = []
    for table, content in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {value!r}" for key, value in content.items()]
    return "\n".join(lines) + "\n"
