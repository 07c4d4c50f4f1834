"""What a kind of block says of itself; all else follows from its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

from nas.architecture.block import POOLING, Block, Shortcut
from nas.architecture.parts import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of block.

    ``parts`` gives the convolutions of a block that takes so many channels, in the
    order of their execution. The block's norm, activation and the like follow the last
    part; what follows the others is theirs.
    """

    letter: str
    """In the notation of architectures."""
    plural: str
    """What the dashboard's filter calls them."""
    parts: Callable[[Block, int], tuple[Part, ...]]
    refusal: Callable[[Block], str | None] = lambda _: None
    """Why the block cannot be, with the remedy."""
    least_width: Callable[[int], int] = lambda _: 1
    """The fewest output channels, by the kernel's size."""
    drawn: Callable[[int, str], bool] = lambda _size, _padding: True
    """Whether spaces draw it with that padding and that longer side of the kernel."""
    shortcuts: tuple[str, ...] = get_args(Shortcut)
    """Those that it can have."""
    repeatable: bool = True
    """Whether its convolutions can be applied several times."""
    linear: bool = False
    """Whether no activation follows its last part."""
    expands: bool = False
    """Whether it has an expansion."""
    gates: bool = False
    """Whether it can have squeeze-and-excitation."""
    shaped: bool = True
    """Whether its kernel can be wider than high, or the reverse, or dilated."""
    grouped: bool = False
    """Whether its convolution can be divided into groups."""

    def among(self, option: str, options: Sequence[Any]) -> tuple[Any, ...]:
        """Return those of a space's options that such blocks can have.

        Where such blocks know nothing of the option that is its default alone.
        """
        if option == "shortcut":
            return tuple(one for one in options if one in self.shortcuts)
        return tuple(options) if self.knows(option) else (_USUAL[option],)

    def knows(self, option: str) -> bool:
        """Return whether such blocks have the option, and not its default alone."""
        known = {
            "shortcut": len(self.shortcuts) > 1,
            "expansion": self.expands,
            "squeeze_excitation": self.gates,
            "kernel_width": self.shaped,
            "dilation": self.shaped,
            "groups": self.grouped,
        }
        return option in POOLING or known[option]


_USUAL = {field.name: field.default for field in fields(Block)}
