"""Compares search spaces by whole searches, paired by study seed.

    python benchmarks/spaces.py run mixed mobile residual [--seeds 0-2] [--budget 10000]
        [--trials 200] [--dataset mnist] [--data-dir FOLDER] [--device auto]
    python benchmarks/spaces.py table

Each row of spaces.csv is one `nas search` with defaults. Its hypervolume is that of the fully
trained networks: -log10 of the validation error over the natural logarithm of the parameters. Beside it
stands the best of them under the cap, a half, a quarter and a tenth of it. The test set is
never read. Searches that have a row are not made again; the table compares every space with the
first that was given for the same task.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import Paired, append, conditions, read, seeds, spread, table

import nas
from nas.candidates.pareto import hypervolume

RESULTS = Path(__file__).with_suffix(".csv")
PARTS = (1, 2, 4, 10)
TASK = ("dataset", "budget", "trials", "epochs")


def row(options: argparse.Namespace, space: str, seed: int) -> dict[str, Any]:
    """Search once and return what the fully trained networks are worth."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as studies:
        study = nas.search(
            options.dataset,
            data_dir=options.data_dir,
            budget=options.budget,
            trials=options.trials,
            epochs=options.epochs or None,
            space=space,
            seed=seed,
            device=options.device,
            workers=options.workers,
            studies=studies,
            progress=False,
        )
        trials = study.trials()
        full_epochs = study.settings.full_epochs
        half_an_error = 0.5 / study.settings.val_size
    full = trials[(trials["state"] == "complete") & (trials["epochs"] == full_epochs)]
    points = [
        (float(size), -math.log10(max(1 - accuracy, half_an_error)))
        for size, accuracy in zip(full["num_params"], full["val_accuracy"], strict=True)
    ]
    best = {
        f"val_accuracy_1_{part}": full.loc[
            full["num_params"] <= options.budget // part, "val_accuracy"
        ].max()
        for part in PARTS
    }
    return {
        **{name: getattr(options, name) for name in TASK},
        "space": space,
        "seed": seed,
        "hypervolume": round(hypervolume(points, (options.budget + 1, 0.0)), 4),
        **{name: "" if math.isnan(value) else value for name, value in best.items()},
        "fully_trained": len(full),
        "seconds": round(time.monotonic() - began, 1),
    }


def print_table(path: Path) -> None:
    """Print a table for each task: spaces side by side, paired by seed with the first."""
    tasks: defaultdict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for one in read(path):
        tasks[tuple(one[name] for name in TASK)].append(one)
    for (dataset, budget, trials, epochs), rows in tasks.items():
        full = f", full trainings of {epochs} epochs" if epochs else ""
        print(f"{dataset}, at most {budget} parameters, {trials} trials{full}\n")
        by_space: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for one in rows:
            by_space[one["space"]][int(one["seed"])] = float(one["hypervolume"])
        first = next(iter(by_space.values()))
        lines = []
        for space, volumes in by_space.items():
            own = [one for one in rows if one["space"] == space]
            cells = []
            for part in PARTS:
                name = f"val_accuracy_1_{part}"
                known = [100 * float(one[name]) for one in own if one[name]]
                cells.append(f"{spread(known)} %" if known else "-")
            compared = Paired.of(volumes, first).cells() if volumes is not first else []
            volume = spread([*volumes.values()], 3)
            lines.append([space, len(own), volume, *(compared or ["", "", ""]), *cells])
        headings = ["space", "searches", "hypervolume", "difference", "better", "p"]
        caps = [f"best under {int(budget) // part:,}" for part in PARTS]
        print(table([*headings, *caps], lines), "\n")


def main() -> None:
    """Search what has no row yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("table").add_argument("--csv", type=Path, default=RESULTS)
    run = actions.add_parser("run")
    run.add_argument("spaces", nargs="+")
    run.add_argument("--seeds", type=seeds, default=range(3))
    run.add_argument("--budget", type=int, default=10_000)
    run.add_argument("--trials", type=int, default=200)
    run.add_argument("--epochs", type=int, default="", help="of a full training")
    run.add_argument("--dataset", default="mnist")
    run.add_argument("--data-dir")
    run.add_argument("--device", default="auto")
    run.add_argument("--workers", type=int)
    run.add_argument("--csv", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.action == "run":
        print(conditions("cpu" if options.device == "auto" else options.device))
        known = {
            tuple(one[name] for name in (*TASK, "space", "seed"))
            for one in read(options.csv)
        }
        for seed in options.seeds:
            for space in options.spaces:
                task = [getattr(options, name) for name in TASK]
                if tuple(map(str, [*task, space, seed])) not in known:
                    append(options.csv, found := row(options, space, seed))
                    print(found, flush=True)
    print_table(options.csv)


if __name__ == "__main__":
    main()
