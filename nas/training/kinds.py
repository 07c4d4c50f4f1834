"""The kinds of augmentation by name: what each does to a recipe, and what suits which data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.errors import UsageError
from nas.training.recipe import Recipe

KINDS = ("affine", "shift", "flip", "crop")
"""What --augment combines; "none" stands alone."""

_FLIP, _CROP = 0.5, 0.125
# A colour image has so many channels.
_COLOURS = 3


@dataclass(frozen=True, slots=True)
class Pixels:
    """What of a data set decides how its images may be changed.

    ``shape`` is channels, height and width; ``signals`` tells that each image is a
    signal folded into rows, ``mirrors`` that an image and its mirror image are of one
    class, if it is a colour photograph.
    """

    shape: tuple[int, int, int]
    signals: bool = False
    mirrors: bool = True

    @property
    def colour(self) -> bool:
        """Whether these are taken for colour images: three channels, no signals."""
        return self.shape[0] == _COLOURS and not self.signals

    @property
    def oblong(self) -> bool:
        """Whether these are taken for spectrograms and the like: neither square nor in colour."""
        square = self.shape[1] == self.shape[2]
        return not (self.signals or self.colour or square)


def suitable(pixels: Pixels) -> tuple[str, ...]:
    """Return the kinds that suit the images.

    Colour photographs are flipped and cropped, those with writing only changed as
    digits are. Signals and images that are not square are shifted along the time or the
    longer side; all others are taken for something like digits.
    """
    if pixels.signals or pixels.oblong:
        return ("shift",)
    return ("flip", "crop") if pixels.colour and pixels.mirrors else ("affine",)


def read_kinds(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the kinds of a text such as "shift,flip", or of a list; none is empty.

    Raises UsageError for an unknown kind, and for "none" beside another.
    """
    parts = given.split(",") if isinstance(given, str) else list(given)
    names = [part.strip() if isinstance(part, str) else part for part in parts]
    if names == ["none"]:
        return ()
    if not names or not all(name in KINDS for name in names):
        raise UsageError(
            f"--augment {given!r}: give none, or some of {', '.join(KINDS)}, such as "
            "shift,flip"
        )
    return tuple(kind for kind in KINDS if kind in names)


def with_kinds(recipe: Recipe, kinds: Sequence[str], pixels: Pixels) -> Recipe:
    """Return the recipe with these kinds of changes alone, each as strong as by default.

    An affine change of a signal stretches it and moves it in time. A shift moves
    an image that is neither square nor in colour along its longer side.
    """
    plain = Recipe()
    strong = {"augment", "rotation", "shift", "scale", "shear", "flip", "crop"}
    changes = {name: getattr(plain, name) for name in strong}
    affine = "affine" in kinds
    if not affine:
        changes |= {"rotation": 0.0, "scale": 0.0, "shear": 0.0}
        if "shift" not in kinds:
            changes |= {"augment": 0.0, "shift": 0.0}
    elif pixels.signals:
        changes |= {"rotation": 0.0, "shear": 0.0}
    if "flip" in kinds:
        changes["flip"] = _FLIP
    if "crop" in kinds:
        changes["crop"] = _CROP
    along, edge = plain.along, plain.edge
    if kinds and pixels.signals:
        along, edge = "time", "repeat"
    elif kinds and pixels.oblong:
        along = "height" if pixels.shape[1] > pixels.shape[2] else "width"
        edge = "repeat"
    return replace(recipe, **changes, along=along, edge=edge)


def in_words(recipe: Recipe) -> str:
    """Return how the recipe changes images, for people."""
    parts = []
    if recipe.augment > 0:
        bounds = [
            f"{name} {value:g} {unit}"
            for name, value, unit in (
                ("rotation", recipe.rotation, "degrees"),
                ("shift", 100 * recipe.shift, "%" + _along(recipe)),
                ("scale", 100 * recipe.scale, "%"),
                ("shear", recipe.shear, "degrees"),
            )
            if value > 0
        ]
        if bounds:
            share = f"of {100 * recipe.augment:g} % of the images"
            parts.append(f"{', '.join(bounds)}, {share}")
    if recipe.flip > 0:
        what = "played backwards" if recipe.along == "time" else "mirrored"
        parts.append(f"{100 * recipe.flip:g} % {what}")
    if recipe.crop > 0:
        parts.append(f"crops moved by up to {100 * recipe.crop:g} %{_along(recipe)}")
    return "; ".join(parts) or "none"


def _along(recipe: Recipe) -> str:
    return {"both": "", "time": " in time"}.get(recipe.along, f" of the {recipe.along}")
