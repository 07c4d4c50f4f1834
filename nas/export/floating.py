"""Runs the stages in float with torch, for calibration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nas.architecture.parts import Pooling
from nas.export.stages import (
    Activation,
    Affine,
    After,
    Pad,
    Resize,
    Stage,
)


def convolve(stage: Stage, features: Tensor) -> Tensor:
    """Return the joined outputs of the stage's convolutions, ``[N, C, H, W]``."""
    if not stage.convolutions:
        return features
    return torch.cat(
        [
            functional.conv2d(
                features,
                torch.from_numpy(convolution.weight).to(features.dtype),
                torch.from_numpy(convolution.bias).to(features.dtype),
                stride=stage.stride,
                padding=convolution.padding,
                dilation=stage.dilation,
                groups=stage.groups,
            )
            for convolution in stage.convolutions
        ],
        dim=1,
    )


def follow(step: After, features: Tensor) -> Tensor:
    """Return ``[N, C, H, W]`` after one step that follows the convolutions."""
    match step:
        case Pooling("max", window, strides, padding):
            return functional.max_pool2d(features, window, strides, padding)
        case Pooling(_, window, strides):
            return functional.avg_pool2d(features, window, strides)
        case Resize(sides):
            return functional.adaptive_avg_pool2d(features, sides)
        case Pad(stride, before, behind):
            kept = features[:, :, ::stride, ::stride]
            return functional.pad(kept, (0, 0, 0, 0, before, behind))
        case Affine(scale, shift):
            factors = torch.from_numpy(scale).to(features.dtype).view(-1, 1, 1)
            return features * factors + torch.from_numpy(shift).to(features.dtype).view(
                -1, 1, 1
            )
        case Activation("unit"):
            return features.clamp(0, 1)
        case Activation(name):
            return getattr(functional, name)(features)  # type: ignore[no-any-return]


def taken(stage: Stage, tensors: Sequence[Tensor]) -> Tensor:
    """Return the stage's input from the tensors before it, times its gates if any."""
    features = tensors[-stage.takes]
    return features * tensors[-stage.gates] if stage.gates else features


def apply(stage: Stage, tensors: Sequence[Tensor]) -> Tensor:
    """Return the stage's output, ``[N, C, H, W]``, from the tensors before it."""
    features = convolve(stage, taken(stage, tensors))
    added = tensors[-stage.adds] if stage.adds else None
    if added is not None:
        features = features + added
    for step in stage.after:
        features = follow(step, features)
    return features
