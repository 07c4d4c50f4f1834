"""Grouped convolutions, from the description to training: what they cost and compute."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from nets import net_of
from torch import nn

from nas.architecture import Architecture, Block
from nas.architecture.cost import cost, layers
from nas.architecture.notation import describe
from nas.errors import ArchitectureError, SpaceError
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
from nas.training.kernels import supports
from nas.training.kernels.gpu_recording import can_record
from nas.training.model import PadChannels, build

RGB = (3, 16, 16)
net = partial(net_of, shape=RGB)

NEXT = net(
    Block(out_channels=6, groups=3),
    Block(out_channels=8, groups=2, stride=2, shortcut="conv"),
    Block(out_channels=8, groups=4, shortcut="identity"),
    Block(out_channels=8, groups=8, repeats=2, dilation=2, pool="max"),
    Block(out_channels=12, groups=4, kernel_size=1, norm="none"),
)


def space_with_groups(name: str, groups: str = "[1, 2, 4]") -> SearchSpace:
    """Return a bundled space that has groups, too."""
    text = find_space(name).text
    return read_space(
        text.replace("[blocks]\n", f"[blocks]\ngroups = {groups}\n"), "own"
    )


# --- the description ----------------------------------------------------------------


def test_costs_are_those_of_torch() -> None:
    """A convolution of so many groups has so many times fewer weights and MACs."""
    model = build(NEXT).eval()
    counted = sum(p.numel() for p in model.parameters())
    found = [m.groups for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert found == [3, 2, 1, 4, 8, 4]  # the shortcut's 1x1 convolution has none
    macs = []

    def count(conv: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        macs.append(conv.weight[0].numel() * output[0].numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    model(torch.zeros(1, *RGB))
    costs = cost(NEXT)
    assert costs.num_params == counted
    assert costs.macs == sum(macs) + 12 * 10
    whole = replace(NEXT, blocks=tuple(replace(b, groups=1) for b in NEXT.blocks))
    assert costs.peak_memory == cost(whole).peak_memory
    assert costs.num_params < cost(whole).num_params / 2


def test_notation_json_and_key_know_groups() -> None:
    """Architectures of before are written as before."""
    assert describe(NEXT) == (
        "6c3g3 - 8c3g2/2+1x1 - 8c3g4+ - 8c3d2g8/maxx2 - 12c1g4 bias - gap"
    )
    assert "conv 3x3 groups 3, batch norm, relu" in layers(NEXT)[0].description
    assert Architecture.from_json(NEXT.to_json()) == NEXT
    plain = net(Block(out_channels=6))
    assert "groups" not in plain.to_json()
    assert plain.key != net(Block(out_channels=6, groups=3)).key


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (
            [Block(out_channels=6, groups=2)],
            "block 1 takes 3 channels, which groups 2 does not divide",
        ),
        (
            [Block(out_channels=8, groups=3)],
            "block 1: out_channels is 8, which groups 3 does not divide",
        ),
        (
            [Block(kind="separable", out_channels=6, groups=3)],
            "block 1: groups is 3; a separable block has none: leave 1, or take conv",
        ),
        (
            [Block(out_channels=6, groups=0)],
            "block 1: groups is 0, give a whole number of at least 1",
        ),
    ],
)
def test_what_groups_do_not_divide_is_refused(
    blocks: list[Block], message: str
) -> None:
    """The line says what does not fit, and what would."""
    with pytest.raises(ArchitectureError) as error:
        net(*blocks)
    assert message in str(error.value)


# --- spaces ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "caps",
    [
        Caps(400),
        Caps(2_500),
        Caps(20_000),
        Caps(2_500, macs=100_000, peak_memory=2_500, flash=9_000),
    ],
)
@pytest.mark.parametrize(
    ("name", "groups"), [("plain", "[1, 2, 4]"), ("residual", "[4, 1, 3]")]
)
def test_draws_fit_and_can_be_told(name: str, groups: str, caps: Caps) -> None:
    """Under every cap, narrow nets as well as wide ones; their draws make them again."""
    space = space_with_groups(name, groups)
    drawn = set()
    for seed in range(40):
        one = sample(
            space, RandomDraws(seed), input_shape=RGB, num_classes=10, caps=caps
        )
        assert caps.allow(cost(one))
        drawn |= {block.groups for block in one.blocks}
        build(one)
        assert encode(space, one, caps) is not None, describe(one)
    assert drawn == set(space.groups.options)


def test_mutation_and_resizing_keep_widths_that_groups_divide() -> None:
    """And stay within the caps."""
    space, caps, rng = space_with_groups("residual"), Caps(3_000), random.Random(1)
    one = sample(space, RandomDraws(3), input_shape=RGB, num_classes=10, caps=caps)
    seen = set()
    for _ in range(150):
        child = mutate(space, one, caps, num_params=2_000, changes=2, rng=rng)
        if child is not None:
            assert cost(child).num_params <= 2_000
            seen |= {block.groups for block in child.blocks}
            one = child
    assert seen == {1, 2, 4}
    for budget in (700, 5_000, 50_000):
        sized = resize(NEXT, Caps(budget))
        assert cost(sized).num_params <= budget
        assert [b.groups for b in sized.blocks] == [b.groups for b in NEXT.blocks]
    assert cost(sized).num_params > 45_000
    with pytest.raises(ArchitectureError, match="at its narrowest it has"):
        resize(NEXT, Caps(300))


def test_a_space_takes_groups_in() -> None:
    """As --start-from does; all that could be drawn before still can."""
    space, added = include(find_space("residual"), NEXT, Caps(2_000))
    assert encode(space, NEXT, Caps(2_000)) is not None
    assert {"groups 2", "groups 3", "groups 4", "groups 8"} <= set(added)
    assert space.groups.options == (1, 2, 3, 4, 8)


def test_small_spaces_are_enumerated_with_their_groups() -> None:
    """Every draw is among them, and each stands there once."""
    space = read_space(
        """\
[blocks]
depth = [1, 3]
kinds = ["conv", "separable"]
kernel_sizes = [1, 3]
shortcuts = ["none", "identity"]
repeats = [1, 2]
groups = [1, 2, 3]
[widths]
min = 2
max = 4
[downsampling]
count = [0, 0]
kinds = ["max"]
[head]
kinds = ["gap"]
""",
        "tiny",
    )
    caps = Caps(40)
    found = every_net(space, input_shape=(1, 8, 8), num_classes=2, caps=caps)
    assert found is not None
    assert {b.groups for one, _ in found.values() for b in one.blocks} == {1, 2, 3}
    for seed in range(300):
        one = sample(
            space, RandomDraws(seed), input_shape=(1, 8, 8), num_classes=2, caps=caps
        )
        assert one.key in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("[2, 4]", "groups: has no 1, for a block that takes images of one channel"),
        ("[1, 0]", "groups: is 0, give 1 to 256"),
    ],
)
def test_a_space_without_whole_convolutions_is_refused(
    options: str, message: str
) -> None:
    """The line of the file stands before it."""
    with pytest.raises(SpaceError) as error:
        space_with_groups("plain", options)
    assert message in str(error.value)


# --- training -------------------------------------------------------------------------


def test_the_gpu_leaves_groups_and_zeros_to_torch() -> None:
    """Its kernels do depthwise convolutions, and those of the CPU do both, too."""
    for groups, out_channels, recorded in [
        (1, 12, True),
        (2, 6, False),
        (6, 6, True),
        (6, 12, False),
    ]:
        conv = nn.Conv2d(6, out_channels, 3, groups=groups)
        assert can_record(conv) == recorded
    assert not can_record(PadChannels(2, 3, 3))
    assert supports(build(NEXT), 64)
