"""From an architecture to a torch model of plain, exportable layers.

Every model is ``blocks`` (one module a block) and ``head``, so that weights have names
such as ``blocks.0.conv.weight`` and ``head.classifier.bias``. Where the net takes the
images in a lower resolution, ``resize`` comes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from nas.architecture import Architecture, Block, Head, Shape, feature_shapes
from nas.architecture.activations import ACTIVATIONS
from nas.architecture.kinds import (
    channels_beside,
    finish_of,
    parts_of,
    shortcut_of,
)
from nas.architecture.parts import Convolution, Part

ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    name: getattr(nn, facts.module) for name, facts in ACTIVATIONS.items()
}
GATE_MODULES: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
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
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if architecture.resolution:
        # Means of areas; it has no weights.
        parts["resize"] = nn.AdaptiveAvgPool2d(shapes[0][1:])
    parts |= {"blocks": nn.Sequential(*blocks), "head": head}
    return nn.Sequential(parts)


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


class Residual(nn.Module):
    """What some layers make of the input, added to the input or what a shortcut gives."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Sequential) -> None:
        """Take the layers and the shortcut, which is empty where the input is added."""
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum, ``[N, C, H, W]``."""
        added: Tensor = self.body(features) + self.shortcut(features)
        return added


class PadChannels(nn.Module):
    """Every so many-th row and column, and channels of zeros before and behind."""

    def __init__(self, stride: int, before: int, behind: int) -> None:
        """Take the step and how many channels; fewer than 0 are taken away."""
        super().__init__()
        self.stride, self.before, self.behind = stride, before, behind

    def forward(self, features: Tensor) -> Tensor:
        """Return the padded feature maps, ``[N, C, H, W]``."""
        kept = features[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(kept, (0, 0, 0, 0, self.before, self.behind))


class SqueezeExcitation(nn.Module):
    """One factor of 0 to 1 for each channel, made of the means of all channels."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        activation: nn.Module,
        gate: nn.Module,
        *,
        bias: bool = True,
    ) -> None:
        """Take the channels, and how many values lie between means and factors."""
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.activation = activation
        self.excite = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.gate = gate

    def forward(self, features: Tensor) -> Tensor:
        """Return the feature maps ``[N, C, H, W]``, each times its factor."""
        means = features.mean((2, 3), keepdim=True)
        inside = self.activation(self.squeeze(means))
        gated: Tensor = features * self.gate(self.excite(inside))
        return gated


OWN_MODULES: tuple[type[nn.Module], ...] = (
    Inception,
    Shared,
    Residual,
    PadChannels,
    SqueezeExcitation,
)
"""Those that torch does not have."""


def _block(block: Block, in_channels: int) -> nn.Module:
    convolutions = _convolutions(parts_of(block, in_channels))
    if block.shortcut != "none":
        body = nn.Sequential(convolutions | _following(block, "none", {"norm"}))
        shortcut = shortcut_of(block, in_channels)
        layers = _convolutions((shortcut,)) if shortcut is not None else OrderedDict()
        if shortcut is not None and shortcut.norm:
            layers["norm"] = nn.BatchNorm2d(shortcut.out_channels)
        if shortcut is not None and shortcut.activation != "none":
            layers["activation"] = ACTIVATION_MODULES[shortcut.activation]()
        if block.shortcut == "pad":
            beside = channels_beside(block, in_channels)
            layers["pad"] = PadChannels(block.stride, *beside)
        residual: OrderedDict[str, nn.Module] = OrderedDict(
            residual=Residual(body, nn.Sequential(layers))
        )
        finish = {"activation", "dropout", "pool"}
        return nn.Sequential(residual | _following(block, block.pool, finish))
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


def _convolutions(parts: Sequence[Part]) -> OrderedDict[str, nn.Module]:
    """Return the parts' layers, without what follows the last one."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, part in enumerate(parts, start=1):
        if len(part.convolutions) > 1:
            name = part.convolutions[0].name.partition(".")[0]
            layers[name] = Inception(*map(_convolution, part.convolutions))
        else:
            (one,) = part.convolutions
            layers[one.name] = _convolution(one)
        if number < len(parts):
            if part.norm:
                layers[f"norm{number}"] = nn.BatchNorm2d(part.out_channels)
            if part.activation != "none":
                layers[f"activation{number}"] = ACTIVATION_MODULES[part.activation]()
            if part.gates is not None:
                gates = part.gates
                layers[f"gates{number}"] = SqueezeExcitation(
                    gates.channels,
                    gates.hidden,
                    ACTIVATION_MODULES[gates.activation](),
                    GATE_MODULES[gates.gate](),
                    bias=gates.bias,
                )
    return layers


def _convolution(one: Convolution) -> nn.Conv2d:
    return nn.Conv2d(
        one.in_channels,
        one.out_channels,
        one.kernel,
        stride=one.stride,
        padding=one.padding,
        dilation=one.dilation,
        groups=one.in_channels // one.inputs,
        bias=one.bias,
    )


def _following(
    block: Block,
    pool: str,
    wanted: Collection[str] = ("pool", "norm", "activation", "dropout"),
) -> OrderedDict[str, nn.Module]:
    """Return those wanted of what comes after the convolutions, in the block's order."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in finish_of(block):
        if name not in wanted or (name == "pool" and pool == "none"):
            continue
        match name:
            case "pool":
                assert block.pooling is not None
                own = block.pooling
                pairs = own.window, own.strides, own.padding
                # One number for two that are equal, as the exported source has it.
                sizes = [one if one == other else (one, other) for one, other in pairs]
                layers[name] = _POOLS[pool](*sizes)
            case "norm":
                layers[name] = nn.BatchNorm2d(block.out_channels)
            case "activation":
                layers[name] = ACTIVATION_MODULES[block.activation]()
            case _:
                layers[name] = nn.Dropout(block.dropout)
    return layers


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
    for number, width in enumerate(head.widths, start=1):
        own = "" if number == 1 else str(number)
        layers[f"hidden{own}"] = nn.Linear(features, width)
        if head.activation != "none":
            layers[f"activation{own}"] = ACTIVATION_MODULES[head.activation]()
        features = width
    if head.dropout > 0:
        layers["dropout"] = nn.Dropout(head.dropout)
    layers["classifier"] = nn.Linear(features, num_classes)
    return nn.Sequential(layers)
