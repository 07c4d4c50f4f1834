"""The studies that a dashboard shows: one by name, or all of a folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from nas.candidates.candidate import front
from nas.dashboard.live import LiveStudy
from nas.dashboard.optuna_bridge import Place
from nas.dashboard.progress import hypervolumes, reference_point
from nas.errors import NasError, StudyError
from nas.study.folders import all_studies, find_study, load_settings
from nas.study.settings import check_name

_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
"""The sizes at which studies are compared, as fractions of the largest cap."""


class Catalogue:
    """Opens each study on first use and keeps it up to date from then on."""

    def __init__(
        self, studies: Path, storage: str | None = None, only: str | None = None
    ) -> None:
        self._studies, self._storage, self._only = studies, storage, only
        self._lock = threading.Lock()
        self._live: dict[str, LiveStudy] = {}
        # Optuna's dashboard identifies studies by number, so a number must not change.
        self._numbers: list[str] = []
        if only is not None:
            load_settings(find_study(self._studies, check_name(only)))

    def names(self) -> list[str]:
        """Return the names of the present studies."""
        if self._only is not None:
            return [self._only]
        return sorted(folder.name for folder in all_studies(self._studies))

    def live(self, name: str) -> LiveStudy:
        """Return one study; raise StudyError for a name that is not in the folder.

        Only names in the folder's listing are accepted, so no name can lead outside it.
        """
        if name not in self.names():
            raise StudyError(f"no study {name!r} here")
        with self._lock:
            if name not in self._live:
                self._live[name] = LiveStudy(
                    find_study(self._studies, name), self._storage
                )
            return self._live[name]

    def forget(self, name: str) -> None:
        """Read the study again on its next use, as it may be repaired by then."""
        with self._lock:
            self._live.pop(name, None)

    def number(self, name: str) -> int:
        """Return the study's number in Optuna's own dashboard."""
        with self._lock:
            if name not in self._numbers:
                self._numbers.append(name)
            return self._numbers.index(name)

    def places(self) -> list[Place | None]:
        """Return the places of the studies by number; None for an unreadable one."""
        for name in self.names():
            self.number(name)
        found: list[Place | None] = []
        for name in list(self._numbers):
            try:
                found.append(self.live(name).place)
            except NasError:
                # Unreadable or removed; no other study may take its number.
                found.append(None)
        return found

    def baseline(self, name: str) -> dict[str, Any] | None:
        """Return the progress of a random search on the same data and cap.

        It is the first study with ``--sampler random`` other than the named one; None
        if there is none.
        """
        ours = load_settings(find_study(self._studies, name))
        for other in self.names():
            try:
                theirs = load_settings(find_study(self._studies, other))
            except NasError:
                continue
            if (
                other != name
                and theirs.sampler == "random"
                and theirs.data_fingerprint == ours.data_fingerprint
                and theirs.param_budget == ours.param_budget
            ):
                found = self.live(other).progress(reference_point([ours]))
                return {"name": other, "hypervolume": found["hypervolume"]}
        return None

    def compare(self) -> dict[str, Any]:
        """Return all studies' fronts, hypervolumes and best accuracies at some sizes.

        Studies on one data set share the hypervolume's reference point; numbers on
        different data sets are not comparable.
        """
        opened, faults = [], []
        for name in self.names():
            try:
                opened.append((name, self.live(name).snapshot()))
            except NasError as error:
                faults.append(f"{name}: {error}")
        largest = max((s.settings.param_budget for _, s in opened), default=1)
        sizes = sorted({max(1, round(largest * share)) for share in _SHARES})
        rows = []
        for name, snapshot in opened:
            settings = snapshot.settings
            bound = reference_point(
                s.settings for _, s in opened if s.settings.dataset == settings.dataset
            )
            members = front(snapshot.candidates)
            volumes = hypervolumes(snapshot.candidates, bound)
            best = [
                max(
                    (m.val_accuracy or 0.0 for m in members if m.num_params <= size),
                    default=None,
                )
                for size in sizes
            ]
            rows.append(
                {
                    "name": name,
                    "dataset": settings.dataset,
                    "metric": settings.metric.replace("-", " "),
                    "param_budget": settings.param_budget,
                    "sampler": settings.sampler,
                    "trials": len(snapshot.candidates),
                    "hypervolume": volumes[-1][1] if volumes else 0.0,
                    "front": [
                        [m.num_params, m.val_accuracy, m.trial, m.macs, m.peak_memory]
                        for m in members
                    ],
                    "best": best,
                }
            )
        return {"sizes": sizes, "studies": rows, "faults": faults}
