"""Speed changes no accuracy: nas's training against a plain loop, on real MNIST."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest
import torch
from plain_loop import plain_loop

from nas.data import load_dataset, split_indices
from nas.references.bundled import find_reference
from nas.training import kernels
from nas.training.loop import measure, train
from nas.training.model import build
from nas.training.recipe import Recipe
from nas.training.step import TrainingData

SEEDS = range(4)
TRAIN_SIZE, VAL_SIZE = 3_200, 2_000
RECIPE = Recipe(epochs=3)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mnist() -> TrainingData:
    """Return the first images of a split of the official training set."""
    dataset = load_dataset("mnist")
    train_on, val_on = split_indices(dataset.labels, seed=0, val_size=VAL_SIZE)
    return TrainingData(
        train_images=dataset.images[train_on[:TRAIN_SIZE]],
        train_labels=dataset.labels[train_on[:TRAIN_SIZE]],
        val_images=dataset.images[val_on],
        val_labels=dataset.labels[val_on],
        mean=dataset.mean,
        std=dataset.std,
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("net", "learnt"), [("s0", 0.8), ("public-1936", 0.6)])
def test_the_curves_are_those_of_a_plain_loop(
    mnist: TrainingData, net: str, learnt: float
) -> None:
    """Over n = 4 seeds, three epochs of 3,200 images, the mean curves agree.

    Dropout draws other numbers in the kernels, so single curves differ. The means may
    differ by three standard errors at most, each epoch.
    """
    architecture = find_reference(net).architecture
    curves: dict[str, list[list[float]]] = {"fast": [], "plain": []}
    for seed in SEEDS:
        model = build(architecture, seed=seed)
        assert kernels.supports(model, RECIPE.batch_size) == kernels.available()
        reports = train(model, mnist, RECIPE, seed=seed, rungs=[1, 2, 3])
        curves["fast"].append([report.val_accuracy for report in reports])
        model = build(architecture, seed=seed)
        torch.manual_seed(seed)
        curves["plain"].append(
            [
                measure(
                    model, mnist.val_images, mnist.val_labels, mnist.mean, mnist.std
                ).accuracy
                for _ in plain_loop(model, mnist, RECIPE, seed=seed)
            ]
        )
    for epoch in range(3):
        fast, plain = ([c[epoch] for c in curves[way]] for way in ("fast", "plain"))
        error = (
            (statistics.variance(fast) + statistics.variance(plain)) / len(SEEDS)
        ) ** 0.5
        difference = abs(statistics.fmean(fast) - statistics.fmean(plain))
        assert difference <= 3 * error, (epoch, fast, plain)
    assert statistics.fmean(c[-1] for c in curves["fast"]) > learnt
