"""Augmentation: random, bounded, repeatable, and nothing when all is zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from nas.errors import UsageError
from nas.training import augmentation, kernels
from nas.training.augmentation import Warp
from nas.training.kinds import Pixels, in_words, read_kinds, suitable, with_kinds
from nas.training.recipe import Recipe

STILL = Recipe(rotation=0, shift=0, scale=0, shear=0, augment=1)


WARPS = {"torch": augmentation.warp, "kernel": kernels.warp}
needs_kernels = pytest.mark.skipif(
    not kernels.available(), reason="there is no C compiler"
)
each_warp = pytest.mark.parametrize(
    "warp", [pytest.param("torch"), pytest.param("kernel", marks=needs_kernels)]
)

DIGITS, PHOTOS = Pixels((1, 8, 8)), Pixels((3, 8, 8))
SPECTROGRAMS, SIGNALS = Pixels((1, 6, 10)), Pixels((1, 6, 10), signals=True)


def augmented(
    images: torch.Tensor,
    recipe: Recipe,
    seed: int = 0,
    warp: Warp = augmentation.warp,
) -> torch.Tensor:
    """Return the images augmented with a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return augmentation.augmented(images, recipe, generator, warp)


def changed_by(kinds: str, pixels: Pixels, warp: str, count: int = 200) -> Any:
    """Return one noisy image and so many changes of it, by these kinds."""
    shape = pixels.shape
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)) + 0.5
    recipe = with_kinds(Recipe(), read_kinds(kinds), pixels)
    many = augmented(image.repeat(count, 1, 1, 1), recipe, warp=WARPS[warp])
    return image[0], many


def is_among(image: torch.Tensor, others: list[torch.Tensor]) -> int:
    """Return the number of the image that this one is, pixel by pixel; -1 for none."""
    near = [bool(((image - other).abs() < 1e-4).all()) for other in others]
    return near.index(True) if True in near else -1


@pytest.fixture
def images() -> torch.Tensor:
    """Fifty noisy images of two channels, 20 high and 16 wide."""
    return torch.rand(50, 2, 20, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "recipe", [STILL, Recipe(augment=0)], ids=["all zero", "share zero"]
)
def test_nothing_to_change_changes_nothing(
    images: torch.Tensor, recipe: Recipe
) -> None:
    """With every bound or the share at zero the images come back as they were."""
    torch.testing.assert_close(augmented(images, recipe), images, atol=1e-5, rtol=0)


def test_the_same_generator_state_gives_the_same_images(images: torch.Tensor) -> None:
    """The draws come from the generator alone."""
    recipe = Recipe()
    assert torch.equal(augmented(images, recipe), augmented(images, recipe))
    assert not torch.equal(augmented(images, recipe), augmented(images, recipe, 1))


def test_the_share_decides_how_many_change(images: torch.Tensor) -> None:
    """About the recipe's share of the images changes, the others not at all."""
    many = images.repeat(20, 1, 1, 1)
    changed = (augmented(many, Recipe(augment=0.3)) - many).abs().amax((1, 2, 3)) > 1e-3
    assert changed.float().mean() == pytest.approx(0.3, abs=0.05)


def test_shifts_stay_within_bounds() -> None:
    """A dot moves by at most the shift's share of the side, in both directions."""
    images = torch.zeros(400, 1, 21, 41)
    images[:, :, 10, 20] = 1
    moved = augmented(images, replace(STILL, shift=0.1))
    rows = (moved.sum((1, 3)) * torch.arange(21)).sum(1) - 10  # [400]
    columns = (moved.sum((1, 2)) * torch.arange(41)).sum(1) - 20
    for offset, bound in ((rows, 2.1), (columns, 4.1)):
        assert 0.9 * bound < offset.max() <= bound + 1e-3
        assert 0.9 * bound < -offset.min() <= bound + 1e-3


@pytest.mark.parametrize(("name", "bound"), [("rotation", 20.0), ("shear", 15.0)])
def test_angles_stay_within_bounds(name: str, bound: float) -> None:
    """A straight line through the centre turns by at most the given degrees."""
    bounds: dict[str, Any] = {name: bound}
    images = torch.zeros(300, 1, 41, 41)
    images[:, :, :, 20] = 1
    turned = augmented(images, replace(STILL, **bounds))
    # The line's column five rows from the edge, against its column in the middle.
    row = turned[:, 0, 5]  # [300, 41]
    offset = (row * torch.arange(41)).sum(1) / row.sum(1) - 20
    angles = torch.rad2deg(torch.atan(offset / 15))
    assert 0.9 * bound < angles.abs().max() <= bound + 0.5
    assert angles.min() < 0 < angles.max()


def test_scaling_stays_within_bounds() -> None:
    """The area of a square changes by at most the square of the scale."""
    images = torch.zeros(300, 1, 41, 41)
    images[:, :, 10:31, 10:31] = 1
    areas = augmented(images, replace(STILL, scale=0.2)).sum((1, 2, 3)) / 21**2
    assert areas.max() <= 1 / 0.8**2 * 1.02
    assert areas.min() >= 1 / 1.2**2 * 0.98
    assert areas.max() > 1.3
    assert areas.min() < 0.8


# --- the kinds, pixel by pixel, by torch (as on a GPU) and by the C kernel ---------


@each_warp
def test_a_flip_mirrors_half_of_the_images(warp: str) -> None:
    """Left and right change places; nothing else happens to any image."""
    image, many = changed_by("flip", PHOTOS, warp, 400)
    kinds = [is_among(one, [image, image.flip(2)]) for one in many]
    assert set(kinds) == {0, 1}
    assert sum(kinds) / len(kinds) == pytest.approx(0.5, abs=0.1)


@each_warp
def test_a_crop_moves_by_whole_pixels(warp: str) -> None:
    """Of eight pixels by at most one, each way as often; zeros come into view."""
    image, many = changed_by("crop", PHOTOS, warp)
    framed = torch.nn.functional.pad(image, (1, 1, 1, 1))
    crops = [framed[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    found = [is_among(one, crops) for one in many]
    assert set(found) == set(range(9))


@each_warp
def test_flips_and_crops_combine(warp: str) -> None:
    """Each crop comes mirrored, too."""
    image, many = changed_by("flip,crop", PHOTOS, warp, 400)
    framed = torch.nn.functional.pad(image, (1, 1, 1, 1))
    both = [framed, framed.flip(2)]
    crops = [
        some[:, y : y + 8, x : x + 8]
        for some in both
        for y in range(3)
        for x in range(3)
    ]
    assert {is_among(one, crops) for one in many} == set(range(18))


@each_warp
@pytest.mark.parametrize(
    ("shape", "axis"), [((1, 6, 20), 2), ((2, 20, 6), 1)], ids=["wide", "tall"]
)
def test_a_spectrogram_is_shifted_along_its_longer_side(
    warp: str, shape: tuple[int, int, int], axis: int
) -> None:
    """By whole pixels, up to a tenth of it; the edge is repeated."""
    image, many = changed_by("shift", Pixels(shape), warp)
    edges = [image.narrow(axis, 0, 1), image.narrow(axis, 19, 1)]
    wide = torch.cat([edges[0], edges[0], image, edges[1], edges[1]], dim=axis)
    moved = [wide.narrow(axis, start, 20) for start in range(5)]
    found = [is_among(one, moved) for one in many]
    assert set(found) == set(range(5))
    assert found.count(2) > 80  # half of them stay


@each_warp
def test_a_folded_signal_is_shifted_in_time(warp: str) -> None:
    """What leaves a row comes into the next one."""
    image, many = changed_by("shift", SIGNALS, warp)
    line = image.flatten()
    first, last = line[:1].repeat(6), line[-1:].repeat(6)
    wide = torch.cat([first, line, last])
    moved = [wide[start : start + 60].view(1, 6, 10) for start in range(13)]
    assert {is_among(one, moved) for one in many} == set(range(13))


@each_warp
def test_a_folded_signal_is_played_backwards(warp: str) -> None:
    """Which is what a flip of it is."""
    image, many = changed_by("flip", SIGNALS, warp)
    backwards = image.flatten().flip(0).view(image.shape)
    assert {is_among(one, [image, backwards]) for one in many} == {0, 1}


@each_warp
def test_an_affine_change_stretches_a_folded_signal(warp: str) -> None:
    """Rows do not turn against each other: what rises in time still does."""
    rising = torch.arange(60.0).view(1, 1, 6, 10).repeat(100, 1, 1, 1)
    recipe = with_kinds(Recipe(), ["affine"], SIGNALS)
    lines = augmented(rising, recipe, warp=WARPS[warp]).flatten(1)
    assert bool((lines.diff(dim=1) > -1e-3).all())
    slopes = lines[:, 40] - lines[:, 20]
    assert 17.9 < slopes.min() < 19
    assert 21 < slopes.max() < 22.1


def test_none_leaves_every_pixel() -> None:
    """Whatever the images are."""
    for pixels in (DIGITS, PHOTOS, SPECTROGRAMS, SIGNALS):
        image, many = changed_by("none", pixels, "torch", 3)
        assert all(torch.equal(one, image) for one in many)


# --- which kinds, and by which words ------------------------------------------------


def test_digits_are_augmented_as_ever() -> None:
    """The recipe of MNIST is the default, with and without its kind named."""
    assert suitable(Pixels((1, 28, 28))) == ("affine",)
    assert with_kinds(Recipe(), ["affine"], DIGITS) == Recipe()


@pytest.mark.parametrize(
    ("pixels", "kinds"),
    [
        (PHOTOS, ("flip", "crop")),
        (Pixels((3, 48, 64)), ("flip", "crop")),
        (Pixels((3, 32, 32), mirrors=False), ("affine",)),
        (SPECTROGRAMS, ("shift",)),
        (SIGNALS, ("shift",)),
        (Pixels((3, 6, 10), signals=True), ("shift",)),
        (Pixels((2, 8, 8)), ("affine",)),
    ],
)
def test_what_suits_the_data(pixels: Pixels, kinds: tuple[str, ...]) -> None:
    """No rotation and no shear of what is no picture."""
    assert suitable(pixels) == kinds
    recipe = with_kinds(Recipe(), kinds, pixels)
    turned = recipe.augment > 0 and recipe.rotation + recipe.shear > 0
    assert turned == (kinds == ("affine",))


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ("none", ()),
        ("flip", ("flip",)),
        ("crop, shift,crop", ("shift", "crop")),
        (["flip", "affine"], ("affine", "flip")),
    ],
)
def test_kinds_are_read_from_words(given: str | list[str], kinds: tuple[str]) -> None:
    """In any order, each once."""
    assert read_kinds(given) == kinds


@pytest.mark.parametrize("given", ["", "rotate", "none,flip", "flip,,crop", [3], []])
def test_unknown_kinds_are_refused(given: Any) -> None:
    """With those that there are."""
    with pytest.raises(UsageError, match="give none, or some of affine, shift, flip"):
        read_kinds(given)


def test_the_recipe_in_words() -> None:
    """Only what happens is told."""
    assert in_words(Recipe()) == (
        "rotation 10 degrees, shift 10 %, scale 10 %, shear 5 degrees, of 50 % of the "
        "images"
    )
    assert in_words(with_kinds(Recipe(), (), DIGITS)) == "none"
    photos = with_kinds(Recipe(), ("flip", "crop"), PHOTOS)
    assert in_words(photos) == "50 % mirrored; crops moved by up to 12.5 %"
    signals = with_kinds(Recipe(), ("shift", "flip"), SIGNALS)
    assert in_words(signals) == (
        "shift 10 % in time, of 50 % of the images; 50 % played backwards"
    )
    tall = with_kinds(Recipe(), ("shift",), Pixels((1, 9, 6)))
    assert in_words(tall) == "shift 10 % of the height, of 50 % of the images"
