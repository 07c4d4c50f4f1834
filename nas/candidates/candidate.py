"""A candidate: an architecture with its size, its learning curve and its state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nas.architecture import Architecture
from nas.candidates.pareto import pareto_front
from nas.training.report import RungReport

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One trial of a study, as far as it has come.

    ``macs`` are multiply-accumulates for one image, ``peak_memory`` is bytes of int8
    activations. ``val_accuracy`` is that of the last report, None before the first.
    ``reason`` says why a trial was pruned or failed.
    """

    trial: int
    architecture: Architecture
    num_params: int
    macs: int
    peak_memory: int
    key: str
    state: State
    seed: int
    curve: tuple[RungReport, ...] = ()
    val_accuracy: float | None = None
    reason: str | None = None


def front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the fully trained candidates that none dominates, smallest first.

    Only complete candidates count: the last accuracy of a pruned or running one was
    measured before its learning rate had come down.
    """
    complete = [c for c in candidates if c.state == "complete"]
    points = [(c.num_params, c.val_accuracy or 0.0) for c in complete]
    return [complete[i] for i in pareto_front(points)]
