"""The interface between the coordinator and its workers: jobs, events and `Engine`.

An engine starts workers, hands them jobs and streams their reports, nothing more.
At each rung a worker reports and waits for the decision. The coordinator decides what
is trained, what is pruned and what is written to the study.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from nas.architecture import Architecture
from nas.training.recipe import Recipe
from nas.training.report import Metric, RungReport

if TYPE_CHECKING:
    import numpy as np

Mode = Literal["search", "final", "published"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training. The coordinator assigns ``number``; every event repeats it.

    ``mode`` "search" trains on the training split and measures on the validation
    split. "final" trains on both, reads the test set once, after the last epoch,
    and returns the weights. "published" is "final" but also measures on the test set
    at each rung, in place of a validation split, as published logs do.
    ``rungs`` are the epochs to report at; ``metric`` is what the reports measure.
    """

    number: int
    architecture: Architecture
    recipe: Recipe
    seed: int
    rungs: tuple[float, ...]
    mode: Mode = "search"
    metric: Metric = "accuracy"


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker has reached a rung and waits for the decision."""

    job: int
    report: RungReport


@dataclass(frozen=True, slots=True)
class Finished:
    """A training has finished; the test fields are set if it read the test set.

    ``test_accuracy`` is 0 to 1. ``weights`` is the model's state dict as arrays.
    ``test_confusion`` counts the images of each class (row) by prediction (column).
    ``kernels`` is whether the C kernels trained the model.
    """

    job: int
    test_accuracy: float | None = None
    weights: dict[str, np.ndarray] | None = None
    test_confusion: list[list[int]] | None = None
    kernels: bool | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A training failed; equal causes have equal texts."""

    job: int
    cause: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The worker of the job died; the engine has started another.

    If its device ran out of memory, ``out_of_memory`` is true and the engine keeps one
    worker fewer there. This happens to a job at most once per worker.
    """

    job: int
    out_of_memory: bool = False


Event = Reported | Finished | Failed | WorkerLost


def kernels_ran_in_all(kernels: Iterable[bool | None]) -> bool | None:
    """Return whether the C kernels ran all of these trainings; None if unknown."""
    known = set(kernels)
    return None if not known or None in known else all(known)


class Engine(Protocol):
    """The interface that the search needs of an engine."""

    @property
    def idle(self) -> int:
        """The number of workers that are ready and have no job."""

    def start(self, job: Job) -> None:
        """Hand a job to an idle worker."""

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return the events so far; wait up to ``timeout`` seconds for the first."""

    def decide(self, job: int, *, proceed: bool) -> None:
        """Tell the worker that reported whether to continue training."""

    def abandon(self, job: int) -> None:
        """Kill the worker of a job that takes too long and start another.

        WorkerLost follows soon; it is the job's last event.
        """

    def close(self) -> None:
        """Stop all workers at once, whatever they are doing."""
