"""The one loop that joins everything: ask, train, prune, record, tell."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from nas.candidates.candidate import Candidate, Training
from nas.candidates.promotion import Promotion, next_promotion, planned_epochs
from nas.candidates.pruning import RungResult, RungResults, count_rivals, should_prune
from nas.candidates.ranking import rank
from nas.engines import Engine, Failed, Finished, Job, Reported, WorkerLost, all_of
from nas.errors import StudyError
from nas.study.settings import derived_seed
from nas.study.study import Study
from nas.training.report import RungReport

# The same cause of failure so often in a row is no accident of one candidate.
_FAILURES_IN_A_ROW = 3
# A candidate under which the worker died so often is taken to be what kills it.
_LOSSES = 3
# One that took too long so often is given up; the first time the machine may be to blame.
_OVERDUE = 2
# Without a limit from the user a training is overdue after so many seconds, or so many
# times the longest that came to its end, whichever is more; before there is one, after
# the first limit.
_LEAST_LIMIT = 600.0
_TIMES_THE_LONGEST = 10
_FIRST_LIMIT = 3600.0
# For each so many workers one candidate is drawn before it is wanted, while nothing
# else is to be done. With fewer, what the next draw learns is worth more than the time.
_WORKERS_PER_PREFETCH = 8
# The promotion rule is asked anew once trainings of one in so many have ended.
_SHARE_TO_PROMOTE_ANEW = 200
# No more of one round counts as training: the coordinator may have been stopped.
_LONGEST_ROUND = 30.0


@dataclass(slots=True)
class Timing:
    """Seconds spent by the coordinator, by kind of work."""

    sampling: float = 0.0
    storage: float = 0.0
    waiting: float = 0.0
    reporting: float = 0.0
    total: float = 0.0
    training: float = 0.0
    """Summed over the workers: between a candidate's start and its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a search stands; handed to whoever shows it."""

    study: Study
    """With all that has happened up to now."""
    trials: int
    """The number of finished trials that the study is to have."""
    finished_before: int
    epochs_before: float
    """What had been trained when this run began."""
    seconds: float
    time_limit: float | None = None
    changed: Candidate | None = None
    """The candidate that has changed: begun, reported or ended."""

    @property
    def seconds_left(self) -> float | None:
        """What the rest will take at this run's pace; None before there is one."""
        settings = self.study.settings
        left = math.inf
        if self.time_limit is not None:
            left = max(0.0, self.time_limit - self.seconds)
        trained = sum(self.study.epochs_trained().values())
        if trained > self.epochs_before:
            planned = planned_epochs(settings.promotion, settings.levels, self.trials)
            pace = self.seconds / (trained - self.epochs_before)
            left = min(left, pace * max(0.0, planned - trained))
        return None if math.isinf(left) else left


@dataclass(slots=True)
class Outcome:
    """How a search ended, and its times.

    ``reason`` is "done", "target accuracy", "time limit" or "exhausted".
    ``kernels`` tells whether the C kernels did all of its trainings that came to an end.
    """

    reason: str
    timing: Timing = field(default_factory=Timing)
    kernels: bool | None = None


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

    Unfinished candidates of an interrupted search are trained anew first. After
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
        # When each job began. A candidate's first training has the number of its trial,
        # promotions have negative numbers.
        self.in_training: dict[int, float] = {}
        self.promotions: dict[int, Promotion] = {}
        self.again: deque[int] = deque()
        self.curves: dict[int, list[RungReport]] = {}
        self.started_trainings: dict[int, set[tuple[int, int]]] = {}
        # Trainings that have ended since the promotion rule last had nothing to promote.
        self.ended_since: float = math.inf
        # Seconds that the coordinator saw each of them train, and when it last looked.
        self.looked = self.started
        self.elapsed: dict[int, float] = {}
        self.longest: float | None = None
        self.abandoned: set[int] = set()
        self.overdue: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()
        self.last_failures: list[str] = []
        self.exhausted = False
        self.kernels: set[bool | None] = set()
        # Where each candidate stood at each rung: the rivals of those to come.
        self.results = [RungResults() for _ in study.settings.rungs]
        for candidate in filter(_is_finished, candidates):
            for report in candidate.curve:
                self.note(candidate, report)
        for candidate in candidates:
            if candidate.trainings:
                self.started_trainings[candidate.trial] = {
                    (t.epochs, t.seed_number) for t in candidate.trainings
                }

    def run(self) -> Outcome:
        reason = self.reached()
        while reason is None:
            self.assign_candidates()
            reason = self.over()
            if reason is None:
                ahead = self.may_prefetch()
                with _timed(self.timing, "waiting"):
                    events = self.engine.wait(0.0 if ahead else self.wait_timeout())
                self.add_elapsed()
                if ahead and not events:
                    self.prefetch()
                for event in events:
                    match event:
                        case Reported(trial, report):
                            self.judge(trial, report)
                        case Finished(job):
                            self.kernels.add(event.kernels)
                            self.finish(job)
                        case Failed(job, cause):
                            self.fail(job, cause)
                        case WorkerLost(trial, out_of_memory):
                            self.requeue(trial, out_of_memory=out_of_memory)
                self.abandon_overdue()
                reason = self.reached()
        self.timing.total = time.monotonic() - self.started
        return Outcome(reason, self.timing, all_of(self.kernels))

    def over(self) -> str | None:
        if self.finished >= self.trials and not self.in_training and not self.again:
            return "done"
        limit = self.limits.seconds
        if limit and time.monotonic() - self.started >= limit:
            return "time limit"
        left = self.in_training or self.unfinished or self.prefetched
        if self.exhausted and not left:
            return "exhausted"
        return None

    def reached(self) -> str | None:
        """Return "target accuracy" where a fully trained net has that."""
        target, members = self.limits.target_accuracy, self.study.front()
        if target is None or not members or not members[-1].fully_trained:
            return None
        return "target accuracy" if _accuracy(members[-1]) >= target else None

    def wait_timeout(self) -> float:
        if self.limits.seconds is None:
            return 1.0
        left = self.limits.seconds - (time.monotonic() - self.started)
        return min(1.0, max(0.0, left))

    def assign_candidates(self) -> None:
        """Give every idle worker a training, but never more than are wanted."""
        while self.engine.idle:
            job = self.next_promotion() or self.next_screening()
            if job is None:
                return
            self.in_training[job.number] = time.monotonic()
            self.elapsed[job.number] = self.looked - time.monotonic()
            self.engine.start(job)
            if job.number >= 0:
                self.report_progress(self.study.candidate(job.number))

    def next_screening(self) -> Job | None:
        """Return the first, short training of another candidate, if one is wanted."""
        screening = sum(number >= 0 for number in self.in_training)
        if self.finished + screening >= self.trials:
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

    def next_promotion(self) -> Job | None:
        """Return a longer training of a promising candidate, if one is due."""
        if self.again:
            number = self.again.popleft()
        else:
            promotion = self.due_promotion()
            if promotion is None:
                return None
            number = -1 - len(self.promotions)
            self.promotions[number] = promotion
        trial, epochs, seed_number = self.promotions[number]
        settings = self.study.settings
        self.started_trainings.setdefault(trial, set()).add((epochs, seed_number))
        self.curves[number] = []
        return Job(
            number=number,
            architecture=self.study.candidate(trial).architecture,
            recipe=replace(settings.recipe, epochs=epochs),
            seed=derived_seed(settings.seed, "promote", trial, epochs, seed_number),
            rungs=promotion_rungs(epochs),
            metric=settings.metric,
        )

    def due_promotion(self) -> Promotion | None:
        """Ask the promotion rule; only where enough has changed since its last no.

        It ranks all candidates, which takes longer the more there are: of many thousand
        it is asked once trainings of one in so many have ended, and always at the end.
        """
        settings = self.study.settings
        needed = max(1, self.finished // _SHARE_TO_PROMOTE_ANEW)
        enough = 1 if not self.may_screen() else needed
        if len(settings.levels) == 1 or self.ended_since < enough:
            return None
        with _timed(self.timing, "sampling"):
            evidence = self.study.evidence()
            screening = sum(number >= 0 for number in self.in_training)
            found = next_promotion(
                evidence,
                list(
                    rank(
                        evidence,
                        settings.levels,
                        compute_cost=settings.evolution.compute_cost,
                    ).merits
                ),
                self.started_trainings,
                rule=settings.promotion,
                fidelities=settings.levels,
                trials=self.trials,
                screened=self.finished,
                screening=screening > 0 or self.may_screen(),
                # Who names a net to start from wants to know what it is worth.
                always=[c.trial for c in self.starts()],
            )
        if found is None:
            self.ended_since = 0
        return found

    def starts(self) -> list[Candidate]:
        """Return the candidates that the user named, as far as they have begun."""
        if not self.study.settings.start_from:
            return []
        return [c for c in self.study.candidates() if c.origin == "start"]

    def may_screen(self) -> bool:
        """Return whether further candidates are to come."""
        return self.finished < self.trials and not (
            self.exhausted and not self.unfinished and not self.prefetched
        )

    def trial_of(self, job: int) -> int:
        """Return the trial that a job trains."""
        return job if job >= 0 else self.promotions[job].trial

    def next_candidate(self) -> Candidate | None:
        if self.unfinished:
            with _timed(self.timing, "storage"):
                return self.study.resume(self.unfinished.popleft())
        if self.prefetched:
            return self.prefetched.popleft()
        return self.draw()

    def draw(self) -> Candidate | None:
        if self.exhausted:
            return None
        with _timed(self.timing, "sampling"):
            candidate = self.study.ask()
        self.exhausted = candidate is None
        return candidate

    def may_prefetch(self) -> bool:
        """Return whether another candidate will be wanted soon."""
        workers = len(self.in_training) + self.engine.idle
        screening = sum(number >= 0 for number in self.in_training)
        ahead = len(self.prefetched)
        planned = self.finished + screening + len(self.unfinished) + ahead
        return (
            not self.exhausted
            and ahead < workers // _WORKERS_PER_PREFETCH
            and planned < self.trials
        )

    def prefetch(self) -> None:
        candidate = self.draw()
        if candidate is not None:
            self.prefetched.append(candidate)

    def judge(self, trial: int, report: RungReport) -> None:
        """Write a report down and tell the worker whether to go on."""
        if trial in self.promotions:
            self.curves[trial].append(report)
            self.engine.decide(trial, proceed=True)
            return
        with _timed(self.timing, "storage"):
            candidate = self.study.record(trial, report)
        reason = self.reason_to_prune(candidate, report)
        self.note(candidate, report)
        self.engine.decide(trial, proceed=reason is None)
        if reason is None:
            self.report_progress(candidate)
        else:
            self.end(trial, "pruned", reason)

    def reason_to_prune(self, candidate: Candidate, report: RungReport) -> str | None:
        settings = self.study.settings
        last = report.rung == len(settings.rungs) - 1
        # Who names a net to start from wants to know what it is worth.
        if settings.pruning is None or last or candidate.origin == "start":
            return None
        result = _rung_result(candidate, report)
        peers = self.results[report.rung].peers()
        rule, size = settings.pruning, settings.noise_size
        if not should_prune(result, peers, rule=rule, val_size=size):
            return None
        rivals = count_rivals(result, peers, rule=rule, val_size=size)
        return _pruning_reason(report, rivals)

    def note(self, candidate: Candidate, report: RungReport) -> None:
        self.results[report.rung].put(candidate.trial, _rung_result(candidate, report))

    def end(self, trial: int, state: str, reason: str | None = None) -> None:
        with _timed(self.timing, "storage"):
            candidate = self.study.tell(trial, state, reason)  # type: ignore[arg-type]
        seconds = self.forget(trial)
        if state == "complete":
            self.longest = max(seconds, self.longest or 0.0)
        if state == "failed":
            for results in self.results:
                results.drop(trial)
        else:
            self.finished += 1
            self.last_failures.clear()
        self.report_progress(candidate)

    def finish(self, job: int) -> None:
        """Note that a training came to its end."""
        if job in self.promotions:
            self.end_promotion(job, tuple(self.curves[job]))
        else:
            self.end(job, "complete")

    def end_promotion(self, job: int, curve: tuple[RungReport, ...]) -> None:
        """Write a longer training down; without a curve it failed."""
        trial, epochs, seed_number = self.promotions[job]
        training = Training(
            trial=trial,
            epochs=epochs,
            seed_number=seed_number,
            curve=curve,
            ended=datetime.now(UTC).timestamp(),
        )
        with _timed(self.timing, "storage"):
            candidate = self.study.add_training(training)
        age = self.forget(job)
        if curve:
            self.longest = max(age, self.longest or 0.0)
        self.report_progress(candidate)

    def forget(self, job: int) -> float:
        """Drop a job that has ended; return for how long the coordinator saw it train."""
        self.timing.training += time.monotonic() - self.in_training.pop(job)
        self.abandoned.discard(job)
        self.ended_since += 1
        return self.elapsed.pop(job)

    def fail(self, job: int, cause: str) -> None:
        trial = self.trial_of(job)
        if job in self.promotions:
            self.end_promotion(job, ())
        else:
            self.end(job, "failed", cause)
        if self.last_failures and self.last_failures[-1] != cause:
            self.last_failures.clear()
        self.last_failures.append(cause)
        if len(self.last_failures) >= _FAILURES_IN_A_ROW:
            raise StudyError(
                f"{_FAILURES_IN_A_ROW} candidates in a row failed of the same cause, "
                f"the last being trial {trial}: {cause}; mend it and run the same "
                "command again"
            )

    def requeue(self, trial: int, *, out_of_memory: bool) -> None:
        """Give the candidate of a worker that is gone to another one."""
        if trial in self.abandoned:
            self.abandoned.remove(trial)
            if self.overdue[trial] >= _OVERDUE:
                self.fail(
                    trial, f"it took too long {_OVERDUE} times (--trial-time-limit)"
                )
                return
        elif not out_of_memory:
            self.losses[trial] += 1
            if self.losses[trial] >= _LOSSES:
                self.fail(trial, f"its worker died {_LOSSES} times")
                return
        self.forget(trial)
        if trial in self.promotions:
            self.again.append(trial)
            return
        for results in self.results:
            results.drop(trial)
        self.unfinished.appendleft(trial)

    def add_elapsed(self) -> None:
        """Add the time since the last round to every training that runs."""
        before, self.looked = self.looked, time.monotonic()
        for trial in self.elapsed:
            self.elapsed[trial] += min(self.looked - before, _LONGEST_ROUND)

    def abandon_overdue(self) -> None:
        """Kill the workers that have been at one candidate for too long."""
        limit = self.limits.trial_seconds
        if limit is None:
            limit = _FIRST_LIMIT
            if self.longest is not None:
                limit = max(_LEAST_LIMIT, _TIMES_THE_LONGEST * self.longest)
        for trial, seconds in self.elapsed.items():
            if seconds > limit and trial not in self.abandoned:
                self.abandoned.add(trial)
                self.overdue[trial] += 1
                self.engine.abandon(trial)

    def report_progress(self, candidate: Candidate) -> None:
        with _timed(self.timing, "reporting"):
            self.show(
                Progress(
                    study=self.study,
                    trials=self.trials,
                    finished_before=self.finished_before,
                    epochs_before=self.epochs_before,
                    seconds=time.monotonic() - self.started,
                    time_limit=self.limits.seconds,
                    changed=candidate,
                )
            )


def promotion_rungs(epochs: int) -> tuple[float, ...]:
    """Return the rungs of a longer training: 1, 2, 4 ... epochs and its end."""
    doubling = [2.0**n for n in range(epochs.bit_length()) if 2**n < epochs]
    return (*doubling, float(epochs))


def _rung_result(candidate: Candidate, report: RungReport) -> RungResult:
    return RungResult(candidate.num_params, report.val_accuracy, report.train_loss)


def _pruning_reason(report: RungReport, rivals: int) -> str:
    noun = "net" if rivals == 1 else "nets"
    return (
        f"after {report.epochs:g} epochs {rivals} {noun} of at most its size "
        f"{'was' if rivals == 1 else 'were'} clearly more accurate"
    )


def _accuracy(candidate: Candidate) -> float:
    return candidate.val_accuracy or 0.0


def _is_finished(candidate: Candidate) -> bool:
    return candidate.state in {"complete", "pruned"}


class _timed:  # noqa: N801  # reads as a verb where it is used
    """Add the time spent in the block to one of the timing's counters."""

    def __init__(self, timing: Timing, name: str) -> None:
        self.timing, self.name = timing, name

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        spent = getattr(self.timing, self.name) + time.monotonic() - self.began
        setattr(self.timing, self.name, spent)


__all__ = ["Outcome", "Progress", "Timing", "search"]
