"""Trains a handful of jobs to their ends, without a study and without pruning."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from nas.engines import Engine, Failed, Finished, Job, Reported, WorkerLost
from nas.errors import StudyError

# A job under which the worker died so often is given up.
_LOSSES = 3


def train_all(
    engine: Engine,
    jobs: Sequence[Job],
    names: Sequence[str],
    show: Callable[[Job, Reported | Finished], None] = lambda _job, _event: None,
) -> list[tuple[Job, Reported | Finished]]:
    """Train all jobs; return their reports and ends, and show each as it comes.

    Each job's number is its place in ``jobs``; ``names`` say in messages what is
    trained. Raises StudyError when one of them fails, or its worker dies three times.
    """
    happened: list[tuple[Job, Reported | Finished]] = []
    waiting, running = deque(jobs), set[int]()
    losses: Counter[int] = Counter()
    while waiting or running:
        while waiting and engine.idle:
            job = waiting.popleft()
            running.add(job.number)
            engine.start(job)
        for event in engine.wait(1.0):
            job, name = jobs[event.job], names[event.job]
            match event:
                case Reported():
                    engine.answer(event.job, go_on=True)
                case Failed(_, cause):
                    raise StudyError(f"{name} could not be trained: {cause}")
                case Finished():
                    running.discard(event.job)
                case WorkerLost(_, out_of_memory):
                    running.discard(event.job)
                    losses[event.job] += not out_of_memory
                    if losses[event.job] >= _LOSSES:
                        raise StudyError(
                            f"{name} could not be trained: its worker died "
                            f"{_LOSSES} times"
                        )
                    waiting.append(job)
                    continue
            happened.append((job, event))
            show(job, event)
    return happened
