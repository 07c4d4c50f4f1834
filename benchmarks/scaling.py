# ruff: noqa: SLF001  # what is measured has no public way in
"""How many workers one coordinator can keep busy, and where its time goes.

    python benchmarks/scaling.py --out benchmarks/scaling.csv
    python benchmarks/scaling.py --postgres postgresql://nas@localhost/nas ...

What runs is a search as `nas search` runs it: the real loop, sampler, pruning and storage
(with its fsync), and workers that are real processes. Only they do not train: they
sleep through recorded curves (benchmarks/curves.csv), stretched so that a full training
takes 17 s in the mean (--seconds): with what the rule prunes a candidate then takes
about 5 s. For each number of workers and size of the study it prints trials per second,
the share of the workers' time in which they had nothing to do, and where the
coordinator's time went. Each measurement lasts a minute (--run), after a warm-up (--warm).

Rows are written as they come. Run it on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing as mp
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import made_up_settings, numbers, recorded_curves, write

from nas.engines import Event, Finished, Job, Reported

# What is heavy is imported where it is needed: 64 workers need none of it.
from nas.training.report import RungReport

if TYPE_CHECKING:
    from nas.architecture import Architecture
    from nas.study.settings import Settings
    from nas.study.study import Study

SAMPLERS = ("evolution", "random")
# (epochs, accuracy, loss, seconds since the beginning) at each rung.
Curve = list[tuple[float, float, float, float]]


def read_curves(seconds: float) -> list[tuple[int, Curve]]:
    """Return the size and the curve of each recorded training, stretched in time."""
    curves = [
        (
            int(rows[0]["num_params"]),
            [
                (
                    float(row["epochs"]),
                    float(row["val_accuracy"]),
                    float(row["train_loss"]),
                    float(row["seconds"]),
                )
                for row in rows
            ],
        )
        for rows in recorded_curves().values()
    ]
    rungs = max(len(curve) for _, curve in curves)
    whole = [(size, curve) for size, curve in curves if len(curve) == rungs]
    mean = sum(curve[-1][3] for _, curve in whole) / len(whole)
    return [
        (size, [(*report[:3], report[3] * seconds / mean) for report in curve])
        for size, curve in whole
    ]


def replay(pipe: Connection, busy: Any, since: Any, place: int) -> None:
    """Be a worker that sleeps through the curves that it is sent."""
    while True:
        try:
            number, curve = pipe.recv()
        except EOFError:
            return
        before = 0.0
        for rung, (epochs, accuracy, loss, seconds) in enumerate(curve):
            since[place] = began = time.monotonic()
            time.sleep(seconds - before)
            busy[place] += time.monotonic() - began
            since[place] = 0.0
            before = seconds
            pipe.send(Reported(number, RungReport(
                rung=rung, epochs=epochs, val_accuracy=accuracy, train_loss=loss,
                seconds=seconds,
            )))  # fmt: skip
            if not pipe.recv():
                break
        else:
            pipe.send(Finished(number))


class Enough(Exception):  # noqa: N818  # no error
    """A measurement has lasted long enough."""


class ReplayEngine:
    """Workers that are processes, but sleep instead of training; an `Engine`."""

    def __init__(self, workers: int, curves: list[tuple[int, Curve]]) -> None:
        """Start them."""
        self._curves = curves
        context = mp.get_context("spawn")
        # Seconds of training that are over, and when the present one began, or 0.
        self._busy = context.Array("d", workers, lock=False)
        self._since = context.Array("d", workers, lock=False)
        self.started = 0
        self._jobs: list[int | None] = [None] * workers
        self._pipes: list[Connection] = []
        self._processes = []
        for place in range(workers):
            ours, theirs = mp.Pipe()
            process = context.Process(
                target=replay,
                args=(theirs, self._busy, self._since, place),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    @property
    def idle(self) -> int:
        """How many workers have nothing to do."""
        return self._jobs.count(None)

    def busy(self, now: float) -> float:
        """Return the seconds of training so far, summed over the workers."""
        return sum(self._busy) + sum(now - since for since in self._since if since)

    def start(self, job: Job) -> None:
        """Send an idle worker the curve of a net of about the job's size."""
        place = self._jobs.index(None)
        self._jobs[place] = job.number
        self.started += 1
        curve = curve_of(job.architecture, self._curves)
        self._pipes[place].send((job.number, curve))

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return what has happened."""
        events: list[Event] = []
        for pipe in wait(self._pipes, timeout):
            event = pipe.recv()  # type: ignore[union-attr]
            if isinstance(event, Finished):
                self._jobs[self._jobs.index(event.job)] = None
            events.append(event)
        return events

    def decide(self, job: int, *, proceed: bool) -> None:
        """Let a worker go on, or free it."""
        place = self._jobs.index(job)
        if not proceed:
            self._jobs[place] = None
        self._pipes[place].send(proceed)

    def abandon(self, job: int) -> None:
        """Have no worker that hangs."""

    def close(self) -> None:
        """Stop them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def curve_of(architecture: Architecture, curves: list[tuple[int, Curve]]) -> Curve:
    """Return one of the nine recorded curves of the nearest sizes, by the key."""
    from nas.architecture.cost import count_params

    size = count_params(architecture)
    near = sorted(curves, key=lambda c: abs(math.log(c[0] / size)))[:9]
    digest = hashlib.sha256(architecture.key.encode()).digest()
    return near[digest[0] % len(near)][1]


def mnist_settings(name: str, rungs: tuple[float, ...]) -> Settings:
    """Return the settings of a study of MNIST's shape under 10,000 parameters."""
    from nas.training.recipe import Recipe

    return made_up_settings(
        name=name,
        dataset="mnist",
        input_shape=(1, 28, 28),
        val_size=5000,
        param_budget=10_000,
        recipe=Recipe(epochs=int(rungs[-1])),
        rungs=rungs,
    )


def finish(study: Study, curves: list[tuple[int, Curve]]) -> None:
    """Ask, and report a whole curve at once."""
    candidate = study.ask()
    assert candidate is not None
    curve = curve_of(candidate.architecture, curves)
    for rung, (epochs, accuracy, loss, seconds) in enumerate(curve):
        report = RungReport(
            rung=rung, epochs=epochs, val_accuracy=accuracy, train_loss=loss,
            seconds=seconds,
        )  # fmt: skip
        study.record(candidate.trial, report)
    study.tell(candidate.trial, "complete")


def filled(folder: Path, trials: int, curves: list[tuple[int, Curve]]) -> Path:
    """Return the folder of a study of so many finished trials, drawn at random."""
    from nas.study.folders import create

    path = folder / f"filled-{trials}"
    if path.exists():
        return path
    rungs = tuple(report[0] for report in curves[0][1])
    settings = mnist_settings(path.name, rungs)
    with mock.patch("os.fsync"), create(path, settings) as study:
        while (count := len(study.candidates())) < trials:
            finish(study, curves)
            if count % 1000 == 0:
                print(f"filling: {count} of {trials}", file=sys.stderr, flush=True)
    return path


def use_sampler(study: Study, sampler: str) -> None:
    """Let an open study draw by another sampler than it was created with."""
    study.settings = replace(study.settings, sampler=sampler)


def into_database(folder: Path, source: Path, url: str) -> None:
    """Copy the study into a database of its own, to be copied for each measurement."""
    from optuna.trial import create_trial

    from nas.study.folders import create, open_study, read_study

    execute(url, f'CREATE DATABASE "{source.name}"')
    # Only the copying does without waiting for the disk.
    url = f"{address(url, source.name)}?options=-csynchronous_commit%3Doff"
    study = read_study(source)
    trials = study._storage.get_all_trials(study._id, deepcopy=False)
    target = folder / "in-database" / source.name
    create(target, study.settings, url).close()
    with open_study(target, url) as target_study:
        for trial in trials:
            target_study._storage.create_new_trial(
                target_study._id,
                create_trial(
                    state=trial.state,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs=trial.user_attrs,
                    values=trial.values,
                ),
            )


def address(url: str, database: str) -> str:
    """Return the address of another database on the same server."""
    return f"{url.rsplit('/', 1)[0]}/{database}"


def execute(url: str, statement: str) -> None:
    """Have the server do something."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def fresh_copy(folder: Path, source: Path, url: str | None) -> Study:
    """Return a study to be spoilt, with all trials of the one that was filled."""
    from nas.study.folders import open_study

    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    if url is None:
        shutil.copytree(source, copy)
        return open_study(copy)
    if not (folder / "in-database" / source.name).exists():
        into_database(folder, source, url)
    shutil.copytree(folder / "in-database" / source.name, copy)
    execute(url, 'DROP DATABASE IF EXISTS "scaling-copy"')
    execute(url, f'CREATE DATABASE "scaling-copy" TEMPLATE "{source.name}"')
    return open_study(copy, address(url, "scaling-copy"))


def measure(
    study: Study,
    workers: int,
    curves: list[tuple[int, Curve]],
    warm: float,
    run: float,
) -> dict[str, object]:
    """Search for a while and return what the workers and the coordinator did.

    It counts from some time after all workers have begun.
    """
    from nas.search.loop import search
    from nas.search.progress import Progress, Timing

    engine = ReplayEngine(workers, curves)
    # When, seconds of training so far, candidates ended so far.
    marks: list[tuple[float, float, int]] = []
    full: list[float] = []
    cpu = time.process_time()

    def show(progress: Progress) -> None:
        now = time.monotonic()
        if not full:
            if engine.started >= workers:
                full.append(now)
        elif now >= full[0] + warm:
            ended = sum(
                c.state in {"complete", "pruned"} for c in progress.study.candidates()
            )
            marks[1:] = [(now, engine.busy(now), ended)]
            if now >= marks[0][0] + run:
                raise Enough

    began = time.monotonic()
    timing = Timing()
    try:
        with (
            mock.patch("nas.search.loop.Timing", return_value=timing),
            suppress(Enough),
        ):
            search(study, engine, trials=10**9, show=show)
    finally:
        engine.close()
    total = time.monotonic() - began
    first, last = marks
    elapsed, busy, ended = (b - a for a, b in zip(first, last, strict=True))
    return {
        "seconds_per_candidate": round(busy / ended, 2) if ended else "",
        "trials_per_second": round(ended / elapsed, 2),
        "idle_share": round(1 - busy / (workers * elapsed), 4),
        "sampling_share": round(timing.sampling / total, 4),
        "storage_share": round(timing.storage / total, 4),
        "waiting_share": round(timing.waiting / total, 4),
        "coordinator_cpu_share": round((time.process_time() - cpu) / total, 4),
    }


def rate(arguments: argparse.Namespace) -> None:
    """Measure every combination."""
    curves = read_curves(arguments.seconds)
    stores = ["journal", *(["postgres"] if arguments.postgres else [])]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        folder = Path(place)
        for trials in arguments.trials:
            source = filled(folder, trials, curves)
            for store in stores:
                url = arguments.postgres if store == "postgres" else None
                for sampler in arguments.samplers:
                    for workers in arguments.workers:
                        with fresh_copy(folder, source, url) as study:
                            use_sampler(study, sampler)
                            row = {
                                "storage": store,
                                "sampler": sampler,
                                "trials_in_study": trials,
                                "workers": workers,
                                **measure(
                                    study,
                                    workers,
                                    curves,
                                    arguments.warm,
                                    arguments.run,
                                ),
                            }
                        rows.append(row)
                        print(row, flush=True)
                        write(arguments.out, rows)


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="where to keep the studies")
    parser.add_argument(
        "--samplers", type=lambda text: text.split(","), default=list(SAMPLERS)
    )
    parser.add_argument("--workers", type=numbers, default=[1, 4, 16, 64])
    parser.add_argument("--trials", type=numbers, default=[200, 2000, 10_000])
    parser.add_argument(
        "--seconds", type=float, default=17.0, help="a full training takes"
    )
    parser.add_argument("--warm", type=float, default=10.0, help="seconds")
    parser.add_argument("--run", type=float, default=60.0, help="seconds each")
    parser.add_argument("--postgres", help="address of a database to use, too")
    rate(parser.parse_args())


if __name__ == "__main__":
    main()
