"""Finished trainings of a `nas best` or `nas train` that was stopped."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nas.engines import Finished, Job, Reported
from nas.errors import StudyError
from nas.files import write_atomically
from nas.training.report import RungReport

_logger = logging.getLogger("nas")


class KeptTrainings:
    """Finished trainings, one file each.

    A file is named after all that decides its training: the job and the
    ``conditions``, plain data such as the data's fingerprint and the versions. So a
    command finds what the same command has trained before, and nothing else.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        """Use this folder, which is made when there is something to keep."""
        self.folder = folder
        self._conditions = dict(conditions)
        self._warned = False

    def __len__(self) -> int:
        """Return how many trainings are kept."""
        return len(self._files())

    def find(self, job: Job) -> list[Reported | Finished] | None:
        """Return the reports and the end of this job, None where it is not kept."""
        try:
            data = io.BytesIO(self._path(job).read_bytes())
            with np.load(data, allow_pickle=False) as stored:
                told = json.loads(str(stored["told"]))
                weights = {
                    name.removeprefix("weights/"): stored[name]
                    for name in stored.files
                    if name.startswith("weights/")
                }
            reports = [
                Reported(job.number, RungReport(**report)) for report in told["reports"]
            ]
            end = Finished(
                job.number,
                told["test_accuracy"],
                weights or None,
                told["test_confusion"],
                told["kernels"],
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None  # missing or damaged: it is trained again
        return [*reports, end]

    def keep(self, job: Job, reports: Sequence[RungReport], end: Finished) -> None:
        """Write a training to its file; warn in one line if that fails."""
        told = {
            "reports": [asdict(report) for report in reports],
            "test_accuracy": end.test_accuracy,
            "test_confusion": end.test_confusion,
            "kernels": end.kernels,
        }
        arrays = {f"weights/{name}": a for name, a in (end.weights or {}).items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, told=np.array(json.dumps(told)), **arrays)
        try:
            write_atomically(self._path(job), buffer.getvalue())
        except StudyError as error:
            if (
                not self._warned
            ):  # a file that cannot be written must not end the training
                _logger.warning("what is trained cannot be kept: %s", error)
            self._warned = True

    def discard(self) -> None:
        """Remove all kept trainings, once the result is written."""
        with suppress(OSError):
            for path in self._files():
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.npz"))

    def _path(self, job: Job) -> Path:
        what = {
            "architecture": job.architecture.to_json(),
            "recipe": asdict(job.recipe),
            "seed": job.seed,
            "rungs": job.rungs,
            "mode": job.mode,
            "metric": job.metric,
            "conditions": self._conditions,
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest[:24]}.npz"
