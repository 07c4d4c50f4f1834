"""Trains one architecture by a recipe, once for each seed: `nas train`.

The number that counts is honest: trained on the training and validation data, the test
set read once a seed, after the last epoch. ``like_published`` reads the test set after
each epoch, too, because the logs of hand-made nets tell the best epoch; that number
stands beside the honest one and says what it is.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.architecture.cost import cost
from nas.data.split import default_val_size
from nas.engines import Engine, Finished, Job, Reported, kernels_ran_in_all
from nas.environment import versions
from nas.errors import ArchitectureError
from nas.references.bundled import Published, Reference
from nas.search.balance import balance
from nas.search.kept_trainings import KeptTrainings
from nas.search.recipes import NO_CHANGE, RecipeChange, changed_recipe, default_recipe
from nas.search.train_all import train_all
from nas.study.settings import derived_seed
from nas.training.kinds import Pixels
from nas.training.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

# Nets without batch norm do not learn at the default rate, see docs/recipe.md.
_MAX_LR_WITHOUT_NORM = 0.1
_HONEST = "after the last epoch; trained on the training and validation data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to train the architecture; all seeds are derived from ``seed``."""

    dataset: str
    data_fingerprint: str
    recipe: Recipe
    seeds: int = 1
    seed: int = 0
    like_published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The weights of the first seed and the report, plain data for JSON."""

    weights: dict[str, np.ndarray]
    report: dict[str, Any]


Show = Callable[[Job, Reported | Finished], None]


def train_single(
    reference: Reference,
    engine: Engine,
    plan: Plan,
    *,
    hardware: dict[str, Any],
    show: Show = lambda _job, _event: None,
    kept: KeptTrainings | None = None,
) -> Trained:
    """Train the architecture to the end with each seed.

    What has been trained is put into ``kept``, and what is there not trained again.
    Raises StudyError when a training fails.
    """
    began = time.monotonic()
    seeds = [derived_seed(plan.seed, "final", number) for number in range(plan.seeds)]
    jobs = [
        Job(
            number=number,
            architecture=reference.architecture,
            recipe=plan.recipe,
            seed=seed,
            rungs=tuple(float(e) for e in range(1, plan.recipe.epochs + 1)),
            mode="published" if plan.like_published else "final",
        )
        for number, seed in enumerate(seeds)
    ]
    ended: dict[int, Finished] = {}
    curves: dict[int, dict[int, float]] = defaultdict(dict)
    names = [reference.name] * len(jobs)
    for job, event in train_all(engine, jobs, names, show, kept):
        if isinstance(event, Finished):
            ended[job.number] = event
        else:
            # After a worker died the training restarts: the later report of a rung counts.
            curves[job.number][event.report.rung] = event.report.val_accuracy
    costs = cost(reference.architecture)
    report: dict[str, Any] = {
        "architecture": reference.name,
        "source": reference.source,
        "dataset": plan.dataset,
        "data_fingerprint": plan.data_fingerprint,
        "key": reference.architecture.key,
        "num_params": costs.num_params,
        "macs": costs.macs,
        "peak_memory": costs.peak_memory,
        "epochs": plan.recipe.epochs,
        "seeds": plan.seeds,
        **_summary(
            "test_accuracy", [ended[n].test_accuracy or 0.0 for n in range(len(jobs))]
        ),
        "test_accuracy_is": f"{_HONEST}; the test set was read after every epoch, too, "
        "and nothing done upon it"
        if plan.like_published
        else f"{_HONEST}; read once a seed",
        **balance([ended[n].test_confusion for n in range(len(jobs))]),
    }
    if plan.like_published:
        by_epoch = [
            [curves[n][rung] for rung in sorted(curves[n])] for n in range(len(jobs))
        ]
        report |= _as_published(by_epoch, reference.published)
    report |= {
        "recipe": asdict(plan.recipe),
        "seed_values": seeds,
        "weights_seed": seeds[0],
        "c_kernels": kernels_ran_in_all(end.kernels for end in ended.values()),
        "duration_seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
        "hardware": hardware,
    }
    return Trained(weights=ended[0].weights or {}, report=report)


def choose_recipe(
    reference: Reference,
    images: int,
    *,
    pixels: Pixels | None = None,
    studied: Recipe | None = None,
    change: RecipeChange = NO_CHANGE,
    epochs: int | None = None,
    like_published: bool = False,
) -> Recipe:
    """Return the published or the default recipe, with the user's changes.

    The default one is that of a full training in the study that the net is from,
    ``studied``; of other nets it is what suits the data, with a lower rate where the net
    has no batch norm at all.

    ``images`` is the number of official training images, ``pixels`` what they are like,
    by default as for the architecture; ``epochs`` replaces the recipe's. Raises ArchitectureError where
    ``like_published`` and the reference has none, and what `changed_recipe` raises.
    """
    pixels = pixels or Pixels(reference.architecture.input_shape)
    if not like_published:
        train_size = images - default_val_size(images)
        recipe = changed_recipe(
            studied or _suited(reference, default_recipe(train_size, epochs, pixels)),
            change,
            pixels,
            reference.architecture.num_classes,
        )
    elif reference.published is not None:
        recipe = reference.published.recipe
    else:
        raise ArchitectureError(
            f"{reference.name} has no [published] recipe: leave --like-published out, "
            "or give the recipe with --recipe"
        )
    return recipe if epochs is None else replace(recipe, epochs=epochs)


def _suited(reference: Reference, recipe: Recipe) -> Recipe:
    """Return the default recipe with the rate that a network without any norm can take."""
    blocks = reference.architecture.blocks
    if not blocks or any(block.norm != "none" for block in blocks):
        return recipe
    return replace(recipe, max_lr=_MAX_LR_WITHOUT_NORM)


def _summary(name: str, values: list[float]) -> dict[str, Any]:
    return {
        name: values,
        f"{name}_mean": statistics.fmean(values),
        f"{name}_std": statistics.stdev(values) if len(values) > 1 else None,
    }


def _as_published(
    by_epoch: list[list[float]], published: Published | None
) -> dict[str, Any]:
    """Return the best epoch of each seed, and what was published."""
    best = [max(accuracies) for accuracies in by_epoch]
    return {
        **_summary("test_accuracy_best_epoch", best),
        "test_accuracy_best_epoch_is": "best epoch, selected on the test set: only for "
        "comparison with published logs, which are",
        "best_epochs": [
            accuracies.index(top) + 1
            for accuracies, top in zip(by_epoch, best, strict=True)
        ],
        "test_accuracy_by_epoch": by_epoch,
        "published": published
        and {k: v for k, v in asdict(published).items() if k != "recipe"},
    }
