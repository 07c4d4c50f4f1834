"""Several candidates at a time on one device: as processes and, on a GPU, as streams.

    python benchmarks/together.py [--device cuda|cpu] [--nets s0,...] [--batch-size 64]
        [--at-once 1,2,4,8,16] [--ways processes,streams] [--epochs 3] [--ahead 64]
        [--csv FILE]

As processes, each trains its candidate as nas does, all beginning together. As streams,
one process records the step of each candidate and replays the recordings in turn, each on
a stream of its own. What is shown is how many candidate-epochs of 55,000 images the
device does in a second, with everything that a candidate costs but the start of its
process, and the memory that a process takes on the GPU and in the machine. For processes
the parts follow, each done by all at the same time: seconds until a training can begin,
and of an epoch for the preparation of its images and for its steps.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nas.references.bundled import find_reference
from nas.training import kernels, step
from nas.training.cuda_graph import runner
from nas.training.loop import learning_rate, train
from nas.training.model import build
from nas.training.recipe import Recipe
from nas.training.step import AHEAD_ON_GPU, Step, TrainingData

# Its neighbours, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import conditions, numbers, write
from throughput import EPOCH, RECIPE, random_data

_PARTS = ("prepare_s", "load_s", "steps_s")
_COLUMNS = ("way", "net", "at_once", "epochs_per_s", "gpu_mib", "resident_mib", *_PARTS)
# Batches are prepared so often, and trained on, to time these parts of a training.
_PART_LOADS = 5


def _recipe(options: argparse.Namespace) -> Recipe:
    return replace(RECIPE, epochs=options.epochs, batch_size=options.batch_size)


def _candidate(
    options: argparse.Namespace, barrier: Any, results: Any, processes: int
) -> None:
    """Be one process: train a first candidate for the warm-up, then one of each net."""
    torch.set_num_threads(1)
    step.AHEAD_ON_GPU = options.ahead
    device = torch.device(options.device)
    if device.type == "cuda":
        kernels.share_gpu(device, processes)
    data = random_data(options.images, device)
    nets = options.nets.split(",")
    timed = [(net, options.epochs) for net in nets]
    spent = {}
    for net, epochs in [(nets[0], 1), *timed]:
        architecture = find_reference(net).architecture
        recipe = replace(_recipe(options), epochs=epochs)
        barrier.wait()
        started = time.perf_counter()
        model = build(architecture, seed=0).to(device)
        for _ in train(model, data, recipe, seed=0, rungs=[epochs]):
            pass
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent[net] = time.perf_counter() - started
        barrier.wait()
    parts = {net: _parts(options, net, data, barrier) for net in nets}
    gpu = 0.0
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        gpu = (total - free) / 2**20
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    results.put((spent, parts, gpu, resident))


def _parts(
    options: argparse.Namespace, net: str, data: TrainingData, barrier: Any
) -> dict[str, float]:
    """Return the seconds of the parts of a training, beside the other processes'."""
    device = torch.device(options.device)
    recipe = _recipe(options)
    size = min(recipe.batch_size, len(data.train_labels))

    def timed(part: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        barrier.wait()
        started = time.perf_counter()
        part()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def prepare() -> None:
        nonlocal steps, run
        model = build(find_reference(net).architecture, seed=0).to(device).train()
        steps = Step(model, data, recipe, size)
        run = runner(steps.training)

    def load() -> None:
        for _ in range(_PART_LOADS):
            shape = steps.ahead, size
            indices = torch.randint(len(data.train_labels), shape, device=device)
            steps.load(indices, [0.01] * steps.ahead)

    def train_on_it() -> None:
        for _ in range(_PART_LOADS):
            steps.training.rewind()
            run(steps.ahead)

    steps: Step
    run: Callable[[int], None]
    prepared = timed(prepare)
    per_epoch = EPOCH / (_PART_LOADS * steps.ahead * size)
    return {
        "prepare_s": prepared,
        "load_s": timed(load) * per_epoch,
        "steps_s": timed(train_on_it) * per_epoch,
    }


Rates = dict[str, dict[str, float]]


def processes(options: argparse.Namespace, at_once: int) -> Rates:
    """Return each net's rate in so many processes, and the memory of GPU and process."""
    context = mp.get_context("spawn")
    barrier, results = context.Barrier(at_once), context.Queue()
    workers = [
        context.Process(target=_candidate, args=(options, barrier, results, at_once))
        for _ in range(at_once)
    ]
    for worker in workers:
        worker.start()
    told = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    epochs = at_once * options.epochs * options.images / EPOCH
    return {
        net: {
            "epochs_per_s": epochs / max(spent[net] for spent, *_ in told),
            "gpu_mib": max(gpu for _, _, gpu, _ in told),
            "resident_mib": max(resident for *_, resident in told),
            **{
                part: max(parts[net][part] for _, parts, _, _ in told)
                for part in _PARTS
            },
        }
        for net in options.nets.split(",")
    }


def streams(options: argparse.Namespace, at_once: int) -> Rates:
    """Return each net's rate in so many recordings that are replayed in turn."""
    nets = options.nets.split(",")
    return {net: _in_streams(options, net, at_once) for net in nets}


def _in_streams(
    options: argparse.Namespace, net: str, at_once: int
) -> dict[str, float]:
    device = torch.device(options.device)
    data = random_data(options.images, device)
    architecture = find_reference(net).architecture
    recipe = _recipe(options)
    torch.cuda.synchronize()
    started = time.perf_counter()
    running = []
    for number in range(at_once):
        model = build(architecture, seed=number).to(device).train()
        one = Step(model, data, recipe, recipe.batch_size)
        run = runner(one.training)
        one.generator.manual_seed(number)
        running.append((one, run, torch.cuda.Stream()))
    torch.cuda.synchronize()
    steps = len(data.train_labels) // recipe.batch_size
    total = steps * recipe.epochs
    for number in range(total):
        for one, run, stream in running:
            with torch.cuda.stream(stream):
                if number % one.ahead == 0:
                    some = range(number, min(number + one.ahead, total))
                    indices = torch.randint(
                        len(data.train_labels),
                        (len(some), one.batch_size),
                        generator=one.generator,
                        device=device,
                    )
                    one.load(indices, [learning_rate(n, total, recipe) for n in some])
                run(1)
    torch.cuda.synchronize()
    spent = time.perf_counter() - started
    free, memory = torch.cuda.mem_get_info()
    return {
        "epochs_per_s": at_once * recipe.epochs * options.images / EPOCH / spent,
        "gpu_mib": (memory - free) / 2**20,
        "resident_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }


def _shown(told: dict[str, float]) -> str:
    return " ".join(f"{told[part]:.3f}" if part in told else "-" for part in _PARTS)


def main() -> None:
    """Measure, print the table, write the csv file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--nets", default="s0", help="references, by name or file")
    parser.add_argument("--batch-size", type=int, default=RECIPE.batch_size)
    parser.add_argument("--at-once", type=numbers, default=[1, 2, 4, 8, 16])
    parser.add_argument("--ways", default="processes,streams")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument(
        "--ahead",
        type=int,
        default=AHEAD_ON_GPU,
        help="batches prepared at once, on a GPU",
    )
    parser.add_argument("--images", type=int, default=EPOCH)
    parser.add_argument("--csv", type=Path, default=Path("together.csv"))
    options = parser.parse_args()
    print(f"{conditions(options.device)}; n = 1")
    print(
        "way        at once  epochs/s  GPU MiB  resident MiB  prepare  load steps  network"
    )
    ways = {"processes": processes, "streams": streams}
    if options.device != "cuda":
        del ways["streams"]
    rows = []
    for way, measure in ways.items():
        if way not in options.ways.split(","):
            continue
        for at_once in options.at_once:
            for net, told in measure(options, at_once).items():
                rows.append(
                    dict.fromkeys(_COLUMNS, "")
                    | {"way": way, "net": net, "at_once": at_once}
                    | told
                )
                print(
                    f"{way:10}{at_once:8}{told['epochs_per_s']:10.2f}"
                    f"{told['gpu_mib']:9.0f}{told['resident_mib']:14.0f}  "
                    f"{_shown(told)}  {net}",
                    flush=True,
                )
    write(options.csv, rows)


if __name__ == "__main__":
    main()
