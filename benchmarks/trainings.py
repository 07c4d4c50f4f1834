"""Trains nets drawn from the default space, each for 1, 3 and 15 epochs, and keeps all.

    python benchmarks/trainings.py [--nets 0-299] [--device cuda|cpu] [--jobs 8] [--csv FILE]
        [--epochs 1,3,15] [--images 60000]

On the table, ``benchmarks/trainings.csv``, rules that prune, promote or rank can be
replayed without training anything. Each row is one training with a learning rate
schedule of its own length, of MNIST's training set: 10,000 images validate, 10,000 are
held out, the others are trained on; the test set is never read. Net number n is the same
on every machine: its size comes from a sequence that covers the logarithm of the
parameters evenly, all else is drawn at random. Stopped, it goes on with the rows that are not there.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing as mp
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
import torch
from harness import append, conditions, numbers, read, seeds

from nas.architecture import Architecture
from nas.architecture.cost import cost
from nas.architecture.notation import describe
from nas.data import load_dataset
from nas.space import find_space, sample
from nas.space.completion import Caps
from nas.space.drawing import RandomDraws
from nas.space.reading import read_space
from nas.training.loop import measure, train
from nas.training.model import build
from nas.training.recipe import search_recipe
from nas.training.step import TrainingData

RESULTS = Path(__file__).with_name("trainings.csv")
CAP, SHAPE, NUM_CLASSES = 10_000, (1, 28, 28), 10
MOST_HELD_OUT = 10_000
_GOLDEN = (math.sqrt(5) - 1) / 2


class _EvenSizes(RandomDraws):
    """Random draws, but for the size: the one at this place (0 to 1) of log(parameters)."""

    def __init__(self, seed: int, place: float, towards_cap: float) -> None:
        super().__init__(seed)
        self._size = place**towards_cap

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """Return the size, or draw."""
        return self._size if name == "size" else super().suggest_float(name, low, high)


def net(number: int) -> Architecture:
    """Return the net of that number."""
    found = find_space("mixed")
    space = read_space(found.text, found.name)
    place = (0.5 + number * _GOLDEN) % 1
    seed = random.Random(number).getrandbits(31)
    draws = _EvenSizes(seed, place, space.towards_cap)
    return sample(
        space, draws, input_shape=SHAPE, num_classes=NUM_CLASSES, caps=Caps(CAP)
    )


class Data:
    """MNIST's training set on a device, in three parts that stay the same."""

    def __init__(self, device: torch.device, images: int) -> None:
        full = load_dataset("mnist")
        order = torch.randperm(
            len(full.labels), generator=torch.Generator().manual_seed(0)
        )[:images]
        size = min(MOST_HELD_OUT, images // 6)
        held_out, val_on, train_on = order.split([size, size, images - 2 * size])
        pixels, labels = full.images.to(device), full.labels.to(device)
        self.held_out = pixels[held_out], labels[held_out]
        self.training = TrainingData(
            train_images=pixels[train_on],
            train_labels=labels[train_on],
            val_images=pixels[val_on],
            val_labels=labels[val_on],
            mean=full.mean,
            std=full.std,
        )
        self.recipe = search_recipe(len(train_on))


_data: Data | None = None


def _begin(device: str, images: int) -> None:
    global _data  # noqa: PLW0603 - what a process of the pool has for all of its jobs
    torch.set_num_threads(1)
    _data = Data(torch.device(device), images)


def _row(job: tuple[int, int]) -> dict[str, Any]:
    """Train one net for so many epochs and return the row."""
    number, epochs = job
    assert _data is not None
    architecture = net(number)
    seed = random.Random(f"{number} {epochs}").getrandbits(31)
    data = _data.training
    began = time.monotonic()
    model = build(architecture, seed=seed).to(data.train_images.device)
    recipe = replace(_data.recipe, epochs=epochs)
    *_, report = train(model, data, recipe, seed=seed, rungs=[float(epochs)])
    held_out = measure(model, *_data.held_out, data.mean, data.std)
    costs = cost(architecture)
    return {
        "net": number,
        "epochs": epochs,
        "seed": seed,
        "num_params": costs.num_params,
        "macs": costs.macs,
        "val_accuracy": f"{report.val_accuracy:.4f}",
        "val_loss": f"{report.val_loss:.5f}",
        "train_loss": f"{report.train_loss:.5f}",
        "held_out_accuracy": f"{held_out.accuracy:.4f}",
        "held_out_loss": f"{held_out.loss:.5f}",
        "seconds": f"{time.monotonic() - began:.2f}",
        "key": architecture.key,
        "structure": describe(architecture),
    }


def main() -> None:
    """Train what is not in the file yet, net by net."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", type=seeds, default=range(300))
    parser.add_argument("--epochs", type=numbers, default=[1, 3, 15])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=RESULTS)
    options = parser.parse_args()
    known = {(int(row["net"]), int(row["epochs"])) for row in read(options.csv)}
    jobs = [
        (number, epochs)
        for number in options.nets
        for epochs in options.epochs
        if (number, epochs) not in known
    ]
    print(conditions(options.device))
    print(f"{len(jobs)} trainings to come, {len(known)} in {options.csv}")
    began = time.monotonic()
    with mp.get_context("spawn").Pool(
        options.jobs, _begin, (options.device, options.images)
    ) as pool:
        for count, row in enumerate(pool.imap_unordered(_row, jobs), start=1):
            append(options.csv, row)
            if count % 30 == 0 or count == len(jobs):
                print(f"{time.monotonic() - began:7.1f} s  {count} of {len(jobs)}")


if __name__ == "__main__":
    main()
