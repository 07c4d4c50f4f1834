"""Random affine changes of whole image batches, on the device that holds them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from nas.training.recipe import Recipe


def random_matrices(
    count: int, recipe: Recipe, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return one random affine change an image, float ``[count, 2, 3]``.

    A matrix leads from a place in the result to that in the image, both with
    coordinates of -1 to 1 and x before y. Each change is a rotation, a shear, a
    scaling and a shift within the recipe's bounds. ``generator`` lives on the device.
    """
    # One draw for all: rotation, shear, scale, shift x, shift y and the coin.
    draws = torch.rand(6, count, generator=generator, device=device)
    spread = 2 * draws[:5] - 1  # [5, count] in -1 to 1
    chosen = draws[5] < recipe.augment  # [count]
    spread = spread * chosen
    angle = spread[0] * math.radians(recipe.rotation)
    shear = spread[1] * math.radians(recipe.shear)
    scale = 1 + spread[2] * recipe.scale
    # A shift by the whole side is 2 in these coordinates.
    shift = 2 * recipe.shift * spread[3:5]  # [2, count]
    cos, sin, tan = angle.cos() * scale, angle.sin() * scale, shear.tan()
    return torch.stack(
        [cos, cos * tan - sin, shift[0], sin, sin * tan + cos, shift[1]], dim=1
    ).view(count, 2, 3)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Return the images ``[N, C, H, W]`` changed as the matrices ``[N, 2, 3]`` say.

    Between pixels it interpolates; what comes into view from beyond the edge is 0.
    """
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
