# ruff: noqa: SLF001  # what is measured has no public way in
"""How many workers one coordinator can keep busy, and where its time goes.

    python benchmarks/scaling.py --out benchmarks/scaling.csv
    python benchmarks/scaling.py --postgres postgresql://nas@localhost/nas ...

What runs is a search as `nas search` runs it: the real loop with screenings of one epoch
and promotions to 3 and 15, sampler, pruning, storage (with its fsync), display and
front.html, and workers that are real processes. Only they do not train: they sleep
through recorded trainings (benchmarks/curves.csv), stretched so that an epoch takes
1.1 s in the mean (--seconds), a full training 17 s. The search is half way: it has so
many trials of twice as many. For each number of workers and size of the study it prints
screened candidates per second, the share of the workers' time in which they had nothing
to do, and where the coordinator's time went. Each measurement lasts a minute (--run),
after a warm-up (--warm).

Rows are written as they come. Run it on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing as mp
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import numbers, write
from replaying import Enough, Recorded, ended, filled, read_curves, reports, use_sampler

from nas.engines import Event, Finished, Job, Reported

# What is heavy is imported where it is needed: 64 workers need none of it.
if TYPE_CHECKING:
    from nas.search.progress import Progress
    from nas.study.study import Study

SAMPLERS = ("evolution", "random")


def replay(pipe: Connection, busy: Any, since: Any, place: int) -> None:
    """Be a worker that sleeps through the reports that it is sent."""
    while True:
        try:
            number, curve = pipe.recv()
        except EOFError:
            return
        before = 0.0
        for report in curve:
            since[place] = began = time.monotonic()
            time.sleep(report.seconds - before)
            busy[place] += time.monotonic() - began
            since[place] = 0.0
            before = report.seconds
            pipe.send(Reported(number, report))
            if not pipe.recv():
                break
        else:
            pipe.send(Finished(number))


class ReplayEngine:
    """Workers that are processes, but sleep instead of training; an `Engine`."""

    def __init__(self, workers: int, curves: list[Recorded]) -> None:
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
        """Send an idle worker what it is to report, and when."""
        place = self._jobs.index(None)
        self._jobs[place] = job.number
        self.started += 1
        self._pipes[place].send((job.number, reports(job, self._curves)))

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


@functools.cache
def as_json(distribution: Any) -> str:
    """Return the range of a parameter as it stands in a database."""
    from optuna.distributions import distribution_to_json

    return distribution_to_json(distribution)


def into_database(folder: Path, source: Path, url: str) -> None:
    """Copy the study into a database of its own, to be copied for each measurement."""
    import psycopg

    from nas.study.folders import create, read_study

    execute(url, f'CREATE DATABASE "{source.name}"')
    url = address(url, source.name)
    study = read_study(source)
    create(folder / "in-database" / source.name, study.settings, url).close()
    trials = study._storage.get_all_trials(study._id, deepcopy=False)
    trainings = study._storage.get_study_user_attrs(study._id)
    with psycopg.connect(url) as connection:
        (study_id,) = connection.execute("SELECT study_id FROM studies").fetchone()

        def copy(table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
            statement = f"COPY {table} ({columns}) FROM STDIN"
            with connection.cursor().copy(statement.encode()) as copying:
                for row in rows:
                    copying.write_row(row)

        copy("trials", "number, study_id, state, datetime_start, datetime_complete", (
            (t.number, study_id, t.state.name, t.datetime_start, t.datetime_complete)
            for t in trials
        ))  # fmt: skip
        found = connection.execute("SELECT number, trial_id FROM trials").fetchall()
        ids = dict(found)
        copy("trial_params", "trial_id, param_name, param_value, distribution_json", (
            (ids[t.number], name, kind.to_internal_repr(t.params[name]), as_json(kind))
            for t in trials
            for name, kind in t.distributions.items()
        ))  # fmt: skip
        copy("trial_user_attributes", "trial_id, key, value_json", (
            (ids[t.number], key, json.dumps(value))
            for t in trials
            for key, value in t.user_attrs.items()
        ))  # fmt: skip
        copy("trial_values", "trial_id, objective, value, value_type", (
            (ids[t.number], objective, value, "FINITE")
            for t in trials
            for objective, value in enumerate(t.values or ())
        ))  # fmt: skip
        copy("study_user_attributes", "study_id, key, value_json", (
            (study_id, key, json.dumps(value))
            for key, value in trainings.items()
        ))  # fmt: skip
    execute(url, "ANALYZE")  # as the server does by itself in time


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
    study: Study, workers: int, curves: list[Recorded], warm: float, run: float
) -> dict[str, object]:
    """Search for a while and return what the workers and the coordinator did.

    It counts from some time after all workers have begun.
    """
    from rich.console import Console

    from nas.api.progress import SearchDisplay
    from nas.api.searching import search_and_draw
    from nas.search.progress import Timing

    engine = ReplayEngine(workers, curves)
    # When, seconds of training so far, candidates screened so far.
    marks: list[tuple[float, float, int]] = []
    full: list[float] = []
    cpu = time.process_time()

    class Watched(SearchDisplay):
        """What a terminal shows, and the marks."""

        def show(self, event: Progress, /) -> None:
            super().show(event)
            now = time.monotonic()
            if not full:
                if engine.started >= workers:
                    full.append(now)
            elif now >= full[0] + warm:
                marks[1:] = [(now, engine.busy(now), ended(event.study))]
                if now >= marks[0][0] + run:
                    raise Enough

    began = time.monotonic()
    timing = Timing()
    trials = 2 * ended(study)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            mock.patch("nas.search.loop.Timing", return_value=timing),
            suppress(Enough),
        ):
            display = Watched(Console(file=nowhere, force_terminal=True))
            search_and_draw(study, engine, trials, None, None, None, display)
    finally:
        engine.close()
    total = time.monotonic() - began
    first, last = marks
    elapsed, busy, screened = (b - a for a, b in zip(first, last, strict=True))
    return {
        "seconds_per_candidate": round(busy / screened, 2) if screened else "",
        "trials_per_second": round(screened / elapsed, 2),
        "idle_share": round(1 - busy / (workers * elapsed), 4),
        "sampling_share": round(timing.sampling / total, 4),
        "storage_share": round(timing.storage / total, 4),
        "reporting_share": round(timing.reporting / total, 4),
        "waiting_share": round(timing.waiting / total, 4),
        "coordinator_cpu_share": round((time.process_time() - cpu) / total, 4),
    }


def rate(arguments: argparse.Namespace) -> None:
    """Measure every combination."""
    curves = read_curves(arguments.seconds)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or Path(place)
        for trials in arguments.trials:
            source = filled(folder, trials, curves)
            for store in arguments.storages:
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
                                "seconds_per_epoch": arguments.seconds,
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
    parser.add_argument("--seconds", type=float, default=1.1, help="an epoch takes")
    parser.add_argument("--warm", type=float, default=10.0, help="seconds")
    parser.add_argument("--run", type=float, default=60.0, help="seconds each")
    parser.add_argument("--postgres", help="address of a database to use, too")
    parser.add_argument("--storages", type=lambda text: text.split(","))
    arguments = parser.parse_args()
    if arguments.storages is None:
        arguments.storages = ["journal", *(["postgres"] if arguments.postgres else [])]
    rate(arguments)


if __name__ == "__main__":
    main()
