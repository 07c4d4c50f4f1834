"""Opens a storage, and turns what storages raise into one line."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection

from nas.errors import NasError, StudyError

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)

optuna.logging.set_verbosity(optuna.logging.WARNING)


class _NoLock(BaseJournalFileLock):
    """The journal's own lock, which ours on the whole folder makes needless.

    Optuna's would survive a killed process and make the next one wait 30 seconds.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """Return the storage at the URL, or else the journal in the folder."""
    if url is not None:
        try:
            return optuna.storages.get_storage(url)
        except Exception as error:  # each database's driver has its own
            # Not the URL itself, in which a password may stand.
            raise StudyError(
                f"cannot open the storage given with --storage ({_first_line(error)}): "
                "check its address, such as sqlite:///studies.db, and its driver"
            ) from error
    with storage_errors(folder):
        path = str(folder / "journal.log")
        return JournalStorage(JournalFileBackend(path, lock_obj=_NoLock()))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def study_id(storage: BaseStorage, name: str, *, create: bool) -> int:
    """Return the number of the study in the storage; make it if it may."""
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        if not create:
            raise StudyError(
                f"the storage holds no study {name!r}: give its address with --storage"
            ) from None
        made = optuna.create_study(
            storage=storage, study_name=name, directions=list(DIRECTIONS)
        )
        with no_experimental_warning():
            made.set_metric_names(["val_accuracy", "num_params"])
        return made._study_id  # noqa: SLF001


@contextlib.contextmanager
def no_experimental_warning() -> Iterator[None]:
    """Keep Optuna's word on what it may change from the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
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
