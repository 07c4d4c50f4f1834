"""Candidates as columns of plain numbers, compact enough to send 10,000 of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from nas.architecture import Architecture
from nas.architecture.boards import Board, find_board
from nas.architecture.cost import cost
from nas.architecture.kinds import KINDS
from nas.architecture.notation import describe
from nas.candidates.candidate import Candidate, may_be_on_front
from nas.candidates.pareto import pareto_front
from nas.report.labels import STATES
from nas.study.settings import Settings

SIZES = ("num_params", "macs", "peak_memory", "flash", "latency")
"""The sizes to draw the front against: latency in milliseconds, the others integers."""

_USUAL_BOARD = "nrf52840"


Row = tuple[Any, ...]
"""The values of one candidate, one per column."""

# The bits of the column "kinds", from the lowest; the last is not a kind of block.
BITS = (*KINDS, "shared")

_NAMES = (
    "trial",
    "state",
    *SIZES,
    "val_accuracy",
    "epochs",
    "depth",
    "kinds",
    "summary",
)


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return one list per column, in the order of the rows."""
    values = zip(*rows, strict=True) if rows else [()] * len(_NAMES)
    return {name: list(column) for name, column in zip(_NAMES, values, strict=True)}


def board_of(settings: Settings) -> Board:
    """Return the board for the page's latency: that of the cap, or the default."""
    return settings.board or find_board(_USUAL_BOARD)


@lru_cache(maxsize=1 << 15)
def device_sizes(architecture: Architecture, board: Board) -> dict[str, float]:
    """Return the device-dependent sizes: flash, and latency on the board."""
    costs = cost(architecture, board)
    return {"flash": costs.flash, "latency": round(costs.latency / 1e6, 4)}


def fronts(
    candidates: Iterable[Candidate], rows: Mapping[int, Row]
) -> dict[str, list[int]]:
    """Return, for each size, the trials on the front of accuracy against it.

    ``rows`` are keyed by trial. Once some are fully trained, only those are members.
    """
    fit = [c for c in candidates if may_be_on_front(c)]
    fit = [c for c in fit if c.fully_trained] or fit
    found = {}
    for size in SIZES:
        column = _NAMES.index(size)
        points = [(rows[c.trial][column], c.val_accuracy or 0.0) for c in fit]
        found[size] = [fit[i].trial for i in pareto_front(points)]
    return found


def row(candidate: Candidate, board: Board) -> Row:
    """Return the data of one candidate for the plot.

    ``state`` is the index in STATES, ``kinds`` a mask with the bits of BITS.
    ``val_accuracy`` is None before the first report.
    """
    accuracy = candidate.val_accuracy
    on_device = device_sizes(candidate.architecture, board)
    blocks = candidate.architecture.blocks
    kinds = {block.kind for block in blocks} | {
        "shared" for block in blocks if block.repeats > 1
    }
    return (
        candidate.trial,
        STATES.index(candidate.state),
        *(
            on_device[size] if size in on_device else getattr(candidate, size)
            for size in SIZES
        ),
        None if accuracy is None else round(accuracy, 6),
        candidate.epochs,
        len(blocks),
        sum(1 << place for place, kind in enumerate(BITS) if kind in kinds),
        describe(candidate.architecture),
    )
