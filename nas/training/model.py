"""From an architecture to a torch model of plain, exportable layers.

Every model is ``blocks`` (one module a block) and ``head``, so that weights have names
such as ``blocks.0.conv.weight`` and ``head.classifier.bias``.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from nas.architecture import Architecture, Block, Head, Shape, feature_shapes

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}
_POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def build(architecture: Architecture, *, seed: int | None = None) -> nn.Sequential:
    """Return a freshly initialised model on the CPU.

    It takes float images ``[N, *architecture.input_shape]`` and returns logits
    ``[N, num_classes]``. The same ``seed`` gives the same weights; torch's global
    random state is then left as it was. Without a seed the weights follow from that
    global state.
    """
    if seed is None:
        return _build(architecture)
    state = torch.get_rng_state()
    # Not torch.manual_seed: that one would reseed every GPU, too.
    torch.default_generator.manual_seed(seed)
    try:
        return _build(architecture)
    finally:
        torch.set_rng_state(state)


def _build(architecture: Architecture) -> nn.Sequential:
    shapes = feature_shapes(architecture)
    blocks = [
        _block(block, in_channels=shape[0])
        for block, shape in zip(architecture.blocks, shapes, strict=False)
    ]
    head = _head(architecture.head, shapes[-1], architecture.num_classes)
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks), head=head))


class Inception(nn.Module):
    """Convolutions side by side on the same input, their outputs joined."""

    def __init__(self, *branches: nn.Conv2d) -> None:
        """Take the convolutions, which give feature maps of one size."""
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Return the joined outputs, ``[N, C, H, W]``."""
        return torch.cat([branch(features) for branch in self.branches], dim=1)


class Shared(nn.Module):
    """The same convolutions several times, followed each time by layers of its own."""

    def __init__(
        self, convolutions: nn.Sequential, *applications: nn.Sequential
    ) -> None:
        """Take the convolutions and what follows each application of them."""
        super().__init__()
        self.convolutions = convolutions
        self.applications = nn.ModuleList(applications)

    def forward(self, features: Tensor) -> Tensor:
        """Return the last application's output, ``[N, C, H, W]``."""
        for following in self.applications:
            features = following(self.convolutions(features))
        return features


def _block(block: Block, in_channels: int) -> nn.Module:
    convolutions = _convolutions(block, in_channels)
    if block.repeats == 1:
        return nn.Sequential(convolutions | _following(block, block.pool))
    last = block.repeats - 1
    return Shared(
        nn.Sequential(convolutions),
        *(
            nn.Sequential(_following(block, block.pool if number == last else "none"))
            for number in range(block.repeats)
        ),
    )


def _convolutions(block: Block, in_channels: int) -> OrderedDict[str, nn.Module]:
    def convolution(kernel_size: int, out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=block.stride,
            padding=kernel_size // 2 if block.padding == "same" else 0,
            bias=block.has_bias,
        )

    if block.kind == "conv":
        return OrderedDict(conv=convolution(block.kernel_size, block.out_channels))
    if block.kind == "inception":
        return OrderedDict(
            inception=Inception(*(convolution(*branch) for branch in block.branches))
        )
    return OrderedDict(
        depthwise=nn.Conv2d(
            in_channels,
            in_channels,
            block.kernel_size,
            stride=block.stride,
            padding=block.kernel_size // 2 if block.padding == "same" else 0,
            groups=in_channels,
            bias=False,
        ),
        pointwise=nn.Conv2d(in_channels, block.out_channels, 1, bias=block.has_bias),
    )


_ORDERS = {
    "early_pool": ("pool", "norm", "activation", "dropout"),
    "late_pool": ("norm", "activation", "dropout", "pool"),
    "activation_first": ("activation", "norm", "dropout", "pool"),
}


def _following(block: Block, pool: str) -> OrderedDict[str, nn.Module]:
    """Return what comes after the convolutions, in the block's order."""
    layers: dict[str, nn.Module] = {}
    if pool != "none":
        layers["pool"] = _POOLS[pool](2)
    if block.norm == "batch":
        layers["norm"] = nn.BatchNorm2d(block.out_channels)
    if block.activation != "none":
        layers["activation"] = _ACTIVATIONS[block.activation]()
    if block.dropout > 0:
        layers["dropout"] = nn.Dropout(block.dropout)
    return OrderedDict(
        (name, layers[name]) for name in _ORDERS[block.order] if name in layers
    )


def _head(head: Head, in_shape: Shape, num_classes: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = in_shape
    if head.kind == "conv":
        if head.dropout > 0:
            layers["dropout"] = nn.Dropout(head.dropout)
        layers["classifier"] = nn.Conv2d(channels, num_classes, head.kernel_size)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        return nn.Sequential(layers)
    if head.kind == "pool":
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        return nn.Sequential(layers)
    features = channels * height * width
    if head.kind == "gap":
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        features = channels
    layers["flatten"] = nn.Flatten()
    if head.hidden:
        layers["hidden"] = nn.Linear(features, head.hidden)
        layers["activation"] = nn.ReLU()
        features = head.hidden
    if head.dropout > 0:
        layers["dropout"] = nn.Dropout(head.dropout)
    layers["classifier"] = nn.Linear(features, num_classes)
    return nn.Sequential(layers)
