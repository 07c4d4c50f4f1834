"""How good the fronts are that a search finds, against other ways to spend the epochs.

    python benchmarks/search_quality.py run [--tasks mnist14,fashion14] [--seeds 0-19]
        [--jobs 2] [--data-dir FOLDER]
    python benchmarks/search_quality.py table

``run`` writes one row for each point of a curve into benchmarks/search_quality.csv:
task, method, seed, epochs, hypervolume. Stopped at any moment, it goes on with the runs
that are not in the file. ``table`` compares the methods, paired by seed. Fashion-MNIST's files
are taken from ``--data-dir`` where they lie there (Debian's package has them in
/usr/share/datasets/fashion-mnist).

A task is small enough to train hundreds of nets: images of 14x14, 8,000 to train on,
2,000 to validate, 30,000 held out, all from the official training set, at most 5,000
parameters. A full training has 15 epochs. For each seed the search as shipped runs first
(method ``nas``, and with half as many trials ``nas-half``); every other method then
spends as many epochs:

- ``random``: random draws, each trained fully.
- ``top-k``: random draws, two epochs each, for half of the epochs; then the best of each
  range of sizes fully.
- ``moasha``: random draws; the better third, by non-dominated sorting of error and size,
  goes on from 2 to 5 and from 5 to 15 epochs (Schmucker et al. 2021).
- ``tpe``, ``nsga2``: Optuna's samplers with two objectives over the same decisions, five
  epochs a trial for 60 % of the epochs; then the best of each range of sizes fully.

The hypervolume is that of the fully trained nets which are on the front by what the
method has seen, their errors measured on the held-out images: the area between the front
and an error of 20 %, over the logarithm of the parameters from 100 to the cap.
Trainings are kept in a cache, so methods that train the same net share its training.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing as mp
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import torch
from harness import Paired, append, read, seeds
from harness import table as markdown

from nas.architecture import Architecture
from nas.architecture.cost import count_params
from nas.candidates.pruning import PruningRule
from nas.candidates.ranking import badness
from nas.data import Dataset, load_dataset, split_indices
from nas.data.dataset import make_dataset
from nas.data.download import cache_dir
from nas.engines import Event, Finished, Job, Reported
from nas.search.loop import search
from nas.space import find_space, sample
from nas.space.completion import Caps
from nas.space.definition import SearchSpace
from nas.space.drawing import RandomDraws
from nas.space.reading import read_space
from nas.study.folders import create
from nas.study.settings import Settings, default_rungs
from nas.training.loop import measure, train
from nas.training.model import build
from nas.training.recipe import search_recipe
from nas.training.report import RungReport
from nas.training.step import TrainingData

HERE = Path(__file__).parent
RESULTS = HERE / "search_quality.csv"
FIDELITIES = (2, 5, 15)
CAP, LEAST_PARAMS, WORST_ERROR = 5000, 100, 0.2
TRIALS = 100
IMAGES, HELD_OUT, VAL_SIZE = 10_000, 30_000, 2_000
_GOLDEN = (math.sqrt(5) - 1) / 2
SOURCES = {"mnist14": "mnist", "fashion14": "fashion-mnist"}


# -- tasks ---------------------------------------------------------------------------------


def small_task(name: str, data_dir: Path | None = None) -> Dataset:
    """Return the task; its ``test_images`` are held-out images of the training set."""
    source = SOURCES[name]
    full = load_dataset(source, data_dir if source != "mnist" else None)
    images = full.images[: IMAGES + HELD_OUT].float()
    halved = torch.nn.functional.avg_pool2d(images, 2).round().to(torch.uint8).numpy()
    labels = full.labels[: IMAGES + HELD_OUT].numpy()
    return make_dataset(
        name,
        halved[:IMAGES],
        labels[:IMAGES],
        halved[IMAGES:],
        labels[IMAGES:],
        full.class_names,
    )


# -- trainings, each done once -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trained:
    """One training: what was measured at its rungs, and the held-out error at its end."""

    curve: tuple[RungReport, ...]
    held_out_error: float


class Trainer:
    """Trains nets on a task, each only once: what was trained before is read."""

    def __init__(self, task: str, data_dir: Path | None = None) -> None:
        torch.set_num_threads(1)
        self.dataset = small_task(task, data_dir)
        recipe = search_recipe(IMAGES - VAL_SIZE)
        self.recipe = recipe
        self.steps = (IMAGES - VAL_SIZE) // recipe.batch_size
        train_on, val_on = split_indices(self.dataset.labels, seed=0, val_size=VAL_SIZE)
        data = self.dataset
        self.data = TrainingData(
            train_images=data.images[train_on],
            train_labels=data.labels[train_on],
            val_images=data.images[val_on],
            val_labels=data.labels[val_on],
            mean=data.mean,
            std=data.std,
        )
        # What was trained by another recipe is another training.
        self.prefix = f"{task}|{data.fingerprint}|{recipe!r}"
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        self.cache = sqlite3.connect(
            folder / "search_quality.sqlite", timeout=600, isolation_level=None
        )
        self.cache.execute("PRAGMA journal_mode=WAL")
        self.cache.execute(
            "CREATE TABLE IF NOT EXISTS trained (key PRIMARY KEY, value)"
        )

    def __call__(
        self, architecture: Architecture, epochs: int, nth: int = 0
    ) -> Trained:
        """Return the ``nth`` training of that many epochs."""
        key = f"{self.prefix}|{architecture.key}|{epochs}|{nth}"
        found = self.cache.execute("SELECT value FROM trained WHERE key=?", (key,))
        for (value,) in found:
            kept = json.loads(value)
            curve = tuple(RungReport(**report) for report in kept["curve"])
            return Trained(curve, kept["held_out_error"])
        seed = random.Random(key).getrandbits(31)
        model = build(architecture, seed=seed)
        rungs = default_rungs(epochs, self.steps)
        recipe = replace(self.recipe, epochs=epochs)
        curve = tuple(train(model, self.data, recipe, seed=seed, rungs=rungs))
        error = 0.0
        if epochs == FIDELITIES[-1]:
            data = self.dataset
            error = (
                1
                - measure(
                    model, data.test_images, data.test_labels, data.mean, data.std
                ).accuracy
            )
        value = json.dumps(
            {
                "curve": [
                    {name: getattr(report, name) for name in report.__slots__}
                    for report in curve
                ],
                "held_out_error": error,
            }
        )
        self.cache.execute("INSERT OR IGNORE INTO trained VALUES (?, ?)", (key, value))
        return Trained(curve, error)


# -- what a method has found by when -------------------------------------------------------


@dataclass
class Log:
    """The fully trained nets of one run in the order of their trainings."""

    epochs: float = 0.0
    full: list[tuple[float, int, float, float]] = field(default_factory=list)
    """(epochs spent so far, parameters, badness on validation, held-out error)."""

    def add(self, architecture: Architecture, trained: Trained) -> None:
        """Note a full training that has ended."""
        end = trained.curve[-1]
        bad = badness(end.val_loss, end.val_accuracy, VAL_SIZE)
        size = count_params(architecture)
        self.full.append((self.epochs, size, bad, trained.held_out_error))

    def curve(self) -> Iterator[tuple[float, float]]:
        """Yield (epochs, hypervolume) after each full training."""
        for number, (epochs, *_) in enumerate(self.full, start=1):
            yield epochs, hypervolume([row[1:] for row in self.full[:number]])


def hypervolume(nets: Sequence[tuple[int, float, float]]) -> float:
    """Return the area under the worst error of those on the front by validation.

    ``nets`` are (parameters, badness on validation, held-out error). Members whose
    held-out error is no better than that of a smaller one add nothing.
    """
    front: list[tuple[int, float]] = []
    best = math.inf
    for size, bad, error in sorted(nets):
        if bad < best:
            best = bad
            front.append((size, error))
    area = 0.0
    lowest = WORST_ERROR
    for place, (size, error) in enumerate(front):
        lowest = min(lowest, error)
        following = front[place + 1][0] if place + 1 < len(front) else CAP
        width = math.log(following) - math.log(max(size, LEAST_PARAMS))
        area += max(0.0, width) * math.log(WORST_ERROR / max(lowest, 1e-4))
    return area


# -- methods -------------------------------------------------------------------------------


class Replay:
    """An engine of one worker that trains at once, or reads what was trained before."""

    def __init__(self, trainer: Trainer, log: Log) -> None:
        self.trainer, self.log = trainer, log
        self.job: Job | None = None
        self.reports: deque[RungReport] = deque()
        self.reached = 0.0
        self.events: deque[Event] = deque()
        self.times: dict[tuple[str, int], int] = {}

    @property
    def idle(self) -> int:
        """Return 1 while there is nothing to do."""
        return int(self.job is None)

    def start(self, job: Job) -> None:
        """Train."""
        epochs = job.recipe.epochs
        name = (job.architecture.key, epochs)
        nth = self.times[name] = self.times.get(name, -1) + 1
        self.job, self.reached = job, 0.0
        self.trained = self.trainer(job.architecture, epochs, nth)
        self.reports = deque(self.trained.curve)
        self.step()

    def step(self) -> None:
        """Go on to the next rung, or to the end."""
        assert self.job is not None
        if self.reports:
            report = self.reports.popleft()
            self.log.epochs += report.epochs - self.reached
            self.reached = report.epochs
            self.events.append(Reported(self.job.number, report))
            return
        if self.job.recipe.epochs == FIDELITIES[-1]:
            self.log.add(self.job.architecture, self.trained)
        self.events.append(Finished(self.job.number))
        self.job = None

    def decide(self, job: int, *, proceed: bool) -> None:
        """Go on, or not."""
        del job
        if proceed:
            self.step()
        else:
            self.job = None

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return what has happened."""
        del timeout
        events, self.events = list(self.events), deque()
        return events

    def abandon(self, job: int) -> None:
        """Never needed: every training ends."""
        raise AssertionError(job)

    def close(self) -> None:
        """Nothing is running."""


def settings(trainer: Trainer, seed: int) -> Settings:
    """Return those of a search as shipped, but for its data and its fidelities."""
    space = find_space("mixed")
    dataset = trainer.dataset
    return Settings(
        name="quality",
        dataset=dataset.name,
        data_fingerprint=dataset.fingerprint,
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        val_size=VAL_SIZE,
        param_budget=CAP,
        space=space.name,
        space_toml=space.text,
        recipe=replace(trainer.recipe, epochs=FIDELITIES[0]),
        rungs=default_rungs(FIDELITIES[0], trainer.steps),
        fidelities=FIDELITIES,
        seed=seed,
        pruning=PruningRule(),
    )


def run_nas(trainer: Trainer, seed: int, epochs: float, trials: int = TRIALS) -> Log:
    """Search as `nas search` does; ``epochs`` is what it spends by itself."""
    del epochs
    log = Log()
    with (
        tempfile.TemporaryDirectory() as folder,
        create(Path(folder) / "quality", settings(trainer, seed)) as study,
    ):
        search(study, Replay(trainer, log), trials=trials)
    return log


def run_nas_half(trainer: Trainer, seed: int, epochs: float) -> Log:
    """Search with half as many trials."""
    return run_nas(trainer, seed, epochs, TRIALS // 2)


class Baseline:
    """What the other methods share: random draws, trainings and their evidence."""

    def __init__(self, trainer: Trainer, seed: int, epochs: float) -> None:
        self.trainer, self.seed, self.budget = trainer, seed, epochs
        self.log = Log()
        space = find_space("mixed")
        self.space: SearchSpace = read_space(space.text, space.name)

    def draw(self, draws: Any) -> Architecture:
        """Return the architecture of these draws."""
        return sample(
            self.space,
            draws,
            input_shape=self.trainer.dataset.input_shape,
            num_classes=self.trainer.dataset.num_classes,
            caps=Caps(CAP),
        )

    def random(self, number: int) -> Architecture:
        """Return the random draw of that number; its size is of an even sequence."""
        rng = random.Random(f"{self.seed} {number}")
        start = random.Random(f"{self.seed}").random()

        class Sized(RandomDraws):
            def suggest_float(self, name: str, low: float, high: float) -> float:
                if name == "size":
                    return (start + number * _GOLDEN) % 1
                return super().suggest_float(name, low, high)

        return self.draw(Sized(rng.getrandbits(31)))

    def left(self) -> float:
        """Return how many epochs are left."""
        return self.budget - self.log.epochs

    def train(self, architecture: Architecture, epochs: int) -> float:
        """Train, and return the badness on the validation images."""
        trained = self.trainer(architecture, epochs)
        self.log.epochs += epochs
        if epochs == FIDELITIES[-1]:
            self.log.add(architecture, trained)
        end = trained.curve[-1]
        return badness(end.val_loss, end.val_accuracy, VAL_SIZE)

    def train_best_of_each_range(
        self, found: Sequence[tuple[float, Architecture]]
    ) -> None:
        """Spend what is left on full trainings of the best, range of sizes by range."""
        ranges: dict[int, deque[Architecture]] = {}
        for _, architecture in sorted(found, key=lambda one: one[0]):
            size = count_params(architecture)
            place = min(4, int(math.log2(CAP / size)))
            ranges.setdefault(place, deque()).append(architecture)
        while any(ranges.values()):
            for place in sorted(ranges):
                if ranges[place]:
                    if self.left() < FIDELITIES[-1]:
                        return
                    self.train(ranges[place].popleft(), FIDELITIES[-1])


def run_random(trainer: Trainer, seed: int, epochs: float) -> Log:
    """Train random draws fully."""
    run = Baseline(trainer, seed, epochs)
    number = 0
    while run.left() >= FIDELITIES[-1]:
        run.train(run.random(number), FIDELITIES[-1])
        number += 1
    return run.log


def run_top_k(trainer: Trainer, seed: int, epochs: float) -> Log:
    """Screen random draws with half of the epochs, then train the best fully."""
    run = Baseline(trainer, seed, epochs)
    found = []
    while run.left() > epochs / 2:
        architecture = run.random(len(found))
        found.append((run.train(architecture, FIDELITIES[0]), architecture))
    run.train_best_of_each_range(found)
    return run.log


def run_moasha(trainer: Trainer, seed: int, epochs: float) -> Log:
    """Promote the better third of random draws, by non-dominated sorting."""
    run = Baseline(trainer, seed, epochs)
    rungs: list[list[tuple[float, float, Architecture]]] = [[] for _ in FIDELITIES]
    promoted: list[set[str]] = [set() for _ in FIDELITIES]
    drawn = 0
    while run.left() >= FIDELITIES[-1]:
        for level in range(len(FIDELITIES) - 1, 0, -1):
            below = rungs[level - 1]
            order = _non_dominated_order([(bad, size) for bad, size, _ in below])
            candidates = [
                below[place][2]
                for place in order[: len(below) // 3]
                if below[place][2].key not in promoted[level]
            ]
            if candidates:
                architecture = candidates[0]
                promoted[level].add(architecture.key)
                break
        else:
            level, architecture = 0, run.random(drawn)
            drawn += 1
        bad = run.train(architecture, FIDELITIES[level])
        rungs[level].append((bad, math.log(count_params(architecture)), architecture))
    return run.log


def _non_dominated_order(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places from the first front to the last, spread out within each."""
    left = set(range(len(points)))
    order: list[int] = []
    while left:
        front = [
            a
            for a in left
            if not any(
                points[b][0] <= points[a][0]
                and points[b][1] <= points[a][1]
                and points[b] != points[a]
                for b in left
            )
        ]
        left -= set(front)
        # Within a front: the one farthest from those chosen (epsilon-net).
        chosen: list[int] = []
        rest = sorted(front, key=lambda p: points[p])
        while rest:
            following = max(
                rest,
                key=lambda p: min(
                    (math.dist(points[p], points[c]) for c in chosen), default=0.0
                ),
            )
            rest.remove(following)
            chosen.append(following)
        order += chosen
    return order


def run_optuna(trainer: Trainer, seed: int, epochs: float, kind: str) -> Log:
    """Let a sampler of Optuna's look for small error and small size."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=seed)
        if kind == "tpe"
        else optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
    )
    run = Baseline(trainer, seed, epochs)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    found: dict[str, tuple[float, Architecture]] = {}
    while run.log.epochs < 0.6 * epochs:
        trial = study.ask()
        architecture = run.draw(trial)
        size = math.log(count_params(architecture))
        if architecture.key not in found:
            bad = run.train(architecture, FIDELITIES[1])
            found[architecture.key] = (bad, architecture)
        study.tell(trial, [found[architecture.key][0], size])
    run.train_best_of_each_range(list(found.values()))
    return run.log


def run_tpe(trainer: Trainer, seed: int, epochs: float) -> Log:
    """Let Optuna's TPE search."""
    return run_optuna(trainer, seed, epochs, "tpe")


def run_nsga2(trainer: Trainer, seed: int, epochs: float) -> Log:
    """Let Optuna's NSGA-II search."""
    return run_optuna(trainer, seed, epochs, "nsga2")


METHODS: dict[str, Callable[[Trainer, int, float], Log]] = {
    "nas": run_nas,
    "nas-half": run_nas_half,
    "random": run_random,
    "top-k": run_top_k,
    "moasha": run_moasha,
    "tpe": run_tpe,
    "nsga2": run_nsga2,
}


# -- running and comparing -----------------------------------------------------------------


def read_curves() -> dict[tuple[str, str, int], list[tuple[float, float]]]:
    """Return the curves of the file: by task, method and seed."""
    curves: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for row in read(RESULTS):
        name = (row["task"], row["method"], int(row["seed"]))
        point = (float(row["epochs"]), float(row["hypervolume"]))
        curves.setdefault(name, []).append(point)
    return curves


_trainers: dict[str, Trainer] = {}


def run_one(
    job: tuple[str, str, int, float], data_dir: Path | None
) -> tuple[tuple[str, str, int, float], Log]:
    """Run one method with one seed, in a process of its own."""
    task, method, seed, epochs = job
    if task not in _trainers:
        _trainers[task] = Trainer(task, data_dir)
    return job, METHODS[method](_trainers[task], seed, epochs)


def run(
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: range,
    jobs: int,
    data_dir: Path | None,
) -> None:
    """Run what is not in the file yet: ours first, as it says what the others get."""
    with mp.get_context("spawn").Pool(jobs) as pool:
        for ours in (True, False):
            known = read_curves()
            todo = [
                (
                    task,
                    method,
                    seed,
                    known.get((task, "nas", seed), [(0.0, 0.0)])[-1][0],
                )
                for seed in seeds
                for task in tasks
                for method in methods
                if (method.startswith("nas") == ours)
                and (task, method, seed) not in known
            ]
            todo = [job for job in todo if ours or job[3]]
            begun = time.monotonic()
            one = functools.partial(run_one, data_dir=data_dir)
            for (task, method, seed, _), log in pool.imap_unordered(one, todo):
                # The run's last row has all that it spent.
                last = hypervolume([row[1:] for row in log.full])
                for epochs, volume in (*log.curve(), (log.epochs, last)):
                    append(
                        RESULTS,
                        {
                            "task": task,
                            "method": method,
                            "seed": seed,
                            "epochs": f"{epochs:.1f}",
                            "hypervolume": f"{volume:.4f}",
                        },
                    )
                minutes = (time.monotonic() - begun) / 60
                print(f"{minutes:6.1f} min  {task} {method} {seed}: {last:.3f}")


def ends(
    curves: dict[tuple[str, str, int], list[tuple[float, float]]],
    task: str,
    method: str,
) -> dict[int, float]:
    """Return the hypervolume at the end of each seed."""
    return {
        seed: curve[-1][1]
        for (its_task, its_method, seed), curve in curves.items()
        if (its_task, its_method) == (task, method)
    }


def table() -> None:
    """Print medians with intervals, and the paired tests against ours."""
    curves = read_curves()
    for task in sorted({name[0] for name in curves}):
        ours = ends(curves, task, "nas")
        print(
            f"\n{task}: hypervolume at the end, median of n seeds (quartiles), the "
            "difference nas - method, paired, Wilcoxon's p (two-sided)\n"
        )
        headings = ["method", "n", "epochs", "hypervolume"]
        lines = []
        for method in METHODS:
            some = ends(curves, task, method)
            if not some:
                continue
            low, high = np.percentile(list(some.values()), [25, 75])
            spent = statistics.median(
                curve[-1][0]
                for (t, m, _), curve in curves.items()
                if (t, m) == (task, method)
            )
            paired = Paired.of(ours, some if method != "nas" else {})
            lines.append(
                [
                    method,
                    len(some),
                    f"{spent:.0f}",
                    f"{statistics.median(some.values()):.3f} ({low:.3f} to {high:.3f})",
                    *paired.cells(),
                ]
            )
        print(markdown([*headings, "nas - method", "nas better", "p"], lines))


def main() -> None:
    """Run or compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--tasks", default="mnist14")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=seeds, default=range(20))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    if options.action == "table":
        table()
        return
    run(
        options.tasks.split(","),
        options.methods.split(","),
        options.seeds,
        options.jobs,
        options.data_dir,
    )


if __name__ == "__main__":
    sys.exit(main())
