"""Begins, opens and lists studies in their folders."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from optuna.storages import BaseStorage

from nas.candidates.candidate import State
from nas.errors import NasError, StudyError
from nas.files import write_atomically
from nas.space import read_space, smallest
from nas.study.journal import is_packed, journal_of, mend_journal, take_lock
from nas.study.settings import (
    FORMAT,
    Settings,
    check_name,
    differences,
    from_toml,
    to_toml,
)
from nas.study.storages import close_storage, open_storage, storage_errors
from nas.study.study import Study

_PUBLISHED = "published"


def create(folder: Path, settings: Settings, storage: str | None = None) -> Study:
    """Begin a study in a new folder and open it for searching.

    ``storage`` is a URL that Optuna understands; None means the journal file.
    Raises StudyError if the folder cannot be written, SpaceError if no net fits the caps.
    """
    check_name(settings.name)
    settings = replace(settings, external_storage=storage is not None)
    space = read_space(settings.space_toml, settings.space)
    smallest(space, settings.input_shape, settings.num_classes, settings.caps)
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"cannot make the study's folder {folder}: {error.strerror}; give another "
            "with --studies"
        ) from error
    with contextlib.ExitStack() as undo:
        undo.callback(_remove_begun, missing)
        lock = undo.enter_context(take_lock(folder))
        _check_new(folder)
        opened = open_storage(folder, storage, study=settings.name, exclusive=True)
        undo.callback(close_storage, opened)
        if storage is not None:
            _check_new_in(opened, settings.name)
        write_atomically(folder / "study.toml", to_toml(settings))
        study = Study(folder, settings, opened, lock)
        undo.pop_all()
        return study


def _remove_begun(made: list[Path]) -> None:
    """Remove the folders of a study that was not begun, the study's own first."""
    with contextlib.suppress(OSError):  # one that holds anything else stays
        for folder in made:
            if folder == made[0]:
                (folder / ".lock").unlink(missing_ok=True)
            folder.rmdir()


def _check_new(folder: Path) -> None:
    journal = folder / "journal.log"
    if (folder / "study.toml").exists():
        raise StudyError(
            f"the study {folder.name!r} has just been begun by another process: run "
            "the same command again to resume it"
        )
    if journal.exists() and journal.stat().st_size:
        raise StudyError(
            f"{journal} is there, but its study.toml is not: restore that from a copy, "
            "or give a new name with --study"
        )


def _check_new_in(storage: BaseStorage, name: str) -> None:
    with storage_errors(Path(name)):
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
    if settings.format < FORMAT:
        raise StudyError(
            f"the study {folder.name!r} is of an older nas (format {settings.format}), "
            "which searched in another way: it can be looked at and retrained; give a "
            "new name with --study to start a new search"
        )
    if storage is None and is_packed(folder):
        raise StudyError(
            f"the study {folder.name!r} is finished and packed: give a new name with "
            f"--study to start a new search, or unpack {folder / 'journal.log.gz'} with gunzip "
            "to resume it"
        )
    with contextlib.ExitStack() as undo:
        lock = undo.enter_context(take_lock(folder))
        _check_storage(folder, settings, storage, reading=False)
        if storage is None:
            mend_journal(folder / "journal.log")
        opened = open_storage(folder, storage, study=settings.name, exclusive=True)
        undo.callback(close_storage, opened)
        study = Study(folder, settings, opened, lock)
        undo.pop_all()
        return study


def read_study(folder: Path, storage: str | None = None) -> Study:
    """Open an existing study for reading, also while a search writes it."""
    settings = load_settings(folder)
    _check_storage(folder, settings, storage, reading=True)
    journal = journal_of(folder) or folder / "journal.log"
    return Study(folder, settings, open_storage(journal.parent, storage), None)


def _check_storage(
    folder: Path, settings: Settings, storage: str | None, *, reading: bool
) -> None:
    """Refuse a storage that does not hold the study's trials."""
    journal = folder / "journal.log"
    if settings.external_storage and storage is None:
        raise StudyError(
            f"the study {folder.name!r} has its trials elsewhere: give the address of "
            "its storage with --storage"
        )
    if storage is not None and not settings.external_storage:
        raise StudyError(
            f"the study {folder.name!r} has its trials in {journal}: leave --storage out"
        )
    if reading and storage is None and journal_of(folder) is None:
        raise StudyError(
            f"the study {folder.name!r} has no trials here (no journal.log): "
            f"`nas search --study {folder.name}` starts it again"
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
    """Raise StudyError with the differences from the settings of the study."""
    different = differences(stored, asked)
    if different:
        raise StudyError(
            f"the study {stored.name!r} was created with other settings "
            f"({'; '.join(different)}): leave them out to resume it, or give a new "
            "name with --study"
        )


def check_data(settings: Settings, fingerprint: str, name: str) -> None:
    """Raise StudyError if the data set is not the one that the study began with."""
    if fingerprint != settings.data_fingerprint:
        raise StudyError(
            f"the data set {name!r} is not the one that the study "
            f"{settings.name!r} began with: restore the old data, or begin a new "
            "study with --study"
        )


def remember_data(folder: Path, settings: Settings, path: str) -> None:
    """Note the new path of the study's data, which is the same as before.

    Later commands then find it. A study that no search may write stays as it is.
    """
    if Path(path).exists() and settings.format == FORMAT and not is_packed(folder):
        text = to_toml(replace(settings, dataset=path))
        write_atomically(folder / "study.toml", text)


def find_study(studies: Path, name: str) -> Path:
    """Return the folder of the study of that name, to be read.

    What nas was published with stands apart, in ``published/``, where no search writes;
    a study of the user's own goes before one of the same name there.
    """
    own, published = studies / name, studies / _PUBLISHED / name
    return published if _is_study(published) and not _is_study(own) else own


def winner_folder(folder: Path) -> Path:
    """Return where the winner of the study in ``folder`` is written by default.

    That of a published study goes beside the user's own studies: what nas was published
    with stays as it is.
    """
    return _written_at(folder, "best")


def report_file(folder: Path) -> Path:
    """Return where the HTML report of the study in ``folder`` is written by default."""
    return _written_at(folder, "report.html")


def export_folder(winner: Path, kind: str) -> Path:
    """Return where an export of the winner in this folder is written by default."""
    study = winner.parent
    if study.parent.name == _PUBLISHED:
        return _written_at(study, winner.name) / kind
    return winner / kind


def _written_at(folder: Path, name: str) -> Path:
    """Return the place of that name in a study's folder, or beside the user's studies."""
    if folder.parent.name == _PUBLISHED:
        return folder.parent.parent / f"{folder.name}-{name}"
    return folder / name


def only_study(studies: Path) -> Path:
    """Return the folder of the only study there is; raise StudyError otherwise.

    Published ones count only where there is no other.
    """
    folders = _study_folders(studies) or _study_folders(studies / _PUBLISHED)
    if len(folders) == 1:
        return folders[0]
    if not folders:
        raise StudyError(f"no studies in {studies}: `nas search` begins one")
    names = ", ".join(folder.name for folder in folders)
    raise StudyError(
        f"which study? Give one of {names} (`nas compare` takes it as --study)"
    )


def all_studies(studies: Path) -> list[Path]:
    """Return the folders that `find_study` can return: the user's own studies first."""
    own = _study_folders(studies)
    names = {folder.name for folder in own}
    published = _study_folders(studies / _PUBLISHED)
    return [*own, *(folder for folder in published if folder.name not in names)]


def overview(
    studies: Path, storage: str | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return name, counts and cap of each study, and the errors of unreadable ones."""
    rows: list[dict[str, Any]] = []
    faults = []
    for folder in all_studies(studies):
        try:
            settings = load_settings(folder)
            states = _states(folder, settings, storage)
        except NasError as error:
            faults.append(f"{folder.name}: {error}")
            continue
        counts = {state: states.count(state) for state in get_args(State)}
        rows.append({"name": folder.name, **counts, "budget": settings.param_budget})
    return rows, faults


def _states(folder: Path, settings: Settings, storage: str | None) -> list[State]:
    """Return the states of a study's candidates; none if it has not begun here."""
    if not settings.external_storage and journal_of(folder) is None:
        return []
    study = read_study(folder, storage if settings.external_storage else None)
    return [candidate.state for candidate in study.candidates()]


def _is_study(folder: Path) -> bool:
    return (folder / "study.toml").exists()


def _study_folders(studies: Path) -> list[Path]:
    if not studies.is_dir():
        return []
    return sorted(path.parent for path in studies.glob("*/study.toml"))
