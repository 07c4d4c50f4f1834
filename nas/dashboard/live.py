"""One study as the page sees it: read once, then updated with the changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from nas.candidates.candidate import Candidate
from nas.candidates.pareto import Point
from nas.dashboard.columns import SIZES, Row, board_of, columns, fronts, row
from nas.dashboard.details import Peers, details, peer_curves
from nas.dashboard.markers import markers
from nas.dashboard.optuna_bridge import Place, importances, place_of, trial_times
from nas.dashboard.progress import losses_at_size, progress, reference_point, timing
from nas.errors import NasError, StudyError
from nas.report.labels import STATES
from nas.study.folders import read_study
from nas.study.journal import journal_of
from nas.study.settings import Settings
from nas.study.study import Study

_FRESH = 0.5
"""Seconds for which a read is reused, so that many open pages cost as much as one."""


class Snapshot(NamedTuple):
    """The content of a study at one moment."""

    settings: Settings
    candidates: Sequence[Candidate]
    times: Sequence[tuple[datetime | None, datetime | None]]


class LiveStudy:
    """A study that is read in the background and kept up to date; thread-safe.

    Every method may raise StudyError, as the study may be unreadable or be removed
    while its page is open.
    """

    def __init__(self, folder: Path, storage: str | None) -> None:
        self.folder = folder
        # A study with its own journal does not use the storage.
        own = journal_of(folder) is not None
        self._storage = None if own else storage
        self._lock = threading.RLock()
        self._study: Study | None = None
        self._error: NasError | None = None
        self._read_at = 0.0
        self._journal: tuple[int, int] | None = None
        self._known: dict[int, Candidate] = {}
        self._rows: dict[int, Row] = {}
        # One trial number per change, in order; its length is the version.
        self._changes: list[int] = []
        self._fronts: dict[str, list[int]] = {size: [] for size in SIZES}
        self._importances: tuple[int, list[tuple[str, float]]] = (0, [])
        self._ready = threading.Event()
        threading.Thread(target=self._open, daemon=True).start()

    def ready(self, timeout: float) -> bool:
        """Wait until the study is read; return whether it is."""
        return self._ready.wait(timeout)

    @property
    def place(self) -> Place:
        """The storage and the number of the study, for Optuna's own dashboard."""
        return place_of(self._opened())

    def snapshot(self) -> Snapshot:
        """Return the current content of the study."""
        with self._lock:
            study = self._refresh()
            return Snapshot(
                study.settings, tuple(self._known.values()), trial_times(study)
            )

    def changes(self, since: int) -> dict[str, Any]:
        """Return the rows changed after the version ``since`` and the study's state.

        Version 0 precedes the first change. Rows are as in nas.dashboard.columns.
        """
        with self._lock:
            study = self._refresh()
            settings = study.settings
            version = len(self._changes)
            if not 0 <= since <= version:
                since = 0  # the page is older than this server
            changed = sorted(set(self._changes[since:]))
            states = [candidate.state for candidate in self._known.values()]
            return {
                "version": version,
                "since": since,
                "rows": columns([self._rows[trial] for trial in changed]),
                "fronts": self._fronts,
                "counts": [states.count(state) for state in STATES],
                "markers": markers(self.folder, settings),
                "waiting": _waiting([*self._known.values()], settings),
                "name": settings.name,
                "accuracy": settings.accuracy_name,
                "dataset": settings.dataset,
                "param_budget": settings.param_budget,
                "max_macs": settings.max_macs,
                "max_memory": settings.max_memory,
                "max_flash": settings.max_flash,
                "max_latency": settings.max_latency,
                "board": board_of(settings).name,
                "sampler": settings.sampler,
            }

    def details(self, trial: int) -> dict[str, Any]:
        """Return the details of one candidate, with curves of others of its size."""
        with self._lock:
            study = self._refresh()
            candidate = study.candidate(trial)
            peers = Peers([*self._known.values()]).of(candidate)
            found = details(candidate, study.settings, peers)
            return found | {"peers": peer_curves(peers)}

    def progress(self, bound: Point | None = None) -> dict[str, Any]:
        """Return the progress; ``bound`` is the hypervolume's reference point."""
        settings, candidates, times = self.snapshot()
        bound = bound or reference_point([settings])
        found = progress(candidates, times, settings, bound)
        return found | {"timing": timing(self.folder)}

    def importances(self) -> list[tuple[str, float]]:
        """Return the importance of the sampler's choices for the accuracy at a size.

        The most important comes first; the list is empty while too few candidates are
        complete. It is computed again when a tenth more are.
        """
        with self._lock:
            study = self._refresh()
            losses = losses_at_size([*self._known.values()])
            counted, found = self._importances
            if len(losses) >= 20 and len(losses) > 1.1 * counted:
                shares = importances(study, losses)
                found = sorted(shares.items(), key=lambda share: -share[1])
                self._importances = len(losses), found
            return found

    def _opened(self) -> Study:
        self._ready.wait()
        if self._error is not None:
            raise self._error
        assert self._study is not None
        return self._study

    def _open(self) -> None:
        try:
            self._study = read_study(self.folder, self._storage)
        except NasError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  # nobody sees an error in a thread
            self._error = StudyError(
                f"cannot read the study {self.folder.name!r}: "
                f"{type(error).__name__}: {error}"
            )
        self._ready.set()

    def _refresh(self) -> Study:
        study = self._opened()
        now = time.monotonic()
        if self._read_at and now - self._read_at < _FRESH:
            return study
        journal = self._journal_state()
        if not self._read_at or journal is None or journal != self._journal:
            study.refresh()
            self._journal = journal
            self._note(study.candidates())
        self._read_at = time.monotonic()
        return study

    def _journal_state(self) -> tuple[int, int] | None:
        """Return a value that changes with each journal record; None for a database."""
        if self._storage is not None:
            return None
        journal = journal_of(self.folder)
        if journal is None:
            raise StudyError(f"the study {self.folder.name!r} is gone: no journal.log")
        found = journal.stat()
        return found.st_mtime_ns, found.st_size

    def _note(self, candidates: Sequence[Candidate]) -> None:
        before = len(self._changes)
        board = board_of(self._opened().settings)
        for candidate in candidates:
            trial = candidate.trial
            known = self._known.get(trial)
            if candidate is known or candidate == known:
                continue
            self._known[trial] = candidate
            self._rows[trial] = row(candidate, board)
            self._changes.append(trial)
        if len(self._changes) > before:
            self._fronts = fronts(self._known.values(), self._rows)


def _waiting(candidates: Sequence[Candidate], settings: Settings) -> str | None:
    """Return the message to show until a trial has finished, then None."""
    if any(c.state in {"complete", "pruned"} for c in candidates):
        return None
    running = [c for c in candidates if c.state == "running"]
    if not running:
        return (
            f"No finished trial yet. `nas search --study {settings.name}` goes on with "
            "the search and fills this page."
        )
    left = [
        last.seconds / last.epochs * (settings.rungs[-1] - last.epochs)
        for last in (c.curve[-1] for c in running if c.curve)
    ]
    if left:
        return (
            "No finished trial yet; the first is expected in about "
            f"{max(1, round(min(left)))} s."
        )
    noun = "candidate is" if len(running) == 1 else "candidates are"
    return (
        f"No finished trial yet; {len(running)} {noun} in training. After the first "
        "report this line says how long it will take."
    )
