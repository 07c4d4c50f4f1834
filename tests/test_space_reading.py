"""Reading spaces: what is bundled, what is refused and at which line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import spaces

from nas.errors import SpaceError
from nas.space import SearchSpace, available, find_space, read_space
from nas.space.reading import _KEYS, _known_keys

CHECKOUT = Path(__file__).parent.parent

VALID = """\
description = "for the tests"

[size]
towards_cap = 2.0

[blocks]
depth = [2, 5]
kinds = ["conv", "separable"]
kinds_weights = [4, 1]
kernel_sizes = [3, 1]
paddings = ["same"]
norms = ["batch"]
activations = ["relu"]

[widths]
min = 2
max = 64
spread = 2.5

[downsampling]
count = [1, 3]
kinds = ["max"]
smallest_side = 2

[dropout]
values = [0.0]

[head]
kinds = ["gap", "conv"]
kernel_sizes = [3]
hidden = [0]
"""


def refusal(text: str) -> str:
    """Return the message with which the text is refused: one line."""
    with pytest.raises(SpaceError) as caught:
        read_space(text, "mine", "some/mine.toml")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("line", "changed", "told"),
    [
        (3, "[sizes]", "[sizes]: unknown table; did you mean size? known: size, in"),
        (4, "towards_cap = 0", "[size] towards_cap: is 0, give 0.1 to 10"),
        (4, "towards_cap = nan", "[size] towards_cap: is nan, give 0.1 to 10"),
        (4, "towards_cap = true", "[size] towards_cap: is True, give a number"),
        (4, "towards_cup = 2", "unknown key; did you mean towards_cap? known: tow"),
        (4, "towards_cap_weights = [1]", "[size] towards_cap_weights: unknown key"),
        (7, "depth = [5, 2]", "[blocks] depth: is [5, 2]: the first is above the sec"),
        (7, "depth = [2]", "[blocks] depth: is [2], give [smallest, largest]"),
        (7, "depth = 4", "[blocks] depth: is 4, give [smallest, largest]"),
        (7, "depth = [0, 5]", "[blocks] depth: is 0, give 1 to 32"),
        (7, "depth = [2, 33]", "[blocks] depth: is 33, give 1 to 32"),
        (7, "depth = [2, 5.0]", "[blocks] depth: is 5.0, give a whole number"),
        (7, "deph = [2, 5]", "[blocks] deph: unknown key; did you mean depth?"),
        (8, 'kinds = ["dense"]', "[blocks] kinds: 'dense' is not one of conv, separ"),
        (
            7,
            "depth = [2, 5]\nkernel_widths = [4]",
            "line 8: [blocks] kernel_widths: 4 is even",
        ),
        (
            7,
            "depth = [2, 5]\nkernel_widths = [33]",
            "line 8: [blocks] kernel_widths: is 33, give 0 to 31",
        ),
        (
            7,
            "depth = [2, 5]\ndilations = [0]",
            "line 8: [blocks] dilations: is 0, give 1 to 16",
        ),
        (
            7,
            "depth = [2, 5]\nsqueeze_excitations = [65]",
            "line 8: [blocks] squeeze_excitations: is 65, give 0 to 64",
        ),
        (
            6,
            "[input]\nresolution = 14\n[blocks]",
            "line 7: [input] resolution: is 14, give a list",
        ),
        (8, "kinds = []", "[blocks] kinds: is [], give a list of at least one"),
        (8, 'kinds = "conv"', "[blocks] kinds: is 'conv', give a list of at least o"),
        (8, 'kinds = ["conv", "conv"]', "[blocks] kinds: 'conv' stands twice"),
        (8, 'kinds = [["conv"], {}]', "[blocks] kinds: ['conv'] is not one of"),
        (9, "kinds_weights = [1]", "kinds_weights: give one weight for each of 2 kin"),
        (9, "kinds_weights = [1, 0]", "[blocks] kinds_weights: 0 is not above 0"),
        (9, "kinds_weights = [1, nan]", "[blocks] kinds_weights: nan is not above"),
        (9, 'kinds_weights = [1, "2"]', "[blocks] kinds_weights: '2' is not a number"),
        (9, "kinds_weigths = [1, 2]", "did you mean kinds_weights?"),
        (10, "kernel_sizes = [3, 4]", "[blocks] kernel_sizes: 4 is even, give odd"),
        (10, "kernel_sizes = [17]", "[blocks] kernel_sizes: is 17, give 1 to 15"),
        (10, "kernel_sizes = [true]", "[blocks] kernel_sizes: is True, give a whole"),
        (11, 'paddings = ["full"]', "[blocks] paddings: 'full' is not one of same, v"),
        (11, "repeats = [2, 3]", "[blocks] repeats: has no 1, for blocks that cannot"),
        (11, "repeats = [0, 1]", "[blocks] repeats: is 0, give 1 to 16"),
        (12, 'norms = ["layer"]', "[blocks] norms: 'layer' is not one of batch, none"),
        (13, 'activations = ["mish"]', "[blocks] activations: 'mish' is not one of"),
        (16, "min = 65", "[widths] min: is above max (64)"),
        (16, "min = 0", "[widths] min: is 0, give 1 to 4096"),
        (17, "max = 1", "line 16: [widths] min: is above max (1)"),
        (17, "max = 5000", "[widths] max: is 5000, give 1 to 4096"),
        (18, "spread = 0.5", "[widths] spread: is 0.5, give 1 to 64"),
        (21, "count = [6, 7]", "[downsampling] count: needs more blocks than depth al"),
        (21, "count = [-1, 2]", "[downsampling] count: is -1, give 0 to 32"),
        (22, 'kinds = ["min"]', "[downsampling] kinds: 'min' is not one of max, avg"),
        (23, "smallest_side = 0", "[downsampling] smallest_side: is 0, give 1 to 40"),
        (26, "values = [1.0]", "[dropout] values: 1.0 is not in 0 to below 1"),
        (26, 'values = ["no"]', "[dropout] values: 'no' is not a number"),
        (29, 'kinds = ["linear"]', "[head] kinds: 'linear' is not one of gap, conv,"),
        (30, "kernel_sizes = [0]", "[head] kernel_sizes: is 0, give 1 to 15"),
        (31, "hidden = [-1]", "[head] hidden: is -1, give 0 to 4096"),
        (31, "", None),  # a key with a default may be left out
        (7, "", "line 6: [blocks] depth: is missing"),
        (16, "", "line 15: [widths] min: is missing"),
        (29, "", "line 28: [head] kinds: is missing"),
        (28, "[[head]]", "[head]: is a table: write it as [head]"),
        (28, '["head"]', None),
        (8, '"kinds" = ["dense"]', "[blocks] kinds: 'dense' is not one of"),
        (6, "[blocks", "malformed TOML: "),
    ],
)
def test_bad_values_name_file_line_and_remedy(
    line: int, changed: str, told: str | None
) -> None:
    """One changed line: refused with the file, that very line and what to write."""
    lines = VALID.splitlines()
    lines[line - 1] = changed
    text = "\n".join(lines)
    if told is None:
        assert isinstance(read_space(text, "mine"), SearchSpace)
        return
    message = refusal(text)
    assert told in message
    if told.startswith("malformed"):
        assert re.search(rf"some/mine\.toml: .*line {line}\b", message)
    else:
        number = re.match(r"line (\d+)", told)
        expected = number[1] if number else str(line)
        assert message.startswith(f"some/mine.toml, line {expected}: [")


def test_values_in_other_spellings_are_found() -> None:
    """Inline tables and dotted keys have their line, too."""
    inline = VALID.replace("[size]\ntowards_cap = 2.0", "size = {towards_cap = 99}")
    assert "line 3: [size] towards_cap: is 99" in refusal(inline)
    dotted = VALID.replace("[size]\ntowards_cap = 2.0", "size.towards_cap = 99")
    assert "line 3: [size] towards_cap: is 99" in refusal(dotted)
    broken = VALID.replace("[size]\ntowards_cap = 2.0", "size = 3")
    assert "line 3: [size]: is a table: write it as [size]" in refusal(broken)


def test_separable_blocks_need_a_kernel() -> None:
    """Separable blocks alone with 1x1 kernels alone are no space at all."""
    text = VALID.replace('["conv", "separable"]', '["separable"]')
    text = text.replace("[4, 1]", "[1]").replace(
        "kernel_sizes = [3, 1]", "kernel_sizes = [1]"
    )
    assert "line 10: [blocks] kernel_sizes: has only 1, which sep" in refusal(text)


def test_missing_table_names_its_first_key() -> None:
    """An empty file is told what it lacks first."""
    assert refusal("") == "some/mine.toml, line 1: [blocks] depth: is missing"


@pytest.mark.parametrize("name", available())
def test_bundled_spaces_are_valid(name: str) -> None:
    """Each bundled space is read, bears its name and describes itself."""
    space = find_space(name)
    assert space.name == name
    assert re.match(r'description = ".+\."\n', space.text)


def test_the_bundled_spaces() -> None:
    """The spaces that the documentation names are there."""
    assert available() == [
        *("inception", "mixed", "mobile", "plain", "residual", "separable", "shared")
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("share = 1.1", "[deviation] share: is 1.1, give 0 to 1"),
        ('norms = ["layer"]', "[deviation] norms: 'layer' is not one of batch, none"),
        ("biases = [true]", "[deviation] biases: True is not one of auto, yes, no"),
        ('orders = ["last"]', "[deviation] orders: 'last' is not one of early_pool"),
        ("dropouts = [1]", "[deviation] dropouts: 1 is not in 0 to below 1"),
        ("dropouts_weights = [1]", "unknown key; did you mean dropouts?"),
    ],
)
def test_deviations_are_checked(line: str, told: str) -> None:
    """What a block may do after its convolution is read like the rest."""
    assert told in refusal(f"{VALID}\n[deviation]\n{line}\n")


def test_a_space_of_inception_alone_needs_what_it_takes() -> None:
    """Without same padding or a kernel above 1 it would hold nothing."""
    only = VALID.replace('kinds = ["conv", "separable"]', 'kinds = ["inception"]')
    only = only.replace("kinds_weights = [4, 1]\n", "")
    assert read_space(only, "mine").kinds.options == ("inception",)
    for old, new, told in [
        (
            'paddings = ["same"]',
            'paddings = ["valid"]',
            "has only inception, which needs",
        ),
        ("kernel_sizes = [3, 1]", "kernel_sizes = [1]", "1, which inception blocks do"),
    ]:
        assert told in refusal(only.replace(old, new))


def test_kinds_need_the_options_that_they_take() -> None:
    """A residual block cannot do without a shortcut, and images have no identity."""
    residual = VALID.replace('kinds = ["conv", "separable"]', 'kinds = ["residual"]')
    residual = residual.replace("kinds_weights = [4, 1]\n", "")
    told = "[blocks] shortcuts: has none that residual blocks take: add 'identity' or"
    assert told in refusal(residual)
    for shortcuts, words in [
        ('["identity"]', 'has only "identity", which a block that takes the images'),
        ('["same"]', "'same' is not one of none, identity, conv"),
    ]:
        text = residual.replace("[widths]", f"shortcuts = {shortcuts}\n\n[widths]")
        assert words in refusal(text)
    text = residual.replace("[widths]", 'shortcuts = ["identity", "pad"]\n\n[widths]')
    with pytest.raises(
        SpaceError, match='has only "identity" and "pad", which a block'
    ):
        read_space(text, "mine")
    text = residual.replace("[widths]", 'shortcuts = ["conv"]\n\n[widths]')
    assert read_space(text, "mine").shortcuts.options == ("conv",)


def test_unknown_space_names_the_nearest() -> None:
    """A misspelt name is answered with the one that was meant, and all others."""
    with pytest.raises(SpaceError, match=r"'mixd' \(did you mean mixed\?\).*plain"):
        find_space("mixd")
    with pytest.raises(SpaceError, match=r"unknown search space '\.\./mixed'"):
        find_space("../mixed")


def test_files(tmp_path: Path) -> None:
    """A path is read as a file; what cannot be read is an error with that path."""
    path = tmp_path / "mine.toml"
    with pytest.raises(SpaceError, match=re.escape(f"no search space at {path}")):
        find_space(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpaceError, match="cannot read the search space"):
        find_space(str(path))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(SpaceError, match="cannot read the search space"):
        find_space(str(folder))
    path.write_text(VALID)
    assert find_space(str(path)).name == "mine"


def test_equal_texts_are_equal_spaces() -> None:
    """A space is a value: equal, hashable, with its text for a study to keep."""
    one, two = read_space(VALID, "mine"), read_space(VALID, "mine")
    assert one == two
    assert hash(one) == hash(two)
    assert one.text == VALID
    assert one.kinds.shares == (0.8, 0.2)


def test_later_keys_with_their_defaults_change_nothing() -> None:
    """So spaces of before draw what they drew."""
    before = find_space("mixed")
    usual = (
        "groups = [1]\npool_sizes = [2]\npool_widths = [0]\npool_strides = [0]\n"
        "pool_paddings = [0]\n"
    )
    text = before.text.replace("[blocks]\n", f"[blocks]\n{usual}")
    assert replace(read_space(text, "mixed"), text=before.text) == before


@given(spaces())
def test_valid_spaces_are_read(text: str) -> None:
    """Whatever the strategy writes is a space; shares sum to one."""
    space = read_space(text, "drawn")
    for choice in (space.kinds, space.kernel_sizes, space.heads, space.dropouts):
        assert sum(choice.shares) == pytest.approx(1)
        assert len(choice.options) == len(choice.shares)


def read_or_refuse(text: str) -> None:
    """Read the text; a refusal is a SpaceError of one line."""
    try:
        read_space(text, "fuzzed")
    except SpaceError as error:
        lines = str(error).splitlines()
    else:
        return
    assert len(lines) == 1


@given(st.text())
def test_random_text_raises_nothing_else(text: str) -> None:
    """Any text is read or refused with a SpaceError of one line."""
    read_or_refuse(text)


VALUES = st.sampled_from(
    [
        *["-1", "0", "3", "1e9", "nan", "-inf", "true", '"x"', "'a'", "[]", "[[]]"],
        *["[1, true]", "{a = 1}", "1979-05-27", '"""\n\n"""', "9" * 5000],
    ]
) | st.text(max_size=8)


@given(st.integers(0, VALID.count("\n") - 1), VALUES, st.booleans())
def test_changed_values_raise_nothing_else(number: int, value: str, key: bool) -> None:
    """Any value, or any line, in place of one is read or refused likewise."""
    lines = VALID.splitlines()
    start = lines[number].partition("=")[0] + "= " if key else ""
    lines[number] = start + value
    read_or_refuse("\n".join(lines))


@given(st.integers(0, len(VALID)), st.integers(0, 30), st.text(max_size=6))
def test_spliced_text_raises_nothing_else(start: int, length: int, text: str) -> None:
    """Any text in place of any stretch is read or refused likewise."""
    read_or_refuse(VALID[:start] + text + VALID[start + length :])


def test_hostile_text_is_refused() -> None:
    """Deep nesting and endless numbers are errors of the file."""
    assert "malformed TOML" in refusal("a = " + "[" * 100_000)
    assert "malformed TOML" in refusal("a = " + "9" * 5_000)


def test_every_key_is_documented() -> None:
    """search_spaces/README.md has a row for each key, with its default if any."""
    text = (CHECKOUT / "search_spaces" / "README.md").read_text()
    sections = dict(
        re.findall(r"^## `\[(\w+)\]`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    )
    for table, key in ((t, key) for t in _KEYS for key in _known_keys(t)):
        if key.endswith("_weights"):
            assert f"`{key}`" in sections[table] or "`<key>_weights`" in text
            continue
        row = re.search(rf"^\| `{key}` \|(.*)$", sections[table], re.MULTILINE)
        assert row, f"[{table}] {key}"
        default = _KEYS[table][key].usual
        shown = "required" if default is None else f"`{default}`".replace("'", '"')
        assert shown in row[1], f"[{table}] {key}: {shown}"
