"""The recipe of a training: the default for the data, and the user's changes."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import RecipeError
from nas.study.settings import default_rungs
from nas.training.kinds import Pixels, in_words, read_kinds, suitable, with_kinds
from nas.training.recipe import Recipe, fit_batch, read_recipe, search_recipe

if TYPE_CHECKING:
    from nas.data import Dataset

# The epochs of the middle fidelity; one of fewer steps says little about a network.
_MIDDLE_EPOCHS, _LEAST_STEPS = 3, 600
# In colour, but a mirrored digit is not the same digit.
_WRITING = {"svhn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeChange:
    """The user's changes of the recipe: a file with some of its keys, and the augmentation.

    ``augment`` is as read_kinds takes it. None is the default.
    """

    file: Path | None = None
    augment: str | Sequence[str] | None = None

    def __bool__(self) -> bool:
        """Whether there is a change."""
        return self.file is not None or self.augment is not None

    def check(self) -> None:
        """Check the change as far as possible without the data; raises as `changed_recipe`."""
        if self.file is not None:
            load_recipe(self.file, Recipe(rotation=0.0, shear=0.0))
        if self.augment is not None:
            read_kinds(self.augment)


NO_CHANGE = RecipeChange()
"""The recipe stays as it is."""


def pixels_of(dataset: Dataset) -> Pixels:
    """Return the properties of a data set that determine its augmentation."""
    return Pixels(
        dataset.input_shape,
        signals=dataset.signal_length > 0,
        mirrors=dataset.name not in _WRITING,
    )


def search_training(
    epochs: int | None, train_size: int, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Return recipe, rungs and fidelities of a search with full trainings of ``epochs``.

    By default 15, and more where the data is small. The first training of a candidate
    has a fifteenth of them, the next one a fifth; each anneals its rate to zero.
    ``recipe`` is that of all trainings, but for its epochs.
    """
    recipe = recipe or search_recipe(train_size)
    steps_per_epoch = max(1, train_size // recipe.batch_size)
    if epochs is None:
        middle = max(_MIDDLE_EPOCHS, math.ceil(_LEAST_STEPS / steps_per_epoch))
        epochs = 5 * middle
    levels = fidelities(epochs)
    return {
        "recipe": replace(recipe, epochs=levels[0]),
        "rungs": default_rungs(levels[0], steps_per_epoch),
        "fidelities": levels,
    }


def fidelities(epochs: int) -> tuple[int, ...]:
    """Return the lengths of the trainings that lead to a full one, in epochs, rising."""
    return tuple(sorted({max(1, round(epochs / part)) for part in (15, 5, 1)}))


def default_recipe(
    train_size: int, epochs: int | None = None, pixels: Pixels | None = None
) -> Recipe:
    """Return the recipe of a full training on so many images of this kind.

    By default they are augmented as digits are.
    """
    if epochs is None:
        epochs = search_training(None, train_size)["fidelities"][-1]
    recipe = fit_batch(Recipe(epochs=epochs), train_size)
    return recipe if pixels is None else with_kinds(recipe, suitable(pixels), pixels)


def changed_recipe(
    recipe: Recipe, change: RecipeChange, pixels: Pixels, num_classes: int
) -> Recipe:
    """Return the recipe with the user's changes.

    Raises RecipeError for a file that is none or is for another number of classes,
    UsageError for an unknown augmentation.
    """
    if change.file is not None:
        recipe = load_recipe(change.file, recipe)
        weights = recipe.class_weights
        if not isinstance(weights, str) and len(weights) != num_classes:
            raise RecipeError(
                f"{change.file}: class_weights has {len(weights)} numbers, and the data "
                f'{num_classes} classes: give one per class, or "balanced"'
            )
    if change.augment is not None:
        recipe = with_kinds(recipe, read_kinds(change.augment), pixels)
    return recipe


def load_recipe(path: Path, default: Recipe) -> Recipe:
    """Return the recipe of a TOML file; what it leaves out is the default's.

    Raises RecipeError when it cannot be read or makes no sense.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return read_recipe(asdict(default) | table)
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}: give an existing file") from None
    except (OSError, ValueError, RecursionError, OverflowError) as error:
        line = " ".join(str(error).split())
        raise RecipeError(f"cannot read the recipe {path}: {line}") from error


def augmentation_line(recipe: Recipe) -> str:
    """Return the line about augmentation that is printed at the start."""
    return (
        f"augmentation: {in_words(recipe)} (--augment changes it: none, or some of "
        "affine, shift, flip, crop)"
    )
