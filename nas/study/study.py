"""Study: ask, record, tell.

A study is a folder with ``study.toml`` (its settings, frozen at its birth) and, unless
a storage URL was given, ``journal.log`` (Optuna's journal file). One process at a time
may write: it holds a lock on the folder that the system frees when the process dies.

Draws are made in an in-memory copy of the study and written as one record a trial,
architecture and all. So a trial is in the storage as a whole or not at all, whenever
the process is killed; and a draw costs one write instead of one for each parameter.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import IO, Any, Self

import optuna
from optuna.samplers import (
    BaseSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from nas.architecture import Architecture
from nas.architecture.cost import cost
from nas.candidates.candidate import Candidate, State, front
from nas.errors import StudyError
from nas.space import encode, read_space, sample
from nas.study.records import STATES, attributes, read_trial, report_attribute
from nas.study.settings import Settings, derived_seed
from nas.study.storages import (
    DIRECTIONS,
    close_storage,
    no_experimental_warning,
    storage_errors,
    study_id,
)
from nas.study.tpe import Lore, QuickTPESampler
from nas.training.report import RungReport

# After so many draws in a row that the study already has, it is taken to have them all.
_DUPLICATES_IN_A_ROW = 300
# After so many the sampler is stuck on its favourites: draw at random instead.
_DUPLICATES_BEFORE_RANDOM = 10
_GOLDEN = (math.sqrt(5) - 1) / 2


class Study:
    """One study, open for reading or (as its only writer) for searching."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        storage: BaseStorage,
        lock: IO[str] | None,
    ) -> None:
        """Use `create`, `open_study` or `read_study`; they check everything."""
        self.folder, self.settings = folder, settings
        self._storage, self._lock = storage, lock
        with storage_errors(folder):
            self._id = study_id(storage, settings.name, create=lock is not None)
            trials = storage.get_all_trials(self._id, deepcopy=False)
        self._space = read_space(settings.space_toml, settings.space)
        self._memory = optuna.create_study(directions=list(DIRECTIONS))
        self._density_cache = Lore()
        self._memory_ids: dict[int, int] = {}
        self._storage_ids: dict[int, int] = {}
        self._attempts: dict[int, int] = {}
        self._candidates: dict[int, Candidate] = {}
        self._counts: Counter[State] = Counter()
        self._front: list[Candidate] = []
        self._new: list[Candidate] = []  # complete since the front was asked for
        self._keys: dict[str, int] = {}
        for trial in trials:
            self._load(trial)

    def __enter__(self) -> Self:
        """Return the study; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give up the lock."""
        self.close()

    def close(self) -> None:
        """Give up the lock, so that another process may search."""
        close_storage(self._storage)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def candidates(self) -> list[Candidate]:
        """Return all candidates in the order of their trials."""
        return list(self._candidates.values())

    def counts(self) -> Counter[State]:
        """Return how many candidates there are in each state."""
        return self._counts.copy()

    def front(self) -> list[Candidate]:
        """Return what nas.candidates.candidate.front makes of all candidates.

        It looks only at those that are complete since it was last asked for.
        """
        if self._new:
            # In the order of their trials, as the first of equal ones is a member.
            some = sorted([*self._front, *self._new], key=lambda c: c.trial)
            self._front = front(some)
            self._new.clear()
        return list(self._front)

    def candidate(self, trial: int) -> Candidate:
        """Return one candidate; raise StudyError if there is no such trial."""
        if trial not in self._candidates:
            raise StudyError(
                f"the study {self.settings.name!r} has no trial {trial}: its trials are "
                f"0 to {len(self._candidates) - 1}"
                if self._candidates
                else f"the study {self.settings.name!r} has no trials yet"
            )
        return self._candidates[trial]

    def refresh(self) -> None:
        """Read what another process has written since."""
        with storage_errors(self.folder):
            trials = self._storage.get_all_trials(self._id, deepcopy=False)
        for trial in trials:
            known = self._candidates.get(trial.number)
            if known is None or known.state == "running":
                self._load(trial)

    def ask(self) -> Candidate | None:
        """Draw a new candidate and record it as running.

        The first are those that the study was born with; they are not drawn.
        Returns None when the space holds no architecture under the caps that the
        study does not have yet (after many draws in vain).
        """
        number = len(self._candidates)
        if number < len(self.settings.start_from):
            return self._start(number, self.settings.start_from[number])
        for attempt in range(_DUPLICATES_IN_A_ROW):
            self._memory.sampler = self._sampler(number, attempt)
            self._memory.enqueue_trial({"size": self._size(number, attempt)})
            drawn = self._memory.ask()
            architecture = self._draw(drawn)
            if architecture.key in self._keys:
                # A failed trial is what samplers do not learn from.
                self._memory.tell(drawn, state=TrialState.FAIL)
                continue
            frozen = self._memory.get_trials(deepcopy=False)[drawn.number]
            return self._add(number, drawn.number, architecture, frozen)
        return None

    def resume(self, trial: int) -> Candidate:
        """Begin the training of an unfinished candidate anew; forget its reports."""
        self._attempts[trial] += 1
        self._set(trial, "attempt", self._attempts[trial])
        return self._update(trial, curve=(), val_accuracy=None, reason=None)

    def record(self, trial: int, report: RungReport) -> Candidate:
        """Write a report down; return the candidate with its longer curve."""
        self._set(trial, *report_attribute(report, self._attempts[trial]))
        known = self._candidates[trial]
        return self._update(
            trial, curve=(*known.curve, report), val_accuracy=report.val_accuracy
        )

    def tell(self, trial: int, state: State, reason: str | None = None) -> Candidate:
        """Write down how a candidate ended: complete, pruned or failed, and why."""
        if reason is not None:
            self._set(trial, "reason", reason)
        candidate = self._update(trial, state=state, reason=reason)
        values = None
        if state == "complete":
            accuracy = candidate.val_accuracy
            values = [0.0 if accuracy is None else accuracy, candidate.num_params]
        with storage_errors(self.folder):
            self._storage.set_trial_state_values(
                self._storage_ids[trial],
                next(k for k, v in STATES.items() if v == state),
                values,
            )
        self._tell_memory(candidate)
        return candidate

    def _start(self, number: int, architecture: Architecture) -> Candidate:
        """Record an architecture that the study was born with.

        The sampler learns from it where the space can draw it, too: then the trial has
        the parameters that draw it, and otherwise none.
        """
        draws = encode(self._space, architecture, self.settings.caps)
        self._memory.sampler = self._sampler(number, 0)
        if draws is not None:
            self._memory.enqueue_trial(draws)
        drawn = self._memory.ask()
        if draws is not None:
            self._draw(drawn)
        frozen = self._memory.get_trials(deepcopy=False)[drawn.number]
        return self._add(number, drawn.number, architecture, frozen)

    def _draw(self, trial: Trial) -> Architecture:
        return sample(
            self._space,
            trial,
            input_shape=self.settings.input_shape,
            num_classes=self.settings.num_classes,
            caps=self.settings.caps,
        )

    def _add(
        self,
        number: int,
        memory_number: int,
        architecture: Architecture,
        frozen: FrozenTrial,
    ) -> Candidate:
        costs = cost(architecture)
        candidate = Candidate(
            trial=number,
            architecture=architecture,
            num_params=costs.num_params,
            macs=costs.macs,
            peak_memory=costs.peak_memory,
            key=architecture.key,
            state="running",
            seed=derived_seed(self.settings.seed, "train", number),
        )
        record = create_trial(
            state=TrialState.RUNNING,
            params=frozen.params,
            distributions=frozen.distributions,
            user_attrs=attributes(candidate),
        )
        with storage_errors(self.folder):
            trial_id = self._storage.create_new_trial(self._id, record)
        self._remember(candidate, trial_id, memory_number, attempt=1)
        return candidate

    def _load(self, trial: FrozenTrial) -> None:
        candidate, attempt = read_trial(trial, self.settings)
        memory_number = self._memory_ids.get(candidate.trial, -1)
        # Only who asks needs a sampler that knows all; a reader is open much faster.
        if self._lock is not None and memory_number < 0:
            self._memory.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=trial.params,
                    distributions=trial.distributions,
                )
            )
            memory_number = len(self._memory.get_trials(deepcopy=False)) - 1
        self._remember(candidate, trial._trial_id, memory_number, attempt)  # noqa: SLF001
        if self._lock is not None and candidate.state != "running":
            self._tell_memory(candidate)

    def _remember(
        self, candidate: Candidate, trial_id: int, memory_number: int, attempt: int
    ) -> None:
        self._keep(candidate)
        self._keys.setdefault(candidate.key, candidate.trial)
        self._storage_ids[candidate.trial] = trial_id
        self._memory_ids[candidate.trial] = memory_number
        self._attempts[candidate.trial] = attempt

    def _tell_memory(self, candidate: Candidate) -> None:
        """Let the sampler learn how the candidate ended.

        Both objectives are told on a logarithmic scale, the accuracy as its error. That
        changes no dominance; but among members of the front samplers prefer those
        with much hypervolume, which on plain scales are the tiny and inaccurate ones.

        It learns from a pruned one by the accuracy that it had come to: a trial told
        as pruned would rank behind every complete one, whatever its size.
        """
        memory = self._memory
        trial = memory.get_trials(deepcopy=False)[self._memory_ids[candidate.trial]]
        accuracy = candidate.val_accuracy
        # One without parameters would leave some samplers none that all trials have.
        if candidate.state == "failed" or accuracy is None or not trial.params:
            memory.tell(trial.number, state=TrialState.FAIL)
            return
        # Half an image's error stands for none at all.
        error = max(1 - accuracy, 0.5 / self.settings.val_size)
        memory.tell(trial.number, [-math.log(error), math.log(candidate.num_params)])

    def _update(self, trial: int, **changes: Any) -> Candidate:
        candidate = replace(self._candidates[trial], **changes)
        self._keep(candidate)
        return candidate

    def _keep(self, candidate: Candidate) -> None:
        """Hold this in place of what was known of the candidate."""
        known = self._candidates.get(candidate.trial)
        if known is not None:
            self._counts[known.state] -= 1
        self._candidates[candidate.trial] = candidate
        self._counts[candidate.state] += 1
        if candidate.state == "complete":
            self._new.append(candidate)

    def _set(self, trial: int, name: str, value: Any) -> None:
        with storage_errors(self.folder):
            self._storage.set_trial_user_attr(self._storage_ids[trial], name, value)

    def _size(self, number: int, attempt: int) -> float:
        """Return where in the space's range of sizes to draw, 0 to 1.

        The sampler decides all else. Left to it, the sizes crowd at the small end,
        where trials are cheap members of the front. Steps of the golden section cover
        the range evenly from the first trials on.
        """
        seed = derived_seed(self.settings.seed, "size", attempt)
        return (Random(seed).random() + number * _GOLDEN) % 1

    def _sampler(self, number: int, attempt: int) -> BaseSampler:
        """Return the sampler for one draw; its seed follows from the trial's number.

        So a study that was interrupted goes on as it would have without.
        """
        seed = derived_seed(self.settings.seed, "draw", number, attempt)
        kind = self.settings.sampler
        if kind == "random" or attempt >= _DUPLICATES_BEFORE_RANDOM:
            return RandomSampler(seed=seed)
        if kind == "nsga2":
            return NSGAIISampler(seed=seed, population_size=20)
        if kind == "tpe":
            return QuickTPESampler(self._density_cache, seed=seed)
        with no_experimental_warning():
            return TPESampler(seed=seed, multivariate=True, group=True)
