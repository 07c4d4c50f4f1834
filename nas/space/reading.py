"""Reads a search space from TOML and checks it; errors name the line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args

from nas.architecture import (
    POOLING,
    Activation,
    Bias,
    Block,
    HeadKind,
    Norm,
    Order,
    Padding,
    Shortcut,
)
from nas.architecture.kinds import KINDS, refusal
from nas.errors import SpaceError
from nas.files import shipped
from nas.space.definition import (
    POOLS,
    Choice,
    Deviation,
    SearchSpace,
    key_of,
    options_of,
    own_options,
)


def available() -> list[str]:
    """Return the names of the spaces that come with nas."""
    return sorted(path.stem for path in shipped("search_spaces").glob("*.toml"))


def find_space(name_or_file: str) -> SearchSpace:
    """Return the space of that name, or in that file when it ends in ``.toml``.

    Raises SpaceError when there is none or it cannot be read.
    """
    if name_or_file.endswith(".toml"):
        path = Path(name_or_file)
    else:
        path = shipped("search_spaces") / f"{name_or_file}.toml"
        if name_or_file not in available():
            near = difflib.get_close_matches(name_or_file, available(), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise SpaceError(
                f"unknown search space {name_or_file!r}{hint}: the spaces are "
                f"{', '.join(available())}, or give the path of a .toml file"
            )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpaceError(f"no search space at {path}: give an existing file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"cannot read the search space {path}: {error}") from error
    return read_space(text, path.stem, str(path))


def read_space(text: str, name: str, source: str | None = None) -> SearchSpace:
    """Return the space that this TOML describes.

    ``source`` names the file in messages. Raises SpaceError with file and line.
    """
    return _Reader(text, source or f"{name}.toml").space(name)


def _known_keys(table: str) -> list[str]:
    keys = _KEYS[table]
    # A list of options may be joined by <key>_weights, one number each.
    lists = [key for key, found in keys.items() if found.read in _WEIGHTED]
    return [*keys, *(f"{key}_weights" for key in lists if table != "deviation")]


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(known)}"


class _Reader:
    """One file being read: its text, for the line numbers, and what it holds."""

    def __init__(self, text: str, source: str) -> None:
        self.text, self.source = text, source
        try:
            self.data = tomllib.loads(text)
        except ValueError as error:  # also of whole numbers with thousands of digits
            raise SpaceError(f"{source}: malformed TOML: {error}") from error
        except RecursionError:
            raise SpaceError(f"{source}: malformed TOML: nested too deeply") from None
        for table, content in self.data.items():
            if table == "description":
                continue
            if table not in _KEYS:
                self.refuse(table, None, f"unknown table; {_hint(table, _KEYS)}")
            if not isinstance(content, dict):
                self.refuse(table, None, f"is a table: write it as [{table}]")
            for key in content:
                known = _known_keys(table)
                if key not in known:
                    self.refuse(table, key, f"unknown key; {_hint(key, known)}")

    def space(self, name: str) -> SearchSpace:
        """Return the space; every value is checked on the way."""
        values: dict[str, Any] = {}
        for table in _KEYS:
            if table != "deviation":
                values |= self.values(table)
        space = SearchSpace(
            name=name, text=self.text, deviation=self.deviation(), **values
        )
        self.check_kinds(space)
        if 1 not in space.repeats.options:
            self.refuse(
                "blocks", "repeats", "has no 1, for blocks that cannot be repeated"
            )
        if 1 not in space.groups.options:
            self.refuse(
                "blocks",
                "groups",
                "has no 1, for a block that takes images of one channel",
            )
        if space.min_width > space.max_width:
            self.refuse("widths", "min", f"is above max ({space.max_width})")
        if space.downsamplings[0] > space.depth[1]:
            self.refuse(
                "downsampling",
                "count",
                f"needs more blocks than depth allows ({space.depth[1]})",
            )
        return space

    def check_kinds(self, space: SearchSpace) -> None:
        """Refuse kinds of which no block could ever be drawn."""
        sizes = list(
            product(
                {*space.kernel_sizes.options, *space.kernel_widths.options} - {0},
                space.paddings.options,
            )
        )
        if not any(KINDS[k].drawn(*one) for k in space.kinds.options for one in sizes):
            kinds = " and ".join(space.kinds.options)
            if space.kernel_sizes.options == (1,):
                self.refuse(
                    "blocks",
                    "kernel_sizes",
                    f"has only 1, which {kinds} blocks do not take: add a larger one",
                )
            self.refuse(
                "blocks",
                "kinds",
                f"has only {kinds}, which needs same padding and a kernel above 1",
            )
        for kind in space.kinds.options:
            for name, left in options_of(space, kind).items():
                if not left:
                    takes = " or ".join(map(repr, KINDS[kind].shortcuts))
                    self.refuse(
                        "blocks",
                        key_of(name),
                        f"has none that {kind} blocks take: add {takes}",
                    )
        options = own_options(space)
        pools = [options[name].options for name in POOLING]
        for way in {*POOLS} & {*space.downsampling_kinds.options}:
            values = (dict(zip(POOLING, each, strict=True)) for each in product(*pools))
            tries = [refusal(Block(out_channels=1, pool=way, **one)) for one in values]  # type: ignore[arg-type]
            if why := all(tries) and tries[0]:
                padded = "pool_padding" in why
                key = "pool_paddings" if padded else "pool_sizes"
                self.refuse("blocks", key, f'of "{way}" none can be: {why}')
        # The first block must have an option of everything that all blocks have.
        if {*space.shortcuts.options} <= {"identity", "pad"}:
            only = " and ".join(f'"{one}"' for one in space.shortcuts.options)
            self.refuse(
                "blocks",
                "shortcuts",
                f"has only {only}, which a block that takes the images has not: add "
                '"conv", or "none"',
            )

    def line(self, table: str, key: str | None) -> int:
        """Return the line where the key stands (its table when it has none)."""
        found = 1
        inside = False
        for number, line in enumerate(self.text.split("\n"), start=1):
            header = re.match(r"\s*\[+\s*[\"']?([^\]\s\"']+)[\"']?\s*\]", line)
            if header:
                inside = header[1] == table
                if inside:
                    found = number
            elif re.match(rf"\s*[\"']?{re.escape(table)}[\"']?\s*[.=]", line):
                found = number
            elif (
                inside
                and key
                and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line)
            ):
                return number
        return found

    def refuse(self, table: str, key: str | None, why: str) -> NoReturn:
        """Raise SpaceError in one line, even where a quoted key has a line break."""
        name = f"[{table}] {key}" if key else f"[{table}]"
        text = " ".join(f"{name}: {why}".splitlines())
        raise SpaceError(f"{self.source}, line {self.line(table, key)}: {text}")

    def value(self, table: str, key: str) -> Any:
        found = value_in(self.data, table, key)
        if found is None:
            self.refuse(table, key, "is missing")
        return found

    def values(self, table: str) -> dict[str, Any]:
        """Return all values of a table, by their fields."""
        return {
            found.field or key: found.read(self, table, key, *found.args)
            for key, found in _KEYS[table].items()
        }

    def number(self, table: str, key: str, low: float, high: float) -> float:
        value = self.value(table, key)
        # TOML's booleans are ints in Python; inf and nan fail the comparison.
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(table, key, f"is {value!r}, give a number")
        if not low <= value <= high:
            self.refuse(table, key, f"is {value}, give {low:g} to {high:g}")
        return float(value)

    def whole(self, table: str, key: str, low: int, high: int) -> int:
        value = self.value(table, key)
        self._check_whole(table, key, value, low, high)
        return int(value)

    def _check_whole(
        self, table: str, key: str, value: Any, low: int, high: int
    ) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(table, key, f"is {value!r}, give a whole number")
        if not low <= value <= high:
            self.refuse(table, key, f"is {value}, give {low} to {high}")

    def range(self, table: str, key: str, low: int, high: int) -> tuple[int, int]:
        value = self.value(table, key)
        if not isinstance(value, list) or len(value) != 2:
            self.refuse(table, key, f"is {value!r}, give [smallest, largest]")
        for end in value:
            self._check_whole(table, key, end, low, high)
        if value[0] > value[1]:
            self.refuse(table, key, f"is {value}: the first is above the second")
        return value[0], value[1]

    def names(self, table: str, key: str, *known: str) -> Choice[str]:
        options = self._options(table, key)
        for option in options:
            if option not in known:
                self.refuse(table, key, f"{option!r} is not one of {', '.join(known)}")
        return self._choice(table, key, options)

    def block_kinds(self, table: str, key: str) -> Choice[str]:
        return self.names(table, key, *KINDS)

    def wholes(self, table: str, key: str, low: int, high: int) -> Choice[int]:
        options = self._options(table, key)
        for option in options:
            self._check_whole(table, key, option, low, high)
        return self._choice(table, key, options)

    def odds(self, table: str, key: str, low: int, high: int) -> Choice[int]:
        choice = self.wholes(table, key, low, high)
        for option in choice.options:
            if option and option % 2 == 0:
                self.refuse(table, key, f"{option} is even, give odd sizes")
        return choice

    def dropouts(self, table: str, key: str) -> Choice[float]:
        options = self._options(table, key)
        for option in options:
            if isinstance(option, bool) or not isinstance(option, int | float):
                self.refuse(table, key, f"{option!r} is not a number")
            if not 0 <= option < 1:
                self.refuse(table, key, f"{option} is not in 0 to below 1")
        return self._choice(table, key, [float(o) for o in options])

    def deviation(self) -> Deviation:
        """Return the ways of their own that blocks may go."""
        ways = self.values("deviation")
        share = ways.pop("share")
        return Deviation(share, **{name: way.options for name, way in ways.items()})

    def _options(self, table: str, key: str) -> list[Any]:
        options = self.value(table, key)
        if not isinstance(options, list) or not options:
            self.refuse(table, key, f"is {options!r}, give a list of at least one")
        for position, option in enumerate(options):
            if option in options[:position]:
                self.refuse(table, key, f"{option!r} stands twice")
        return list(options)

    def _choice(self, table: str, key: str, options: list[Any]) -> Choice[Any]:
        weights_key = f"{key}_weights"
        weights = self.data.get(table, {}).get(weights_key, [1] * len(options))
        if not isinstance(weights, list) or len(weights) != len(options):
            self.refuse(
                table, weights_key, f"give one weight for each of {len(options)} {key}"
            )
        for weight in weights:
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                self.refuse(table, weights_key, f"{weight!r} is not a number")
            if not 0 < weight <= 1e6:
                self.refuse(table, weights_key, f"{weight} is not above 0")
        shares = tuple(weight / sum(weights) for weight in weights)
        return Choice(tuple(options), shares)


class _Key(NamedTuple):
    """How a key of a space is read."""

    read: Callable[..., Any]
    args: tuple[Any, ...]
    usual: Any = None
    """What leaving it out means; None where it must be given."""
    field: str | None = None
    """Its name in SearchSpace or Deviation; None where it is the key's."""


_WEIGHTED = (
    *(_Reader.names, _Reader.block_kinds),
    *(_Reader.wholes, _Reader.odds, _Reader.dropouts),
)
_KEYS: dict[str, dict[str, _Key]] = {
    "size": {"towards_cap": _Key(_Reader.number, (0.1, 10.0), 2.0)},
    "input": {"resolution": _Key(_Reader.wholes, (0, 4096), [0], "resolutions")},
    "blocks": {
        "depth": _Key(_Reader.range, (1, 32)),
        "kinds": _Key(_Reader.block_kinds, ()),
        "kernel_sizes": _Key(_Reader.odds, (1, 15)),
        "paddings": _Key(_Reader.names, get_args(Padding), ["same"]),
        "norms": _Key(_Reader.names, get_args(Norm), ["batch"]),
        "activations": _Key(_Reader.names, get_args(Activation), ["relu"]),
        "repeats": _Key(_Reader.wholes, (1, 16), [1]),
        "shortcuts": _Key(_Reader.names, get_args(Shortcut), ["none"]),
        "expansions": _Key(_Reader.wholes, (1, 16), [1]),
        "squeeze_excitations": _Key(_Reader.wholes, (0, 64), [0]),
        "kernel_widths": _Key(_Reader.odds, (0, 31), [0]),
        "dilations": _Key(_Reader.wholes, (1, 16), [1]),
        "groups": _Key(_Reader.wholes, (1, 256), [1]),
        "pool_sizes": _Key(_Reader.wholes, (1, 32), [POOLING["pool_size"]]),
        "pool_widths": _Key(_Reader.wholes, (0, 32), [POOLING["pool_width"]]),
        "pool_strides": _Key(_Reader.wholes, (0, 16), [POOLING["pool_stride"]]),
        "pool_paddings": _Key(_Reader.wholes, (0, 16), [POOLING["pool_padding"]]),
    },
    "widths": {
        "min": _Key(_Reader.whole, (1, 4096), field="min_width"),
        "max": _Key(_Reader.whole, (1, 4096), field="max_width"),
        "spread": _Key(_Reader.number, (1.0, 64.0), 3.0),
    },
    "downsampling": {
        "count": _Key(_Reader.range, (0, 32), field="downsamplings"),
        "kinds": _Key(_Reader.names, (*POOLS, "stride"), field="downsampling_kinds"),
        "smallest_side": _Key(_Reader.whole, (1, 4096), 1),
    },
    "dropout": {"values": _Key(_Reader.dropouts, (), [0.0], "dropouts")},
    "head": {
        "kinds": _Key(_Reader.names, get_args(HeadKind), field="heads"),
        "kernel_sizes": _Key(_Reader.wholes, (1, 15), [3], "head_kernel_sizes"),
        "hidden": _Key(_Reader.wholes, (0, 4096), [0]),
    },
    "deviation": {
        "share": _Key(_Reader.number, (0.0, 1.0), 0.0),
        "norms": _Key(_Reader.names, get_args(Norm), ["batch"]),
        "biases": _Key(_Reader.names, get_args(Bias), ["auto"]),
        "activations": _Key(_Reader.names, get_args(Activation), ["relu"]),
        "orders": _Key(_Reader.names, get_args(Order), ["early_pool"]),
        "dropouts": _Key(_Reader.dropouts, (), [0.0]),
    },
}


def value_in(data: dict[str, Any], table: str, key: str) -> Any:
    """Return a key's value in a space's TOML, or what leaving it out means."""
    return data.get(table, {}).get(key, _KEYS[table][key].usual)
