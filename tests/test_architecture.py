"""Architectures: JSON and back, keys that tell functions apart, refused values."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from nets import net_of
from strategies import architectures, blocks

from nas.architecture import (
    POOLING,
    Architecture,
    Block,
    Head,
    Order,
    feature_shapes,
)
from nas.architecture.cost import layers
from nas.architecture.kinds import KINDS, has_order
from nas.architecture.notation import describe
from nas.errors import ArchitectureError
from nas.training.model import build


@given(architectures())
def test_json_round_trip(architecture: Architecture) -> None:
    """What to_json writes, from_json reads back as an equal architecture."""
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.key == architecture.key
    assert "\n" not in architecture.to_json()


def spellings(architecture: Architecture) -> list[Architecture]:
    """Return other ways to write down the same network."""
    found = []
    shapes = feature_shapes(architecture)
    for position, block in enumerate(architecture.blocks):
        others = []
        if block.kernel == (1, 1):
            padding: Any = "valid" if block.padding == "same" else "same"
            others.append(replace(block, padding=padding))
            others.append(replace(block, dilation=block.dilation + 1))
        others.append(replace(block, padding=block.zeros))
        if KINDS[block.kind].shaped and len(set(block.kernel)) == 1:
            others += [
                replace(block, kernel_width=width) for width in (0, block.kernel_size)
            ]
        if block.padding == "valid" and shapes[position][1:] == block.extent:
            others.append(replace(block, stride=block.stride + 5))
        if block.dropout == 0:
            others.append(replace(block, dropout=0))
        if block.shortcut == "identity":
            others.append(replace(block, shortcut="pad"))
        if block.shortcut == "conv" and block.norm == "none":
            biased: Any = "bias_conv" if block.has_bias else "bare_conv"
            others.append(replace(block, shortcut=biased))
        if block.shortcut == "conv" and block.activation == "none":
            others.append(replace(block, shortcut="activated_conv"))
        if block.kind == "bottleneck" and 2 * block.expansion > block.out_channels:
            others.append(replace(block, expansion=block.out_channels))
        others.append(replace(block, bias="yes" if block.has_bias else "no"))
        if block.pool == "none" and block.norm == "none" and has_order(block):
            others += [replace(block, order=order) for order in get_args(Order)]
        if block.norm == "none" and block.pool == "max" and block.dropout == 0:
            swapped = {"early_pool": "late_pool", "late_pool": "early_pool"}
            usual = block.activation == "relu" and has_order(block)
            if usual and block.order in swapped:
                order: Any = swapped[block.order]
                others.append(replace(block, order=order))
        for other in others:
            chain = list(architecture.blocks)
            chain[position] = other
            found.append(replace(architecture, blocks=tuple(chain)))
    head = architecture.head
    side, width = shapes[-1][1:]
    others_of_head = []
    if head.kind == "gap" and not head.hidden:
        others_of_head.append(replace(head, kind="conv", kernel_size=1))
    if head.kind == "flatten" and not head.hidden and side == width:
        others_of_head.append(replace(head, kind="conv", kernel_size=side))
    if head.kind == "flatten" and side == width == 1:
        others_of_head.append(replace(head, kind="gap"))
    if head.kind == "conv":
        others_of_head.append(replace(head, hidden=7))
        if head.dropout == 0 and head.kernel_size <= min(side, width):
            classifier = Block(
                out_channels=architecture.num_classes,
                kernel_size=head.kernel_size,
                padding="valid",
                norm="none",
                activation="none",
            )
            blocks = (*architecture.blocks, classifier)
            found.append(
                replace(
                    architecture, blocks=blocks, head=Head(kind="pool", dropout=0.3)
                )
            )
    else:
        others_of_head.append(replace(head, kernel_size=9))
    return found + [replace(architecture, head=other) for other in others_of_head]


def sizes(architecture: Architecture) -> list[int]:
    """Return the number of values in each tensor of the built model."""
    return [value.numel() for value in build(architecture).state_dict().values()]


def same_function(one: Architecture, other: Architecture) -> bool:
    """Return whether both compute the same on random weights and images."""
    models = [build(architecture).eval() for architecture in (one, other)]
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        states = [model.state_dict() for model in models]
        for values in zip(*[state.values() for state in states], strict=True):
            if values[0].is_floating_point():
                # Positive ones, too: batch norm's variance is among them.
                drawn = torch.rand(values[0].shape, generator=generator) + 0.1
                signs = torch.randint(0, 2, drawn.shape, generator=generator) * 2 - 1
                drawn = drawn * signs if values[0].dim() > 1 else drawn
                for value in values:
                    value.copy_(drawn.view(value.shape))
        # Large values, too: only these tell ReLU6 from ReLU.
        size = (1, 50)[seed % 2]
        images = size * torch.randn(16, *one.input_shape, generator=generator)
        with torch.no_grad():
            results = [model(images).double() for model in models]
        if not torch.allclose(*results, rtol=1e-3, atol=1e-4):
            return False
    return True


@pytest.mark.slow
@given(architectures(most_blocks=3))
def test_spellings_of_one_network_share_a_key(architecture: Architecture) -> None:
    """Each other spelling has the key and, with the same weights, the same results."""
    for other in spellings(architecture):
        assert other.key == architecture.key
        assert sizes(other) == sizes(architecture)
        assert same_function(architecture, other)


@pytest.mark.parametrize("field", fields(Block), ids=lambda field: field.name)
def test_the_drawn_architectures_have_all_that_a_block_knows(field: Any) -> None:
    """So the properties of building, exporting and importing hold for every decision."""
    usual = Block(out_channels=1)

    def is_set(architecture: Architecture) -> bool:
        found = {getattr(block, field.name) for block in architecture.blocks}
        return bool(found - {getattr(usual, field.name)})

    find(architectures(), is_set, settings=settings(max_examples=2000, database=None))


@given(architectures(most_blocks=3), st.data())
def test_keys_differ_where_functions_do(
    architecture: Architecture, data: st.DataObject
) -> None:
    """Change one thing: equal keys mean the same function, unequal ones another."""
    if not architecture.blocks:
        return
    position = data.draw(st.integers(0, len(architecture.blocks) - 1))
    channels, *sides = feature_shapes(architecture)[position]
    other_block = data.draw(blocks((sides[0], sides[1]), channels))
    name = data.draw(st.sampled_from([field.name for field in fields(Block)]))
    chain = list(architecture.blocks)
    chain[position] = replace(chain[position], **{name: getattr(other_block, name)})
    try:
        other = replace(architecture, blocks=tuple(chain))
    except ArchitectureError:
        return  # the change left no room
    equal = sizes(architecture) == sizes(other)
    equal = equal and same_function(architecture, other)
    # Dropout changes the training, not the function that comes out of it.
    dropouts = [[block.dropout for block in a.blocks] for a in (architecture, other)]
    equal = equal and dropouts[0] == dropouts[1]
    block = chain[position]
    if name == "order" and (block.norm == "batch" or block.dropout):
        # So does what batch norm and dropout see: pooled values or those before.
        assert equal or architecture.key != other.key
        return
    if name == "dilation" or name in POOLING:
        # On a map of one row or column all but the middle taps lie outside, and there
        # is one window, however high or far from the next.
        assert equal or architecture.key != other.key
        return
    assert (architecture.key == other.key) == equal


def described() -> dict[str, Any]:
    """Return the description of a small network, to break one value of it."""
    architecture = net_of(Block(out_channels=4), Block(out_channels=4, pool="max"))
    data: dict[str, Any] = json.loads(architecture.to_json())
    return data


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("blocks", 1, "kind"), "dense", "block 2: kind is 'dense'"),
        (("blocks", 0, "kind"), ["conv"], "block 1: kind is"),
        (("blocks", 0, "out_channels"), 0, "block 1: out_channels is 0"),
        (("blocks", 0, "out_channels"), True, "block 1: out_channels is True"),
        (("blocks", 0, "out_channels"), 2.0, "block 1: out_channels is 2.0"),
        (("blocks", 0, "kernel_size"), 4, "kernel_size 4 is even"),
        (("blocks", 0, "kernel_size"), 100001, "is 100001, give at most 255"),
        (("blocks", 0, "kernel_size"), "3", "block 1: kernel_size is '3'"),
        (("blocks", 0, "stride"), 0, "block 1: stride is 0"),
        (("blocks", 0, "padding"), "full", "block 1: padding is 'full'"),
        (
            ("blocks", 0, "padding"),
            [1],
            "block 1: padding is [1], give rows and columns",
        ),
        (("blocks", 0, "padding"), [1, -1], "block 1: padding is [1, -1]"),
        (
            ("blocks", 0, "padding"),
            [3, 0],
            "padding is [3, 0], and the kernel covers 3x3",
        ),
        (("blocks", 0, "norm"), None, "block 1: norm is None"),
        (("blocks", 0, "activation"), "mish", "block 1: activation is 'mish'"),
        (("blocks", 0, "pool"), "min", "block 1: pool is 'min'"),
        (("blocks", 0, "bias"), True, "block 1: bias is True"),
        (("blocks", 0, "order"), "random", "block 1: order is 'random'"),
        (("blocks", 0, "repeats"), 0, "block 1: repeats is 0"),
        (("blocks", 0, "repeats"), 2, "block 1 is applied 2 times, but takes 1"),
        (("head", "kind"), "pool", "makes the 4 channels before it the 10 classes"),
        (("blocks", 0, "dropout"), 1, "block 1: dropout is 1"),
        (("blocks", 0, "dropout"), False, "block 1: dropout is False"),
        (("blocks", 0, "dropout"), float("nan"), "block 1: dropout is nan"),
        (("blocks", 0, "width"), 3, "width"),
        (("blocks", 0), 3, "not an architecture"),
        (("blocks",), None, "not an architecture"),
        (("head", "kind"), "linear", "head: kind is 'linear'"),
        (("head", "hidden"), -1, "head: hidden is -1"),
        (("head", "hidden"), [8], "head: hidden is [8], give one whole number, or"),
        (("head", "hidden"), [8, 0], "head: hidden is [8, 0]"),
        (("head", "activation"), "mish", "head: activation is 'mish'"),
        (("head", "kernel_size"), 0, "head: kernel_size is 0"),
        (("head",), [], "not an architecture"),
        (("input_shape",), [1, 8], "input_shape is"),
        (("input_shape",), [1, 0, 8], "input_shape is"),
        (("input_shape",), [1, 8.0, 8], "input_shape is"),
        (("input_shape",), 28, "not an architecture"),
        (("input_shape",), [1, 1, 1], "block 2 shrinks its 1x1 input to nothing"),
        (("num_classes",), 1, "num_classes is 1"),
        (("num_classes",), "10", "num_classes is '10'"),
        (("name",), "x", "not an architecture"),
    ],
)
def test_bad_values_are_refused(path: tuple[Any, ...], value: Any, told: str) -> None:
    """A value that no network has is refused in one line that says where it is."""
    data = described()
    part: Any = data
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises(ArchitectureError) as caught:
        Architecture.from_dict(data)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_keys_are_refused() -> None:
    """Each key of the description is needed."""
    for key in described():
        data = described()
        del data[key]
        with pytest.raises(ArchitectureError, match=key):
            Architecture.from_dict(data)


def test_padding_in_numbers_is_written_so() -> None:
    """In JSON and in the notation."""
    block = Block(out_channels=4, kernel_size=4, kernel_width=10, padding=(1, 5))
    net = net_of(block, classes=2)
    assert '"padding":[1,5]' in net.to_json()
    assert describe(net) == "4c(4,10)p(1,5) - gap"
    assert feature_shapes(net)[1] == (4, 7, 9)
    assert layers(net)[0].description == "conv 4x10 padding 1x5, batch norm, relu"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "inception", "kernel_size": 1}, "kernel_size of at least 3"),
        ({"kind": "inception", "padding": "valid"}, "same padding"),
        ({"kind": "inception", "out_channels": 1}, "fewer than the 2 convolutions"),
        ({"gate_width": 3}, "or take inverted_bottleneck or mobilenet"),
        (
            {"kind": "mobilenet", "gate_width": 3, "squeeze_excitation": 2},
            "squeeze_excitation is 2 and gate_width 3: give one of them",
        ),
        ({"kind": "mobilenet", "gate_activation": "none"}, "gate_activation is 'none'"),
        ({"kind": "mobilenet", "gate": "relu"}, "give one of sigmoid, hard_sigmoid"),
        ({"repeats": 2, "stride": 2}, "needs stride 1 and same padding"),
        ({"repeats": 2, "padding": "valid"}, "needs stride 1 and same padding"),
    ],
)
def test_contradictory_blocks_are_refused(values: dict[str, Any], told: str) -> None:
    """What single values do not show is said with the block's number, too."""
    block = Block(**{"out_channels": 4} | values)
    with pytest.raises(ArchitectureError, match=f"block 1: .*{told}"):
        net_of(block, shape=(4, 8, 8), classes=2)


def test_keys_from_before_the_newer_options_still_hold() -> None:
    """A network without them has the key and the JSON that it had without them."""
    architecture = Architecture.from_dict(described())
    assert architecture.key == "18f22bb44402c146"
    assert "repeats" not in architecture.to_json()


def test_head_kernel_larger_than_its_input_is_refused() -> None:
    """A conv head needs a feature map that its kernel fits into."""
    with pytest.raises(ArchitectureError, match="5x5 kernel is larger than its 4x8"):
        net_of(shape=(1, 4, 8), classes=2, head=Head(kind="conv", kernel_size=5))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["input_shape", "num_classes", "blocks", "head", "kind"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(st.text() | JSON_VALUES.map(json.dumps))
def test_from_json_raises_nothing_else(text: str) -> None:
    """Whatever the text, from_json refuses it with an ArchitectureError."""
    with pytest.raises(ArchitectureError):
        Architecture.from_json(text)


@given(st.data(), JSON_VALUES)
def test_from_dict_raises_nothing_else(data: st.DataObject, value: Any) -> None:
    """Any value at any place gives an architecture or an ArchitectureError."""
    broken = described()
    place: Any = data.draw(
        st.sampled_from([broken, broken["head"], *broken["blocks"]]), label="place"
    )
    place[data.draw(st.sampled_from(sorted(place)), label="key")] = value
    try:
        architecture = Architecture.from_dict(broken)
    except ArchitectureError:
        return
    assert Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"blocks": NaN}'])
def test_hostile_json_is_refused(text: str) -> None:
    """Deep nesting and endless numbers are errors of the text, not of the program."""
    with pytest.raises(ArchitectureError):
        Architecture.from_json(text)
