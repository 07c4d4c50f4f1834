"""Which recipe trains tiny networks best: one change at a time, several seeds each.

Trains networks from scratch on 50,000 of the official training images and measures on
the 10,000 others; the test set is not read. Writes a row a training to recipe.csv as it
goes; rows that are there are not made again. Networks are named as for `nas train`. ::

    python benchmarks/recipe.py mnist-10000:191 mnist-10000:192 --seeds 3 --studies studies/first
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import append, read, spread
from harness import table as markdown

HERE = Path(__file__).parent
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "rate 0.25": {"max_lr": 0.25},
    "rate 1": {"max_lr": 1.0},
    "augment none": {"augment": 0.0},
    "augment all": {"augment": 1.0},
    "label smoothing 0.05": {"label_smoothing": 0.05},
    "weight decay 5e-4": {"weight_decay": 5e-4},
    "batch 32, rate 0.25": {"batch_size": 32, "max_lr": 0.25},
    "adamw 0.02": {"optimizer": "adamw", "max_lr": 0.02, "weight_decay": 0.01},
    "averaged": {"average": 0.1},
    "averaged longer": {"average": 0.3},
    "augment all, averaged": {"augment": 1.0, "average": 0.1},
    "augment none, averaged": {"augment": 0.0, "average": 0.1},
}


def main() -> None:
    """Train what recipe.csv lacks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="+")
    parser.add_argument("--studies", type=Path, default=HERE.parent / "studies")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=HERE / "recipe.csv")
    arguments = parser.parse_args()
    known = read(arguments.output)
    done = {(r["variant"], r["net"], int(r["seed"]), int(r["epochs"])) for r in known}
    jobs = [
        (variant, net, seed, arguments.epochs, arguments.studies)
        for variant in arguments.variants
        for seed in range(arguments.seeds)
        for net in arguments.nets
        if (variant, Path(net).stem, seed, arguments.epochs) not in done
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes) as pool:
        for row in pool.imap_unordered(run, jobs):
            append(arguments.output, row)
            print(*row.values(), flush=True)
    table(read(arguments.output))


def run(job: tuple[str, str, int, int, Path]) -> dict[str, Any]:
    """Train one network by one variant of the recipe."""
    import torch
    from torch.nn import functional

    from nas.architecture.cost import count_params
    from nas.data import load_dataset, split_indices
    from nas.search.resolve import resolve
    from nas.training.loop import measure, train
    from nas.training.model import build
    from nas.training.recipe import Recipe
    from nas.training.step import TrainingData

    torch.set_num_threads(1)
    variant, net, seed, epochs, studies = job
    architecture = resolve(net, studies).reference.architecture
    dataset = load_dataset("mnist")
    images, labels = dataset.images, dataset.labels
    kept, held_out = split_indices(labels, seed=0, val_size=10_000)
    data = TrainingData(
        train_images=images[kept],
        train_labels=labels[kept],
        val_images=images[:0],
        val_labels=labels[:0],
        mean=dataset.mean,
        std=dataset.std,
    )
    recipe = replace(Recipe(epochs=epochs), **VARIANTS[variant])
    model = build(architecture, seed=seed)
    *_, last = train(model, data, recipe, seed=seed, rungs=[float(epochs)])
    accuracy = measure(
        model, images[held_out], labels[held_out], dataset.mean, dataset.std
    ).accuracy
    model.eval()
    scale, shift = (
        torch.tensor(numbers).view(1, -1, 1, 1)
        for numbers in (dataset.std, dataset.mean)
    )
    with torch.inference_mode():
        losses = [
            functional.cross_entropy(
                model((images[some] / 255 - shift) / scale),
                labels[some],
                reduction="sum",
            ).item()
            for some in held_out.split(500)
        ]
    return {
        "variant": variant,
        "net": Path(net).stem,
        "num_params": count_params(architecture),
        "seed": seed,
        "epochs": epochs,
        "accuracy": f"{accuracy:.4f}",
        "loss": f"{sum(losses) / len(held_out):.5f}",
        "train_loss": f"{last.train_loss:.5f}",
        "seconds": f"{last.seconds:.0f}",
    }


def table(rows: list[dict[str, str]]) -> None:
    """Print mean and spread of accuracy and loss for each variant and size."""
    groups: dict[tuple[int, str, int, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        key = (int(row["num_params"]), row["net"], int(row["epochs"]), row["variant"])
        groups[key].append(row)
    order = list(VARIANTS)
    lines = []
    for (size, net, epochs, variant), some in sorted(
        groups.items(), key=lambda item: (*item[0][:3], order.index(item[0][3]))
    ):
        accuracies = [100 * float(row["accuracy"]) for row in some]
        loss = sum(float(row["loss"]) for row in some) / len(some)
        lines.append(
            (
                variant,
                f"{size:,}",
                net,
                epochs,
                spread(accuracies),
                f"{loss:.4f}",
                len(some),
            )
        )
    headings = [
        "recipe",
        "parameters",
        "net",
        "epochs",
        "held-out accuracy %",
        "loss",
        "n",
    ]
    print(markdown(headings, lines))


if __name__ == "__main__":
    main()
