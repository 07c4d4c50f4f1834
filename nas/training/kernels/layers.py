"""A model that `nas.training.model.build` built, computed by the kernels."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.training.kernels import functions
from nas.training.kernels.functions import FusedNorm
from nas.training.kernels.library import count_lanes, load, why_missing
from nas.training.model import Inception, Residual, Shared, SqueezeExcitation

_logger = logging.getLogger("nas")

_LAYERS = (
    nn.Conv2d,
    Inception,
    Residual,
    SqueezeExcitation,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.Dropout,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.SiLU,
    nn.ReLU6,
)


def available() -> bool:
    """Return whether the kernels work here; the first call may compile them.

    ``NAS_KERNELS=0`` in the environment turns them off.
    """
    return load() is not None


def warn_if_missing() -> None:
    """Tell the user in one line where there are no kernels though none are unwanted."""
    reason = why_missing()
    if reason is not None:
        _logger.warning(
            "training two to three times slower, without C kernels: %s", reason
        )


def supports(model: nn.Module, batch_size: int) -> bool:
    """Return whether forward can stand in for ``model(images)`` in training.

    It can for what ``nas.training.model.build`` builds, on the CPU, in batches that fill the
    vector registers: multiples of 16 always do.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(model, "head"):
        return False
    return (
        all(isinstance(layer, _LAYERS) for layer in _with_bodies(_layers(model)))
        and all(p.device.type == "cpu" for p in model.parameters())
        and all(p.dtype == torch.float32 for p in model.parameters())
        and available()
        and batch_size % count_lanes() == 0
    )


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """Return ``model(images)``, float ``[N, C, H, W]`` to logits ``[N, num_classes]``.

    Gradients, batch norm's running statistics and the difference between training and
    evaluation are those of the model.
    """
    if hasattr(model, "resize"):
        images = model.get_submodule("resize")(images)
    count, lanes = len(images), count_lanes()
    missing = -count % lanes  # only in evaluation, where images don't mix
    if missing:
        images = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
    # [N, C, H, W] -> [G, C, H, W, V]: image g * V + v stands in lane v of group g.
    grouped = images.view(-1, lanes, *images.shape[1:]).permute(0, 2, 3, 4, 1)
    features = _through(_layers(model), grouped.contiguous())
    ungrouped = features.permute(0, 4, 1, 2, 3).reshape(-1, *features.shape[1:4])
    logits: Tensor = model.get_submodule("head")(ungrouped)
    return logits[:count]


def _through(layers: list[nn.Module], features: Tensor) -> Tensor:
    """Return what the layers, of which none is left, make of ``[G, C, H, W, V]``."""
    bias: Tensor | None = None  # of the last convolution, not added yet
    while layers:
        if fused := _taken(layers, bias):
            features, bias = functions.norm(features, fused), None
            continue
        if bias is not None:
            features, bias = features + bias.view(-1, 1, 1, 1), None
        layer = layers.pop(0)
        if isinstance(layer, nn.Conv2d):
            features, bias = functions.conv(features, layer), layer.bias
        elif isinstance(layer, Inception):
            branches = [
                branch for branch in layer.branches if isinstance(branch, nn.Conv2d)
            ]
            features = torch.cat(
                [functions.conv(features, branch) for branch in branches], dim=1
            )
            biases = [branch.bias for branch in branches if branch.bias is not None]
            bias = torch.cat(biases) if biases else None
        elif isinstance(layer, Residual):
            added = _through([*layer.shortcut], features)
            features = _through([*layer.body], features) + added
        elif isinstance(layer, SqueezeExcitation):
            means = features.mean((2, 3), keepdim=True)
            gates = _through([layer.squeeze, nn.ReLU(), layer.excite], means)
            features = features * gates.sigmoid()
        elif isinstance(layer, nn.MaxPool2d):
            features = functions.max_pool(features)
        elif isinstance(layer, nn.AvgPool2d):
            features = functions.avg_pool(features)
        elif isinstance(layer, nn.Hardswish):
            features = functions.hardswish(features)
        elif isinstance(layer, nn.Dropout):
            features = (
                functions.dropout(features, layer.p) if layer.training else features
            )
        else:
            features = layer(features)  # an activation takes any shape
    return features if bias is None else features + bias.view(-1, 1, 1, 1)


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of the blocks in the order in which they are applied."""
    layers: list[nn.Module] = []
    for block in model.get_submodule("blocks").children():
        if isinstance(block, Shared):
            for following in block.applications:
                layers += [*block.convolutions, *following.children()]
        else:
            layers += block.children()
    return layers


def _taken(layers: list[nn.Module], bias: Tensor | None) -> FusedNorm | None:
    """Take batch norm and its neighbours off the layers' front, if they begin so."""
    kinds = [type(layer) for layer in layers[:4]]
    relu_before = kinds[:2] == [nn.ReLU, nn.BatchNorm2d]
    kinds = kinds[relu_before:]
    if kinds[:1] != [nn.BatchNorm2d]:
        return None
    norm = layers[relu_before]
    assert isinstance(norm, nn.BatchNorm2d)
    relu_after = kinds[1:2] == [nn.ReLU]
    count = relu_before + 1 + relu_after
    dropout = layers[count] if len(layers) > count else None
    share = 0.0
    if isinstance(dropout, nn.Dropout):
        share = dropout.p if dropout.training else 0.0
        count += 1
    del layers[:count]
    return FusedNorm(norm, bias, relu_before, relu_after, share)


def _with_bodies(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Yield the layers and those within them that are applied one by one."""
    for layer in layers:
        yield layer
        if isinstance(layer, Residual):
            yield from _with_bodies([*layer.body, *layer.shortcut])
