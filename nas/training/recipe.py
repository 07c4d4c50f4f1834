"""The training hyperparameters, in one frozen dataclass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

Optimizer = Literal["sgd", "adamw", "adam"]
Schedule = Literal["one_cycle", "constant", "inverse_time", "step"]
Along = Literal["both", "width", "height", "time"]
Edge = Literal["zero", "repeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one network is trained.

    ``momentum`` and ``nesterov`` are for "sgd". ``weight_decay`` spares biases and
    batch norm; "adam" adds it to the gradient, "adamw" takes it off the weights.

    The schedule "one_cycle" reaches ``max_lr`` after the share ``warmup`` of all steps
    and anneals to zero, "constant" stays at ``max_lr``, "inverse_time" trains epoch n
    (from 0) at ``max_lr / (1 + decay * n)``, as Keras does, and "step" multiplies the
    rate by ``step_factor`` after every ``step_epochs``.

    Gradients whose norm over all parameters is above ``clip_norm`` are scaled down to
    it; without (0), a linear layer on many features can blow up at the high rates that
    the convolutions like, and a network without batch norm never learns.

    With ``average`` above 0 an exponential moving average of the weights and of batch
    norm's statistics is kept over that last share of the training, with a memory of a
    fifth of it, and from there on the average is what is measured and handed over.

    ``rotation`` (degrees), ``shift`` (share of the image's side), ``scale`` and
    ``shear`` (share, degrees) are the largest random affine changes of an image, drawn
    anew for each image in each batch and applied to the share ``augment`` of the
    images. The share ``flip`` of all images is mirrored, left and right; ``crop`` moves
    each by whole pixels, up to that share of the side. ``along`` says where ``shift``
    and ``crop`` move: along both sides, one of them, or, of signals that are folded into
    rows, along the time, and then all changes are those of one long row. What comes into
    view from beyond the edge is 0 or, by ``edge``, the nearest pixel again.

    ``class_weights`` are what the loss of an image counts by its class: "none" all
    alike, "balanced" inversely to how many training images the class has, or one number
    a class, in the order of the labels.
    """

    epochs: int = 15
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
    # Younger than the first studies, whose study.toml does without: with these defaults
    # a recipe means what it meant then.
    momentum: float = 0.9
    nesterov: bool = True
    schedule: Schedule = "one_cycle"
    decay: float = 0.0
    step_epochs: int = 0
    step_factor: float = 0.1
    average: float = 0.0
    # Younger still: with these defaults they are left out of study.toml.
    flip: float = 0.0
    crop: float = 0.0
    along: Along = "both"
    edge: Edge = "zero"
    class_weights: str | tuple[float, ...] = "none"


_YOUNGEST = ("flip", "crop", "along", "edge", "class_weights")
_YOUNGER = (
    *("momentum", "nesterov", "schedule", "decay", "step_epochs", "step_factor"),
    "average",
    *_YOUNGEST,
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
    "along": get_args(Along),
    "edge": get_args(Edge),
}
_WEIGHTS = '"none", "balanced" or a list of one number above 0 for each class'
_AT_LEAST_0 = ("weight_decay", "clip_norm", "decay", "rotation", "shift", "shear")
_SHARES = ("augment", "average", "flip")
_SHARES_BELOW_1 = ("warmup", "label_smoothing", "momentum", "scale", "crop")


def read_recipe(table: Mapping[str, Any], *, complete: bool = False) -> Recipe:
    """Return the recipe that a TOML table describes; what it leaves out is the default.

    In a ``complete`` table only what recipes once did not have may be left out.
    Raises ValueError with one line on a key that is unknown, missing or impossible.
    """
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    for name, value in table.items():
        if name not in kinds:
            raise ValueError(f"recipe.{name}: there is no such key")
        if name == "class_weights" and isinstance(value, list | tuple):
            continue
        kind = (int, float) if kinds[name] is float else kinds[name]
        if not isinstance(value, kind) or (
            isinstance(value, bool) and kind is not bool
        ):
            words = {int: "a whole number", bool: "true or false", str: "text"}
            expected = words.get(kinds[name], "a number")
            raise ValueError(f"recipe.{name} = {value!r}: it has to be {expected}")
    missing = [n for n in kinds if n not in table and n not in _YOUNGER]
    if complete and missing:
        raise ValueError(f"recipe without {', '.join(missing)}")
    values: dict[str, Any] = {
        name: float(value) if kinds[name] is float else value
        for name, value in table.items()
    }
    if not isinstance(weights := values.get("class_weights", "none"), str):
        values["class_weights"] = _weights(weights)
    recipe = Recipe(**values)
    if wrong := _impossible(recipe):
        name, expected = wrong
        value = getattr(recipe, name)
        raise ValueError(f"recipe.{name} = {value!r}: it has to be {expected}")
    return recipe


def _weights(values: Sequence[Any]) -> tuple[float, ...]:
    """Return the weights of the classes; ValueError unless all are above 0."""
    numbers = [v for v in values if isinstance(v, int | float) and v is not True]
    if len(values) < 2 or len(numbers) < len(values):
        raise ValueError(f"recipe.class_weights = {values!r}: it has to be {_WEIGHTS}")
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(f"recipe.class_weights = {values!r}: it has to be {_WEIGHTS}")
    return tuple(map(float, numbers))


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as a table for study.toml, which `read_recipe` reads.

    Keys that the first studies did not have are left out where they change nothing.
    """
    return {
        field.name: getattr(recipe, field.name)
        for field in fields(Recipe)
        if field.name not in _YOUNGEST or getattr(recipe, field.name) != field.default
    }


def _impossible(recipe: Recipe) -> tuple[str, str] | None:
    """Return the first key with an impossible value and what it has to be."""
    values = asdict(recipe)
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            return name, "one of " + ", ".join(choices)
    weights = recipe.class_weights
    if isinstance(weights, str) and weights not in {"none", "balanced"}:
        return "class_weights", _WEIGHTS
    numbers = {n: v for n, v in values.items() if isinstance(v, float)}
    for name, value in numbers.items():
        if not math.isfinite(value):
            return name, "finite"
    for name in ("epochs", "batch_size"):
        if values[name] < 1:
            return name, "at least 1"
    if recipe.max_lr <= 0:
        return "max_lr", "above 0"
    for name in _AT_LEAST_0:
        if numbers[name] < 0:
            return name, "at least 0"
    for name in _SHARES:
        if not 0 <= numbers[name] <= 1:
            return name, "from 0 to 1"
    for name in _SHARES_BELOW_1:
        if not 0 <= numbers[name] < 1:
            return name, "at least 0 and below 1"
    if recipe.optimizer == "sgd" and recipe.nesterov and recipe.momentum == 0:
        return "momentum", "above 0 with nesterov (or nesterov = false)"
    if recipe.along == "time" and recipe.augment > 0:
        for name in ("rotation", "shear"):  # a row has no second direction
            if numbers[name] > 0:
                return name, '0 with along = "time"'
    if recipe.schedule == "inverse_time" and recipe.decay == 0:
        return "decay", 'above 0 with schedule = "inverse_time"'
    if recipe.schedule == "step":
        if recipe.step_epochs < 1:
            return "step_epochs", 'at least 1 with schedule = "step"'
        if recipe.step_factor <= 0:
            return "step_factor", "above 0"
    return None


def search_recipe(train_size: int) -> Recipe:
    """Return the recipe of a search: a few epochs, for so many training images."""
    return fit_batch(Recipe(), train_size)


def fit_batch(recipe: Recipe, train_size: int) -> Recipe:
    """Return the recipe with smaller batches where the data is small.

    An epoch of fewer than 40 steps would be too few for a schedule. Batches are
    multiples of 16 images, which fill a processor's vector registers.
    """
    fitting = max(16, train_size // 40 // 16 * 16)
    return replace(recipe, batch_size=min(recipe.batch_size, fitting))
