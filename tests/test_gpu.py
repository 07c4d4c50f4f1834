"""On a real GPU: memory that runs out, two workers on one card, the command line.

That a recorded step trains as the step itself is tested in test_training.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli_runner import Invoke
from nets import net_of

from nas.architecture import Block
from nas.data import load_dataset
from nas.engines import Finished, Job, Reported
from nas.engines.local import LocalEngine
from nas.engines.out_of_memory import OutOfMemory
from nas.engines.worker import Worker, WorkerConfig
from nas.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

NET = net_of(
    Block(out_channels=8, pool="max"),
    Block(kind="separable", out_channels=16, dropout=0.05),
    Block(out_channels=16, repeats=2),
)
RECIPE = Recipe(epochs=4, batch_size=32, rotation=5, shift=0.05)


def job(number: int, *, recipe: Recipe = RECIPE, mode: str = "search") -> Job:
    """Return a short training; its seed does not depend on its number."""
    return Job(
        number=number,
        architecture=NET,
        recipe=recipe,
        seed=7,
        rungs=(1, recipe.epochs),
        mode=mode,  # type: ignore[arg-type]
    )


def config(device: str) -> WorkerConfig:
    """Return what a worker needs to know."""
    return WorkerConfig(split_seed=0, val_size=240, device=device)


@contextmanager
def full_card() -> Iterator[None]:
    """Leave the card no more than 16 MiB of free memory."""
    torch.cuda.empty_cache()
    hogs = []
    while (free := torch.cuda.mem_get_info()[0]) > 2**25:
        hogs.append(torch.empty(free - 2**24, dtype=torch.uint8, device="cuda"))
    try:
        yield
    finally:
        hogs.clear()
        torch.cuda.empty_cache()


@pytest.mark.parametrize("capture", ["1", "0"])
def test_memory_that_runs_out_is_told_and_the_trainer_goes_on(
    capture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the step recorded and without, in its midst, not only at the data."""
    monkeypatch.setenv("NAS_CAPTURE", capture)
    worker = Worker(load_dataset("digits"), config("cuda"))
    assert isinstance(list(worker.events(job(0)))[-1], Finished)
    wide = replace(NET, blocks=(Block(out_channels=4096), Block(out_channels=512)))
    with full_card():
        ended = list(worker.events(replace(job(1), architecture=wide)))
    assert ended == [OutOfMemory(1)]


def test_after_a_shortage_the_same_trainer_trains_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the failed recording left behind disturbs nothing."""
    monkeypatch.delenv("NAS_CAPTURE", raising=False)
    worker = Worker(load_dataset("digits"), config("cuda"))
    before = accuracies(worker, 0)
    wide = replace(NET, blocks=(Block(out_channels=4096), Block(out_channels=512)))
    with full_card():
        ended = list(worker.events(replace(job(1), architecture=wide)))
    assert ended == [OutOfMemory(1)]
    assert accuracies(worker, 2) == before


def accuracies(worker: Worker, number: int) -> list[tuple[float, float]]:
    """Return the curve of the job."""
    events = list(worker.events(job(number)))
    assert isinstance(events[-1], Finished)
    reports = [e.report for e in events if isinstance(e, Reported)]
    return [(r.val_accuracy, r.train_loss) for r in reports]


def test_two_trainers_share_a_card_and_train_alike() -> None:
    """Side by side on one card both give the curve that one alone gives."""
    alone = accuracies(Worker(load_dataset("digits"), config("cuda")), 0)
    engine = LocalEngine(
        load_dataset("digits"),
        split_seed=0,
        val_size=240,
        workers=2,
        devices=["cuda:0"],
    )
    curves: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    finished = set()
    try:
        while engine.idle < 2:
            assert list(engine.wait(1)) == []
        for number in curves:
            engine.start(job(number))
        while len(finished) < 2:
            for event in engine.wait(60):
                if isinstance(event, Reported):
                    report = event.report
                    curves[event.job].append((report.val_accuracy, report.train_loss))
                    engine.decide(event.job, proceed=True)
                else:
                    assert isinstance(event, Finished), event
                    finished.add(event.job)
    finally:
        engine.close()
    assert curves == {0: alone, 1: alone}


def test_a_gpu_learns_as_a_cpu_does() -> None:
    """The accuracies of both after a training differ by noise only."""
    recipe = replace(RECIPE, epochs=12)
    final = {
        device: [
            event.report.val_accuracy
            for event in Worker(load_dataset("digits"), config(device)).events(
                job(0, recipe=recipe)
            )
            if isinstance(event, Reported)
        ][-1]
        for device in ("cpu", "cuda")
    }
    assert min(final.values()) > 0.9
    assert abs(final["cpu"] - final["cuda"]) < 0.05


def test_search_and_best_on_a_gpu(invoke: Invoke, tmp_path: Path) -> None:
    """The two commands work from their first word to their last on the card."""
    common = ("--studies", tmp_path, "--device", "cuda")
    found = invoke(
        "search", "--dataset", "digits", "--budget", 800, "--trials", 4, *common
    )
    assert found.code == 0, found.err
    best = invoke("best", "digits-800", "--epochs", 2, *common)
    assert best.code == 0, best.err
    assert (tmp_path / "digits-800/best/weights.safetensors").is_file()
