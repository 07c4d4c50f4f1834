"""`nas search --engine ray` on a real cluster: nodes come and go, coordinators die."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster, running_cluster
from studying import finished, one_line, run_python, searching

from nas.candidates.candidate import Candidate
from nas.data import load_dataset
from nas.engines.ray import RayEngine, _Place
from nas.errors import EngineError

OPTIONS = [
    *("--dataset", "digits", "--budget", "1000", "--epochs", "1"),
    *("--sampler", "random", "--engine", "ray"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Run a head without room for workers; each test adds and removes its nodes."""
    with running_cluster(cpus=0) as cluster:
        yield cluster


def engine(address: str | None, workers: int | None = 1, **more: object) -> RayEngine:
    """Return an engine on the digits."""
    return RayEngine(
        load_dataset("digits"),
        split_seed=0,
        val_size=240,
        workers=workers,
        address=address,
        **more,  # type: ignore[arg-type]
    )


def told(errors: str) -> list[str]:
    """Return the lines of stderr but those on workers that take long to start."""
    return [line for line in errors.splitlines() if "has started for" not in line]


def check(now: list[Candidate], trials: int, before: list[Candidate]) -> None:
    """Check that exactly so many are finished, none twice, and none before was lost."""
    ended = {c.trial: c for c in before if c.state != "running"}
    assert {c.trial: c for c in now if c.trial in ended} == ended
    assert len(finished(now)) == trials
    assert [c.trial for c in now] == list(range(len(now)))
    assert len({c.key for c in now}) == len(now)
    assert {c.state for c in now} <= {"complete", "pruned"}


@pytest.mark.slow
def test_nodes_come_and_go_during_a_search(cluster: Cluster, tmp_path: Path) -> None:
    """It begins without room, takes in who joins, and survives who dies."""
    where = ["--address", cluster.address, "--workers", 2]
    with searching(tmp_path, *OPTIONS, "--trials", 30, *where) as search:
        first = cluster.add_node(cpus=1)
        search.wait_for(4)
        second = cluster.add_node(cpus=1)
        search.wait_for(10)
        before = search.candidates()
        cluster.remove_node(first)
        search.wait_for(16)
        cluster.remove_node(second)
        time.sleep(1)
        third = cluster.add_node(cpus=2)
        search.finish()
    check(search.candidates(), 30, before)
    cluster.remove_node(third)


@pytest.mark.slow
def test_a_killed_coordinator_is_started_again_on_the_same_cluster(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Twice kill -9, once SIGTERM; the same command goes on each time."""
    node = cluster.add_node(cpus=2)
    where = ["--address", cluster.address]
    known: list[Candidate] = []
    for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with searching(tmp_path, *OPTIONS, "--trials", 100_000, *where) as search:
            search.wait_for(len(finished(known)) + 3)
            search.process.send_signal(how)
            _, errors = search.process.communicate(timeout=60)
        if how == signal.SIGTERM:
            assert search.process.returncode == 130
            (line,) = told(errors)
            assert "resume with the same command" in line
        known = search.candidates()
    total = len(finished(known)) + 4
    with searching(tmp_path, *OPTIONS, "--trials", total, *where) as search:
        assert told(search.finish()) == []
    check(search.candidates(), total, known)
    cluster.remove_node(node)


@pytest.mark.slow
def test_without_an_address_ray_is_started_here(tmp_path: Path) -> None:
    """And stopped at the end; not a word of Ray's own on the terminal."""
    with searching(tmp_path, *OPTIONS, "--trials", 3, "--workers", 1) as search:
        output, errors = search.process.communicate(timeout=300)
        assert search.process.returncode == 0, errors
    assert told(errors) == []
    assert "3 trials finished" in output
    assert "INFO" not in output
    check(search.candidates(), 3, [])


@pytest.mark.slow
def test_the_data_set_is_put_once_and_shared(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many workers; what they get lies in the node's memory, read-only."""
    import ray

    put, times = ray.put, []

    def counted(value: object) -> object:
        times.append(value)
        return put(value)

    monkeypatch.setattr(ray, "put", counted)
    node = cluster.add_node(cpus=3)
    ray_engine = engine(cluster.address, 3)
    try:
        deadline = time.monotonic() + 120
        while ray_engine.idle < 3:
            assert time.monotonic() < deadline
            ray_engine.wait(0.1)
        assert len(times) == 1
        assert {w.place.node for w in ray_engine._workers if w.place} == {node}

        def look(arrays: dict[str, object]) -> tuple[bool, bool]:
            flags = arrays["images"].flags  # type: ignore[attr-defined]
            return flags.owndata, flags.writeable

        look_there = ray.remote(look).options(num_cpus=0)
        assert ray.get(look_there.remote(ray_engine._arrays)) == (False, False)
    finally:
        ray_engine.close()
    cluster.remove_node(node)


@pytest.mark.slow
def test_other_versions_on_a_node_are_refused(cluster: Cluster) -> None:
    """With both versions, before anything is trained there."""
    node = cluster.add_node(cpus=1)
    ray_engine = engine(cluster.address)
    try:
        with pytest.raises(EngineError, match=r"has nas 0\.0 with torch 1\.0, the sea"):
            ray_engine._on_ready(
                ray_engine._workers[0], _Place(1, "n", [], ("0.0", "1.0"))
            )
    finally:
        ray_engine.close()
    cluster.remove_node(node)


@pytest.mark.slow
def test_no_room_is_told_at_once(cluster: Cluster) -> None:
    """Where the number of workers would follow from the room, and there is none."""
    with pytest.raises(EngineError, match="no room for a worker: each takes 1 CPU"):
        engine(cluster.address, workers=None, gpus_per_worker=1.0)


def test_without_ray_one_line_says_so(tmp_path: Path) -> None:
    """As without the extra nas-under-cap[ray]."""
    code = (
        "import sys\n"
        "sys.modules['ray'] = None\n"
        "from nas.cli import main\n"
        "sys.argv = ['nas', 'search', *sys.argv[1:]]\n"
        "main()\n"
    )
    done = run_python(code, *OPTIONS, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "pip install 'nas-under-cap[ray]'" in one_line(done.stderr)
    assert not (tmp_path / "studies").exists()
