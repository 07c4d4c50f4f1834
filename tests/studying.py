"""Helpers of the tests of studies and searches: settings, a fake engine, the command.

No fixtures and no tests; the test files import what they need.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from nets import net_of

import nas
from nas.architecture import Architecture, Block
from nas.architecture.cost import cost
from nas.candidates.candidate import Candidate
from nas.engines import Event, Failed, Finished, Job, Reported, WorkerLost
from nas.errors import StudyError
from nas.space import find_space
from nas.study.folders import create, read_study
from nas.study.settings import Settings
from nas.study.study import Study
from nas.training.recipe import Recipe
from nas.training.report import RungReport

# Six architectures for images of 8x8 and ten classes, all under 3,000 parameters.
SIX_NETS = """\
[blocks]
depth = [1, 1]
kinds = ["conv"]
kernel_sizes = [1, 3, 5]
activations = ["relu", "silu"]
[widths]
min = 4
max = 4
[downsampling]
count = [1, 1]
kinds = ["max"]
[head]
kinds = ["gap"]
"""

FINISHED = {"complete", "pruned"}


def make_settings(**changes: Any) -> Settings:
    """Return settings of a study of 8x8 images, some of them changed."""
    space = find_space("mixed")
    plain: dict[str, Any] = {
        "name": "small",
        "dataset": "digits",
        "data_fingerprint": "c2fe6236f9044e37",
        "input_shape": (1, 8, 8),
        "num_classes": 10,
        "val_size": 240,
        "param_budget": 2000,
        "space": space.name,
        "space_toml": space.text,
        "recipe": Recipe(epochs=4),
        "rungs": (1.0, 2.0, 4.0),
        "sampler": "random",
    }
    return Settings(**plain | changes)


def made_up_accuracy(job: Job, rung: int) -> float:
    """Return an accuracy that follows from the architecture and grows by rung."""
    digest = hashlib.sha256(job.architecture.key.encode()).digest()
    talent = int.from_bytes(digest[:4], "big") / 2**32
    return (0.5 + 0.5 * talent) * (rung + 1) / len(job.rungs)


def report_of(rung: int, val_accuracy: float, epochs: float = 0.0) -> RungReport:
    """Return a report with made-up time and a loss that falls as accuracy rises."""
    return RungReport(
        rung=rung,
        epochs=epochs or rung + 1.0,
        val_accuracy=val_accuracy,
        train_loss=1.5 - val_accuracy,
        seconds=0.1 * (rung + 1),
    )


@lru_cache
def one_block(width: int, kernel_size: int = 3) -> Architecture:
    """Return a net for 8x8 images of ten classes, the larger the wider."""
    return net_of(Block(out_channels=width, kernel_size=kernel_size))


def complete_candidate(
    trial: int, architecture: Architecture, val_accuracy: float, **others: Any
) -> Candidate:
    """Return a candidate of that architecture that has completed its training."""
    costs = cost(architecture)
    plain: dict[str, Any] = {
        "trial": trial,
        "architecture": architecture,
        "num_params": costs.num_params,
        "macs": costs.macs,
        "peak_memory": costs.peak_memory,
        "key": architecture.key,
        "state": "complete",
        "seed": 0,
        "curve": (report_of(0, val_accuracy, epochs=4.0),),
        "val_accuracy": val_accuracy,
    }
    return Candidate(**plain | others)


def finish(study: Study, trial: int, accuracies: Sequence[float]) -> Candidate:
    """Report these accuracies and end the trial as complete."""
    for rung, accuracy in enumerate(accuracies):
        study.record(trial, report_of(rung, accuracy))
    return study.tell(trial, "complete")


def finished(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the complete and the pruned ones."""
    return [c for c in candidates if c.state in FINISHED]


def train_made_up(study: Study, candidate: Candidate | None) -> None:
    """Report the made-up curve of the candidate and end it as complete."""
    assert candidate is not None
    settings = study.settings
    job = Job(
        number=candidate.trial,
        architecture=candidate.architecture,
        recipe=settings.recipe,
        seed=candidate.seed,
        rungs=settings.rungs,
    )
    finish(study, candidate.trial, [made_up_accuracy(job, rung) for rung in range(3)])


def big_study(folder: Path, trials: int) -> None:
    """Write a study of so many complete trials, with curves; on no disk's time."""
    with (
        mock.patch("os.fsync"),
        create(folder, make_settings(name=folder.name)) as study,
    ):
        for _ in range(trials):
            train_made_up(study, study.ask())


@dataclass(slots=True)
class _Training:
    job: Job
    rung: int = 0
    waits: bool = False


@dataclass
class FakeEngine:
    """An engine in this process: reports as it is told, and checks its coordinator.

    ``accuracy`` gives the report at each rung; ``trouble`` may return an event (Failed
    or WorkerLost) to happen instead of the next report, given the job, how often it was
    begun, and the rung. ``kernels`` tells which jobs the C kernels train. With ``shuffle`` the workers come on in any order.
    """

    workers: int = 1
    accuracy: Callable[[Job, int], float] = made_up_accuracy
    trouble: Callable[[Job, int, int], Event | None] = lambda _job, _begun, _rung: None
    kernels: Callable[[Job], bool | None] = lambda _job: None
    shuffle: random.Random | None = None
    running: dict[int, _Training] = field(default_factory=dict)
    started: list[Job] = field(default_factory=list)
    begun: Counter[int] = field(default_factory=Counter)
    abandoned: list[int] = field(default_factory=list)
    closed: bool = False

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return self.workers - len(self.running)

    def start(self, job: Job) -> None:
        """Take a job."""
        assert self.idle > 0, "started more jobs than there are workers"
        assert job.number not in self.running, "started a job twice at once"
        self.running[job.number] = _Training(job)
        self.started.append(job)
        self.begun[job.number] += 1

    def wait(self, timeout: float) -> Sequence[Event]:
        """Let some of the workers come to their next event."""
        assert timeout >= 0
        lost = [job for job in self.abandoned if self.running.pop(job, None)]
        self.abandoned.clear()
        if lost:
            return [WorkerLost(job) for job in lost]
        some = [t for t in self.running.values() if not t.waits]
        assert some, "waits although nobody trains: the search would never end"
        if self.shuffle:
            self.shuffle.shuffle(some)
            some = some[: self.shuffle.randint(0, len(some))]
        return [self._next(training) for training in some]

    def decide(self, job: int, *, proceed: bool) -> None:
        """Let a worker that reported go on, or free it."""
        assert self.running[job].waits, "answered where nothing was asked"
        if proceed:
            self.running[job].waits = False
        else:
            del self.running[job]

    def abandon(self, job: int) -> None:
        """Let the worker of a job die; the next wait tells so."""
        assert job in self.running, "abandoned a job that is not in training"
        self.abandoned.append(job)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _next(self, training: _Training) -> Event:
        job, rung = training.job, training.rung
        event = self.trouble(job, self.begun[job.number], rung)
        if event is not None:
            assert isinstance(event, Failed | WorkerLost)
        elif rung < len(job.rungs):
            training.rung += 1
            training.waits = True
            report = report_of(rung, self.accuracy(job, rung), job.rungs[rung])
            return Reported(job.number, report)
        elif job.mode != "search":
            accuracy = self.accuracy(job, len(job.rungs) - 1)
            weights = {"seed": np.array(job.seed)}
            event = Finished(job.number, accuracy, weights, kernels=self.kernels(job))
        else:
            event = Finished(job.number, kernels=self.kernels(job))
        del self.running[job.number]
        return event


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a process that is to find the nas under test."""
    path = str(Path(nas.__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | changes


def command(*arguments: object) -> list[str]:
    """Return the command line that runs nas with these arguments."""
    start = "from nas.cli import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


def run_nas(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run nas in a process of its own, to its end."""
    return _run(*command(*arguments), cwd=cwd)


def run_python(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -c` and these arguments in a process of its own, to its end."""
    return _run(sys.executable, "-c", *arguments, cwd=cwd)


def run_script(code: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the code as a file script.py, in a process of its own, to its end."""
    (cwd / "script.py").write_text(code, encoding="utf-8")
    return _run(sys.executable, "script.py", cwd=cwd)


def _run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,  # of a machine that other work keeps busy
        check=False,
    )


class SearchProcess:
    """`nas search` of the study digits-1000, in a session of its own."""

    def __init__(
        self, folder: Path, *arguments: object, url: str | None = None
    ) -> None:
        self.study, self.url = folder / "studies" / "digits-1000", url
        self.process = subprocess.Popen(
            command("search", *arguments),
            cwd=folder,
            env=environment(**{} if url is None else {"NAS_STORAGE": url}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def candidates(self) -> list[Candidate]:
        """Return what is in the study so far."""
        with contextlib.suppress(StudyError):
            return read_study(self.study, self.url).candidates()
        return []

    def wait_for(self, trials: int) -> None:
        """Wait until so many trials are finished."""
        deadline = time.monotonic() + 200
        while len(finished(self.candidates())) < trials:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.1)

    def finish(self) -> str:
        """Wait for its end; return what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, errors
        return errors


@contextlib.contextmanager
def searching(
    folder: Path, *arguments: object, url: str | None = None
) -> Iterator[SearchProcess]:
    """Search for the block; kill what is left at its end."""
    search = SearchProcess(folder, *arguments, url=url)
    with search.process:
        try:
            yield search
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(search.process.pid, signal.SIGKILL)


def one_line(text: str) -> str:
    """Return the only line of what nas wrote to stderr; anything else is wrong."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("nas: ")
    assert "Traceback" not in text
    return lines[0]
