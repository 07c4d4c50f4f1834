"""What can go wrong around a search: full disks, workers that hang, signals, clocks.

Kill -9 at any moment is in test_crashes.py, outages of a database in test_postgres.py,
nodes that die in test_ray_search.py, a journal's damage in test_study.py.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nets import net_of
from studying import (
    FakeEngine,
    environment,
    finished,
    make_settings,
    one_line,
    run_nas,
    train_made_up,
)
from system_programs import need
from test_crashes import (
    Search,
    kill_group,
    wait_for_a_result,
    wait_for_growth,
    worker_pids,
)

import nas
from nas.architecture import Architecture, Block
from nas.candidates.candidate import Candidate, front
from nas.errors import StudyError
from nas.export import source, write_best
from nas.report import write_front
from nas.search import overdue
from nas.search.loop import search
from nas.search.progress import Timing
from nas.study.folders import create, open_study, read_study
from nas.training.model import build

KILOBYTE = 1024


class SmallDisk:
    """A file system of its own that can be filled up and emptied."""

    def __init__(self, path: Path) -> None:
        self.path, self._ballast = path, path / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Use up all room but so many bytes."""
        free = os.statvfs(self.path)
        size = max(0, free.f_bavail * free.f_frsize - leave)
        with (
            self._ballast.open("ab", buffering=0) as file,
            contextlib.suppress(OSError),
        ):
            while size > 0:
                size -= file.write(bytes(min(size, 64 * KILOBYTE)))

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def strays(self) -> list[str]:
        """Return the temporary files that were left behind."""
        return [path.name for path in self.path.rglob("*.tmp")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mount a tmpfs of 16 MB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a file system that fills up")
    need("mount")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path]
    subprocess.run(mount, check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_costs_the_journal_nothing_that_was_finished(
    disk: SmallDisk,
) -> None:
    """The write that found no room ends the search; with room it goes on."""
    folder = disk.path / "small"
    known: list[Candidate] = []
    for leave in (0, 1, 5, 9):
        disk.empty()
        with (open_study if folder.exists() else _begin)(folder) as study:
            assert [c for c in study.candidates() if c.state != "running"] == known
            train_made_up(study, study.ask())
            disk.fill(leave * KILOBYTE)
            with pytest.raises(StudyError, match="No space left on device"):
                _train_many(study)
        # Only what was told is finished; the last may have been told half.
        read = [c for c in read_study(folder).candidates() if c.state != "running"]
        assert read[: len(known)] == known
        assert len(read) > len(known)
        known = read
    assert len({c.key for c in known}) == len(known)


def _train_many(study: nas.study.Study) -> None:
    for _ in range(200):
        train_made_up(study, study.ask())


def _begin(folder: Path) -> nas.study.Study:
    return create(folder, make_settings())


def test_a_full_disk_leaves_the_old_front_whole(disk: SmallDisk) -> None:
    """front.csv and front.html are written both or not at all, without a trace."""
    folder = disk.path / "small"
    with _begin(folder) as study:
        for _ in range(5):
            train_made_up(study, study.ask())
        write_front(folder, study.candidates(), title="five")
        old = {path.name: path.read_bytes() for path in folder.glob("front.*")}
        assert set(old) == {"front.csv", "front.html"}
        for _ in range(20):
            train_made_up(study, study.ask())
        for leave in (0, 4, 12):
            disk.fill(leave * KILOBYTE)
            with pytest.raises(StudyError, match="No space left on device: free some"):
                write_front(folder, study.candidates(), title="many")
            assert {p.name: p.read_bytes() for p in folder.glob("front.*")} == old
            assert not disk.strays()
            disk.empty()
        write_front(folder, study.candidates(), title="many")
        with (folder / "front.csv").open(newline="") as file:
            trials = [int(row["trial"]) for row in csv.DictReader(file)]
        assert trials == [c.trial for c in front(study.candidates())]


def test_a_full_disk_leaves_the_old_winner_whole(disk: SmallDisk) -> None:
    """Weights, source, architecture and report: all old or all new."""
    folder = disk.path / "best"
    for width, leave in ((4, None), (40, 0), (40, 8), (40, 16)):
        architecture = net_of(Block(out_channels=width), Block(out_channels=width))

        def write(architecture: Architecture = architecture) -> None:
            write_best(
                folder,
                architecture,
                source(
                    architecture, mean=[0.1], std=[0.3], class_names=list("0123456789")
                ),
                build(architecture).state_dict(),
                {"width": architecture.blocks[0].out_channels},
            )

        if leave is None:
            write()
            old = {path.name: path.read_bytes() for path in folder.iterdir()}
            continue
        disk.fill(leave * KILOBYTE)
        with pytest.raises(StudyError, match="No space left on device: free some"):
            write()
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == old
        disk.empty()
    write()
    assert {p.name for p in folder.iterdir()} == set(old)
    assert (folder / "weights.safetensors").read_bytes() != old["weights.safetensors"]


@pytest.mark.slow
def test_a_search_on_a_full_disk_ends_with_one_line_and_goes_on(
    disk: SmallDisk,
) -> None:
    """The whole command: code 1, the cause, and with room exactly the asked trials."""
    search = Search(disk.path, trials=100_000)
    with search.started() as process:
        wait_for_growth(search, process)
        disk.fill(leave=8 * KILOBYTE)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 1
    line = one_line(errors)
    assert "No space left on device" in line
    known = search.check([])
    disk.empty()
    search.go_on(len(finished(known)) + 3)
    assert len(finished(search.check(known))) == len(finished(known)) + 3
    assert not disk.strays()


class HangingEngine(FakeEngine):
    """Workers that hang at the first rung of some jobs, so many times each."""

    def __init__(self, times: dict[int, int], workers: int = 1) -> None:
        super().__init__(workers=workers)
        self.times = times

    def wait(self, timeout: float) -> list[object]:  # type: ignore[override]
        """Sleep where all hang, as a real engine does."""
        hanging = [
            t
            for t in self.running.values()
            if self.begun[t.job.number] <= self.times.get(t.job.number, 0)
        ]
        for training in hanging:
            training.waits = True
        try:
            if len(hanging) == len(self.running) and not self.abandoned:
                time.sleep(timeout)
                return []
            return list(super().wait(timeout))
        finally:
            for training in hanging:
                training.waits = False


def test_a_worker_that_hangs_once_costs_no_candidate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is replaced after the limit, with word, and its candidate trained anew."""
    engine = HangingEngine({1: 1})
    with create(tmp_path / "small", make_settings()) as study:
        search(study, engine, trials=4, trial_time_limit=1.5)
        assert [c.trial for c in study.candidates()] == [0, 1, 2, 3]
        assert len(finished(study.candidates())) == 4
    assert engine.begun == {0: 1, 1: 2, 2: 1, 3: 1}
    assert caplog.messages == [
        "trial 1 takes too long (--trial-time-limit): its worker is replaced"
    ]


def test_a_candidate_that_hangs_twice_has_failed(tmp_path: Path) -> None:
    """Then it is the candidate; the search goes on without it."""
    engine = HangingEngine({1: 9}, workers=2)
    with create(tmp_path / "small", make_settings()) as study:
        search(study, engine, trials=4, trial_time_limit=1.2)
        candidates = study.candidates()
    assert candidates[1].state == "failed"
    assert candidates[1].reason == "it took too long 2 times (--trial-time-limit)"
    assert len(finished(candidates)) == 4
    assert engine.begun[1] == 2


def test_without_a_limit_the_longest_training_sets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times as long, at least ten minutes."""
    monkeypatch.setattr(overdue, "_LEAST_LIMIT", 1.5)
    engine = HangingEngine({2: 1})
    with create(tmp_path / "small", make_settings()) as study:
        search(study, engine, trials=4)
        assert len(finished(study.candidates())) == 4
    assert engine.begun[2] == 2


def test_a_first_training_that_hangs_does_not_hang_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any training came to its end there is a limit, too."""
    monkeypatch.setattr(overdue, "_FIRST_LIMIT", 1.2)
    engine = HangingEngine({0: 1, 1: 1}, workers=2)
    with create(tmp_path / "small", make_settings()) as study:
        search(study, engine, trials=3)
        assert len(finished(study.candidates())) == 3
    assert (engine.begun[0], engine.begun[1]) == (2, 2)


@pytest.mark.slow
def test_the_limit_counts_while_the_coordinator_is_busy(tmp_path: Path) -> None:
    """Not only while it waits: a worker trains on meanwhile."""
    engine = HangingEngine({1: 1}, workers=2)
    engine.trouble = lambda _job, _begun, _rung: time.sleep(0.15)
    began = time.monotonic()
    with create(tmp_path / "small", make_settings()) as study:
        search(study, engine, trials=30, trial_time_limit=1.0)
    assert engine.begun[1] == 2
    # Without, the waits alone would have to make up the second.
    assert engine.started[-1].number != 1, time.monotonic() - began


@pytest.mark.slow
def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP in the midst of a training: killed after the limit, its work done anew."""
    search = Search(tmp_path, trials=12, more=["--trial-time-limit", "15s"])
    with search.started() as process:
        # A worker stopped before it is ready is given ten minutes.
        wait_for_a_result(search)
        (victim,) = worker_pids(process.pid)
        os.kill(victim, signal.SIGSTOP)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert not Path(f"/proc/{victim}").exists()
    known = search.check([])
    assert len(finished(known)) == 12
    assert {c.state for c in known} <= {"complete", "pruned"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_slurms_sigterm_ends_it_cleanly(workers: int, tmp_path: Path) -> None:
    """Slurm sends SIGCONT and SIGTERM to every process of the job, workers too."""
    search = Search(tmp_path, trials=100_000, workers=workers)
    with search.started() as process:
        wait_for_growth(search, process)
        deadline = time.monotonic() + 120
        # The journal's first records are older than the workers.
        while not (children := worker_pids(process.pid)):
            assert time.monotonic() < deadline, "no worker comes up"
            time.sleep(0.1)
        kill_group(process, signal.SIGCONT)
        kill_group(process, signal.SIGTERM)
        # After 30 s, by default, Slurm would send SIGKILL.
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert children
        # Whoever adopts the dead has to collect them; a worker that lives on leaves
        # when it finds its coordinator gone, looking twice a second.
        deadline = time.monotonic() + 3
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in children):
            assert time.monotonic() < deadline, "a worker outlives the search"
            time.sleep(0.1)
    count = len(finished(search.candidates()))
    assert f"stopped with {count} of 100000 trials finished" in one_line(errors)
    known = search.candidates()
    search.go_on(count + 2)
    assert len(finished(search.check(known))) == count + 2


def test_a_clock_that_jumps_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither limits nor times depend on the time of day; here it runs backwards."""
    now = [2e9]

    def backwards() -> float:
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr("time.time", backwards)
    with create(tmp_path / "small", make_settings()) as study:
        outcome = search(study, FakeEngine(2), trials=6, time_limit=60)
        assert outcome.reason == "done"
        assert all(0 <= spent < 60 for spent in vars_of(outcome.timing))
        known = study.candidates()
    assert read_study(tmp_path / "small").candidates() == known
    assert len(finished(known)) == 6


def vars_of(timing: Timing) -> list[float]:
    """Return the numbers of a Timing, which has slots."""
    return [getattr(timing, name) for name in timing.__slots__]


def test_nothing_is_timed_by_the_time_of_day() -> None:
    """A look through the source: time.time is not called, the local time not read."""
    for path in Path(nas.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in {"time.time", "datetime.utcnow"}, path


@pytest.mark.slow
def test_two_searches_at_once(tmp_path: Path) -> None:
    """The second of the same study is refused, one of another study is not disturbed."""
    search = Search(tmp_path, trials=60)
    with search.started() as process:
        wait_for_growth(search, process)
        second = subprocess.run(
            search.command,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert second.returncode == 1
        line = one_line(second.stderr)
        assert f"is being searched by process {process.pid}: wait for it" in line
        options = ["--dataset", "digits", "--budget", 900, "--epochs", 1]
        other = run_nas("search", *options, "--trials", 1, cwd=tmp_path)
        assert other.returncode == 0, other.stderr
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert len(finished(search.check([]))) == 60


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "hole", "foreign"])
def test_a_damaged_journal_is_told_or_mended(damage: str, tmp_path: Path) -> None:
    """Cut at its end it is mended; with a hole or foreign it is refused, untouched."""
    search = Search(tmp_path, trials=4)
    search.finish()
    journal = search.study / "journal.log"
    whole = journal.read_bytes()
    middle = len(whole) // 2
    journal.write_bytes(
        {
            "cut": whole[:-5],
            "hole": whole[:middle] + bytes(200) + whole[middle + 200 :],
            "foreign": b"\x89PNG\r\n\x1a\n" + whole,
        }[damage]
    )
    damaged = journal.read_bytes()
    with search.started() as process:
        _, errors = process.communicate(timeout=200)
    if damage == "cut":
        assert process.returncode == 0, errors
        assert len(finished(search.check([]))) == 4
    else:
        assert process.returncode == 1
        assert "restore it from a copy" in one_line(errors)
        assert journal.read_bytes() == damaged
