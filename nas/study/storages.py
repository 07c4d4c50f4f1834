"""Opens a storage, and turns storage errors into one line."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from nas.credentials import redact
from nas.errors import NasError, StudyError, first_line
from nas.study import optuna_internals

optuna.logging.set_verbosity(optuna.logging.WARNING)

optuna_internals.share_ranges()


class _Journal(JournalFileBackend):
    """The journal, read with one copy of each parameter's name.

    ``lean`` leaves out of what is read what only readers of the study need.
    """

    lean = False

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        for log in super().read_logs(log_number_from):
            if self.lean:
                log |= {part: {} for part in _CONTENTS if part in log}
                if "user_attr" in log:  # which has to have a name
                    log["user_attr"] = {sys.intern(k): None for k in log["user_attr"]}
            for part in ("params", "distributions"):
                if part in log:
                    log[part] = {sys.intern(k): value for k, value in log[part].items()}
            yield log
        # Where each line begins, of which only the last is ever asked for again.
        last = max(self._log_number_offset)
        self._log_number_offset = {0: 0, last: self._log_number_offset[last]}


_CONTENTS = ("params", "distributions", "user_attrs")


class _NoLock(JournalFileSymlinkLock):
    """The journal's own lock, which ours on the whole folder makes needless.

    Optuna's would survive a killed process and make the next one wait 30 seconds.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def open_storage(
    folder: Path, url: str | None, *, study: str = "", exclusive: bool = False
) -> BaseStorage:
    """Return the storage at the URL, or else the journal in the folder.

    In PostgreSQL the study is locked for the one process that asks.
    """
    if url is not None:
        try:
            if is_postgres(url):
                # Imported here, since its driver is an extra.
                from nas.study.postgres import open_postgres

                storage = open_postgres(url, study, exclusive=exclusive)
                return storage if exclusive else optuna.storages.get_storage(storage)
            return optuna.storages.get_storage(url)
        except NasError:
            raise
        except Exception as error:  # noqa: BLE001  # each driver has its own
            # Not the URL itself, in which a password may stand; nor what it hangs on.
            raise StudyError(
                f"cannot open the storage given with --storage ({_first_line(error)}): "
                "check its address, such as sqlite:///studies.db, and its driver"
            ) from None
    with storage_errors(folder):
        path = str(folder / "journal.log")
        return JournalStorage(_Journal(path, lock_obj=_NoLock(path)))


def keep_no_contents(storage: BaseStorage, trials: Iterable[FrozenTrial]) -> None:
    """Let a journal keep only numbers and states of trials in memory.

    For the one process that writes: it knows all else of its trials itself, and a
    search of many thousand would have everything twice.
    """
    backend = getattr(storage, "_backend", None)
    if isinstance(backend, _Journal):
        backend.lean = True
        for trial in trials:
            trial.params, trial.distributions, trial.user_attrs = {}, {}, {}


def is_postgres(url: str) -> bool:
    """Return whether the URL is that of a PostgreSQL database."""
    return url.split(":", 1)[0].split("+", 1)[0] in {"postgres", "postgresql"}


def close_storage(storage: BaseStorage) -> None:
    """Close the storage's connections, and so free a lock that one of them holds."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def _first_line(error: BaseException) -> str:
    """Return the most informative line: for a wrapped database error, the driver's."""
    while error.__cause__ is not None:
        error = error.__cause__
    return redact(first_line(error))


def study_id(storage: BaseStorage, folder: Path, name: str, *, create: bool) -> int:
    """Return the study's number in the storage; create the study if allowed.

    ``folder`` is where its journal is, if its trials are in no database.
    """
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        if not create:
            if isinstance(storage, JournalStorage):
                raise StudyError(
                    f"the journal in {folder} holds no study {name!r}: restore it from a "
                    "copy, or move it away and start a new search"
                ) from None
            raise StudyError(
                f"the storage holds no study {name!r}: give its address with --storage"
            ) from None
        made = optuna.create_study(
            storage=storage, study_name=name, directions=["maximize", "minimize"]
        )
        with no_experimental_warning():
            made.set_metric_names(["val_accuracy", "num_params"])
        return storage.get_study_id_from_name(name)


@contextlib.contextmanager
def no_experimental_warning() -> Iterator[None]:
    """Hide Optuna's warnings about experimental features from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn storage errors into one line with the remedy."""
    try:
        yield
    except NasError:
        raise
    except OSError as error:
        raise StudyError(
            f"cannot write the study in {folder} ({error.strerror or error}): nothing "
            "that was finished is lost; free some space or fix it, then run the same "
            "command again"
        ) from error
    except (ValueError, KeyError, AssertionError, TypeError) as error:
        raise StudyError(
            f"the study file {folder / 'journal.log'} is damaged or not a study "
            f"({type(error).__name__}: {error}): restore it from a copy, or remove the "
            "folder and start a new search"
        ) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in {"sqlalchemy", "optuna"}:
            raise StudyError(
                f"the storage does not answer as it should ({_first_line(error)}): "
                "nothing that was finished is lost; fix it and run the same command "
                "again"
            ) from error
        raise
