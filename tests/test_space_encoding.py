"""An architecture as the draws that give it back."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from drawing import SHAPE, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import net_of
from strategies import examples, spaces

from nas.architecture import Block
from nas.architecture.cost import cost
from nas.errors import SpaceError
from nas.sampling.mutation import mutate
from nas.space import (
    Caps,
    encode,
    find_space,
    read_space,
    smallest,
)
from nas.space.encoding import FixedDraws


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


@pytest.mark.slow
@given(spaces(), st.integers(0, 2**32), st.integers(500, 50_000))
@settings(max_examples=examples(25))
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
            b.norm != architecture.blocks[0].norm
            or b.norm not in space.norms.options
            or b.bias != "auto"
            for b in architecture.blocks
        ]
        assert any(own)
        return
    again = draw(space, StrictDraws(values), caps)
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
        again = draw(space, StrictDraws(values), caps)
        assert again == net
        changed = mutate(space, net, caps, num_params=1500, changes=3, rng=rng)
        assert changed is None or caps.allow(cost(changed))
    # The whole image and a quarter of it are 980 bytes, more than a first block needs.
    with pytest.raises(SpaceError, match="which has 833 bytes of activations"):
        draw(space, 0, Caps(2000, None, 800))
    tight = [draw(space, seed, Caps(2000, None, 900)) for seed in range(10)]
    assert {net.resolution for net in tight} == {7}


def test_widths_rounded_apart_are_draws_within_the_bounds() -> None:
    """2 and 10 channels are 5 times apart; the space draws at most 4.84 times."""
    space, caps = find_space("plain"), Caps(10_000)
    blocks = (Block(out_channels=2, pool="max"), Block(out_channels=10))
    net = net_of(*blocks, shape=SHAPE)
    values = encode(space, net, caps)
    assert values is not None
    again = draw(space, StrictDraws(values), caps)
    assert again.key == net.key


def test_what_is_not_in_the_space_cannot_be_encoded() -> None:
    """An unknown kernel, too large a net and unknown options are told apart."""
    space, caps = find_space("plain"), Caps(10_000)
    block = Block(out_channels=8, pool="max")
    inside = net_of(block, block, shape=SHAPE)
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
