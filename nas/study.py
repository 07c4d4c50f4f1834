"""Optuna behind a small door: the only module that imports it.

A study is a folder with ``study.toml`` (its settings, frozen at its birth) and, unless
a storage URL was given, ``journal.log`` (Optuna's journal file). One process at a time
may write: it holds a lock on the folder that the system frees when the process dies.

Draws are made in an in-memory copy of the study and written as one record a trial,
architecture and all. So a trial is in the storage as a whole or not at all, whenever
the process is killed; and a draw costs one write instead of one for each parameter.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, get_args

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.architecture import Architecture
from nas.candidate import Candidate, RungReport, State
from nas.cost import cost
from nas.errors import NasError, StudyError
from nas.files import write_atomically
from nas.settings import Settings, check_name, differences, from_toml, to_toml
from nas.space import read_space, sample, smallest

_DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
# After so many draws in a row that the study already has, it is taken to have them all.
_DUPLICATES_IN_A_ROW = 300
# After so many the sampler is stuck on its favourites: draw at random instead.
_DUPLICATES_BEFORE_RANDOM = 10
# Bytes; no record of the journal comes near it.
_LONGEST_RECORD = 2**20

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}

optuna.logging.set_verbosity(optuna.logging.WARNING)
_logger = logging.getLogger("nas")


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
        with _storage_errors(folder):
            self._id = _study_id(storage, settings.name, create=lock is not None)
            trials = storage.get_all_trials(self._id, deepcopy=False)
        self._space = read_space(settings.space_toml, settings.space)
        self._memory = optuna.create_study(directions=list(_DIRECTIONS))
        self._memory_ids: dict[int, int] = {}
        self._storage_ids: dict[int, int] = {}
        self._attempts: dict[int, int] = {}
        self._candidates: dict[int, Candidate] = {}
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
        self._storage.remove_session()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def candidates(self) -> list[Candidate]:
        """Return all candidates in the order of their trials."""
        return list(self._candidates.values())

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
        with _storage_errors(self.folder):
            trials = self._storage.get_all_trials(self._id, deepcopy=False)
        for trial in trials:
            known = self._candidates.get(trial.number)
            if known is None or known.state == "running":
                self._load(trial)

    def ask(self) -> Candidate | None:
        """Draw a new candidate and record it as running.

        Returns None when the space holds no architecture under the caps that the
        study does not have yet (after many draws in vain).
        """
        number = len(self._candidates)
        for attempt in range(_DUPLICATES_IN_A_ROW):
            self._memory.sampler = self._sampler(number, attempt)
            drawn = self._memory.ask()
            architecture = sample(
                self._space,
                drawn,
                input_shape=self.settings.input_shape,
                num_classes=self.settings.num_classes,
                caps=self.settings.caps,
            )
            if architecture.key in self._keys:
                # A failed trial is what samplers do not learn from.
                self._memory.tell(drawn, state=TrialState.FAIL)
                continue
            frozen = self._memory.get_trials(deepcopy=False)[drawn.number]
            return self._add(number, drawn.number, architecture, frozen)
        return None

    def take_up(self, trial: int) -> Candidate:
        """Begin the training of an unfinished candidate anew; forget its reports."""
        self._attempts[trial] += 1
        self._set(trial, "attempt", self._attempts[trial])
        return self._update(trial, curve=(), val_accuracy=None, reason=None)

    def record(self, trial: int, report: RungReport) -> Candidate:
        """Write a report down; return the candidate with its longer curve."""
        values = [self._attempts[trial], *astuple(report)[1:]]
        self._set(trial, f"rung_{report.rung}", values)
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
        with _storage_errors(self.folder):
            self._storage.set_trial_state_values(
                self._storage_ids[trial],
                next(k for k, v in _STATES.items() if v == state),
                values,
            )
        self._tell_memory(candidate)
        return candidate

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
            user_attrs={
                "architecture": architecture.to_json(),
                "num_params": costs.num_params,
                "macs": costs.macs,
                "peak_memory": costs.peak_memory,
                "key": candidate.key,
                "seed": candidate.seed,
                "attempt": 1,
            },
        )
        with _storage_errors(self.folder):
            trial_id = self._storage.create_new_trial(self._id, record)
        self._remember(candidate, trial_id, memory_number, attempt=1)
        return candidate

    def _load(self, trial: FrozenTrial) -> None:
        candidate, attempt = _read_trial(trial, self.settings)
        if candidate.trial not in self._memory_ids:
            copy = create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
            )
            self._memory.add_trial(copy)
            memory_number = len(self._memory.get_trials(deepcopy=False)) - 1
        else:
            memory_number = self._memory_ids[candidate.trial]
        self._remember(candidate, trial._trial_id, memory_number, attempt)  # noqa: SLF001
        if candidate.state != "running":
            self._tell_memory(candidate)

    def _remember(
        self, candidate: Candidate, trial_id: int, memory_number: int, attempt: int
    ) -> None:
        self._candidates[candidate.trial] = candidate
        self._keys.setdefault(candidate.key, candidate.trial)
        self._storage_ids[candidate.trial] = trial_id
        self._memory_ids[candidate.trial] = memory_number
        self._attempts[candidate.trial] = attempt

    def _tell_memory(self, candidate: Candidate) -> None:
        """Let the sampler learn how the candidate ended.

        It learns from a pruned one by the accuracy that it had come to: a trial told
        as pruned would rank behind every complete one, whatever its size.
        """
        memory = self._memory
        trial = memory.get_trials(deepcopy=False)[self._memory_ids[candidate.trial]]
        if candidate.state == "failed" or candidate.val_accuracy is None:
            memory.tell(trial.number, state=TrialState.FAIL)
        else:
            memory.tell(trial.number, [candidate.val_accuracy, candidate.num_params])

    def _update(self, trial: int, **changes: Any) -> Candidate:
        candidate = replace(self._candidates[trial], **changes)
        self._candidates[trial] = candidate
        return candidate

    def _set(self, trial: int, name: str, value: Any) -> None:
        with _storage_errors(self.folder):
            self._storage.set_trial_user_attr(self._storage_ids[trial], name, value)

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
            return TPESampler(seed=seed, multivariate=False)
        with _no_experimental_warning():
            return TPESampler(seed=seed, multivariate=True, group=True)


def derived_seed(seed: int, *parts: int | str) -> int:
    """Return a seed that follows from the study's seed and what it is for."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def create(folder: Path, settings: Settings, storage: str | None = None) -> Study:
    """Begin a study in a new folder and open it for searching.

    ``storage`` is a URL that Optuna understands; None means the journal file.
    Raises StudyError if the folder cannot be written, SpaceError if no net fits the caps.
    """
    check_name(settings.name)
    space = read_space(settings.space_toml, settings.space)
    smallest(space, settings.input_shape, settings.num_classes, settings.caps)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"cannot make the study's folder {folder}: {error.strerror}; give another "
            "with --studies"
        ) from error
    lock = _take_lock(folder)
    try:
        _check_new(folder)
        opened = _open_storage(folder, storage)
        if storage is not None:
            _check_new_in(opened, settings.name)
        write_atomically(folder / "study.toml", to_toml(settings))
        return Study(folder, settings, opened, lock)
    except BaseException:
        lock.close()
        raise


def _check_new(folder: Path) -> None:
    journal = folder / "journal.log"
    if (folder / "study.toml").exists():
        raise StudyError(
            f"the study {folder.name!r} has just been begun by another process: run "
            "the same command again to go on with it"
        )
    if journal.exists() and journal.stat().st_size:
        raise StudyError(
            f"{journal} is there, but its study.toml is not: restore that from a copy, "
            "or give a new name with --study"
        )


def _check_new_in(storage: BaseStorage, name: str) -> None:
    with _storage_errors(Path(name)):
        try:
            storage.get_study_id_from_name(name)
        except KeyError:
            return
    raise StudyError(
        f"the storage has a study {name!r} already, whose study.toml is not here: give "
        "the folder that has it with --studies, or a new name with --study"
    )


def open_study(folder: Path, storage: str | None = None) -> Study:
    """Open an existing study for searching; no other process may do so meanwhile.

    A record that was cut off when a process died is removed from the journal's end.
    Raises StudyError when the study is missing, in use or damaged.
    """
    settings = load_settings(folder)
    lock = _take_lock(folder)
    try:
        _check_storage(folder, storage)
        if storage is None:
            _mend_journal(folder / "journal.log")
        return Study(folder, settings, _open_storage(folder, storage), lock)
    except BaseException:
        lock.close()
        raise


def read_study(folder: Path, storage: str | None = None) -> Study:
    """Open an existing study for reading, also while a search writes it."""
    settings = load_settings(folder)
    _check_storage(folder, storage)
    return Study(folder, settings, _open_storage(folder, storage), None)


def _check_storage(folder: Path, storage: str | None) -> None:
    """Refuse to begin a second storage for a study that has its trials in another."""
    journal = folder / "journal.log"
    if storage is None and not journal.is_file():
        raise StudyError(
            f"the study {folder.name!r} has no journal.log: if it lives elsewhere, "
            "give its address with --storage"
        )
    if storage is not None and journal.exists():
        raise StudyError(
            f"the study {folder.name!r} has its trials in {journal}: leave --storage out"
        )


def load_settings(folder: Path) -> Settings:
    """Return the settings of the study in this folder."""
    path = folder / "study.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(
            f"no study {folder.name!r} in {folder.parent}: `nas studies` lists those "
            "there are, `nas search` begins one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read {path}: {error}") from error
    return from_toml(text, str(path))


def check_same(stored: Settings, asked: Settings) -> None:
    """Raise StudyError with the differences if a study was born with other settings."""
    different = differences(stored, asked)
    if different:
        raise StudyError(
            f"the study {stored.name!r} was born with other settings "
            f"({'; '.join(different)}): leave them out to go on with it, or give a new "
            "name with --study"
        )


class _NoLock(BaseJournalFileLock):
    """The journal's own lock, which ours on the whole folder makes needless.

    Optuna's would survive a killed process and make the next one wait 30 seconds.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _open_storage(folder: Path, url: str | None) -> BaseStorage:
    if url is not None:
        try:
            return optuna.storages.get_storage(url)
        except Exception as error:  # each database's driver has its own
            # Not the URL itself, in which a password may stand.
            raise StudyError(
                f"cannot open the storage given with --storage ({_first_line(error)}): "
                "check its address, such as sqlite:///studies.db, and its driver"
            ) from error
    with _storage_errors(folder):
        path = str(folder / "journal.log")
        return JournalStorage(JournalFileBackend(path, lock_obj=_NoLock()))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _study_id(storage: BaseStorage, name: str, *, create: bool) -> int:
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        if not create:
            raise StudyError(
                f"the storage holds no study {name!r}: give its address with --storage"
            ) from None
        made = optuna.create_study(
            storage=storage, study_name=name, directions=list(_DIRECTIONS)
        )
        with _no_experimental_warning():
            made.set_metric_names(["val_accuracy", "num_params"])
        return made._study_id  # noqa: SLF001


@contextlib.contextmanager
def _no_experimental_warning() -> Iterator[None]:
    """Keep Optuna's word on what it may change from the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Turn what a storage raises into one line that says what to do."""
    try:
        yield
    except NasError:
        raise
    except OSError as error:
        raise StudyError(
            f"cannot write the study in {folder} ({error.strerror or error}): nothing "
            "that was finished is lost; make room or mend it, then run the same "
            "command again"
        ) from error
    except (ValueError, KeyError, AssertionError, TypeError) as error:
        raise StudyError(
            f"the study file {folder / 'journal.log'} is damaged or no study at all "
            f"({type(error).__name__}: {error}): restore it from a copy, or remove the "
            "folder and search anew"
        ) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in {"sqlalchemy", "optuna"}:
            raise StudyError(
                f"the storage does not answer as it should ({_first_line(error)}): "
                "nothing that was finished is lost; mend it and run the same command "
                "again"
            ) from error
        raise


def _take_lock(folder: Path) -> IO[str]:
    path = folder / ".lock"
    try:
        lock = path.open("a+")
    except OSError as error:
        raise StudyError(
            f"cannot write in the study's folder {folder} ({error.strerror}): nothing "
            "was changed; make it writable or give another folder with --studies"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(lock)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        lock.close()
        raise StudyError(
            f"the study {folder.name!r} is being searched by {owner}: wait for it or "
            "stop it first"
        ) from None
    except OSError as error:
        lock.close()
        raise StudyError(
            f"cannot lock {path} ({error.strerror}): give a folder on another file "
            "system with --studies"
        ) from error
    return lock


def _sign(lock: IO[str]) -> None:
    """Write down who holds the lock, where there is room for it."""
    lock.truncate(0)
    with contextlib.suppress(OSError):
        os.write(lock.fileno(), f"process {os.getpid()}".encode())


def _mend_journal(path: Path) -> None:
    """Cut off a last record that a dying process left unfinished.

    Only of a file that begins as a journal does: anything else is left as it is.
    """
    try:
        with path.open("rb+") as journal:
            first = journal.readline(_LONGEST_RECORD)
            size = journal.seek(0, os.SEEK_END)
            if first.endswith(b"\n") and not _is_record(first):
                raise _no_journal(path)
            begin = max(0, size - _LONGEST_RECORD)
            journal.seek(begin)
            tail = journal.read()
            whole = tail.rfind(b"\n") + 1
            last = tail[:whole].rstrip(b"\n").rfind(b"\n") + 1
            if whole and not _is_record(tail[last:whole]):
                whole = last
            if whole == len(tail):
                return
            if begin + whole == 0 and not tail.startswith(b'{"op_code"'[: len(tail)]):
                raise _no_journal(path)
            _logger.warning("cut an unfinished record off the end of %s", path)
            journal.truncate(begin + whole)
            os.fsync(journal.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StudyError(f"cannot read {path}: {error.strerror}") from error


def _no_journal(path: Path) -> StudyError:
    return StudyError(
        f"{path} is no study's journal: restore it from a copy, or move it away and "
        "search anew"
    )


def _is_record(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line)
    except (ValueError, TypeError):
        return False


def _read_trial(trial: FrozenTrial, settings: Settings) -> tuple[Candidate, int]:
    attrs = trial.user_attrs
    try:
        attempt = int(attrs["attempt"])
        curve = tuple(_read_curve(attrs, attempt, len(settings.rungs)))
        state = _STATES[trial.state]
        candidate = Candidate(
            trial=trial.number,
            architecture=Architecture.from_json(attrs["architecture"]),
            num_params=attrs["num_params"],
            macs=attrs["macs"],
            peak_memory=attrs["peak_memory"],
            key=attrs["key"],
            state=state,
            seed=attrs["seed"],
            curve=curve,
            val_accuracy=curve[-1].val_accuracy if curve else None,
            # A killed asker may have written the reason and not the end.
            reason=attrs.get("reason") if state in {"pruned", "failed"} else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"trial {trial.number} was not written by nas ({type(error).__name__}: "
            f"{error}): is this storage another program's?"
        ) from error
    return candidate, attempt


def _read_curve(
    attrs: dict[str, Any], attempt: int, rungs: int
) -> Iterator[RungReport]:
    for rung in range(rungs):
        values: Sequence[Any] = attrs.get(f"rung_{rung}", [None])
        if values[0] != attempt:
            return
        epochs, val_accuracy, train_loss, seconds = values[1:]
        yield RungReport(
            rung=rung,
            epochs=epochs,
            val_accuracy=val_accuracy,
            train_loss=train_loss,
            seconds=seconds,
        )


def check_data(settings: Settings, fingerprint: str) -> None:
    """Raise StudyError if the data set is not the one that the study began with."""
    if fingerprint != settings.data_fingerprint:
        raise StudyError(
            f"the data set {settings.dataset!r} is not the one that the study "
            f"{settings.name!r} began with: bring the old data back, or begin a new "
            "study with --study"
        )


def only_study(studies: Path) -> Path:
    """Return the folder of the only study there is; raise StudyError otherwise."""
    folders = _study_folders(studies)
    if len(folders) == 1:
        return folders[0]
    if not folders:
        raise StudyError(f"no studies in {studies}: `nas search` begins one")
    names = ", ".join(folder.name for folder in folders)
    raise StudyError(f"which study? Give one of {names}")


def overview(
    studies: Path, storage: str | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return name, counts and cap of each study, and the errors of unreadable ones."""
    rows: list[dict[str, Any]] = []
    faults = []
    for folder in _study_folders(studies):
        try:
            there = storage if not (folder / "journal.log").exists() else None
            study = read_study(folder, there)
        except NasError as error:
            faults.append(f"{folder.name}: {error}")
            continue
        states = [candidate.state for candidate in study.candidates()]
        counts = {state: states.count(state) for state in get_args(State)}
        budget = study.settings.param_budget
        rows.append({"name": folder.name, **counts, "budget": budget})
    return rows, faults


def _study_folders(studies: Path) -> list[Path]:
    if not studies.is_dir():
        return []
    return sorted(path.parent for path in studies.glob("*/study.toml"))
