"""Killed at any moment, started again: exactly the asked trials, none lost or doubled.

Real processes and real digits. Each test prints its seed, which NAS_TEST_SEED sets;
what happens in which millisecond no seed can repeat.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from studying import FakeEngine, command, environment, finished, one_line

from nas.candidates.candidate import Candidate
from nas.errors import StudyError
from nas.search.loop import search
from nas.study.folders import open_study, read_study

_OPTIONS = "--dataset digits --budget 1000 --epochs 1 --sampler random --device cpu"


class Search:
    """The command under test, in a session of its own, always the same."""

    def __init__(
        self, folder: Path, trials: int, workers: int = 1, more: Sequence[str] = ()
    ) -> None:
        self.folder, self.trials = folder, trials
        self.study = folder / "studies" / "digits-1000"
        self.command = command(
            *("search", *_OPTIONS.split(), "--trials", trials, "--workers", workers),
            *more,
        )

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """Start it; whatever is left of it at the end of the block is killed."""
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                kill_group(process, signal.SIGKILL)

    def finish(self) -> None:
        """Run it to its end."""
        with self.started() as process:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors

    def go_on(self, trials: int) -> None:
        """Bring it to so many trials in this process, with made-up trainings.

        That an interrupted search goes on; test_killed_coordinators has the command do it.
        """
        with open_study(self.study) as study:
            search(study, FakeEngine(), trials=trials)

    def candidates(self) -> list[Candidate]:
        """Return what stands in the study so far."""
        if not (self.study / "study.toml").exists():
            return []
        with contextlib.suppress(StudyError):  # killed before it stood in the journal
            return read_study(self.study).candidates()
        assert self.size() < 1000, "a study with trials that cannot be read"
        return []

    def size(self) -> int:
        """Return the bytes of the journal."""
        try:
            return (self.study / "journal.log").stat().st_size
        except FileNotFoundError:
            return 0

    def check(self, before: list[Candidate]) -> list[Candidate]:
        """Check that nothing finished was lost or changed; return what there is."""
        now = self.candidates()
        ended = {c.trial: c for c in before if c.state != "running"}
        assert {c.trial: c for c in now if c.trial in ended} == ended
        assert [c.trial for c in now] == list(range(len(now)))
        assert len({c.key for c in now}) == len(now)
        assert len(finished(now)) <= self.trials
        return now


def kill_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to the command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def worker_pids(coordinator: int) -> list[int]:
    """Return the process ids of the workers that this coordinator has at the moment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            arguments = (path / "cmdline").read_bytes()
            if parent == coordinator and b"spawn_main" in arguments:
                found.append(int(path.name))
    return found


def wait_for_growth(search: Search, process: subprocess.Popen[str]) -> None:
    """Wait until the journal has grown, or the command has ended."""
    size, deadline = search.size(), time.monotonic() + 200
    while search.size() == size and process.poll() is None:
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)


def wait_for_a_result(search: Search) -> None:
    """Wait until a training has ended; the journal grows before the workers are up."""
    deadline = time.monotonic() + 200
    while not finished(search.candidates()):
        assert time.monotonic() < deadline, "no training has ended"
        time.sleep(0.1)


@pytest.fixture
def chance() -> random.Random:
    """Random moments, from a seed that is printed."""
    seed = int(os.environ.get("NAS_TEST_SEED") or secrets.randbits(32))
    print(f"NAS_TEST_SEED={seed}")  # noqa: T201  # pytest shows it when the test fails
    return random.Random(seed)


def cut_last_record(search: Search, chance: random.Random) -> None:
    """Leave only a random part of the journal's last record, as a power cut would."""
    journal = search.study / "journal.log"
    content = journal.read_bytes()
    begin = content.rstrip(b"\n").rfind(b"\n") + 1
    journal.write_bytes(content[: chance.randrange(begin, len(content))])


@pytest.mark.slow
def test_killed_coordinators(tmp_path: Path, chance: random.Random) -> None:
    """Eight times kill -9 of the coordinator or of all, half with a cut last record."""
    search = Search(tmp_path, trials=100_000)
    known: list[Candidate] = []
    for round_number in range(8):
        with search.started() as process:
            if round_number % 4:
                wait_for_growth(search, process)
                time.sleep(chance.uniform(0, 0.7))
            else:  # while it starts up
                time.sleep(chance.uniform(0, 4))
            assert process.poll() is None
            left = worker_pids(process.pid)
            if chance.random() < 0.5:
                kill_group(process, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            deadline = time.monotonic() + 10
            while any(Path(f"/proc/{pid}/cmdline").exists() for pid in left):
                assert time.monotonic() < deadline, "a worker outlived its coordinator"
                time.sleep(0.05)
        known = search.check(known)
        if round_number % 2 and search.size():
            cut_last_record(search, chance)
            # What the cut took had been written last; all before it stays.
            kept = search.candidates()
            changed = [c for c in known if c not in kept]
            assert len(changed) <= 1
            known = kept
    last = Search(tmp_path, trials=len(finished(known)) + 10)
    last.finish()
    known = last.check(known)
    assert len(finished(known)) == last.trials
    assert {c.state for c in known} <= {"complete", "pruned"}
    last.finish()
    assert last.candidates() == known


@pytest.mark.slow
def test_killed_workers(tmp_path: Path, chance: random.Random) -> None:
    """Twelve times kill -9 of a worker: the search itself goes on to its end."""
    search = Search(tmp_path, trials=100_000)
    known: list[Candidate] = []
    with search.started() as process:
        for _ in range(12):
            # Three deaths under one candidate would end it: let one finish in between.
            before = len(finished(search.candidates()))
            while len(finished(search.candidates())) <= before:
                wait_for_growth(search, process)
            time.sleep(chance.uniform(0, 0.5))
            assert process.poll() is None
            victims = worker_pids(process.pid)
            assert len(victims) == 1
            os.kill(victims[0], signal.SIGKILL)
            known = search.check(known)
    assert len(finished(known)) > 5
    last = Search(tmp_path, trials=len(finished(search.candidates())) + 5)
    last.finish()
    known = last.check(known)
    assert len(finished(known)) == last.trials
    # A candidate under which the worker died is trained anew, not given up.
    assert {c.state for c in known} <= {"complete", "pruned"}


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM],
)
@pytest.mark.slow
def test_an_interrupted_search_says_how_to_go_on(
    tmp_path: Path, chance: random.Random, number: signal.Signals
) -> None:
    """Ctrl-C, as kill, ends it within seconds with code 130 and one line.

    On a machine that other work keeps busy it may take as long as the start took.
    """
    search = Search(tmp_path, trials=100_000)
    began = time.monotonic()
    with search.started() as process:
        wait_for_growth(search, process)
        patience = max(5, time.monotonic() - began)
        # While the workers start up, and in the midst of the search.
        time.sleep(chance.choice([0.5, 1.5, 6]))
        children = worker_pids(process.pid)
        began = time.monotonic()
        if number == signal.SIGINT:
            kill_group(process, number)  # as a terminal does
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=20 + patience)
        assert time.monotonic() - began < patience
        assert process.returncode == 130
        assert children
        assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in children)
    line = one_line(errors)
    count = len(finished(search.candidates()))
    assert f"stopped with {count} of 100000 trials finished" in line
    assert "resume with the same command" in line
    known = search.candidates()
    last = Search(tmp_path, trials=count + 2)
    last.finish()
    assert len(finished(last.check(known))) == count + 2
    assert (search.study / "front.csv").is_file()


@pytest.mark.slow
def test_a_search_interrupted_before_it_began_leaves_nothing_in_the_way(
    tmp_path: Path,
) -> None:
    """Ctrl-C during the imports ends with 130, too, and the command can run again."""
    search = Search(tmp_path, trials=2)
    with search.started() as process:
        time.sleep(0.8)
        kill_group(process, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
    assert one_line(errors)
    search.finish()
    assert len(finished(search.candidates())) == 2
