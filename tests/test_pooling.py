"""Poolings of any windows, from the description to the exports."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch
from nets import net_of
from test_export_c import check
from torch import nn
from torch.nn import functional

from nas.architecture import POOLING, Architecture, Block, feature_shapes
from nas.architecture.cost import cost, layers
from nas.architecture.notation import describe
from nas.errors import ArchitectureError, SpaceError
from nas.export.source import source
from nas.importing import assemble, check_same, trace
from nas.sampling.mutation import mutate
from nas.space import (
    Caps,
    RandomDraws,
    SearchSpace,
    encode,
    every_net,
    find_space,
    include,
    read_space,
    resize,
    sample,
)
from nas.training.kernels.gpu_recording import can_record
from nas.training.model import build

SHAPE = (1, 27, 30)
net = partial(net_of, shape=SHAPE)


def pooled(**values: Any) -> Block:
    """Return a block that pools."""
    return Block(**{"out_channels": 6, "pool": "max"} | values)


NEXT = net(
    pooled(pool_size=3, pool_stride=2, pool_padding=1),
    pooled(pool_size=1, pool_width=2),
    pooled(pool="avg", pool_size=3, pool_width=2, pool_stride=2, shortcut="identity"),
    pooled(pool_size=3, pool_stride=1, repeats=2, order="late_pool"),
)

WAYS = """\
pool_sizes = [2, 3]
pool_strides = [0, 2]
pool_paddings = [0, 1]
"""


def space_of(keys: str, name: str = "plain") -> SearchSpace:
    """Return a bundled space with these keys of its blocks."""
    return read_space(
        find_space(name).text.replace("[blocks]\n", f"[blocks]\n{keys}\n"), "own"
    )


# --- the description ----------------------------------------------------------------


def test_shapes_and_memory_are_those_of_torch() -> None:
    """Each block's output has the size that the model's has; its layer says the rest."""
    model, images = build(NEXT).eval(), torch.zeros(1, *SHAPE)
    shapes = [images.shape[1:]]
    for block in model.get_submodule("blocks").children():
        images = block(images)
        shapes.append(images.shape[1:])
    assert [*map(tuple, shapes)] == feature_shapes(NEXT)
    assert [layer.description for layer in layers(NEXT) if "pool" in layer.description] == [
        "max pool 3x3 stride 2 padding 1",
        "max pool 1x2",
        "avg pool 3x2 stride 2",
        "max pool 3x3 stride 1",
        "global average pool",
    ]  # fmt: skip
    assert cost(NEXT).peak_memory == 2 * 6 * 27 * 30 - 6 * 27 * 30 + 6 * 14 * 15
    assert resize(NEXT, Caps(5_000)).blocks[0].pool_size == 3


def test_notation_json_and_key_know_the_windows() -> None:
    """Architectures of before are written as before."""
    assert describe(NEXT) == (
        "6c3/max3s2p1 - 6c3/max(1,2) - 6c3/avg(3,2)s2+ - 6c3/max3s1x2 late - gap"
    )
    assert Architecture.from_json(NEXT.to_json()) == NEXT
    plain = net(pooled())
    assert not any(name in plain.to_json() for name in POOLING)
    spellings = [{"pool_width": 2}, {"pool_stride": 2}, {"pool_stride": 9}]
    assert {net(pooled(**one)).key for one in spellings} == {plain.key}
    others = [
        {"pool_size": 3},
        {"pool_width": 1},
        {"pool_stride": 1},
        {"pool_padding": 1},
    ]
    assert len({net(pooled(**one)).key for one in others} | {plain.key}) == 5
    whole = pooled(pool_size=27, pool_width=30)
    assert net(whole).key == net(pooled(pool_size=27, pool_width=30, pool_stride=3)).key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pool": "none", "pool_size": 3}, "pool_size is 3 in a block without pooling"),
        ({"pool_size": 1}, "a pooling of 1x1 changes nothing: take a larger pool_size"),
        ({"pool": "avg", "pool_padding": 1}, "only maxima are padded: leave 0"),
        ({"pool_size": 28}, "shrinks its 27x30 input to nothing"),
        ({"pool_size": 0}, "pool_size is 0, give a whole number of at least 1"),
        ({"kernel_size": 29, "padding": "valid", "pool_padding": 1}, "to nothing"),
    ],
)
def test_what_is_no_pooling_is_refused(values: dict[str, Any], message: str) -> None:
    """The line names the value and what would do."""
    with pytest.raises(ArchitectureError) as error:
        net(pooled(**values))
    assert message in str(error.value)


# --- spaces ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "caps"),
    [("plain", Caps(400)), ("residual", Caps(2_500, peak_memory=2_500, flash=9_000))],
)
def test_draws_fit_and_can_be_told(name: str, caps: Caps) -> None:
    """Under every cap; their draws make them again."""
    space = space_of(WAYS, name)
    drawn = set()
    for seed in range(20):
        one = sample(
            space, RandomDraws(seed), input_shape=SHAPE, num_classes=10, caps=caps
        )
        assert caps.allow(cost(one))
        drawn |= {block.pooling for block in one.blocks}
        build(one)
        assert encode(space, one, caps) is not None, describe(one)
    assert len(drawn) > 4


def test_a_space_may_pool_over_time_alone() -> None:
    """Mutation keeps to its windows, and moves them with their poolings."""
    space = space_of("pool_sizes = [1]\npool_widths = [2, 3]")
    caps, rng = Caps(3_000), random.Random(1)
    one = sample(space, RandomDraws(3), input_shape=SHAPE, num_classes=10, caps=caps)
    seen = set()
    for _ in range(150):
        child = mutate(space, one, caps, num_params=2_000, changes=2, rng=rng)
        if child is not None:
            seen |= {block.pooling.window for block in child.blocks if block.pooling}
            one = child
    assert seen == {(1, 2), (1, 3)}


def test_a_space_takes_the_windows_in() -> None:
    """As --start-from does."""
    start = net(
        pooled(pool_size=3, pool_stride=2, pool_padding=1), pooled(pool_width=1)
    )
    space, added = include(find_space("plain"), start, Caps(2_000))
    assert encode(space, start, Caps(2_000)) is not None
    assert {"pool_sizes 3", "pool_strides 2", "pool_paddings 1"} <= set(added)
    assert space.pool_widths.options == (0, 1)


def test_small_spaces_are_enumerated_with_their_windows() -> None:
    """Every draw is among them."""
    space = read_space(
        f"""\
[blocks]
depth = [1, 2]
kinds = ["conv"]
kernel_sizes = [3]
pool_widths = [0, 1]
{WAYS}
[widths]
min = 2
max = 3
[downsampling]
count = [0, 2]
kinds = ["max", "avg", "stride"]
[head]
kinds = ["gap"]
""",
        "tiny",
    )
    caps = Caps(40)
    found = every_net(space, input_shape=(1, 8, 8), num_classes=2, caps=caps)
    assert found is not None
    windows = {
        b.pooling.window for one, _ in found.values() for b in one.blocks if b.pooling
    }
    assert windows == {(2, 2), (3, 3), (2, 1), (3, 1)}
    for seed in range(100):
        one = sample(
            space, RandomDraws(seed), input_shape=(1, 8, 8), num_classes=2, caps=caps
        )
        assert one.key in found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "pool_sizes = [1]",
            'pool_sizes: of "max" none can be: a pooling of 1x1 changes',
        ),
        ("pool_strides = [17]", "pool_strides: is 17, give 0 to 16"),
        (
            "pool_sizes = [3]\npool_paddings = [1]",
            'pool_paddings: of "avg" none can be: pool_padding is 1; only maxima',
        ),
    ],
)
def test_a_space_without_poolings_is_refused(keys: str, message: str) -> None:
    """The line of the file stands before it."""
    with pytest.raises(SpaceError) as error:
        space_of(keys, "shared" if "avg" in message else "plain")
    assert message in str(error.value)


# --- training and export --------------------------------------------------------------


def test_the_gpu_leaves_other_windows_to_torch() -> None:
    """Its kernels pool 2x2."""
    for layer, recorded in [
        (nn.MaxPool2d(2), True),
        (nn.AvgPool2d((2, 2)), True),
        (nn.MaxPool2d(3, 2, 1), False),
        (nn.AvgPool2d((1, 2)), False),
    ]:
        assert can_record(layer) == recorded


def test_the_source_says_the_windows() -> None:
    """As torch writes them; of 2x2 as before."""
    one = net(*NEXT.blocks[:3], pooled())
    names = [str(number) for number in range(10)]
    text = source(one, mean=[0.1], std=[0.3], class_names=names)
    for line in (
        "pool=nn.MaxPool2d(3, stride=2, padding=1)",
        "pool=nn.MaxPool2d((1, 2))",
        "pool=nn.AvgPool2d((3, 2), stride=2)",
        "pool=nn.MaxPool2d(2)",
    ):
        assert line in text


@pytest.mark.parametrize("order", ["early_pool", "late_pool", "activation_first"])
def test_the_c_code_gives_every_bit(order: Any) -> None:
    """Of windows that overlap, are padded or not square, behind what may stand before."""
    overlapping = {"pool_size": 3, "pool_stride": 2, "order": order}
    check(
        net(
            pooled(**overlapping, pool_padding=1, activation="silu"),
            pooled(**overlapping, pool="avg"),
            pooled(pool="avg", pool_size=1, pool_width=3, order=order),
            pooled(pool_width=1, order=order, norm="none"),
        )
    )


def test_the_c_code_pools_behind_additions_and_repeats() -> None:
    """There, too, each is a layer of its own."""
    check(NEXT)


# --- users' modules -------------------------------------------------------------------


def user_net(*poolings: Any) -> nn.Sequential:
    """Return a net with these poolings behind a convolution and ReLU."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *poolings, nn.Flatten(),
        nn.LazyLinear(10),
    )  # fmt: skip


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        """Take the function."""
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        """Return what it makes of x."""
        return self.function(x)


TAKEN: dict[str, tuple[str, list[nn.Module]]] = {
    "of a ResNet": ("max3s2p1", [nn.MaxPool2d(3, 2, padding=1)]),
    "of AlexNet": ("max3s2", [nn.MaxPool2d(3, 2)]),
    "three": ("max3", [nn.MaxPool2d(3)]),
    "of even size, padded": ("max2p1", [nn.MaxPool2d(2, padding=1)]),
    "over height": ("max(2,1)", [nn.MaxPool2d((2, 1))]),
    "over width": ("avg(1,2)", [nn.AvgPool2d((1, 2))]),
    "high ones that overlap": ("max(3,1)s2", [nn.MaxPool2d((3, 1), (2, 1))]),
    "padded in height": ("max(3,1)s2p1", [nn.MaxPool2d((3, 1), (2, 1), (1, 0))]),
    "one apart": ("max2s1", [nn.MaxPool2d(2, 1)]),
    "filled": ("avg3", [nn.AvgPool2d(3, ceil_mode=True, count_include_pad=False)]),
    "to so many": ("avg4", [nn.AdaptiveAvgPool2d(3)]),
    "to one": ("max12", [nn.AdaptiveMaxPool2d(1)]),
    "a function": ("max3s2", [Function(lambda x: functional.max_pool2d(x, 3, 2))]),
    "adaptive": ("max6", [Function(lambda x: functional.adaptive_max_pool2d(x, 2))]),
    "two": ("max(4,6)", [nn.MaxPool2d(2), nn.MaxPool2d((2, 3))]),
    "one that does nothing": ("max", [nn.MaxPool2d(2), nn.AvgPool2d(1)]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_users_pooling_is_taken(name: str) -> None:
    """With the same weights the logits are the same."""
    notation, poolings = TAKEN[name]
    model = user_net(*poolings)
    shape = (1, 12, 12)
    chain = trace(model, shape)
    architecture, notes = assemble(chain, shape)
    check_same(model, chain, architecture)
    assert describe(architecture) == f"4c3/{notation} bias late - flatten"
    assert not notes


def test_a_user_may_average_the_images() -> None:
    """By windows that fill them."""
    model = nn.Sequential(nn.AvgPool2d(3), *user_net(nn.MaxPool2d(2)))
    chain = trace(model, (1, 12, 12))
    architecture, _ = assemble(chain, (1, 12, 12))
    check_same(model, chain, architecture)
    assert architecture.resolution == 4


@pytest.mark.parametrize(
    ("pooling", "words"),
    [
        (nn.MaxPool2d(5, ceil_mode=True), "whole windows alone; the nearest is ceil_mode"),
        (nn.MaxPool2d(3, dilation=2), "neighbouring values; the nearest is dilation=1"),
        (nn.AvgPool2d(3, 2, padding=1), "means without padding; the nearest is padding=0"),
        (nn.AvgPool2d(3, divisor_override=2), "nearest is divisor_override=None"),
        (nn.MaxPool2d(2, 3), "one stride for height and width, of at most a window"),
        (nn.MaxPool2d(2, (2, 1)), "one stride for height and width"),
        (nn.MaxPool2d(3, 2, (1, 0)), "one padding; the nearest is that"),
        (nn.AdaptiveMaxPool2d(5), "it pools 12x12 to 5x5; nas pools windows of one size"),
    ],
)  # fmt: skip
def test_what_nas_does_not_pool_is_refused(pooling: nn.Module, words: str) -> None:
    """The line names the layer and what comes nearest."""
    with pytest.raises(ArchitectureError, match=words) as error:
        assemble(trace(user_net(pooling), (1, 12, 12)), (1, 12, 12))
    assert "Pool2d) cannot be expressed" in str(error.value)
