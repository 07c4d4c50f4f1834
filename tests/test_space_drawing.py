"""Drawing: what is drawn is under every cap and of its space, or the caps are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from drawing import ALL, SHAPE, draw, is_classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples, shapes, spaces

from nas.architecture import Architecture
from nas.architecture.cost import cost
from nas.architecture.kinds import KINDS, least_width
from nas.errors import SpaceError
from nas.space import (
    Caps,
    RandomDraws,
    SearchSpace,
    available,
    find_space,
    read_space,
    smallest,
)
from nas.space.definition import options_of, used_resolution
from nas.space.limits import heads_of, smallest_costs


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
@settings(max_examples=examples(40))
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
    architecture = draw(space, ChosenDraws(data), caps, shape, num_classes)
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
        architecture = draw(space, seed, Caps(20_000), (1, 8, 8), 2)
        check_membership(architecture, space)
        pairs = pairwise(architecture.blocks)
        seen += any(a.repeats > 1 and b.shortcut == "identity" for a, b in pairs)
    assert seen > 3


def check_membership(architecture: Architecture, space: SearchSpace) -> None:
    """Assert that the space holds the architecture."""
    assert space.depth[0] <= len(architecture.blocks) <= space.depth[1]
    ways = [block.downsampling for block in architecture.blocks]
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
        assert number or block.shortcut not in {"identity", "pad"}
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
        draw(find_space(name), Recorded(seed), Caps(3_000 if seed % 2 else 300))
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
