"""Spaces that hold few nets under their caps: all of them are told, and searched."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawing import draw
from studying import SIX_NETS, FakeEngine, make_settings

from nas.architecture.cost import cost
from nas.cli.searching import _exhausted
from nas.search.loop import search
from nas.space import (
    Caps,
    SearchSpace,
    every_net,
    find_space,
    read_space,
)
from nas.study.folders import create

SHAPE = (1, 8, 8)
SIX = read_space(SIX_NETS, "six")
ONE = read_space(
    SIX_NETS.replace("[1, 3, 5]", "[3]").replace('["relu", "silu"]', '["relu"]'), "one"
)
# Beside what the others have: heads that are bare, blocks that repeat and deviate.
MANY_KINDS = read_space(
    """\
[blocks]
depth = [1, 3]
kinds = ["conv", "separable"]
kernel_sizes = [1, 3]
repeats = [1, 2]
[widths]
min = 2
max = 3
[downsampling]
count = [0, 1]
kinds = ["max", "stride"]
[head]
kinds = ["gap", "pool"]
[deviation]
share = 0.5
biases = ["yes", "auto"]
""",
    "many-kinds",
)


@pytest.mark.parametrize(
    ("space", "cap", "count"),
    [
        (SIX, 2000, 6),
        (find_space("plain"), 50, 12),
        (find_space("separable"), 56, None),
        (MANY_KINDS, 60, None),
    ],
    ids=["six", "plain", "separable", "many kinds"],
)
def test_whatever_is_drawn_is_among_them(
    space: SearchSpace, cap: int, count: int | None
) -> None:
    """And each of them can be drawn, under the caps."""
    caps = Caps(cap)
    nets = every_net(space, input_shape=SHAPE, num_classes=10, caps=caps)
    assert nets is not None
    drawn = {draw(space, seed, caps, SHAPE).key for seed in range(1500)}
    assert drawn <= nets.keys()
    assert all(caps.allow(cost(net)) for net, _ in nets.values())
    if count is not None:
        assert len(drawn) == len(nets) == count


def test_too_many_are_not_counted() -> None:
    """Neither in a space of all kinds nor where the limit is one below their number."""
    asked = {"input_shape": SHAPE, "num_classes": 10}
    assert every_net(find_space("mixed"), caps=Caps(2000), **asked) is None  # type: ignore[arg-type]
    assert every_net(SIX, caps=Caps(2000), most=5, **asked) is None  # type: ignore[arg-type]
    six = every_net(SIX, caps=Caps(2000), most=6, **asked)  # type: ignore[arg-type]
    assert six is not None
    assert len(six) == 6


@pytest.mark.parametrize(
    ("space", "budget", "said"),
    [
        (
            SIX,
            2000,
            "the study has all 6 nets of its space under its caps: larger caps",
        ),
        (find_space("plain"), 50, "the study has all 12 nets of its space"),
        (ONE, 2000, "the study has the only net of its space"),
    ],
    ids=["six", "twelve", "one"],
)
def test_a_search_finds_them_all_and_says_how_many(
    tmp_path: Path, space: SearchSpace, budget: int, said: str
) -> None:
    """Also those that draws would seldom come upon."""
    settings = make_settings(
        space=space.name, space_toml=space.text, param_budget=budget
    )
    with create(tmp_path / "small", settings) as study:
        outcome = search(study, FakeEngine(2), trials=500)
        assert outcome.reason == "exhausted"
        assert len(study.candidates()) == study.space_size
        assert _exhausted(study).startswith(said)


def test_what_was_not_counted_is_not_said_to_be_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws in vain are no proof."""
    monkeypatch.setattr("nas.study.study.every_net", lambda *_, **__: None)
    settings = make_settings(space_toml=SIX_NETS)
    with create(tmp_path / "small", settings) as study:
        assert search(study, FakeEngine(), trials=50).reason == "exhausted"
        assert "too many nets to be counted" in _exhausted(study)
