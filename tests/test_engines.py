"""The contract of every engine: reports in order, decisions obeyed, deaths survived.

Ray's is that of a real cluster of two nodes, which all tests of this file share.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import pytest
import torch
from clusters import running_cluster
from memory_errors import MEMORY_ERRORS, RungsOutOfMemory
from nets import net_of
from studying import environment

from nas.architecture import Block
from nas.architecture.cost import cost
from nas.data import load_dataset
from nas.engines import Engine, Event, Failed, Finished, Job, Reported, WorkerLost
from nas.engines.local import LocalEngine, devices_for
from nas.engines.out_of_memory import OutOfMemory
from nas.engines.worker import Worker, WorkerConfig
from nas.errors import DeviceError, EngineError
from nas.training.model import build
from nas.training.recipe import Recipe

SMALL = net_of(Block(out_channels=4, pool="max"))
RECIPE = Recipe(epochs=2, batch_size=60)


def local(workers: int) -> LocalEngine:
    """Return an engine of processes on this machine, for the digits."""
    return LocalEngine(
        load_dataset("digits"),
        split_seed=0,
        val_size=240,
        workers=workers,
        devices=["cpu"],
    )


def on_ray(workers: int) -> EngineUnderTest:
    """Return an engine on the cluster that the fixture below has started."""
    from nas.engines.ray import RayEngine

    return RayEngine(
        load_dataset("digits"),
        split_seed=0,
        val_size=240,
        workers=workers,
        address=os.environ["NAS_TEST_CLUSTER"],
    )


class EngineUnderTest(Engine, Protocol):
    """What the tests ask beyond what the search does."""

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that there are."""


ENGINES: dict[str, Callable[[int], EngineUnderTest]] = {"local": local, "ray": on_ray}
# Seconds in which all workers must be gone after their engine or coordinator.
ENDS_WITHIN = {"local": 4, "ray": 20}
# A machine that is busy otherwise may be given more.
TIMEOUT = 60 * float(os.environ.get("NAS_TEST_TIMEOUT_FACTOR", "1"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two nodes with two CPUs each, at the address in the environment."""
    with running_cluster(cpus=2) as nodes, pytest.MonkeyPatch.context() as patch:
        nodes.add_node(cpus=2)
        patch.setenv("NAS_TEST_CLUSTER", nodes.address)
        yield


@pytest.fixture(
    scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)]
)
def name(request: pytest.FixtureRequest) -> str:
    """Each engine's name in turn; where it needs a cluster, that is there."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return str(request.param)


# Kept for all tests that leave it idle behind them. A process has one cluster at a time.
_shared: dict[str, EngineUnderTest] = {}


@pytest.fixture
def engine(name: str) -> EngineUnderTest:
    """Return an engine with one worker, which has come up."""
    if name not in _shared:
        close_shared()
        _shared[name] = ENGINES[name](1)
    wait_until_idle(_shared[name])
    return _shared[name]


def close_shared() -> None:
    """Close the engine that tests share, if there is one."""
    while _shared:
        _shared.popitem()[1].close()


@pytest.fixture(scope="module", autouse=True)
def _close_at_the_end() -> Iterator[None]:
    yield
    close_shared()


def wait_until_idle(engine: Engine, workers: int = 1) -> None:
    """Wait until so many workers have nothing to do; one that comes up is none yet."""
    deadline = time.monotonic() + TIMEOUT
    while engine.idle < workers:
        assert time.monotonic() < deadline, "the workers do not come up"
        assert list(engine.wait(0.1)) == []


def make_job(number: int, **changes: object) -> Job:
    """Return a short job."""
    plain = Job(
        number=number,
        architecture=SMALL,
        recipe=RECIPE,
        seed=number,
        rungs=(0.5, 1.0, 2.0),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def events_of(
    engine: Engine, *, until: int = 1, proceed: bool = True, timeout: float = TIMEOUT
) -> list[Event]:
    """Answer all reports alike and return the events until so many jobs are over."""
    seen: list[Event] = []
    over = 0
    deadline = time.monotonic() + timeout
    while over < until:
        assert time.monotonic() < deadline, f"nothing more after {seen}"
        for event in engine.wait(1.0):
            seen.append(event)
            if isinstance(event, Reported):
                engine.decide(event.job, proceed=proceed)
                over += not proceed
            else:
                over += 1
    return seen


def reports_of(events: Sequence[Event]) -> list[Reported]:
    """Return the reports among the events."""
    return [event for event in events if isinstance(event, Reported)]


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that is dead but not yet buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_dead(pids: Iterable[int], seconds: float = 10) -> None:
    """Wait until none of the processes is left."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.05)


def test_reports_come_in_order_and_then_the_end(engine: EngineUnderTest) -> None:
    """One report a rung, each when the one before was answered, then Finished."""
    assert engine.idle == 1
    engine.start(make_job(7))
    assert engine.idle == 0
    events = events_of(engine)
    assert [event.job for event in events] == [7] * 4
    assert [r.report.rung for r in reports_of(events)] == [0, 1, 2]
    assert [r.report.epochs for r in reports_of(events)] == [0.5, 1.0, 2.0]
    assert events[-1] == Finished(7)
    assert engine.idle == 1


def test_the_same_job_gives_the_same_curve(engine: EngineUnderTest) -> None:
    """With one worker a search can be repeated."""
    curves = []
    for number, seed in [(1, 5), (2, 5), (3, 6)]:
        engine.start(make_job(number, seed=seed))
        curves.append(
            [
                (r.report.val_accuracy, r.report.train_loss)
                for r in reports_of(events_of(engine))
            ]
        )
    assert curves[0] == curves[1] != curves[2]


def test_a_no_frees_the_worker(engine: EngineUnderTest) -> None:
    """After "do not go on" no more is heard of the job, and the next one runs."""
    engine.start(make_job(1))
    assert len(events_of(engine, proceed=False)) == 1
    assert engine.idle == 1
    engine.start(make_job(2))
    assert {event.job for event in events_of(engine)} == {2}


def test_a_worker_waits_for_the_decision(engine: EngineUnderTest) -> None:
    """Until it is answered nothing further comes, however long one waits."""
    engine.start(make_job(1))
    (first,) = _first_events(engine)
    assert isinstance(first, Reported)
    assert list(engine.wait(0.5)) == []
    engine.decide(1, proceed=True)
    assert isinstance(events_of(engine)[-1], Finished)


def _first_events(engine: Engine) -> Sequence[Event]:
    for _ in range(int(TIMEOUT)):
        if events := engine.wait(1.0):
            return events
    raise AssertionError("no event in a minute")


def test_waiting_ends_in_time(engine: EngineUnderTest) -> None:
    """Where nothing happens, wait returns nothing after its timeout."""
    began = time.monotonic()
    assert list(engine.wait(0.2)) == []
    assert 0.15 < time.monotonic() - began < 2


def test_a_training_that_breaks_off_is_reported_with_its_cause(
    engine: EngineUnderTest,
) -> None:
    """A loss that is no number has one cause, and the worker goes on working."""
    wild = replace(RECIPE, max_lr=1e30, optimizer="sgd")
    causes = []
    for number in (1, 2):
        engine.start(make_job(number, recipe=wild))
        failed = events_of(engine)[-1]
        assert isinstance(failed, Failed)
        assert failed.job == number
        causes.append(failed.cause)
    assert causes == ["loss became NaN"] * 2
    engine.start(make_job(3))
    assert events_of(engine)[-1] == Finished(3)


def test_a_bug_in_one_training_does_not_end_the_worker(
    engine: EngineUnderTest,
) -> None:
    """Whatever a job raises becomes its cause, on one line."""
    engine.start(make_job(1, rungs=(2.0, 1.0)))
    failed = events_of(engine)[-1]
    assert isinstance(failed, Failed)
    assert failed.cause.startswith("ValueError: ")
    assert "\n" not in failed.cause
    assert engine.idle == 1


def test_a_final_job_returns_the_weights_and_the_test_accuracy(
    engine: EngineUnderTest,
) -> None:
    """The weights have the model's names and shapes; the test set is read at the end."""
    engine.start(make_job(1, mode="final", rungs=(2.0,)))
    final = events_of(engine)[-1]
    assert isinstance(final, Finished)
    assert final.test_accuracy is not None
    assert 0.1 < final.test_accuracy <= 1
    assert final.weights is not None
    expected = {k: v.shape for k, v in build(SMALL).state_dict().items()}
    assert {name: array.shape for name, array in final.weights.items()} == expected
    trained = sum(
        array.size
        for name, array in final.weights.items()
        if "running" not in name and "num_batches" not in name
    )
    assert trained == cost(SMALL).num_params


def warm(name: str, workers: int = 1) -> EngineUnderTest:
    """Return an engine of its own whose workers have come up, one with a job done."""
    close_shared()
    engine = ENGINES[name](workers)
    try:
        wait_until_idle(engine, workers)
        engine.start(make_job(0))
        assert events_of(engine)[-1] == Finished(0)
    except BaseException:
        engine.close()
        raise
    return engine


@pytest.mark.slow
def test_dead_workers_are_replaced_and_their_jobs_reported_lost(name: str) -> None:
    """Killed in training and waiting for a decision: the engine goes on."""
    engine = warm(name)
    try:
        engine.start(make_job(1, recipe=replace(RECIPE, epochs=5000), rungs=(5000.0,)))
        assert list(engine.wait(1)) == []
        first = engine.pids
        os.kill(first[0], signal.SIGKILL)
        assert events_of(engine) == [WorkerLost(1)]
        wait_until_idle(engine)
        assert set(engine.pids).isdisjoint(first)
        engine.start(make_job(2))
        assert isinstance(_first_events(engine)[0], Reported)
        os.kill(engine.pids[0], signal.SIGKILL)
        wait_until_dead(engine.pids)
        engine.decide(2, proceed=True)
        assert events_of(engine) == [WorkerLost(2)]
        wait_until_idle(engine)
        engine.start(make_job(3))
        assert events_of(engine)[-1] == Finished(3)
        pids = engine.pids
    finally:
        engine.close()
    wait_until_dead(pids, ENDS_WITHIN[name])


@pytest.mark.slow
def test_an_abandoned_worker_is_replaced_even_if_it_is_stopped(name: str) -> None:
    """A worker that hangs, here since SIGSTOP, is killed and its job reported lost."""
    engine = warm(name)
    try:
        hung = engine.pids
        engine.start(make_job(1, recipe=replace(RECIPE, epochs=5000), rungs=(5000.0,)))
        assert list(engine.wait(1)) == []
        os.kill(hung[0], signal.SIGSTOP)
        engine.abandon(1)
        assert events_of(engine) == [WorkerLost(1)]
        wait_until_dead(hung, ENDS_WITHIN[name])
        wait_until_idle(engine)
        engine.start(make_job(2))
        assert events_of(engine)[-1] == Finished(2)
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            signal.SIGKILL,
            "killed the workers while they were starting, probably because memory",
        ),
        (
            signal.SIGSEGV,
            r"signal 11 \(Segmentation fault\) ended the workers while they were starting: see",
        ),
        (signal.SIGSTOP, "did not start within 0.2 s: is the disk or the GPU busy"),
        (
            None,
            "ended with exit code 1 while they were starting: see the messages above",
        ),
    ],
)
def test_each_cause_of_workers_that_do_not_start_has_its_words(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None, words: str
) -> None:
    """Memory, a crash, a worker that hangs and one that raises."""
    if number == signal.SIGSTOP:
        monkeypatch.setattr("nas.engines.local._START_SECONDS", 0.2)
    if number is None:
        monkeypatch.setenv("PYTHONHOME", "/nowhere")
    engine = local(1)

    def wait_for_the_end() -> None:
        met: set[int] = set()
        for _ in range(600):
            for pid in set(engine.pids) - met if number is not None else ():
                os.kill(pid, number)
                met.add(pid)
            engine.wait(0.1)

    try:
        with pytest.raises(EngineError, match=words):
            wait_for_the_end()
    finally:
        engine.close()


def test_too_many_workers_for_the_open_files_are_refused_in_one_line() -> None:
    """Ray Tune, issue 7169: many workers end in a traceback of too many open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(list(Path("/proc/self/fd").iterdir())) + 12
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        with pytest.raises(EngineError, match=r"^no more than \d workers .*open files"):
            local(20).close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_little_shared_memory_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray, issue 13619: a container's /dev/shm has 64 MB unless it is given more."""

    def full(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm): No space left (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(EngineError, match=r"1 MB in shared memory .*in a container"):
        local(1)


def test_a_local_worker_that_dies_at_its_start_costs_no_job() -> None:
    """Another takes its place before there is a job."""
    engine = local(1)
    try:
        os.kill(engine.pids[0], signal.SIGKILL)
        wait_until_dead(engine.pids)
        wait_until_idle(engine)
        engine.start(make_job(3))
        events = events_of(engine)
        assert WorkerLost(3) not in events
        assert events[-1] == Finished(3)
    finally:
        engine.close()


def out_of_memory_job(
    number: int, folder: Path, of: str = "gpu", times: int = 9
) -> Job:
    """Return a job that runs out of memory the first times that it begins."""
    rungs = make_job(number).rungs
    return make_job(number, rungs=RungsOutOfMemory(rungs, of, times, folder))


def test_out_of_memory_leaves_one_worker_fewer(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is given back where several share the memory; alone it has failed."""
    # Ray's cluster has two nodes, and four workers fill both.
    workers, most = {"local": (2, 1), "ray": (4, 2)}[name]
    engine = warm(name, workers)
    try:
        lost = 0
        event: Event = WorkerLost(0)
        while isinstance(event, WorkerLost):
            pids = set(engine.pids)
            engine.start(out_of_memory_job(lost, tmp_path))
            (event,) = events_of(engine)
            if isinstance(event, WorkerLost):
                assert event == WorkerLost(lost, out_of_memory=True)
                assert set(engine.pids) < pids
                wait_until_dead(pids - set(engine.pids), ENDS_WITHIN[name])
                lost += 1
            assert len(engine.pids) == engine.idle == workers - lost
        assert 1 <= lost <= most
        assert isinstance(event, Failed)
        assert event.cause.startswith("out of memory on cpu with one worker at a time")
        assert "--max-memory" in event.cause
        engine.start(make_job(9))
        assert events_of(engine)[-1] == Finished(9)
        lines = [record.getMessage() for record in caplog.records]
        # Ray may also have said that it waits for its workers.
        lines = [line for line in lines if line.startswith("out of memory on cpu")]
        assert len(lines) == lost
        for line in lines:
            assert line.endswith("from now on 1 worker at a time there, one fewer")
    finally:
        engine.close()


@pytest.mark.slow
def test_out_of_memory_twice_at_once_leaves_one_worker(tmp_path: Path) -> None:
    """The second one was not alone either when it began: neither job has failed."""
    engine = warm("local", 2)
    try:
        jobs = []
        for number in (1, 2):
            folder = tmp_path / str(number)
            folder.mkdir()
            jobs.append(out_of_memory_job(number, folder, times=1))
            engine.start(jobs[-1])
        lost = {WorkerLost(1, out_of_memory=True), WorkerLost(2, out_of_memory=True)}
        assert set(events_of(engine, until=2)) == lost
        assert engine.idle == 1
        for job in jobs:
            engine.start(job)
            assert events_of(engine)[-1] == Finished(job.number)
    finally:
        engine.close()


@pytest.mark.parametrize("of", MEMORY_ERRORS)
def test_every_out_of_memory_error_is_recognised(of: str, tmp_path: Path) -> None:
    """Whoever raises it, and by the time of the report the model is gone."""
    options = WorkerConfig(split_seed=0, val_size=240, device="cpu")
    worker = Worker(load_dataset("digits"), options)
    models: list[weakref.ref[Any]] = []
    emptied: list[Any] = []

    def remember(*arguments: Any, **options: Any) -> Any:
        model = build(*arguments, **options)
        models.append(weakref.ref(model))
        return model

    def empty_cache() -> None:
        emptied.extend(model() for model in models)

    with (
        mock.patch("nas.engines.worker.build", remember),
        mock.patch("torch.cuda.empty_cache", empty_cache),
    ):
        assert list(worker.events(out_of_memory_job(1, tmp_path, of))) == [
            OutOfMemory(1)
        ]
    assert emptied == [None]


def test_closing_leaves_no_process(name: str) -> None:
    """Not of a worker that is starting up, and not of one in a long training."""
    engine = warm(name, 2)
    engine.start(make_job(1, recipe=replace(RECIPE, epochs=5000), rungs=(5000.0,)))
    os.kill(engine.pids[1], signal.SIGKILL)
    engine.wait(1.0)
    pids = engine.pids
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < ENDS_WITHIN[name]
    wait_until_dead(pids, ENDS_WITHIN[name])


_ASK = """
from test_engines import RECIPE, make_job, replace, warm
engine = warm("NAME")
engine.start(make_job(1, recipe=replace(RECIPE, epochs=5000), rungs=(1.0, 5000.0)))
while not (events := engine.wait(1.0)):
    pass
engine.decide(1, proceed=True)
print(*engine.pids, flush=True)
while True:
    engine.wait(1.0)
"""


@pytest.mark.slow
def test_workers_die_with_the_coordinator(name: str, tmp_path: Path) -> None:
    """With kill -9 of the coordinator every worker, in the midst of training too."""
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, environment()["PYTHONPATH"]])
    with subprocess.Popen(
        [sys.executable, "-c", _ASK.replace("NAME", name)],
        cwd=tmp_path,
        env=environment(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        text=True,
    ) as coordinator:
        assert coordinator.stdout is not None
        pids = [int(pid) for pid in coordinator.stdout.readline().split()]
        assert len(pids) == 1
        assert is_alive(pids[0])
        coordinator.kill()
        wait_until_dead(pids, ENDS_WITHIN[name])


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker a core on a CPU, 16 a GPU with MPS, two without; else an error."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert devices_for("auto", None) == (["cpu"], 6)
    assert devices_for("cpu", 2) == (["cpu"], 2)
    for device in ("cuda", "cuda:0", "tpu", "", "CPU"):
        with pytest.raises(DeviceError, match="there is cpu"):
            devices_for(device, None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("nas.engines.local.available", lambda: False)
    assert devices_for("auto", None) == (["cuda:0", "cuda:1"], 4)
    assert devices_for("cuda:1", None) == (["cuda:1"], 2)
    monkeypatch.setattr("nas.engines.local.available", lambda: True)
    assert devices_for("cuda:1", None) == (["cuda:1"], 6)
    assert devices_for("cpu", None) == (["cpu"], 6)
    for device in ("cuda:2", "cuda:", "cuda:-1"):
        with pytest.raises(DeviceError, match="cpu, cuda:0, cuda:1"):
            devices_for(device, None)
