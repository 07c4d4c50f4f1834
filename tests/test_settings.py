"""Settings: study.toml gives back what was written; rungs; differences by name."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import net_of
from studying import make_settings

from nas.architecture.boards import find_board
from nas.candidates.promotion import PromotionRule
from nas.candidates.pruning import PruningRule
from nas.errors import StudyError
from nas.sampling.evolution import EvolutionRule
from nas.study.settings import (
    Sampler,
    Settings,
    default_rungs,
    differences,
    from_toml,
    to_toml,
)
from nas.training.recipe import Recipe

_RULES = st.builds(
    PruningRule,
    rivals=st.integers(1, 9),
    noise=st.floats(0, 5),
    min_peers=st.integers(1, 99),
)
_SETTINGS = st.builds(
    Settings,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True),
    dataset=st.text(st.characters(exclude_categories=["Cs"])),
    data_fingerprint=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    input_shape=st.tuples(st.integers(1, 3), st.integers(4, 99), st.integers(4, 99)),
    num_classes=st.integers(2, 1000),
    val_size=st.integers(1, 10**6),
    param_budget=st.integers(1, 2**40),
    max_macs=st.none() | st.integers(1, 2**40),
    max_memory=st.none() | st.integers(1, 2**40),
    space=st.text(st.characters(exclude_categories=["Cs"])),
    # What a file read in text mode can hold: no lone carriage return.
    space_toml=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\r")
    )
    | st.text('"\\\n# =[]'),
    recipe=st.builds(Recipe, epochs=st.integers(1, 99), max_lr=st.floats(1e-6, 1e3)),
    rungs=st.lists(st.floats(0.1, 1e4), min_size=1).map(tuple),
    sampler=st.sampled_from(get_args(Sampler)),
    seed=st.integers(0, 2**32),
    pruning=st.none() | _RULES,
)


@given(_SETTINGS)
def test_settings_come_back_from_toml(settings: Settings) -> None:
    """Whatever the settings, what was written is read back equal."""
    again = from_toml(to_toml(settings), "study.toml")
    assert again == settings
    assert differences(settings, again) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "= 3",
        "name = 'x'",
        to_toml(make_settings()).replace("[recipe]", "[recipes]"),
        to_toml(make_settings()).replace("seed = 0", "seed = 0\nnew_key = 1"),
        to_toml(make_settings()).replace("epochs = 4", "epochen = 4"),
        to_toml(make_settings()).replace('"random"', '"grid"'),
        to_toml(make_settings()).replace('"small"', '"../small"'),
        to_toml(make_settings()).replace("param_budget = 2000", 'param_budget = "x"'),
        to_toml(make_settings()).replace("seed = 0", "seed = 0.5"),
        to_toml(make_settings()).replace("num_classes = 10", "num_classes = [10]"),
        to_toml(make_settings()).replace("max_lr = 0.5", "max_lr = -0.5"),
        to_toml(make_settings()).replace("epochs = 4", 'epochs = "4"'),
        to_toml(make_settings()).replace("[recipe]", "[elsewhere]\n[[recipe]]"),
    ],
)
def test_a_damaged_study_toml_is_one_error(text: str) -> None:
    """Broken TOML, a missing or unknown key, a wrong value: StudyError on one line."""
    with pytest.raises(StudyError) as caught:
        from_toml(text, "study.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ("val_size = 240\n", "without val_size"),
        ("format = 2\n", "without format"),
        (None, "unknown key new_key"),
    ],
)
def test_the_key_that_is_missing_or_unknown_is_named(
    cut: str | None, words: str
) -> None:
    """In plain words, without Python's own."""
    text = to_toml(make_settings())
    text = text.replace(cut, "") if cut else text.replace("seed = 0", "new_key = 1")
    with pytest.raises(StudyError, match=rf"study.toml is damaged \({words}\)"):
        from_toml(text, "study.toml")


def test_the_metric_stands_in_the_file_unless_it_is_accuracy() -> None:
    """Older files have none; one that nobody knows is refused."""
    assert "metric" not in to_toml(make_settings())
    balanced = make_settings(metric="balanced-accuracy", effective_val_size=30)
    text = to_toml(balanced)
    assert from_toml(text, "study.toml") == balanced
    assert (balanced.noise_size, make_settings().noise_size) == (30, 240)
    assert balanced.accuracy_name == "balanced validation accuracy"
    with pytest.raises(StudyError, match="unknown metric 'f1'"):
        from_toml(text.replace("balanced-accuracy", "f1"), "study.toml")


def test_the_recipe_s_youngest_keys_are_written_only_where_they_say_something() -> None:
    """A study by the default recipe has the file that it always had."""
    plain = to_toml(make_settings())
    assert not any(key in plain for key in ("flip", "crop", "along", "edge"))
    recipe = Recipe(epochs=4, flip=0.5, along="time", rotation=0, shear=0)
    settings = make_settings(recipe=recipe)
    assert from_toml(to_toml(settings), "study.toml") == settings


_OTHER: dict[str, Any] = {
    "name": "other",
    "dataset": "mnist",
    "data_fingerprint": "0" * 16,
    "input_shape": (1, 28, 28),
    "num_classes": 9,
    "val_size": 1,
    "param_budget": 1,
    "max_macs": 1,
    "max_memory": 1,
    "max_flash": 1,
    "max_latency": 1.5,
    "board": find_board("esp32"),
    "space": "plain",
    "space_toml": "",
    "recipe": Recipe(epochs=5),
    "rungs": (1.0,),
    "sampler": "evolution",
    "fidelities": (4, 8),
    "evolution": EvolutionRule(children=1),
    "promotion": PromotionRule(least=1),
    "format": 1,
    "seed": 1,
    "metric": "balanced-accuracy",
    "effective_val_size": 9,
    "majority_accuracy": 0.5,
    "pruning": None,
    "external_storage": True,
    "start_from": (net_of(),),
}


@pytest.mark.parametrize(
    "name", sorted({f.name for f in fields(Settings)} - {"data_dir"})
)
def test_every_setting_that_differs_is_named(name: str) -> None:
    """One phrase for one difference; none for none."""
    ours = make_settings()
    (phrase,) = differences(ours, replace(ours, **{name: _OTHER[name]}))
    expected = {"recipe": "recipe.epochs 4 -> 5", "space_toml": "search space"}
    expected["fidelities"] = "epochs 4 -> 8"
    expected["param_budget"] = "budget 2000 -> 1"
    expected["start_from"] = "the architectures that it starts from"
    assert expected.get(name, f"{name} ") in phrase
    if name not in expected:
        assert phrase.endswith(f" -> {_OTHER[name]}")


@given(st.integers(1, 10_000), st.integers(1, 5000))
def test_rungs_double_from_a_quarter_epoch_to_the_end(epochs: int, steps: int) -> None:
    """The first comes after 100 steps at least, each next doubles, the last ends it."""
    rungs = default_rungs(epochs, steps)
    assert rungs[-1] == epochs
    assert list(rungs) == sorted(set(rungs))
    early = rungs[:-1]
    assert all(rung * steps >= 100 for rung in early)
    assert all(rung >= 0.25 for rung in early)
    doubled = pairwise(early)
    assert all(later == 2 * rung for rung, later in doubled)
    if early:
        assert early[0] == 0.25 or early[0] / 2 * steps < 100
        assert 2 * early[-1] >= epochs


def test_the_rungs_of_mnist() -> None:
    """Three epochs of 429 steps report first after a quarter of the first epoch."""
    assert default_rungs(3, 429) == (0.25, 0.5, 1.0, 2.0, 3.0)


def test_a_cap_on_latency_keeps_the_board_s_rates() -> None:
    """The study's copy counts, whatever becomes of the file that they came from."""
    board = find_board("nrf52840")
    settings = make_settings(max_flash=9_000, max_latency=12.5, board=board)
    again = from_toml(to_toml(settings), "study.toml")
    assert again == settings
    assert again.caps.latency == 12_500_000
    assert (again.caps.board, again.caps.flash) == (board, 9_000)
    lines = to_toml(settings).splitlines()
    for harm in ("mhz", "max_latency"):
        text = "\n".join(line for line in lines if not line.startswith(harm))
        with pytest.raises(StudyError, match="damaged"):
            from_toml(text, "study.toml")
