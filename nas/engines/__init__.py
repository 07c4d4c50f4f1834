"""Who trains: the jobs, the events, and what every engine does with them.

An engine is "start workers, hand them jobs, stream their reports" and nothing more.
At each rung a worker reports and waits for the decision. What is trained, what is
pruned and what is written down, the coordinator decides.
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
    """One training; ``number`` is the coordinator's own; every event repeats it.

    ``mode`` "search" trains on the training split and measures on the validation
    split; "final" trains on both, reads the test set once, after the last epoch,
    and hands back the weights. "published" is "final" with the test set read at each
    rung, too, in place of a validation split: as the logs of hand-made nets have it.
    ``rungs`` are the points (in epochs) to report at, ``metric`` what the reports tell.
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
    """A worker came to a rung and waits for the decision."""

    job: int
    report: RungReport


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker came to the end; one that read the test set brings its result.

    ``test_accuracy`` is 0 to 1; ``weights`` is the model's state dict as arrays;
    ``test_confusion`` says how often each class (row) got each answer (column).
    ``kernels`` tells whether the C kernels trained it.
    """

    job: int
    test_accuracy: float | None = None
    weights: dict[str, np.ndarray] | None = None
    test_confusion: list[list[int]] | None = None
    kernels: bool | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A training broke off; the cause reads alike for like causes."""

    job: int
    cause: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died under the job; the engine has started another.

    Or it was one too many for the memory of its device: then there is one fewer, and
    ``out_of_memory`` is true. Of one job that happens at most once a worker.
    """

    job: int
    out_of_memory: bool = False


Event = Reported | Finished | Failed | WorkerLost


def all_of(kernels: Iterable[bool | None]) -> bool | None:
    """Return whether the C kernels did all of these trainings; None if that is unknown."""
    known = set(kernels)
    return None if not known or None in known else all(known)


class Engine(Protocol):
    """What the search asks of an engine."""

    @property
    def idle(self) -> int:
        """How many workers have come up and have nothing to do."""

    def start(self, job: Job) -> None:
        """Hand a job to an idle worker."""

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return what has happened; wait up to timeout seconds for the first event."""

    def decide(self, job: int, *, proceed: bool) -> None:
        """Tell the worker that reported whether to train on."""

    def abandon(self, job: int) -> None:
        """Kill the worker of a job that takes too long and start another.

        WorkerLost follows for the job, soon, and nothing else of it.
        """

    def close(self) -> None:
        """Stop all workers at once, whatever they are doing."""
