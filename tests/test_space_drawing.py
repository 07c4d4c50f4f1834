"""Drawing: every draw is under every cap, and the draws cover what is allowed."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import architectures, examples, shapes, spaces

from nas.architecture import Architecture, Block, Head, feature_shapes, resized
from nas.architecture.cost import Cost, cost
from nas.architecture.kinds import KINDS, least_width, refusal
from nas.errors import ArchitectureError, SpaceError
from nas.sampling.mutation import mutate
from nas.space import (
    Caps,
    RandomDraws,
    SearchSpace,
    available,
    encode,
    find_space,
    read_space,
    sample,
    smallest,
)
from nas.space.completion import Completion, State
from nas.space.encoding import FixedDraws
from nas.space.groups import rounded_up, steps_of
from nas.space.limits import heads_of, inputs_of, smallest_costs
from nas.space.reading import options_of, used_resolution
from nas.space.widening import widths_to_cost

SHAPE = (1, 28, 28)
CAPS = [300, 1_000, 3_000, 10_000, 50_000]
ALL = Caps(1, 1, 1)


def draw(space: SearchSpace, seed: int, caps: Caps) -> Architecture:
    """Draw an architecture for MNIST's images."""
    return sample(
        space, RandomDraws(seed), input_shape=SHAPE, num_classes=10, caps=caps
    )


def way(block: Block) -> str:
    """Return how the block downsamples, or "none"."""
    return "stride" if block.stride > 1 else block.pool


def check_coverage(name: str, cap: int, number: int) -> None:
    """Assert that the draws keep the cap and cover all that the space offers."""
    space = find_space(name)
    least = smallest(space, SHAPE, 10, Caps(cap))
    seen: Counter[Any] = Counter()
    for seed in range(number):
        architecture = draw(space, seed, Caps(cap))
        size = cost(architecture).num_params
        # A block's own way may leave out its norm, which the smallest net has.
        assert size <= cap
        assert least <= size or space.deviation.share
        share = math.log(size / least) / math.log(cap / least)
        ways = [way(block) for block in architecture.blocks]
        seen.update(
            [
                ("bin", min(9, int(10 * share))),
                ("depth", len(ways)),
                ("count", sum(one != "none" for one in ways)),
                ("head", architecture.head.kind),
                ("hidden", architecture.head.hidden),
            ]
        )
        for block, one in zip(architecture.blocks, ways, strict=True):
            seen.update(
                [
                    ("way", one),
                    ("kind", block.kind),
                    ("kernel_size", block.kernel_size),
                    ("padding", block.padding),
                    ("activation", block.activation),
                ]
            )
    assert sum(name == "bin" for name, _ in seen) >= 8
    expected: dict[str, set[Any]] = {
        "depth": set(range(space.depth[0], space.depth[1] + 1)),
        "count": set(range(space.downsamplings[0], space.downsamplings[1] + 1)),
        "way": {"none", *space.downsampling_kinds.options},
        "kind": set(space.kinds.options),
        "kernel_size": set(space.kernel_sizes.options),
        "padding": set(space.paddings.options),
        "activation": set(space.activations.options),
        "head": {head.kind for head in possible_heads(space, cap)},
        "hidden": {head.hidden for head in possible_heads(space, cap)},
    }
    own_ways = {"activation": {"none", *space.deviation.activations}}
    for what, options in expected.items():
        found = {value for name, value in seen if name == what}
        assert options <= found <= options | own_ways.get(what, set()), what


def possible_heads(space: SearchSpace, cap: int) -> list[Head]:
    """Return the heads with which some net of the space is under the cap."""
    table = Completion(space, 10, Caps(1))
    return [
        head
        for head in heads_of(space)
        if any(
            table.fits(State(norm, head, SHAPE, depth, count), Caps(cap))
            for norm in space.norms.options
            for depth in range(space.depth[0], space.depth[1] + 1)
            for count in range(space.downsamplings[0], space.downsamplings[1] + 1)
        )
    ]


@pytest.mark.parametrize(
    ("name", "cap"),
    [
        pytest.param(
            name,
            cap,
            marks=[] if name == "mixed" or cap == CAPS[2] else pytest.mark.slow,
        )
        for name in available()
        for cap in CAPS
    ],
)
def test_draws_keep_the_cap_and_cover_the_range(name: str, cap: int) -> None:
    """A few hundred draws are all under the cap, in all sizes, depths and kinds."""
    check_coverage(name, cap, 400)


@pytest.mark.slow
@pytest.mark.parametrize("cap", CAPS)
def test_thousands_of_draws_keep_the_cap(cap: int) -> None:
    """Draws of the default space, which holds all that the others do.

    benchmarks/draws.py draws ten thousand for every space and cap.
    """
    check_coverage("mixed", cap, 4_000)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "plain" else pytest.mark.slow)
        for name in available()
    ],
)
def test_further_caps_hold(name: str) -> None:
    """MACs and peak memory are capped by the same means, down to the tightest."""
    space = find_space(name)
    least = smallest(space, SHAPE, 10, Caps(1_000))
    for num_params, macs, memory in [
        (5_000, 200_000, None),
        (5_000, None, 4_000),
        (5_000, 100_000, 3_000),
        (least, None, None),
    ]:
        caps = Caps(num_params, macs, memory)
        for seed in range(30):
            assert caps.allow(cost(draw(space, seed, caps)))


class ChosenDraws:
    """Draws that hypothesis chooses, so that it can look for the worst."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return a number from low to high."""
        return self.data.draw(st.floats(low, high), label=name)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number from low to high."""
        return self.data.draw(st.integers(low, high), label=name)


@pytest.mark.slow
@given(spaces(), shapes(), st.integers(2, 20), st.data())
def test_any_draw_from_any_space_is_under_all_caps(
    text: str, shape: tuple[int, int, int], num_classes: int, data: st.DataObject
) -> None:
    """From the tightest caps upward, whatever is drawn fits and is of the space."""
    space = read_space(text, "drawn")
    corners = smallest_costs(space, shape, num_classes, ALL)
    if not corners:
        with pytest.raises(SpaceError, match="holds no net for images of"):
            smallest(space, shape, num_classes, Caps(10**6))
        return
    corner = data.draw(st.sampled_from(corners), label="corner")
    factors = [data.draw(st.just(1.0) | st.floats(1, 100)) for _ in range(3)]
    params, macs, memory = (
        int(value * factor)
        for value, factor in zip(
            (corner.num_params, corner.macs, corner.peak_memory), factors, strict=True
        )
    )
    caps = Caps(
        params,
        data.draw(st.sampled_from([None, macs]), label="macs"),
        data.draw(st.sampled_from([None, memory]), label="memory"),
    )
    architecture = sample(
        space,
        ChosenDraws(data),
        input_shape=shape,
        num_classes=num_classes,
        caps=caps,
    )
    found = cost(architecture)
    assert caps.allow(found)
    least = smallest(space, shape, num_classes, caps)
    assert found.num_params >= least or space.deviation.share
    check_membership(architecture, space)


def test_a_block_that_adds_its_input_follows_one_that_is_repeated() -> None:
    """Both have no width of their own, also where the kinds' least widths differ."""
    text = """
    [blocks]
    depth = [3, 4]
    kinds = ["inception", "residual", "conv"]
    kernel_sizes = [1, 5, 9]
    paddings = ["same"]
    shortcuts = ["none", "identity", "conv"]
    repeats = [1, 2]
    [widths]
    min = 2
    max = 8
    [downsampling]
    count = [0, 1]
    kinds = ["max"]
    smallest_side = 2
    [head]
    kinds = ["gap"]
    """
    space = read_space(text, "tied")
    seen = 0
    for seed in range(300):
        architecture = sample(
            space,
            RandomDraws(seed),
            input_shape=(1, 8, 8),
            num_classes=2,
            caps=Caps(20_000),
        )
        check_membership(architecture, space)
        pairs = pairwise(architecture.blocks)
        seen += any(a.repeats > 1 and b.shortcut == "identity" for a, b in pairs)
    assert seen > 3


def check_membership(architecture: Architecture, space: SearchSpace) -> None:
    """Assert that the space holds the architecture."""
    assert space.depth[0] <= len(architecture.blocks) <= space.depth[1]
    ways = [way(block) for block in architecture.blocks]
    count = sum(one != "none" for one in ways)
    assert space.downsamplings[0] <= count <= space.downsamplings[1]
    assert {*ways} <= {"none", *space.downsampling_kinds.options}
    resolutions = space.resolutions.options
    assert architecture.resolution in {
        used_resolution(option, architecture.input_shape) for option in resolutions
    }
    own = space.deviation
    for number, block in enumerate(architecture.blocks):
        assert block.kind in space.kinds.options
        assert block.kernel_size in space.kernel_sizes.options
        assert KINDS[block.kind].drawn(max(block.kernel), block.padding)
        for name, left in options_of(space, block.kind).items():
            assert getattr(block, name) in left
        assert block.shortcut in space.shortcuts.options
        assert number or block.shortcut != "identity"
        assert block.padding in space.paddings.options
        assert block.norm in {*space.norms.options, *own.norms}
        assert block.activation in {
            *("none", *space.activations.options, *own.activations)
        }
        assert block.dropout in {0.0, *space.dropouts.options, *own.dropouts}
        assert block.bias in {"auto", *own.biases}
        assert block.order in {"early_pool", *own.orders}
        assert block.repeats in space.repeats.options
        if is_classifier(architecture, number):
            assert block.out_channels == architecture.num_classes
        elif not block.tied:
            most = max(space.max_width, least_width(block.kind, block.kernel_size))
            assert space.min_width <= block.out_channels <= most
    assert replace(architecture.head, dropout=0.0) in heads_of(space)


def is_classifier(architecture: Architecture, place: int) -> bool:
    """Return whether the block in that place (from 0) makes the logits."""
    last = place == len(architecture.blocks) - 1
    return last and architecture.head.kind == "pool"


@pytest.mark.slow
@given(spaces(), st.integers(0, 2**32), st.integers(500, 50_000))
def test_what_was_drawn_can_be_encoded(text: str, seed: int, budget: int) -> None:
    """The draws that encode finds give back the architecture, whatever it is."""
    space = read_space(text, "drawn")
    caps = Caps(budget)
    try:
        architecture = draw(space, seed, caps)
    except SpaceError:
        return
    values = encode(space, architecture, caps)
    if cost(architecture).num_params < smallest(space, SHAPE, 10, caps):
        return  # of a net that its own ways have made smaller than all others
    if values is None:
        # Without norm, or with biases of its own, it has another number of parameters than
        # the usual net of the size at which it was drawn.
        own = [
            b.norm not in space.norms.options or b.bias != "auto"
            for b in architecture.blocks
        ]
        assert any(own)
        return
    draws = StrictDraws(values)
    again = sample(space, draws, input_shape=SHAPE, num_classes=10, caps=caps)
    assert again.key == architecture.key


def test_resolutions_are_drawn_told_back_and_changed() -> None:
    """Each option that there is, under caps that the averaging itself has to fit."""
    text = (
        "[input]\nresolution = [7, 14, 28]\n[blocks]\ndepth = [1, 3]\n"
        'kinds = ["conv"]\nkernel_sizes = [3]\n[widths]\nmin = 2\nmax = 20\n'
        '[downsampling]\ncount = [0, 1]\nkinds = ["max"]\n[head]\nkinds = ["gap"]\n'
    )
    space = read_space(text, "lower")
    caps = Caps(2000, 10**6, 5000)
    nets = [draw(space, seed, caps) for seed in range(40)]
    assert {net.resolution for net in nets} == {0, 7, 14}
    rng = random.Random(0)
    for net in nets:
        assert caps.allow(cost(net))
        values = encode(space, net, caps)
        assert values is not None
        draws = StrictDraws(values)
        again = sample(space, draws, input_shape=SHAPE, num_classes=10, caps=caps)
        assert again == net
        changed = mutate(space, net, caps, num_params=1500, changes=3, rng=rng)
        assert changed is None or caps.allow(cost(changed))
    # The whole image and a quarter of it are 980 bytes, more than a first block needs.
    with pytest.raises(SpaceError, match="which has 833 bytes of activations"):
        draw(space, 0, Caps(2000, None, 800))
    tight = [draw(space, seed, Caps(2000, None, 900)) for seed in range(10)]
    assert {net.resolution for net in tight} == {7}


class StrictDraws(FixedDraws):
    """Refuses what no sampler could have drawn, as Optuna does."""

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return the number of that name, which has to be within the bounds."""
        assert low <= self.values[name] <= high, name
        return self.values[name]

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return the whole number of that name, which has to be within the bounds."""
        assert low <= self.values[name] <= high, name
        return int(self.values[name])


def test_widths_rounded_apart_are_draws_within_the_bounds() -> None:
    """2 and 10 channels are 5 times apart; the space draws at most 4.84 times."""
    space, caps = find_space("plain"), Caps(10_000)
    blocks = (Block(out_channels=2, pool="max"), Block(out_channels=10))
    net = Architecture(
        input_shape=SHAPE, num_classes=10, blocks=blocks, head=Head(kind="gap")
    )
    values = encode(space, net, caps)
    assert values is not None
    draws = StrictDraws(values)
    again = sample(space, draws, input_shape=SHAPE, num_classes=10, caps=caps)
    assert again.key == net.key


def test_what_is_not_in_the_space_cannot_be_encoded() -> None:
    """An unknown kernel, too large a net and unknown options are told apart."""
    space, caps = find_space("plain"), Caps(10_000)
    block = Block(out_channels=8, pool="max")
    inside = Architecture(
        input_shape=SHAPE, num_classes=10, blocks=(block, block), head=Head()
    )
    assert encode(space, inside, caps) is not None
    assert encode(space, inside, Caps(100)) is None
    for change in (
        {"kernel_size": 9},
        {"kind": "separable"},
        {"norm": "none"},
        {"dropout": 0.3},
        {"out_channels": 200},
        {"stride": 2, "pool": "none"},
    ):
        other = replace(inside, blocks=(replace(block, **change), block))  # type: ignore[arg-type]
        assert encode(space, other, caps) is None, change


def enumerate_space(
    space: SearchSpace, shape: tuple[int, int, int], num_classes: int
) -> Iterator[tuple[State, Architecture]]:
    """Yield every architecture of a space (but for activation and dropout)."""
    # A tiny space has one.
    resolution = used_resolution(space.resolutions.options[0], shape)
    for norm, head in product(space.norms.options, heads_of(space)):
        for depth in range(space.depth[0], space.depth[1] + 1):
            one = [
                block
                for kind, kernel_size, padding, how, shortcut in product(
                    space.kinds.options,
                    space.kernel_sizes.options,
                    space.paddings.options,
                    ["none", *space.downsampling_kinds.options],
                    space.shortcuts.options,
                )
                for block in of_all_widths(
                    space, kind, kernel_size, padding, norm, how, shortcut
                )
            ]
            lasts = one
            if head.kind == "pool":
                found = {replace(block, out_channels=num_classes) for block in one}
                lasts = [
                    b
                    for b in found
                    if least_width(b.kind, b.kernel_size) <= num_classes
                ]
            for chain in product(*[one] * (depth - 1), lasts):
                count = sum(way(block) != "none" for block in chain)
                if not space.downsamplings[0] <= count <= space.downsamplings[1]:
                    continue
                try:
                    architecture = Architecture(
                        input_shape=shape,
                        num_classes=num_classes,
                        blocks=chain,
                        head=head,
                        resolution=resolution,
                    )
                except ArchitectureError:
                    continue
                # An identity of the images, or to the classes, is no space's.
                first, last = chain[0], chain[-1]
                if first.shortcut == "identity" or (
                    head.kind == "pool" and last.shortcut == "identity"
                ):
                    continue
                if roomy(architecture, space):
                    start = resized(shape, resolution)
                    yield State(norm, head, start, depth, count), architecture


def of_all_widths(
    space: SearchSpace,
    kind: str,
    kernel_size: int,
    padding: Any,
    norm: Any,
    how: Any,
    shortcut: Any,
) -> list[Block]:
    """Return the blocks of these options in each width that the space allows."""
    if kind in {"inception", "residual"} and padding == "valid":
        return []
    shaped = KINDS[kind].shaped
    branches = (kernel_size + 1) // 2 if kind == "inception" else 1
    least = max(space.min_width, branches)
    most = max(space.max_width, least)
    if shortcut == "identity":
        # As wide as the block before it, of whatever kind that is.
        widest = (max(space.kernel_sizes.options) + 1) // 2
        most = max(most, widest if "inception" in space.kinds.options else 0)
    bottleneck = kind == "inverted_bottleneck"
    expansions = space.expansions.options if bottleneck else (1,)
    gated = space.squeeze_excitations.options if KINDS[kind].gates else (0,)
    found = [
        Block(
            kind=kind,
            out_channels=width,
            kernel_size=kernel_size,
            padding=padding,
            norm=norm,
            stride=2 if how == "stride" else 1,
            pool="none" if how == "stride" else how,
            shortcut=shortcut,
            expansion=expansion,
            squeeze_excitation=gates,
            kernel_width=kernel_width,
            dilation=dilation,
            groups=groups,
        )
        for width in range(least, most + 1)
        for expansion in expansions
        for gates in gated
        for kernel_width in (space.kernel_widths.options if shaped else (0,))
        for dilation in (space.dilations.options if shaped else (1,))
        for groups in (space.groups.options if KINDS[kind].grouped else (1,))
        if kind == "conv" or max(kernel_size, kernel_width) > 1
    ]
    return [block for block in found if refusal(block) is None]


def roomy(architecture: Architecture, space: SearchSpace) -> bool:
    """Return whether every feature map has the space's smallest side."""
    height, width = feature_shapes(architecture)[0][1:]
    for place, block in enumerate(architecture.blocks):
        if block.padding == "valid":
            height -= block.extent[0] - 1
            width -= block.extent[1] - 1
        if way(block) == "stride":
            height, width = -(-height // 2), -(-width // 2)
        elif way(block) != "none":
            height, width = height // 2, width // 2
        smallest_side = 1 if is_classifier(architecture, place) else space.smallest_side
        if min(height, width) < smallest_side:
            return False
    return True


@settings(max_examples=examples(40))
@given(spaces(tiny=True), shapes(4, 9), st.integers(2, 4), st.data())
def test_completion_table_equals_brute_force(
    text: str, shape: tuple[int, int, int], num_classes: int, data: st.DataObject
) -> None:
    """Enumerate a tiny space: what fits, what is smallest, which moves there are."""
    space = read_space(text, "tiny")
    everything = [
        (state, architecture, ALL.relevant(cost(architecture)))
        for state, architecture in enumerate_space(space, shape, num_classes)
    ]
    costs = {found for _, _, found in everything}
    unbeaten = {one for one in costs if not any(beats(two, one) for two in costs)}
    least = smallest_costs(space, shape, num_classes, ALL)
    assert {one for one in least if not any(beats(two, one) for two in least)} == (
        unbeaten
    )
    if not everything:
        return
    assert smallest(space, shape, num_classes, Caps()) == min(
        found.num_params for found in costs
    )

    table = Completion(space, num_classes, ALL)
    corner = data.draw(st.sampled_from(sorted(costs, key=repr)), label="corner")
    shift = data.draw(st.integers(-2, 2), label="shift")
    caps = Caps(
        corner.num_params + shift, corner.macs + shift, corner.peak_memory + shift
    )
    fitting = [(s, a) for s, a, found in everything if caps.allow(found)]
    ((_, _, start),) = inputs_of(space, shape).values()
    if not caps.allow(start):
        assert not fitting
        return
    for state in {state for state, _, _ in everything}:
        here = [architecture for s, architecture in fitting if s == state]
        assert table.fits(state, caps) == bool(here)
        firsts = {a.blocks[0] for a in here if is_minimal(a, 0, space)}
        moves = [move for move in table.moves(state) if move.fits(caps)]
        assert {move.block for move in moves} == firsts
        for move in moves:
            seconds = {
                a.blocks[1]
                for a in here
                if a.blocks[0] == move.block and len(a.blocks) > 1
                if is_minimal(a, 1, space)
            }
            left = caps.after(move.cost)
            if move.state.blocks_left:
                after = [m for m in table.moves(move.state) if m.fits(left)]
                assert {m.block for m in after} == seconds


def beats(one: Cost, other: Cost) -> bool:
    """Return whether one is nowhere higher than the other, and not equal."""
    return one != other and all(
        getattr(one, name) <= getattr(other, name)
        for name in ("num_params", "macs", "peak_memory")
    )


def is_minimal(architecture: Architecture, place: int, space: SearchSpace) -> bool:
    """Return whether the block there has the smallest width that it can have.

    Of groups, its own or of a later block, each has a smallest width of its own.
    """
    block = architecture.blocks[place]
    if is_classifier(architecture, place) or block.shortcut == "identity":
        return True
    least = max(space.min_width, least_width(block.kind, block.kernel_size))
    options = space.groups.options
    steps = [
        math.lcm(*some)
        for count in range(len(options) + 1)
        for some in combinations(options, count)
    ]
    return block.out_channels in {-(-least // step) * step for step in steps}


@given(architectures(), st.data())
def test_widths_to_cost_equals_cost(
    architecture: Architecture, data: st.DataObject
) -> None:
    """The fast cost of changed widths is that of the changed architecture."""
    widths: list[int] = []
    steps = steps_of(architecture.blocks)
    for place, block in enumerate(architecture.blocks):
        before = widths[-1] if widths else architecture.input_shape[0]
        width = data.draw(st.integers(least_width(block.kind, block.kernel_size), 70))
        width = before if block.tied else rounded_up(width, steps[place])
        widths.append(
            block.out_channels if is_classifier(architecture, place) else width
        )
    if any(
        least_width(block.kind, block.kernel_size) > width
        for block, width in zip(architecture.blocks, widths, strict=True)
    ):
        return
    if architecture.head.kind == "pool" and architecture.blocks[-1:]:
        last = architecture.blocks[-1]
        if last.tied:
            return  # no space draws a classifier that is as wide as its input
    blocks = tuple(
        replace(block, out_channels=width)
        for block, width in zip(architecture.blocks, widths, strict=True)
    )
    wide = replace(architecture, blocks=blocks)
    assert widths_to_cost(architecture)(widths) == ALL.relevant(cost(wide))


@pytest.mark.parametrize("name", available())
def test_a_seed_fixes_the_draw(name: str) -> None:
    """The same seed gives the same architecture, other seeds mostly others."""
    space, caps = find_space(name), Caps(5_000)
    keys = [draw(space, seed, caps).key for seed in range(50)]
    assert keys == [draw(space, seed, caps).key for seed in range(50)]
    assert len(set(keys)) > 45


@pytest.mark.parametrize("name", available())
def test_each_name_keeps_its_range(name: str) -> None:
    """A decision is always asked for with the same bounds, as samplers need it."""
    ranges: dict[str, tuple[float, float]] = {}

    class Recorded(RandomDraws):
        def suggest_float(self, name: str, low: float, high: float) -> float:
            assert ranges.setdefault(name, (low, high)) == (low, high)
            return super().suggest_float(name, low, high)

        def suggest_int(self, name: str, low: int, high: int) -> int:
            assert ranges.setdefault(name, (low, high)) == (low, high)
            return super().suggest_int(name, low, high)

    for seed in range(200):
        sample(
            find_space(name),
            Recorded(seed),
            input_shape=SHAPE,
            num_classes=10,
            caps=Caps(3_000 if seed % 2 else 300),
        )
    assert "size" in ranges
    assert len(ranges) > 20


@pytest.mark.parametrize("name", available())
def test_a_cap_below_the_smallest_net_names_its_size(name: str) -> None:
    """An impossible budget is refused in one line with the size that is possible."""
    space = find_space(name)
    least = smallest(space, SHAPE, 10, Caps(10_000))
    assert cost(draw(space, 0, Caps(least))).num_params == least
    for cap in (least - 1, 1, 0):
        with pytest.raises(SpaceError) as caught:
            draw(space, 0, Caps(cap))
        message = str(caught.value)
        assert message.endswith(
            f"has {least} parameters: give at least --budget {least}"
        )
        assert f"--budget {cap} is below" in message
        assert "\n" not in message


def test_other_caps_below_the_smallest_net() -> None:
    """MACs and memory have such a line, too; so has what only fails together."""
    space = find_space("plain")
    for option, caps, unit in [
        ("--max-macs", Caps(10_000, macs=1), "MACs"),
        ("--max-memory", Caps(10_000, peak_memory=1), "bytes of activations"),
    ]:
        with pytest.raises(SpaceError, match=rf"{option} 1 is below.* {unit}"):
            smallest(space, SHAPE, 10, caps)
    corners = smallest_costs(space, SHAPE, 10, ALL)
    together = Caps(
        min(one.num_params for one in corners),
        peak_memory=min(one.peak_memory for one in corners),
    )
    with pytest.raises(SpaceError, match=r"within all of .* --budget \d+ would do"):
        smallest(space, SHAPE, 10, together)


def test_a_budget_is_needed() -> None:
    """Without a parameter budget there is no size to aim at."""
    with pytest.raises(SpaceError, match="no parameter budget"):
        draw(find_space("plain"), 0, Caps())


def test_images_too_small_for_the_space() -> None:
    """Where no net has room the message says so and how to change the space."""
    with pytest.raises(SpaceError, match="holds no net for images of 1x2x2"):
        smallest(find_space("mixed"), (1, 2, 2), 10, Caps(10_000))
