"""References: read, refused in one line, written and read back."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from nets import net_of
from strategies import architectures

from nas.architecture import Architecture, Block, Head
from nas.architecture.cost import count_params
from nas.errors import ArchitectureError
from nas.references import bundled as references
from nas.references.bundled import (
    Published,
    Reference,
    find_reference,
    read_reference,
    write_reference,
)
from nas.training.recipe import Recipe

GOOD: dict[str, Any] = {
    "description": "Two convolutions.",
    "source": "made up",
    "published": {
        "num_params": 1000,
        "accuracy": 0.99,
        "epochs": 20,
        "recipe": {"optimizer": "adam", "max_lr": 0.001, "schedule": "constant"},
    },
    "architecture": {
        "input_shape": [1, 28, 28],
        "num_classes": 10,
        "blocks": [
            {"kind": "conv", "out_channels": 8, "pool": "max"},
            {"out_channels": 16, "kernel_size": 1},
        ],
        "head": {"kind": "gap"},
    },
}


def read(data: dict[str, Any]) -> Reference:
    """Read a reference from its data."""
    return read_reference(tomli_w.dumps(data), "mine", "here/mine.toml")


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return GOOD with one value set, or removed for None."""
    data = copy.deepcopy(GOOD)
    *tables, key = path.split(".")
    table: Any = data
    for name in tables:
        table = table[int(name) if name.isdigit() else name]
    if value is None:
        del table[key]
    else:
        table[key] = value
    return data


def test_a_reference_says_what_it_is_and_what_was_published() -> None:
    """Every part arrives; the recipe has the published epochs."""
    reference = read(GOOD)
    assert reference.name == "mine"
    assert reference.architecture == net_of(
        Block(out_channels=8, pool="max"),
        Block(out_channels=16, kernel_size=1),
        shape=(1, 28, 28),
    )
    assert reference.num_params == count_params(reference.architecture)
    assert reference.published is not None
    assert reference.published.recipe == Recipe(
        epochs=20, optimizer="adam", max_lr=0.001, schedule="constant"
    )
    assert reference.published.best == (0.99, "published, best epoch on the test set")


def test_what_is_optional_may_be_left_out() -> None:
    """A user's own file has only the architecture."""
    reference = read({"architecture": GOOD["architecture"]})
    assert (reference.description, reference.published) == ("", None)


def test_the_last_epoch_stands_in_for_the_best() -> None:
    """Where the source gives only that one, the words say so."""
    data = changed("published.accuracy", None)
    data["published"]["last_accuracy"] = 0.98
    published = read(data).published
    assert published is not None
    assert published.best == (0.98, "published, last epoch")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("architecture", None, "[architecture] is missing"),
        ("architecture", 3, "write it as [architecture]"),
        ("architecture.head", None, "[architecture.head] is missing"),
        ("architecture.input_shape", None, "[channels, height, width]"),
        ("architecture.input_shape", [28, 28], "channels, height and width"),
        ("architecture.num_classes", None, "num_classes"),
        ("architecture.blocks", 3, "[[architecture.blocks]]"),
        ("architecture.blocks.0.kernel_size", 4, "block 1: kernel_size 4 is even"),
        ("architecture.blocks.1.kernal_size", 3, "did you mean kernel_size?"),
        ("architecture.blocks.1.kind", "conf", "block 2: kind is 'conf'"),
        ("architecture.head.kind", ["gap"], "head: kind is ['gap']"),
        ("architecture.colour", "red", "architecture.colour is unknown"),
        ("publisht", 1, "did you mean published?"),
        ("description", 1, "description is 1: put it in quotes"),
        ("published.epochs", None, "published.epochs is None"),
        ("published.num_params", True, "published.num_params is True"),
        ("published.accuracy", 99.4, "give a number from 0 to 1"),
        ("published.accuracy", None, "give accuracy (best epoch) or last_accuracy"),
        ("published.dataset", 1, "published.dataset is 1"),
        ("published.recipe", "adam", "write it as [published.recipe]"),
        ("published.recipe.epochs", 3, "[published] has the epochs already"),
        ("published.recipe.max_lrr", 3, "published.recipe.max_lrr"),
        ("published.recipe.max_lr", -1.0, "published.recipe.max_lr = -1.0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path: str, value: Any, words: str) -> None:
    """The line begins with the file."""
    with pytest.raises(ArchitectureError, match=re.escape(words)) as caught:
        read(changed(path, value))
    assert str(caught.value).startswith("here/mine.toml: ")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin")))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    """Nothing else comes out, whatever stands in a file."""
    with pytest.raises(ArchitectureError):
        read_reference(text, "fuzz")


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**9)
    | st.floats()
    | st.sampled_from(["conv", "gap", "", "\n", "yes"])
    | st.lists(st.integers(0, 9), max_size=4)
    | st.dictionaries(st.sampled_from(["kind", "x"]), st.integers(), max_size=2)
)
_PATHS = [
    f"architecture.{name}" for name in ("input_shape", "num_classes", "blocks", "head")
] + [
    *(f"architecture.blocks.0.{field}" for field in Block.__dataclass_fields__),
    *(f"architecture.head.{field}" for field in Head.__dataclass_fields__),
    *(f"published.{field}" for field in Published.__dataclass_fields__),
    *(f"published.recipe.{field}" for field in Recipe.__dataclass_fields__),
]


@given(st.sampled_from(_PATHS), _LEAVES)
def test_any_value_in_any_place_is_taken_or_refused(path: str, value: Any) -> None:
    """A wrong type or number is an error of ours, in one line."""
    if value is None:
        value = {}
    try:
        reference = read(changed(path, value))
    except ArchitectureError as error:
        assert "\n" not in str(error)  # noqa: PT017  # it need not be raised
    else:
        assert reference.num_params > 0


@given(architectures())
def test_what_is_written_is_read_back(architecture: Architecture) -> None:
    """With everything that blocks and heads know, and a recipe."""
    reference = Reference(
        name="any",
        architecture=architecture,
        description='two\nlines, "quoted"',
        source="somewhere",
        published=Published(
            num_params=10, epochs=7, last_accuracy=0.5, recipe=Recipe(epochs=7, shift=0)
        ),
    )
    assert read_reference(write_reference(reference), "any") == reference


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    """TOML or the architecture.json of a winner."""
    reference = read(GOOD)
    (tmp_path / "own.toml").write_text(tomli_w.dumps(GOOD))
    (tmp_path / "architecture.json").write_text(reference.architecture.to_json())
    for name in ("own.toml", "architecture.json"):
        found = find_reference(str(tmp_path / name))
        assert found.architecture == reference.architecture


def test_what_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name nearly right is guessed; a file is named."""
    (tmp_path / "seed-0.toml").touch()
    monkeypatch.setattr(references, "_folder", lambda: tmp_path)
    with pytest.raises(ArchitectureError, match=r"did you mean seed-0\?"):
        find_reference("seed0")
    with pytest.raises(ArchitectureError, match=r"no architecture at none\.toml"):
        find_reference("none.toml")
    with pytest.raises(ArchitectureError, match="cannot read the architecture"):
        find_reference("zero\0byte.toml")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ArchitectureError, match=r"bad\.json: not an architecture"):
        find_reference(str(tmp_path / "bad.json"))
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ArchitectureError, match="cannot read"):
        find_reference(str(tmp_path / "bad.toml"))
