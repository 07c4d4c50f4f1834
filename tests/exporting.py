"""Trained nets, images and strategies for the tests of the exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas.architecture import Architecture
from nas.architecture.definition import MONOTONE
from nas.training.model import build


def random_model(architecture: Architecture, seed: int = 1) -> nn.Sequential:
    """Return a model whose every weight and statistic differs from a fresh one's.

    Its signals keep their size from layer to layer, and about a third of the batch
    norms' scales are negative, as none is in a fresh net.
    """
    model = build(architecture, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            random = torch.randn(4, count, generator=generator)
            module.weight.data = random[0] + 0.4
            module.bias.data = random[1] * 0.5
            module.running_mean = random[2] * 0.3
            module.running_var = random[3].abs() + 0.2
    return model.eval()


def numpy_weights(model: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """Return the state dict as numpy arrays."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def random_images(
    architecture: Architecture, count: int, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Return noise with blobs in it, uint8 [N, C, H, W]."""
    random = np.random.default_rng(seed)
    coarse = random.random((count, architecture.input_shape[0], 4, 4)) ** 2
    large = coarse.repeat(10, axis=2).repeat(10, axis=3)
    height, width = architecture.input_shape[1:]
    noise = random.random((count, *architecture.input_shape)) * 0.3
    images = large[:, :, :height, :width] * 0.7 + noise
    return (images * 255).astype(np.uint8)


def fits_int8(architecture: Architecture) -> bool:
    """Return whether it has no batch norm behind a maximum of what may also fall."""
    return not any(
        (block.order, block.norm, block.pool) == ("norm_last", "batch", "max")
        and block.activation not in MONOTONE | {"none"}
        for block in architecture.blocks
    )


def normalised(
    images: npt.NDArray[np.uint8], mean: list[float], std: list[float]
) -> torch.Tensor:
    """Return the images as the torch model takes them, by its documentation."""
    shape = (1, -1, 1, 1)
    scaled = torch.from_numpy(images).float() / 255
    return (scaled - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
