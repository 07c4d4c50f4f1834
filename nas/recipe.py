"""The training hyperparameters, in one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one network is trained; the schedule is one cycle, annealed to zero.

    ``max_lr`` is reached after the share ``warmup`` of all steps. ``weight_decay``
    spares biases and batch norm. Gradients whose norm over all parameters is above
    ``clip_norm`` are scaled down to it; without, a linear layer on many features can
    blow up at the high rates that the convolutions like, and a network without batch
    norm never learns. ``rotation`` (degrees), ``shift`` (share of the image's side),
    ``scale`` and ``shear`` (share, degrees) are the largest random affine changes of
    an image, drawn anew for each image in each batch and applied to the share
    ``augment`` of the images.
    """

    epochs: int = 3
    batch_size: int = 64
    optimizer: Optimizer = "sgd"
    max_lr: float = 0.5
    warmup: float = 0.2
    weight_decay: float = 5e-5
    clip_norm: float = 1.0
    label_smoothing: float = 0.0
    augment: float = 0.5
    rotation: float = 10.0
    shift: float = 0.1
    scale: float = 0.1
    shear: float = 5.0


def search_recipe(train_size: int) -> Recipe:
    """Return the recipe of a search: a few epochs, for so many training images."""
    return fit_batch(Recipe(), train_size)


def final_recipe(num_params: int, epochs: int = 15) -> Recipe:
    """Return the recipe of a full training of a network of that size."""
    del num_params
    return Recipe(epochs=epochs)


def fit_batch(recipe: Recipe, train_size: int) -> Recipe:
    """Return the recipe with smaller batches where the data is small.

    An epoch of fewer than 40 steps would be too few for a schedule. Batches are
    multiples of 16 images, which fill a processor's vector registers.
    """
    fitting = max(16, train_size // 40 // 16 * 16)
    return replace(recipe, batch_size=min(recipe.batch_size, fitting))


def full_epochs(recipe: Recipe) -> int:
    """Return the epochs of a full training, five times those of the search."""
    return 5 * recipe.epochs
