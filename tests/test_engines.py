"""The contract of every engine: reports in order, verdicts obeyed, deaths survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from studying import environment

from nas.architecture import Architecture, Block, Head
from nas.cost import cost
from nas.data import load_dataset
from nas.engines import Engine, Event, Failed, Finished, Job, Lost, Reported
from nas.engines.local import LocalEngine, devices_for
from nas.errors import DeviceError
from nas.model import build
from nas.recipe import Recipe

SMALL = Architecture(
    input_shape=(1, 8, 8),
    num_classes=10,
    blocks=(Block(out_channels=4, pool="max"),),
    head=Head(kind="gap"),
)
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


ENGINES: dict[str, Callable[[int], LocalEngine]] = {"local": local}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[LocalEngine]:
    """One engine with one trainer for all tests that leave it idle behind them."""
    engine = ENGINES[request.param](1)
    yield engine
    engine.close()


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
    engine: Engine, *, until: int = 1, go_on: bool = True, patience: float = 60
) -> list[Event]:
    """Answer all reports alike and return the events until so many jobs are over."""
    seen: list[Event] = []
    over = 0
    deadline = time.monotonic() + patience
    while over < until:
        assert time.monotonic() < deadline, f"nothing more after {seen}"
        for event in engine.wait(1.0):
            seen.append(event)
            if isinstance(event, Reported):
                engine.answer(event.job, go_on=go_on)
                over += not go_on
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


def wait_until_dead(pids: Sequence[int], seconds: float = 10) -> None:
    """Wait until none of the processes is left."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.05)


def test_reports_come_in_order_and_then_the_end(engine: LocalEngine) -> None:
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


def test_the_same_job_gives_the_same_curve(engine: LocalEngine) -> None:
    """With one trainer a search can be repeated."""
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


def test_a_no_frees_the_trainer(engine: LocalEngine) -> None:
    """After "do not go on" no more is heard of the job, and the next one runs."""
    engine.start(make_job(1))
    assert len(events_of(engine, go_on=False)) == 1
    assert engine.idle == 1
    engine.start(make_job(2))
    assert {event.job for event in events_of(engine)} == {2}


def test_a_trainer_waits_for_the_verdict(engine: LocalEngine) -> None:
    """Until it is answered nothing further comes, however long one waits."""
    engine.start(make_job(1))
    (first,) = _first_events(engine)
    assert isinstance(first, Reported)
    assert list(engine.wait(0.5)) == []
    engine.answer(1, go_on=True)
    assert isinstance(events_of(engine)[-1], Finished)


def _first_events(engine: Engine) -> Sequence[Event]:
    for _ in range(60):
        if events := engine.wait(1.0):
            return events
    raise AssertionError("no event in a minute")


def test_waiting_ends_in_time(engine: LocalEngine) -> None:
    """Where nothing happens, wait returns nothing after its timeout."""
    began = time.monotonic()
    assert list(engine.wait(0.2)) == []
    assert 0.15 < time.monotonic() - began < 2


def test_a_training_that_breaks_off_is_reported_with_its_cause(
    engine: LocalEngine,
) -> None:
    """A loss that is no number has one cause, and the trainer goes on working."""
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


def test_a_bug_in_one_training_does_not_end_the_trainer(engine: LocalEngine) -> None:
    """Whatever a job raises becomes its cause, on one line."""
    engine.start(make_job(1, rungs=(2.0, 1.0)))
    failed = events_of(engine)[-1]
    assert isinstance(failed, Failed)
    assert failed.cause.startswith("ValueError: ")
    assert "\n" not in failed.cause
    assert engine.idle == 1


def test_a_final_job_returns_the_weights_and_the_test_accuracy(
    engine: LocalEngine,
) -> None:
    """The weights have the model's names and shapes; the test set is read at the end."""
    engine.start(make_job(1, part="final", rungs=(2.0,)))
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


@pytest.mark.parametrize("name", ENGINES)
def test_dead_trainers_are_replaced_and_their_jobs_reported_lost(name: str) -> None:
    """Killed in training, between jobs, waiting for a verdict: the engine goes on."""
    engine = ENGINES[name](1)
    try:
        engine.start(make_job(1, recipe=replace(RECIPE, epochs=5000), rungs=(5000.0,)))
        assert list(engine.wait(6)) == []
        first = engine.pids
        os.kill(first[0], signal.SIGKILL)
        assert events_of(engine) == [Lost(1)]
        assert engine.idle == 1
        assert set(engine.pids).isdisjoint(first)
        engine.start(make_job(2))
        assert isinstance(_first_events(engine)[0], Reported)
        os.kill(engine.pids[0], signal.SIGKILL)
        wait_until_dead(engine.pids)
        engine.answer(2, go_on=True)
        assert events_of(engine) == [Lost(2)]
        # One that dies before it has begun leaves the job to the next: no loss.
        os.kill(engine.pids[0], signal.SIGKILL)
        wait_until_dead(engine.pids)
        engine.start(make_job(3))
        events = events_of(engine)
        assert Lost(3) not in events
        assert events[-1] == Finished(3)
        pids = engine.pids
    finally:
        engine.close()
    wait_until_dead(pids, 1)


@pytest.mark.parametrize("name", ENGINES)
def test_closing_leaves_no_process(name: str) -> None:
    """Not of a trainer that is starting up, and not of one in a long training."""
    engine = ENGINES[name](2)
    engine.start(make_job(1, recipe=replace(RECIPE, epochs=5000), rungs=(5000.0,)))
    pids = engine.pids
    assert len(set(pids)) == 2
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 3
    wait_until_dead(pids, 1)


_ASK = """
from test_engines import ENGINES, RECIPE, make_job, replace
engine = ENGINES["NAME"](1)
engine.start(make_job(1, recipe=replace(RECIPE, epochs=5000), rungs=(1.0, 5000.0)))
while not (events := engine.wait(1.0)):
    pass
engine.answer(1, go_on=True)
print(*engine.pids, flush=True)
while True:
    engine.wait(1.0)
"""


@pytest.mark.parametrize("name", ENGINES)
def test_trainers_die_with_the_asker(name: str, tmp_path: Path) -> None:
    """With kill -9 of the asker every trainer, in the midst of training too."""
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, environment()["PYTHONPATH"]])
    with subprocess.Popen(
        [sys.executable, "-c", _ASK.replace("NAME", name)],
        cwd=tmp_path,
        env=environment(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        text=True,
    ) as asker:
        assert asker.stdout is not None
        pids = [int(pid) for pid in asker.stdout.readline().split()]
        assert len(pids) == 1
        assert is_alive(pids[0])
        asker.kill()
        wait_until_dead(pids, 5)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """One trainer a core on a CPU, four a GPU but no more than cores; else an error."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert devices_for("auto", None) == (["cpu"], 6)
    assert devices_for("cpu", 2) == (["cpu"], 2)
    for device in ("cuda", "cuda:0", "tpu", "", "CPU"):
        with pytest.raises(DeviceError, match="there is cpu"):
            devices_for(device, None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices_for("auto", None) == (["cuda:0", "cuda:1"], 6)
    assert devices_for("cuda:1", None) == (["cuda:1"], 4)
    assert devices_for("cpu", None) == (["cpu"], 6)
    for device in ("cuda:2", "cuda:", "cuda:-1"):
        with pytest.raises(DeviceError, match="cpu, cuda:0, cuda:1"):
            devices_for(device, None)
