"""Trains several jobs to the end, without a study and without pruning."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from nas.engines import Engine, Failed, Finished, Job, Reported, WorkerLost
from nas.errors import StudyError
from nas.search.kept_trainings import KeptTrainings
from nas.training.report import RungReport

# A job is given up after so many dead workers.
_LOSSES = 3


def train_all(
    engine: Engine,
    jobs: Sequence[Job],
    names: Sequence[str],
    show: Callable[[Job, Reported | Finished], None] = lambda _job, _event: None,
    kept: KeptTrainings | None = None,
    *,
    leave_out: Callable[[Job, str], None] | None = None,
) -> list[tuple[Job, Reported | Finished]]:
    """Train all jobs; return their reports and ends, and show each as it comes.

    Each job's number is its place in ``jobs``; ``names`` say in messages what is
    trained. What ``kept`` has is not trained again: its last report and its end are
    shown. A training that fails, or whose worker dies three times, is told to
    ``leave_out`` with its cause; without that, StudyError is raised.
    """
    happened: list[tuple[Job, Reported | Finished]] = []
    waiting, running = deque[Job](), set[int]()
    for job in jobs:
        done = kept.find(job) if kept is not None else None
        if done is None:
            waiting.append(job)
            continue
        happened += [(job, known) for known in done]
        for known in done[-2:]:
            show(job, known)
    reports: dict[int, dict[int, RungReport]] = defaultdict(dict)
    losses: Counter[int] = Counter()

    def give_up(job: Job, cause: str) -> None:
        if leave_out is None:
            name = names[job.number]
            raise StudyError(f"{name} could not be trained: {cause}")
        leave_out(job, cause)

    while waiting or running:
        while waiting and engine.idle:
            job = waiting.popleft()
            running.add(job.number)
            engine.start(job)
        for event in engine.wait(1.0):
            job = jobs[event.job]
            match event:
                case Reported(_, report):
                    reports[event.job][report.rung] = report
                    engine.decide(event.job, proceed=True)
                case Failed(_, cause):
                    running.discard(event.job)
                    give_up(job, cause)
                    continue
                case Finished():
                    running.discard(event.job)
                    if kept is not None:
                        kept.keep(job, list(reports[event.job].values()), event)
                case WorkerLost(_, out_of_memory):
                    running.discard(event.job)
                    losses[event.job] += not out_of_memory
                    if losses[event.job] >= _LOSSES:
                        give_up(job, f"its worker died {_LOSSES} times")
                    else:
                        waiting.append(job)
                    continue
            happened.append((job, event))
            show(job, event)
    return happened
