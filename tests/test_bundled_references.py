"""The references that come with nas: what the sources say, and a point of the space."""

from __future__ import annotations

import pytest
from drawing import draw

from nas.references.bundled import available, find_reference
from nas.space import Caps, encode, find_space
from nas.space.encoding import FixedDraws

# The sum of the source, and ours where the source's layers cannot be had exactly.
NUM_PARAMS = {
    "s0": 10_540,
    "s1": 12_332,
    "s2a": 8_580,
    "s2b": 4_879,
    "s2c": 3_077,
    "s3a": 14_864,
    "s3b": 14_800,
    "s4": 18_962,
    "public-1936": 1_906,
    "public-3762": 3_762,
    "public-7496": 7_496,
    "public-9994": 9_994,
}


def test_all_are_there() -> None:
    """Each hand-made net has its file and no other is there."""
    assert available() == sorted(NUM_PARAMS)


@pytest.mark.parametrize("name", NUM_PARAMS)
def test_its_parameters_are_those_of_the_source(name: str) -> None:
    """The count is the published one, or as near below it as its file explains."""
    reference = find_reference(name)
    assert reference.published is not None
    assert reference.num_params == NUM_PARAMS[name]
    assert 0 <= reference.published.num_params - reference.num_params <= 30
    assert reference.description
    assert reference.source


@pytest.mark.parametrize("name", NUM_PARAMS)
@pytest.mark.parametrize("budget", [None, 20_000, 50_000])
def test_it_is_a_point_of_the_default_space(name: str, budget: int | None) -> None:
    """Encoded and decoded it is itself, under its own size as the cap or a larger."""
    space, architecture = find_space("mixed"), find_reference(name).architecture
    caps = Caps(budget or NUM_PARAMS[name])
    values = encode(space, architecture, caps)
    assert values is not None
    shape, classes = architecture.input_shape, architecture.num_classes
    again = draw(space, FixedDraws(values), caps, shape, classes)
    assert again.key == architecture.key
