"""Study: ask, record, tell.

A study is a folder with ``study.toml`` (its settings, frozen from its start) and, unless
a storage URL was given, ``journal.log`` (Optuna's journal file). One process at a time
may write: it holds a lock on the folder that the system frees when the process dies.

A trial is one candidate with its first, short training. It is written as one record,
architecture, draws and all, so it is in the storage as a whole or not at all, whenever
the process is killed. The longer trainings of promoted candidates are attributes of the
study, each written when it has ended: Optuna's finished trials cannot be changed.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import IO, Any, Self

from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Architecture
from nas.architecture.cost import cost
from nas.candidates.candidate import (
    Candidate,
    Origin,
    State,
    Training,
    front,
    with_training,
)
from nas.candidates.ranking import Evidence, evidence_of
from nas.errors import StudyError
from nas.sampling.evolution import Evolution, Proposal, Recorder
from nas.space.definition import SearchSpace
from nas.space.drawing import sample
from nas.space.encoding import encode
from nas.space.enumerating import every_net
from nas.space.reading import read_space
from nas.study.optuna_internals import id_of_trial
from nas.study.records import (
    STATES,
    attributes,
    is_foreign,
    read_trainings,
    read_trial,
    report_attribute,
    training_attribute,
)
from nas.study.settings import Settings, derived_seed
from nas.study.storages import (
    close_storage,
    keep_no_contents,
    storage_errors,
    study_id,
)
from nas.training.report import RungReport

# After so many duplicate draws in a row, the study is assumed to have them all.
_DUPLICATES_IN_A_ROW = 300
# After so many duplicates the evolution is stuck: draw at random instead.
_DUPLICATES_BEFORE_RANDOM = 10
_NAMED = 10
_logger = logging.getLogger("nas")
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
            self._id = study_id(storage, folder, settings.name, create=lock is not None)
            trials = storage.get_all_trials(self._id, deepcopy=False)
        self._space = read_space(settings.space_toml, settings.space)
        self._evolution = Evolution(
            self._space,
            input_shape=settings.input_shape,
            num_classes=settings.num_classes,
            caps=settings.caps,
            levels=settings.levels,
            rule=settings.evolution,
        )
        self._storage_ids: dict[int, int] = {}
        self._attempts: dict[int, int] = {}
        self._candidates: dict[int, Candidate] = {}
        self._trainings: set[str] = set()
        self._counts: Counter[State] = Counter()
        self._epochs = {"screening": 0.0, "promotion": 0.0, "seeds": 0.0}
        self._front: list[Candidate] | None = None
        self._new: list[Candidate] = []  # complete since the front was asked for
        self._keys: dict[str, int] = {}
        self._few: dict[str, tuple[Architecture, dict[str, float]]] | None = None
        self._next = 0  # the number of the next trial
        self._foreign: set[int] = set()
        for trial in trials:
            self._load(trial)
        if self._foreign:
            _logger.warning(
                "trials of %s that nas did not make are left out: %s",
                settings.name,
                ", ".join(map(str, sorted(self._foreign)[:_NAMED])),
            )
        self._load_trainings()
        # Only the coordinator needs the sampler; readers open much faster without it.
        if lock is not None:
            for candidate in self._candidates.values():
                self._learn(candidate)
            keep_no_contents(storage, trials)

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
        """Return the front of all candidates.

        It looks only at those that are complete since it was last asked for, and at all
        of them where longer trainings have ended since.
        """
        if self._front is None:
            self._front = front(self._candidates.values())
        elif self._new:
            # In the order of their trials, as the first of equal ones is a member.
            some = {c.trial: c for c in (*self._front, *self._new)}
            self._front = front(some[trial] for trial in sorted(some))
        self._new.clear()
        return list(self._front)

    def epochs_trained(self) -> dict[str, float]:
        """Return the epochs spent on screening, promotion and second seeds."""
        return self._epochs.copy()

    def evidence(self) -> list[Evidence]:
        """Return the evidence of all complete candidates, by trial.

        Only of a study that is open for searching.
        """
        return self._evolution.evidence()

    def candidate(self, trial: int) -> Candidate:
        """Return one candidate; raise StudyError if there is no such trial."""
        if trial not in self._candidates:
            raise StudyError(
                f"the study {self.settings.name!r} has no trial {trial}: its trials are "
                f"0 to {self._next - 1}"
                if self._candidates
                else f"the study {self.settings.name!r} has no trials yet"
            )
        return self._candidates[trial]

    def decisions(self) -> dict[int, dict[str, float]]:
        """Return what was drawn for each trial, by its number; {} where nothing was.

        For a study that was opened for reading: one that is searched on holds no draws.
        """
        with storage_errors(self.folder):
            trials = self._storage.get_all_trials(self._id, deepcopy=False)
        return {trial.number: dict(trial.params) for trial in trials}

    def refresh(self) -> None:
        """Read what another process has written since."""
        with storage_errors(self.folder):
            trials = self._storage.get_all_trials(self._id, deepcopy=False)
        for trial in trials:
            known = self._candidates.get(trial.number)
            if known is None or known.state == "running":
                self._load(trial)
        self._load_trainings()

    def ask(self) -> Candidate | None:
        """Propose a new candidate and record it as running.

        The first are those that the study was created with; they are not drawn.
        Returns None when the space holds no architecture under the caps that the
        study does not have yet: `space_size` tells whether that was counted, or taken
        from many draws in vain.
        """
        number, known = self._next, len(self._candidates)
        if known < len(self.settings.start_from):
            return self._start(number, self.settings.start_from[known])
        for attempt in range(0 if self._few else _DUPLICATES_IN_A_ROW):
            found = self._propose(number, attempt)
            if found.architecture.key not in self._keys:
                return self._add(
                    number, found.architecture, found.draws, found.origin, found.parent
                )
        if self._few is None:
            settings = self.settings
            self._few = every_net(
                self._space,
                input_shape=settings.input_shape,
                num_classes=settings.num_classes,
                caps=settings.caps,
            )
        for key, (architecture, draws) in (self._few or {}).items():
            if key not in self._keys:
                return self._add(number, architecture, draws, "random", None)
        return None

    @property
    def space_size(self) -> int | None:
        """Number of networks of the space under the caps; None if not counted.

        Draws in vain make the study count them, where they are few enough.
        """
        return None if self._few is None else len(self._few)

    def add_training(self, training: Training) -> Candidate:
        """Record a finished longer training of a candidate."""
        name, value = training_attribute(training)
        with storage_errors(self.folder):
            self._storage.set_study_user_attr(self._id, name, value)
        self._trainings.add(name)
        candidate = self._take_training(training)
        self._learn(candidate)
        return candidate

    def resume(self, trial: int) -> Candidate:
        """Restart the training of an unfinished candidate; forget its reports."""
        self._attempts[trial] += 1
        self._set(trial, "attempt", self._attempts[trial])
        return self._update(
            trial, curve=(), val_accuracy=None, val_loss=None, reason=None
        )

    def record(self, trial: int, report: RungReport) -> Candidate:
        """Record a report; return the candidate with its longer curve."""
        self._set(trial, *report_attribute(report, self._attempts[trial]))
        known = self._candidates[trial]
        return self._update(
            trial,
            curve=(*known.curve, report),
            val_accuracy=report.val_accuracy,
            val_loss=report.val_loss,
        )

    def tell(self, trial: int, state: State, reason: str | None = None) -> Candidate:
        """Record how a candidate ended: complete, pruned or failed, and why."""
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
        self._learn(candidate)
        return candidate

    def _propose(self, number: int, attempt: int) -> Proposal:
        """Return a proposal; its seed follows from the trial's number.

        So a study that was interrupted goes on as it would have without.
        """
        settings = self.settings
        seed = derived_seed(settings.seed, "draw", number, attempt)
        size = self._size(number, attempt)
        if settings.sampler != "random" and attempt < _DUPLICATES_BEFORE_RANDOM:
            return self._evolution.propose(
                number=number - len(settings.start_from),
                attempt=attempt,
                size=size,
                seed=seed,
            )
        draws = Recorder(seed, size=size)
        architecture = sample(
            self._space,
            draws,
            input_shape=settings.input_shape,
            num_classes=settings.num_classes,
            caps=settings.caps,
        )
        return Proposal(architecture, draws.values, "random")

    def _start(self, number: int, architecture: Architecture) -> Candidate:
        """Record an architecture that the study began with.

        The trial has the draws that make it where the space can draw it, and none
        otherwise.
        """
        draws = encode(self._space, architecture, self.settings.caps)
        return self._add(number, architecture, draws or {}, "start", None)

    def _add(
        self,
        number: int,
        architecture: Architecture,
        draws: Mapping[str, float],
        origin: Origin,
        parent: int | None,
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
            origin=origin,
            parent=parent,
            fully_trained=len(self.settings.levels) == 1,
            chance_level=self.settings.chance_level,
        )
        record = create_trial(
            state=TrialState.RUNNING,
            params=dict(draws),
            distributions={name: _distribution(self._space, name) for name in draws},
            user_attrs=attributes(candidate),
        )
        with storage_errors(self.folder):
            trial_id = self._storage.create_new_trial(self._id, record)
            given = self._storage.get_trial_number_from_id(trial_id)
        # Another program may have made a trial meanwhile.
        candidate = replace(candidate, trial=given)
        self._remember(candidate, trial_id, attempt=1)
        return candidate

    def _load(self, trial: FrozenTrial) -> None:
        self._next = max(self._next, trial.number + 1)
        if is_foreign(trial):
            self._foreign.add(trial.number)
            return
        candidate, attempt = read_trial(trial, self.settings)
        self._remember(candidate, id_of_trial(trial), attempt)

    def _load_trainings(self) -> None:
        with storage_errors(self.folder):
            found = read_trainings(self._storage.get_study_user_attrs(self._id))
        for name in sorted(found.keys() - self._trainings):
            training = found[name]
            if training.trial in self._candidates:
                self._trainings.add(name)
                self._take_training(training)

    def _take_training(self, training: Training) -> Candidate:
        candidate = with_training(
            self._candidates[training.trial], training, self.settings.levels[-1]
        )
        self._keep(candidate)
        # A second seed can make a member worse, and the first full training ends what
        # stood in for one: what was dominated before may no longer be.
        self._front = None
        return candidate

    def _remember(self, candidate: Candidate, trial_id: int, attempt: int) -> None:
        self._next = max(self._next, candidate.trial + 1)
        self._keep(candidate)
        self._keys.setdefault(candidate.key, candidate.trial)
        self._storage_ids[candidate.trial] = trial_id
        self._attempts[candidate.trial] = attempt

    def _learn(self, candidate: Candidate) -> None:
        """Pass the end of a candidate's training to the evolution."""
        if candidate.state in {"complete", "pruned"}:
            evidence = evidence_of(
                candidate, self.settings.noise_size, self.settings.levels[0]
            )
            self._evolution.learn(candidate.architecture, evidence)

    def _update(self, trial: int, **changes: Any) -> Candidate:
        candidate = replace(self._candidates[trial], **changes)
        self._keep(candidate)
        return candidate

    def _keep(self, candidate: Candidate) -> None:
        """Replace the stored candidate."""
        known = self._candidates.get(candidate.trial)
        if known is not None:
            self._count(known, -1)
        self._candidates[candidate.trial] = candidate
        self._count(candidate, 1)
        if candidate.state == "complete":
            self._new.append(candidate)

    def _count(self, candidate: Candidate, sign: int) -> None:
        """Add the candidate to the counts of states and epochs, or take it out."""
        self._counts[candidate.state] += sign
        if candidate.curve:
            self._epochs["screening"] += sign * candidate.curve[-1].epochs
        for training in candidate.trainings:
            purpose = "seeds" if training.seed_number else "promotion"
            self._epochs[purpose] += sign * training.epochs

    def _set(self, trial: int, name: str, value: Any) -> None:
        with storage_errors(self.folder):
            self._storage.set_trial_user_attr(self._storage_ids[trial], name, value)

    def _size(self, number: int, attempt: int) -> float:
        """Return where in the space's range of sizes to draw, 0 to 1.

        Steps of the golden section cover the range evenly from the first trials on.
        """
        seed = derived_seed(self.settings.seed, "size", attempt)
        return (Random(seed).random() + number * _GOLDEN) % 1


def _distribution(space: SearchSpace, name: str) -> BaseDistribution:
    """Return the range of a draw, as `sample` asks for it."""
    whole = {"depth": space.depth, "downsamplings": space.downsamplings}
    if name in whole:
        return IntDistribution(*whole[name])
    return FloatDistribution(-1.0 if name.endswith(".width") else 0.0, 1.0)
