"""The recipe: read from a table, refused with the key and the remedy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from nas.training.recipe import Recipe, read_recipe, recipe_table

# What study.toml of the first studies held; they have to be read for ever.
FIRST: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 64,
    "optimizer": "sgd",
    "max_lr": 0.5,
    "warmup": 0.2,
    "weight_decay": 5e-05,
    "clip_norm": 1.0,
    "label_smoothing": 0.0,
    "augment": 0.5,
    "rotation": 10.0,
    "shift": 0.1,
    "scale": 0.1,
    "shear": 5.0,
}


WEIGHTS = '"none", "balanced" or a list of one number above 0 for each class'


def test_class_weights_are_a_word_or_numbers() -> None:
    """They come back from a table; whole numbers will do."""
    assert read_recipe({"class_weights": [1, 2.5]}).class_weights == (1.0, 2.5)
    for weights in ("none", "balanced", (1.0, 3.0)):
        recipe = Recipe(class_weights=weights)
        assert read_recipe(recipe_table(recipe), complete=True) == recipe


def test_the_first_recipes_are_read_as_what_they_meant() -> None:
    """A table without the younger keys is the default recipe of that time."""
    recipe = read_recipe(FIRST, complete=True)
    assert recipe == Recipe(epochs=3)
    assert (recipe.momentum, recipe.nesterov) == (0.9, True)
    assert (recipe.schedule, recipe.average) == ("one_cycle", 0)


def test_a_recipe_comes_back_from_its_table() -> None:
    """Every key is read; a whole number will do for a fraction."""
    recipe = Recipe(
        optimizer="adam", schedule="inverse_time", decay=0.319, max_lr=0.003, average=1
    )
    assert read_recipe(asdict(recipe), complete=True) == recipe
    assert type(read_recipe({"max_lr": 1}).max_lr) is float


def test_what_a_table_leaves_out_is_the_default() -> None:
    """A hand-written table says only what is different."""
    assert read_recipe({"epochs": 20}) == Recipe(epochs=20)


def test_a_complete_table_leaves_nothing_out() -> None:
    """In a study's own file a lost key is damage, not a default."""
    table = {k: v for k, v in FIRST.items() if k != "warmup"}
    with pytest.raises(ValueError, match=r"^recipe without warmup$"):
        read_recipe(table, complete=True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"epochen": 3}, "recipe.epochen: there is no such key"),
        ({"epochs": 0}, "recipe.epochs = 0: it has to be at least 1"),
        ({"epochs": 2.5}, "recipe.epochs = 2.5: it has to be a whole number"),
        ({"epochs": True}, "recipe.epochs = True: it has to be a whole number"),
        ({"max_lr": "high"}, "recipe.max_lr = 'high': it has to be a number"),
        ({"max_lr": True}, "recipe.max_lr = True: it has to be a number"),
        ({"max_lr": 0}, "recipe.max_lr = 0.0: it has to be above 0"),
        ({"max_lr": float("nan")}, "recipe.max_lr = nan: it has to be finite"),
        ({"nesterov": 1}, "recipe.nesterov = 1: it has to be true or false"),
        ({"optimizer": 3}, "recipe.optimizer = 3: it has to be text"),
        (
            {"optimizer": "lion"},
            "recipe.optimizer = 'lion': it has to be one of sgd, adamw, adam",
        ),
        (
            {"schedule": "cosine"},
            "recipe.schedule = 'cosine': it has to be one of one_cycle, constant, inverse_time, step",
        ),
        (
            {"along": "x"},
            "recipe.along = 'x': it has to be one of both, width, height, time",
        ),
        ({"flip": 2}, "recipe.flip = 2.0: it has to be from 0 to 1"),
        ({"crop": 1}, "recipe.crop = 1.0: it has to be at least 0 and below 1"),
        (
            {"along": "time", "rotation": 0},
            'recipe.shear = 5.0: it has to be 0 with along = "time"',
        ),
        (
            {"class_weights": "some"},
            "recipe.class_weights = 'some': it has to be " + WEIGHTS,
        ),
        ({"class_weights": 3}, "recipe.class_weights = 3: it has to be text"),
        (
            {"class_weights": [1, 0]},
            "recipe.class_weights = [1, 0]: it has to be " + WEIGHTS,
        ),
        (
            {"class_weights": [1, "x"]},
            "recipe.class_weights = [1, 'x']: it has to be " + WEIGHTS,
        ),
        ({"clip_norm": -1}, "recipe.clip_norm = -1.0: it has to be at least 0"),
        ({"average": 1.5}, "recipe.average = 1.5: it has to be from 0 to 1"),
        ({"warmup": 1}, "recipe.warmup = 1.0: it has to be at least 0 and below 1"),
        (
            {"momentum": 0},
            "recipe.momentum = 0.0: it has to be above 0 with nesterov (or nesterov = false)",
        ),
        (
            {"schedule": "inverse_time"},
            'recipe.decay = 0.0: it has to be above 0 with schedule = "inverse_time"',
        ),
        (
            {"schedule": "step"},
            'recipe.step_epochs = 0: it has to be at least 1 with schedule = "step"',
        ),
        (
            {"schedule": "step", "step_epochs": 2, "step_factor": 0},
            "recipe.step_factor = 0.0: it has to be above 0",
        ),
    ],
)
def test_an_impossible_recipe_is_refused_in_one_line(
    table: dict[str, Any], message: str
) -> None:
    """The line names the key, its value and what it has to be."""
    with pytest.raises(ValueError, match="recipe") as caught:
        read_recipe(table)
    assert str(caught.value) == message


def test_values_that_another_key_switches_off_are_not_judged() -> None:
    """Plain gradient descent, and Adam without momentum, are recipes."""
    read_recipe({"momentum": 0, "nesterov": False})
    read_recipe({"optimizer": "adam", "momentum": 0})
    read_recipe({"clip_norm": 0})
