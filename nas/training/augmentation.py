"""Random changes of whole image batches, on the device that holds them.

All that a recipe asks for becomes one affine change an image, so that each image is
sampled once, by torch on any device or by the C kernel on a CPU.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nas.training.recipe import Recipe


class Warp(Protocol):
    """What samples images at the places that matrices give; see `warp`."""

    def __call__(
        self, images: Tensor, matrices: Tensor, *, repeat: bool = False
    ) -> Tensor:
        """Return the changed images."""


def augmented(
    images: Tensor, recipe: Recipe, generator: torch.Generator, warp: Warp
) -> Tensor:
    """Return the images, float ``[N, C, H, W]``, changed at random as the recipe says.

    ``generator`` lives on the device of the images.
    """
    if not (recipe.augment > 0 or recipe.flip > 0 or recipe.crop > 0):
        return images
    # A signal's rows follow one another: they are put into one.
    seen = images.flatten(2).unsqueeze(2) if recipe.along == "time" else images
    count, _, height, width = seen.shape
    matrices = random_matrices(
        count, recipe, generator, images.device, size=(height, width)
    )
    return warp(seen, matrices, repeat=recipe.edge == "repeat").view(images.shape)


def random_matrices(
    count: int,
    recipe: Recipe,
    generator: torch.Generator,
    device: torch.device,
    *,
    size: tuple[int, int],
) -> Tensor:
    """Return one random affine change an image of ``size``, float ``[count, 2, 3]``.

    A matrix leads from a place in the result to that in the image, both with
    coordinates of -1 to 1 and x before y. Each change is a rotation, a shear, a
    scaling and a shift within the recipe's bounds, then a flip and a crop. ``size`` is
    height and width; ``generator`` lives on the device.
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
    sides = torch.tensor([[size[1]], [size[0]]], device=device)  # [2, 1]: x, y
    moves = torch.tensor(
        [[recipe.along != "height"], [recipe.along in {"both", "height"}]],
        device=device,
    )
    if recipe.along != "both":  # whole pixels: in between they would be smoothed
        shift = (shift * sides / 2).round() * 2 / sides * moves
    cos, sin, tan = angle.cos() * scale, angle.sin() * scale, shear.tan()
    linear = torch.stack([cos, cos * tan - sin, sin, sin * tan + cos], dim=1)
    linear = linear.view(count, 2, 2)
    offset = shift.T[:, :, None]  # [count, 2, 1]
    if recipe.flip > 0 or recipe.crop > 0:
        draws = torch.rand(3, count, generator=generator, device=device)
        most = (recipe.crop * sides).round() * moves
        pixels = (draws[1:] * (2 * most + 1)).floor() - most  # [2, count], whole
        offset = offset + linear @ (2 * pixels / sides).T[:, :, None]
        mirror = 1 - 2 * (draws[0] < recipe.flip).float()
        linear = linear * torch.stack([mirror, torch.ones_like(mirror)], 1)[:, None]
    return torch.cat([linear, offset], dim=2)


def warp(images: Tensor, matrices: Tensor, *, repeat: bool = False) -> Tensor:
    """Return the images ``[N, C, H, W]`` changed as the matrices ``[N, 2, 3]`` say.

    Between pixels it interpolates; what comes into view from beyond the edge is 0, or
    the edge's pixel again where it is to ``repeat``.
    """
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    beyond = "border" if repeat else "zeros"
    return functional.grid_sample(
        images, grid, padding_mode=beyond, align_corners=False
    )
