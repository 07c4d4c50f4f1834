"""Promotions: longer trainings that are due or running, and their reports."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from nas.candidates.candidate import Candidate, Training
from nas.candidates.promotion import Promotion, next_promotion
from nas.candidates.ranking import Evidence, rank
from nas.engines import Job
from nas.study.settings import derived_seed
from nas.study.study import Study
from nas.training.report import RungReport

# The promotion rule is asked again after trainings of one in this many candidates.
_SHARE_TO_PROMOTE_ANEW = 200


class Promotions:
    """All promotions of a study, those before this run included.

    Their jobs have negative numbers; a candidate's first training has the number of
    its trial.
    """

    def __init__(self, study: Study, trials: int) -> None:
        self._study, self._trials = study, trials
        self._jobs: dict[int, Promotion] = {}
        self._curves: dict[int, list[RungReport]] = {}
        # The (epochs, seed number) of each candidate's.
        self._started: dict[int, set[tuple[int, int]]] = {
            c.trial: {(t.epochs, t.seed_number) for t in c.trainings}
            for c in study.candidates()
            if c.trainings
        }
        # Their longer training failed, so no other one is worth its time.
        self._failed = {
            c.trial
            for c in study.candidates()
            if not all(training.curve for training in c.trainings)
        }
        self._again: deque[int] = deque()
        # What the rule judges by, and the trainings that have ended since.
        self._evidence: list[Evidence] = []
        self._merits: list[float] = []
        self._ended_since: float = math.inf
        # Whether candidates were still being screened when nothing was due.
        self._nothing_due_while: bool | None = None

    def __contains__(self, job: int) -> bool:
        """Return whether the job is a promotion."""
        return job in self._jobs

    @property
    def waiting(self) -> bool:
        """Whether a promotion lost its worker and waits for another."""
        return bool(self._again)

    def trial_of(self, job: int) -> int:
        """Return the trial that a job trains."""
        return job if job >= 0 else self._jobs[job].trial

    def next(self, *, finished: int, screening: int, more_to_come: bool) -> Job | None:
        """Return the training that is due, if any.

        ``finished`` candidates have been screened, ``screening`` are being so;
        ``more_to_come`` tells whether others will be.
        """
        if self._again:
            number = self._again.popleft()
        else:
            promotion = self._due(finished, screening, more_to_come=more_to_come)
            if promotion is None:
                return None
            number = -1 - len(self._jobs)
            self._jobs[number] = promotion
        trial, epochs, seed_number = self._jobs[number]
        settings = self._study.settings
        self._started.setdefault(trial, set()).add((epochs, seed_number))
        self._curves[number] = []
        return Job(
            number=number,
            architecture=self._study.candidate(trial).architecture,
            recipe=replace(settings.recipe, epochs=epochs),
            seed=derived_seed(settings.seed, "promote", trial, epochs, seed_number),
            rungs=promotion_rungs(epochs),
            metric=settings.metric,
        )

    def _due(
        self, finished: int, screening: int, *, more_to_come: bool
    ) -> Promotion | None:
        """Ask the promotion rule; after its last no only where enough has changed.

        All candidates are ranked for it, which takes longer the more there are: of many
        thousand that is done once trainings of one in so many have ended, and always at
        the end.
        """
        settings = self._study.settings
        enough = max(1, finished // _SHARE_TO_PROMOTE_ANEW) if more_to_come else 1
        changed = self._ended_since >= enough
        still_screening = screening > 0 or more_to_come
        if len(settings.levels) == 1:
            return None
        if self._nothing_due_while == still_screening and not changed:
            return None
        if changed:
            self._evidence = self._study.evidence()
            cost = settings.evolution.compute_cost
            ranks = rank(self._evidence, settings.levels, compute_cost=cost)
            expected = ranks.predicted - ranks.residuals
            merits = ranks.merits + settings.promotion.size * expected
            self._merits = [
                math.nan if one.trial in self._failed else merit
                for one, merit in zip(self._evidence, merits.tolist(), strict=True)
            ]
            self._ended_since = 0
        found = next_promotion(
            self._evidence,
            self._merits,
            self._started,
            rule=settings.promotion,
            fidelities=settings.levels,
            trials=self._trials,
            screened=finished,
            screening=still_screening,
            # The user's own candidates are always trained fully, so that they can be compared.
            always=[c.trial for c in self._starts()],
        )
        self._nothing_due_while = still_screening if found is None else None
        return found

    def _starts(self) -> Sequence[Candidate]:
        """Return the user's own candidates that have begun."""
        if not self._study.settings.start_from:
            return []
        return [c for c in self._study.candidates() if c.origin == "start"]

    def training_ended(self) -> None:
        """Note that a training has ended since the rule was last asked."""
        self._ended_since += 1

    def report(self, job: int, report: RungReport) -> None:
        """Record a report of a promotion."""
        self._curves[job].append(report)

    def end(self, job: int, *, failed: bool) -> Candidate:
        """Store a finished promotion and return the updated candidate."""
        trial, epochs, seed_number = self._jobs[job]
        if failed:
            self._failed.add(trial)
        training = Training(
            trial=trial,
            epochs=epochs,
            seed_number=seed_number,
            curve=() if failed else tuple(self._curves[job]),
            ended=datetime.now(UTC).timestamp(),
        )
        return self._study.add_training(training)

    def repeat(self, job: int) -> None:
        """Queue a promotion again whose worker was lost."""
        self._again.append(job)


def promotion_rungs(epochs: int) -> tuple[float, ...]:
    """Return the rungs of a longer training: 1, 2, 4 ... epochs and its end."""
    doubling = [2.0**n for n in range(epochs.bit_length()) if 2**n < epochs]
    return (*doubling, float(epochs))
