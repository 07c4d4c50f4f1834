"""A search space: the options of networks, as frozen data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from nas.architecture import POOLING, Shape
from nas.architecture.kinds import KINDS

T = TypeVar("T")

POOLS = ("max", "avg")
"""The ways of downsampling that have the options of a pooling."""


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """Options with the shares in which random draws take them; shares sum to 1."""

    options: tuple[T, ...]
    shares: tuple[float, ...]

    def commonest(self, values: Iterable[T]) -> T:
        """Return the option that most of the values are, or else the first option."""
        known = Counter(value for value in values if value in self.options)
        return known.most_common(1)[0][0] if known else self.options[0]


@dataclass(frozen=True, slots=True)
class Deviation:
    """How often a block deviates after its convolution, and how.

    Every combination of the options is as likely as every other.
    """

    share: float
    norms: tuple[str, ...]
    biases: tuple[str, ...]
    activations: tuple[str, ...]
    orders: tuple[str, ...]
    dropouts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The options of a search space; search_spaces/README.md explains each key."""

    name: str
    text: str
    """The TOML it was read from, of which a study keeps a copy."""
    resolutions: Choice[int]
    towards_cap: float
    depth: tuple[int, int]
    kinds: Choice[str]
    kernel_sizes: Choice[int]
    paddings: Choice[str]
    norms: Choice[str]
    activations: Choice[str]
    repeats: Choice[int]
    shortcuts: Choice[str]
    expansions: Choice[int]
    squeeze_excitations: Choice[int]
    kernel_widths: Choice[int]
    dilations: Choice[int]
    groups: Choice[int]
    pool_sizes: Choice[int]
    pool_widths: Choice[int]
    pool_strides: Choice[int]
    pool_paddings: Choice[int]
    min_width: int
    max_width: int
    spread: float
    downsamplings: tuple[int, int]
    downsampling_kinds: Choice[str]
    smallest_side: int
    dropouts: Choice[float]
    heads: Choice[str]
    head_kernel_sizes: Choice[int]
    hidden: Choice[int]
    deviation: Deviation


def used_resolution(option: int, shape: Shape) -> int:
    """Return what an option of a space is for images of that shape: none enlarges."""
    return option if option < min(shape[1:]) else 0


def own_options(space: SearchSpace) -> dict[str, Choice[Any]]:
    """Return the options of a block that not every one has, by their names."""
    return {
        "shortcut": space.shortcuts,
        "expansion": space.expansions,
        "squeeze_excitation": space.squeeze_excitations,
        "kernel_width": space.kernel_widths,
        "dilation": space.dilations,
        "groups": space.groups,
        "pool_size": space.pool_sizes,
        "pool_width": space.pool_widths,
        "pool_stride": space.pool_strides,
        "pool_padding": space.pool_paddings,
    }


def key_of(option: str) -> str:
    """Return the key in ``[blocks]`` that lists such an option."""
    return option if option == "groups" else f"{option}s"


def options_of(
    space: SearchSpace, kind: str, *, pools: bool = True
) -> dict[str, tuple[Any, ...]]:
    """Return what of these options blocks of that kind have in the space.

    Those of a pooling are the defaults alone in a block that does not pool.
    """
    found = {
        name: KINDS[kind].among(name, choice.options)
        for name, choice in own_options(space).items()
    }
    return found if pools else found | {name: (v,) for name, v in POOLING.items()}
