"""Augmentation: random, bounded, repeatable, and nothing when all is zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from nas.training.augmentation import random_matrices, warp
from nas.training.recipe import Recipe

STILL = Recipe(rotation=0, shift=0, scale=0, shear=0, augment=1)


def augmented(images: torch.Tensor, recipe: Recipe, seed: int = 0) -> torch.Tensor:
    """Return the images augmented with a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return warp(images, random_matrices(len(images), recipe, generator, images.device))


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
