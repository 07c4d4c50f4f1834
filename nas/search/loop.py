"""The main loop of a search: ask, train, prune, promote, record, tell."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from nas.candidates.candidate import Candidate
from nas.engines import (
    Engine,
    Failed,
    Finished,
    Job,
    Reported,
    WorkerLost,
    kernels_ran_in_all,
)
from nas.errors import StudyError
from nas.search.overdue import TrainingTimes
from nas.search.progress import Outcome, Progress, Timing, timed
from nas.search.promotions import Promotions
from nas.search.pruner import Pruner
from nas.study.study import Study
from nas.training.report import RungReport

_logger = logging.getLogger("nas")
# So many failures in a row for the same reason are not the candidates' fault.
_FAILURES_IN_A_ROW = 3
# After so many dead workers, the candidate is assumed to be the cause.
_LOSSES = 3
# One candidate per so many workers is drawn ahead of time, while nothing
# else is to be done. With fewer workers, waiting for more results is worth the time.
_WORKERS_PER_PREFETCH = 8


def search(
    study: Study,
    engine: Engine,
    *,
    trials: int,
    time_limit: float | None = None,
    trial_time_limit: float | None = None,
    target_accuracy: float | None = None,
    show: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """Search until the study has ``trials`` finished (complete or pruned) candidates.

    Those are screened by a short training each; the promising ones of each range of
    sizes are promoted to longer trainings (nas.candidates.promotion), and the search
    ends when no promotion is due any more.

    Unfinished candidates of an interrupted search are trained again first. After
    ``time_limit`` seconds it stops; what is in training then stays unfinished. A
    training that takes more than ``trial_time_limit`` seconds loses its worker, which
    may hang, and is given to another one; at the second time it has failed. By default
    that is ten minutes or ten times the longest training, whichever is more, and an hour
    before there is one. It ends, too, when a fully trained net has the
    ``target_accuracy`` (0 to 1) on the validation split. ``show``
    is called after each event. Raises StudyError when three candidates in a row fail of
    the same cause, or the study cannot be written.
    """
    limits = _Limits(time_limit, trial_time_limit, target_accuracy)
    return _Search(study, engine, trials, limits, show).run()


class _Limits(NamedTuple):
    """What ends a search, or a training, before its time; None is no limit."""

    seconds: float | None
    trial_seconds: float | None
    target_accuracy: float | None


class _Search:
    def __init__(
        self,
        study: Study,
        engine: Engine,
        trials: int,
        limits: _Limits,
        show: Callable[[Progress], None],
    ) -> None:
        self.study, self.engine, self.trials = study, engine, trials
        self.limits, self.show = limits, show
        self.started = time.monotonic()
        self.timing = Timing()
        candidates = study.candidates()
        self.finished = sum(_is_finished(c) for c in candidates)
        self.finished_before = self.finished
        self.epochs_before = sum(study.epochs_trained().values())
        self.unfinished = deque(c.trial for c in candidates if c.state == "running")
        self.prefetched: deque[Candidate] = deque()
        self.running = TrainingTimes(limits.trial_seconds)
        self.promotions = Promotions(study, trials)
        self.losses: Counter[int] = Counter()
        self.last_failures: list[str] = []
        self.exhausted = False
        self.kernels: set[bool | None] = set()
        self.pruner = Pruner(study.settings)
        for candidate in filter(_is_finished, candidates):
            for report in candidate.curve:
                self.pruner.note(candidate, report)

    def run(self) -> Outcome:
        reason = self.reached()
        while reason is None:
            self.assign_trainings()
            reason = self.over()
            if reason is None:
                ahead = self.may_prefetch()
                with timed(self.timing, "waiting"):
                    events = self.engine.wait(0.0 if ahead else self.wait_timeout())
                self.running.look()
                if ahead and not events:
                    self.prefetch()
                for event in events:
                    match event:
                        case Reported(job, report):
                            self.judge(job, report)
                        case Finished(job):
                            self.kernels.add(event.kernels)
                            self.finish(job)
                        case Failed(job, cause):
                            self.fail(job, cause)
                        case WorkerLost(job, out_of_memory):
                            self.requeue(job, out_of_memory=out_of_memory)
                for job in self.running.overdue():
                    trial = self.promotions.trial_of(job)
                    _logger.warning(
                        "trial %d takes too long (--trial-time-limit): its worker is replaced",
                        trial,
                    )
                    self.engine.abandon(job)
                reason = self.reached()
        self.timing.total = time.monotonic() - self.started
        return Outcome(reason, self.timing, kernels_ran_in_all(self.kernels))

    # -- when it ends ----------------------------------------------------------------------

    def over(self) -> str | None:
        busy = self.running or self.promotions.waiting
        if self.finished >= self.trials and not busy:
            return "done"
        limit = self.limits.seconds
        if limit and time.monotonic() - self.started >= limit:
            return "time limit"
        if self.exhausted and not (busy or self.unfinished or self.prefetched):
            return "exhausted"
        return None

    def reached(self) -> str | None:
        """Return "target accuracy" where a fully trained net has that."""
        target = self.limits.target_accuracy
        if target is None:  # the front of a large study takes its time
            return None
        members = self.study.front()
        if not members or not members[-1].fully_trained:
            return None
        accuracy = members[-1].val_accuracy or 0.0
        return "target accuracy" if accuracy >= target else None

    def wait_timeout(self) -> float:
        if self.limits.seconds is None:
            return 1.0
        left = self.limits.seconds - (time.monotonic() - self.started)
        return min(1.0, max(0.0, left))

    # -- what is trained next --------------------------------------------------------------

    def assign_trainings(self) -> None:
        """Give every idle worker a training, but never more than are wanted."""
        while self.engine.idle:
            job = self.next_promotion() or self.next_screening()
            if job is None and self.exhausted:
                # No more candidates will come: the last promotions are due now.
                job = self.next_promotion()
            if job is None:
                return
            self.running.begin(job.number)
            self.engine.start(job)
            if job.number >= 0:
                self.report_progress(self.study.candidate(job.number))

    def next_promotion(self) -> Job | None:
        """Return the next promotion, if one is due."""
        with timed(self.timing, "sampling"):
            return self.promotions.next(
                finished=self.finished,
                screening=self.screening,
                more_to_come=self.may_screen(),
            )

    def next_screening(self) -> Job | None:
        """Return the screening of a new candidate, if one is wanted."""
        if self.finished + self.screening >= self.trials:
            return None
        candidate = self.next_candidate()
        if candidate is None:
            return None
        settings = self.study.settings
        return Job(
            number=candidate.trial,
            architecture=candidate.architecture,
            recipe=settings.recipe,
            seed=candidate.seed,
            rungs=settings.rungs,
            metric=settings.metric,
        )

    @property
    def screening(self) -> int:
        """Number of candidates in screening."""
        return sum(job not in self.promotions for job in self.running)

    def may_screen(self) -> bool:
        """Return whether further candidates are to come."""
        return self.finished < self.trials and not (
            self.exhausted and not self.unfinished and not self.prefetched
        )

    def next_candidate(self) -> Candidate | None:
        if self.unfinished:
            with timed(self.timing, "storage"):
                return self.study.resume(self.unfinished.popleft())
        if self.prefetched:
            return self.prefetched.popleft()
        return self.draw()

    def draw(self) -> Candidate | None:
        if self.exhausted:
            return None
        with timed(self.timing, "sampling"):
            candidate = self.study.ask()
        self.exhausted = candidate is None
        return candidate

    def may_prefetch(self) -> bool:
        """Return whether another candidate will be wanted soon."""
        workers = len(self.running) + self.engine.idle
        ahead = len(self.prefetched)
        planned = self.finished + self.screening + len(self.unfinished) + ahead
        return (
            not self.exhausted
            and ahead < workers // _WORKERS_PER_PREFETCH
            and planned < self.trials
        )

    def prefetch(self) -> None:
        candidate = self.draw()
        if candidate is not None:
            self.prefetched.append(candidate)

    # -- what workers tell -----------------------------------------------------------------

    def judge(self, job: int, report: RungReport) -> None:
        """Record a report and tell the worker whether to continue."""
        if job in self.promotions:
            self.promotions.report(job, report)
            self.engine.decide(job, proceed=True)
            return
        with timed(self.timing, "storage"):
            candidate = self.study.record(job, report)
        reason = self.pruner.reason_to_prune(candidate, report)
        self.pruner.note(candidate, report)
        self.engine.decide(job, proceed=reason is None)
        if reason is None:
            self.report_progress(candidate)
        else:
            self.end_screening(job, "pruned", reason)

    def finish(self, job: int) -> None:
        """Record the end of a training."""
        if job in self.promotions:
            self.end_promotion(job)
        else:
            self.end_screening(job, "complete")

    def end_screening(self, trial: int, state: str, reason: str | None = None) -> None:
        with timed(self.timing, "storage"):
            candidate = self.study.tell(trial, state, reason)  # type: ignore[arg-type]
        self.stop_clock(trial, completed=state == "complete")
        if state == "failed":
            self.pruner.forget(trial)
        else:
            self.finished += 1
            self.last_failures.clear()
        self.report_progress(candidate)

    def end_promotion(self, job: int, failure: str | None = None) -> None:
        with timed(self.timing, "storage"):
            candidate = self.promotions.end(job, failed=failure is not None)
        self.stop_clock(job, completed=failure is None)
        if failure is None:
            self.last_failures.clear()
        self.report_progress(candidate, failure)

    def stop_clock(self, job: int, *, completed: bool) -> None:
        self.timing.training += self.running.end(job, completed=completed)
        self.promotions.training_ended()

    def fail(self, job: int, cause: str) -> None:
        if job in self.promotions:
            self.end_promotion(job, cause)
        else:
            self.end_screening(job, "failed", cause)
        if self.last_failures and self.last_failures[-1] != cause:
            self.last_failures.clear()
        self.last_failures.append(cause)
        if len(self.last_failures) >= _FAILURES_IN_A_ROW:
            raise StudyError(
                f"{_FAILURES_IN_A_ROW} candidates in a row failed for the same reason, "
                f"the last being trial {self.promotions.trial_of(job)}: {cause}; fix it "
                "and run the same command again"
            )

    def requeue(self, job: int, *, out_of_memory: bool) -> None:
        """Give the training of a lost worker to another one."""
        cause = None
        if self.running.was_abandoned(job):
            cause = self.running.failure(job)
        elif not out_of_memory:
            self.losses[job] += 1
            if self.losses[job] >= _LOSSES:
                cause = f"its worker died {_LOSSES} times"
        if cause is not None:
            self.fail(job, cause)
            return
        self.stop_clock(job, completed=False)
        if job in self.promotions:
            self.promotions.repeat(job)
            return
        self.pruner.forget(job)
        self.unfinished.appendleft(job)

    def report_progress(self, candidate: Candidate, failure: str | None = None) -> None:
        with timed(self.timing, "reporting"):
            self.show(
                Progress(
                    study=self.study,
                    trials=self.trials,
                    finished_before=self.finished_before,
                    epochs_before=self.epochs_before,
                    seconds=time.monotonic() - self.started,
                    time_limit=self.limits.seconds,
                    changed=candidate,
                    failure=failure,
                )
            )


def _is_finished(candidate: Candidate) -> bool:
    return candidate.state in {"complete", "pruned"}
