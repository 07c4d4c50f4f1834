"""Which of Optuna's samplers finds the better fronts, by real searches on real data.

    python benchmarks/samplers.py --seeds 4 --trials 100 --out benchmarks/samplers.csv

Every sampler searches the same space on scikit-learn's digits with the same seeds
(split, trainings); one process, one thread. Written as it goes, one row a search:
the hypervolume of the fully trained nets after each quarter of the trials (bounded by
the cap and an accuracy of 0.5), the epochs trained and the seconds spent drawing.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from nas.candidates.candidate import Candidate, front
from nas.candidates.pareto import hypervolume
from nas.data import load_dataset, split_indices
from nas.engines import Event, Failed, Finished, Job, Reported
from nas.errors import TrainingError
from nas.search.loop import search
from nas.search.start import Request, launch
from nas.training.loop import train
from nas.training.model import build
from nas.training.step import TrainingData

SAMPLERS = ("random", "tpe", "tpe-multivariate", "nsga2")
FLOOR = 0.5


class InlineEngine:
    """One worker, in this process: what is measured is the search alone."""

    def __init__(self, dataset_name: str, seed: int, val_size: int) -> None:
        """Load the data and split it as the study does."""
        dataset = load_dataset(dataset_name)
        some, others = split_indices(dataset.labels, seed=seed, val_size=val_size)
        self.data = TrainingData(
            train_images=dataset.images[some],
            train_labels=dataset.labels[some],
            val_images=dataset.images[others],
            val_labels=dataset.labels[others],
            mean=dataset.mean,
            std=dataset.std,
        )
        self.job: Job | None = None
        self.epochs = 0.0

    @property
    def idle(self) -> int:
        """One while nothing is in training."""
        return int(self.job is None)

    def start(self, job: Job) -> None:
        """Begin a training; it goes on when its next report is waited for."""
        self.job, self.last = job, 0.0
        self.reports = train(
            build(job.architecture, seed=job.seed),
            self.data,
            job.recipe,
            seed=job.seed,
            rungs=job.rungs,
        )

    def wait(self, timeout: float) -> Sequence[Event]:
        """Train up to the next rung."""
        del timeout
        if self.job is None:
            return []
        job = self.job
        try:
            report = next(self.reports, None)
        except TrainingError as error:
            self.job = None
            return [Failed(job.number, str(error))]
        if report is None:
            self.job = None
            return [Finished(job.number)]
        self.epochs += report.epochs - self.last
        self.last = report.epochs
        return [Reported(job.number, report)]

    def answer(self, job: int, *, go_on: bool) -> None:
        """Drop the training or go on with it."""
        del job
        if not go_on:
            self.job = None

    def abandon(self, job: int) -> None:
        """Have no worker that could hang."""

    def close(self) -> None:
        """Have nothing to stop."""


def volume(candidates: Sequence[Candidate], cap: int) -> float:
    """Return the hypervolume of the fully trained candidates."""
    points = [(c.num_params, c.val_accuracy or 0.0) for c in front(candidates)]
    return hypervolume(points, (cap, FLOOR))


def run(
    sampler: str, seed: int, arguments: argparse.Namespace, folder: Path
) -> dict[str, object]:
    """Search once and return the row."""
    study, dataset = launch(
        Request(
            studies=folder,
            study=f"{sampler}-{seed}",
            dataset=arguments.dataset,
            param_budget=arguments.budget,
            space=arguments.space,
            epochs=arguments.epochs,
            sampler=sampler,  # type: ignore[arg-type]
            seed=seed,
        )
    )
    with study:
        engine = InlineEngine(dataset.name, seed, study.settings.val_size)
        outcome = search(study, engine, trials=arguments.trials)
        candidates = study.candidates()
    quarters = {
        f"hypervolume_{share}": round(
            volume(candidates[: arguments.trials * share // 100], arguments.budget), 4
        )
        for share in (25, 50, 75, 100)
    }
    return {
        "sampler": sampler,
        "seed": seed,
        "trials": arguments.trials,
        "complete": sum(c.state == "complete" for c in candidates),
        **quarters,
        "epochs": round(engine.epochs, 1),
        "sampling_seconds": round(outcome.timing.sampling, 2),
        "total_seconds": round(outcome.timing.total, 1),
    }


def main() -> None:
    """Run all searches, seed by seed, so that the samplers alternate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--budget", type=int, default=3000)
    parser.add_argument("--space", default="mixed")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/samplers.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for seed in range(arguments.seeds):
        for sampler in SAMPLERS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(run(sampler, seed, arguments, Path(folder)))
            with arguments.out.open("w", newline="", encoding="utf-8") as out:
                writer = csv.DictWriter(out, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
