"""Places all feature maps in one buffer.

In a chain they alternate between the buffer's two ends, so its size is the largest sum
of a stage's input and output. A shortcut's input stays in place until it is added; the
sum overwrites it. Likewise the product with gates overwrites the gated feature map. The
logits go to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nas.errors import ExportError
from nas.export.integer_stages import IntegerStage


def arena_size(table: Sequence[IntegerStage]) -> int:
    """Return the size of the buffer in bytes, the maximum in use at once."""
    return _Arena(table).size


def places(table: Sequence[IntegerStage]) -> list[int]:
    """Return the offsets of the image and of each stage's output; 0 for the logits.

    No feature map overwrites one that is still needed.
    """
    arena = _Arena(table)
    offsets = [0]
    # Backtrack: if the next feature map does not fit, move the one before it.
    options = [arena.options(offsets)]
    while len(offsets) <= len(table):
        offset = next(options[-1], None)
        if offset is not None:
            offsets.append(offset)
            options.append(arena.options(offsets))
        elif len(options) > 1:
            options.pop()
            offsets.pop()
        else:
            raise ExportError("the feature maps find no place in memory, a bug in nas")
    return offsets


class _Arena:
    """The sizes of all feature maps, the image first, and the last use of each."""

    def __init__(self, table: Sequence[IntegerStage]) -> None:
        self.sizes = [math.prod(table[0].float_stage.input_shape)]
        self.takes = [0]
        self.overwrites: list[int | None] = [None]
        """The feature map that each one overwrites, if any."""
        self.last_use = [0] * (len(table) + 1)
        for number, stage in enumerate(table, start=1):
            source = stage.float_stage
            self.sizes.append(math.prod(stage.output_shape) if stage.output else 0)
            self.takes.append(number - source.takes)
            sources = (source.takes, source.adds, source.gates)
            used = {number - one for one in sources} - {number}
            for one in used:
                self.last_use[one] = number
            # Kernels may read their input more than once, so it cannot be overwritten.
            apart = source.adds and source.adds != source.takes
            overwritten = source.adds if apart else source.takes if source.gates else 0
            self.overwrites.append(number - overwritten if overwritten else None)
        self.size = max(
            sum(self.sizes[one] for one in self._needed(number))
            + (self.sizes[number] if self.overwrites[number] is None else 0)
            for number in range(1, len(self.sizes))
        )

    def options(self, offsets: Sequence[int]) -> Iterator[int]:
        """Yield the possible offsets of the next feature map, the best first."""
        number = len(offsets)
        if number == len(self.sizes):
            return
        overwritten = self.overwrites[number]
        if overwritten is not None:
            if self.last_use[overwritten] != number:
                raise ValueError(
                    f"stage {number} would overwrite a feature map that stage "
                    f"{self.last_use[overwritten]} needs"
                )
            yield offsets[overwritten]
            return
        size = self.sizes[number]
        end = self.size - size
        needed = list(self._needed(number))
        ends = (end, 0) if offsets[self.takes[number]] == 0 else (0, end)
        beside = [offsets[one] + self.sizes[one] for one in needed]
        beside += [offsets[one] - size for one in needed]
        for offset in dict.fromkeys([*ends, *beside]):
            if 0 <= offset <= end and all(
                offset + size <= offsets[one]
                or offset >= offsets[one] + self.sizes[one]
                for one in needed
            ):
                yield offset

    def _needed(self, number: int) -> Iterator[int]:
        """Yield the feature maps that must stay intact while this one is computed."""
        return (one for one in range(number) if self.last_use[one] >= number)
