"""Costs: exact, against the built torch model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given
from nets import net_of
from strategies import architectures
from torch import nn

from nas.architecture import Architecture, Block, Head
from nas.architecture.cost import (
    Cost,
    cost,
    count_params,
    layers,
    total,
)
from nas.training.model import (
    Inception,
    PadChannels,
    Residual,
    SqueezeExcitation,
    build,
)


@dataclass
class Measured:
    """What hooks saw of one image's way through a model."""

    macs: int = 0
    peak_memory: int = 0
    waiting: dict[nn.Module, int] = field(default_factory=dict)
    """What waits for an addition while a layer is computed."""

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Take the costs of one layer that has just run."""
        (source,) = inputs
        if isinstance(module, nn.Conv2d):
            taps = module.kernel_size[0] * module.kernel_size[1]
            self.macs += output.numel() * taps * module.in_channels // module.groups
        elif isinstance(module, nn.Linear):
            self.macs += module.in_features * module.out_features
        elif source.shape == output.shape and not isinstance(module, COPYING):
            return  # the mean of a single pixel is that pixel: nothing to compute
        waiting = self.waiting.get(module, 0)
        self.peak_memory = max(
            self.peak_memory, source.numel() + output.numel() + waiting
        )

    def watch(self, residual: Residual) -> None:
        """Take the costs of a shortcut: it comes just before the last convolution."""
        units = [m for m in residual.body if isinstance(m, nn.Conv2d | Inception)]
        own = [m for m in residual.shortcut if isinstance(m, nn.Conv2d | PadChannels)]

        def waits(modules: list[nn.Module], inputs: tuple[Any, ...]) -> None:
            self.waiting |= dict.fromkeys(modules, inputs[0].numel())

        residual.register_forward_pre_hook(lambda _, i: waits(units[1:-1], i))
        if len(units) > 1:
            units[-1].register_forward_pre_hook(lambda _, i: waits(own, i))
        gates = [m for m in residual.body if isinstance(m, SqueezeExcitation)]
        residual.register_forward_pre_hook(lambda _, i: waits(list(gates), i))

    def watch_gates(self, gates: SqueezeExcitation) -> None:
        """Let the feature map wait for its gates, beside what waits already."""

        def waits(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            waiting = inputs[0].numel() + self.waiting.get(gates, 0)
            self.waiting |= dict.fromkeys((gates.squeeze, gates.excite), waiting)

        gates.register_forward_pre_hook(waits)


COPYING = (Inception, PadChannels)  # also what is as large as its input

WITH_COSTS = (
    nn.Conv2d,
    nn.Linear,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    Inception,  # its parts' outputs are one
    PadChannels,
)


def measure(architecture: Architecture) -> Cost:
    """Return the costs as torch shows them."""
    model = build(architecture).eval()
    measured = Measured()
    for module in model.modules():
        if isinstance(module, SqueezeExcitation):
            measured.watch_gates(module)
        if isinstance(module, Residual):
            measured.watch(module)
        if isinstance(module, WITH_COSTS):
            module.register_forward_hook(measured)
    with torch.no_grad():
        logits = model(torch.zeros(1, *architecture.input_shape))
    assert logits.shape == (1, architecture.num_classes)
    num_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Cost(num_params, measured.macs, measured.peak_memory)


@given(architectures())
def test_costs_are_those_of_the_built_model(architecture: Architecture) -> None:
    """Parameters, MACs and peak memory are exactly what hooks see in torch."""
    assert replace(cost(architecture), flash=0) == measure(architecture)


@given(architectures())
def test_the_parameters_alone(architecture: Architecture) -> None:
    """They are those of `cost`."""
    assert count_params(architecture) == cost(architecture).num_params


@given(architectures())
def test_layers_join_up(architecture: Architecture) -> None:
    """Each layer's input is the output before it, and all costs add up."""
    table = layers(architecture)
    chain = [x for x in table if not x.description.startswith("shortcut")]
    outputs = [architecture.input_shape, *(layer.output_shape for layer in chain)]
    assert outputs[-1] == (architecture.num_classes, 1, 1)
    for output, layer in zip(outputs, chain, strict=False):
        # Flattening keeps the values and drops the shape.
        assert prod(output) == prod(layer.input_shape)
    costs = cost(architecture)
    assert replace(total(table), flash=0) == replace(costs, flash=0)
    gated = any(block.gated for block in architecture.blocks)
    assert total(table, gated=gated).flash < costs.flash


def test_a_known_network_by_hand() -> None:
    """The sums of a small network, worked out on paper."""
    architecture = net_of(
        Block(out_channels=8, padding="valid"),
        Block(kind="separable", out_channels=16, pool="max"),
        shape=(1, 28, 28),
    )
    first = 8 * 9 + 2 * 8
    second = 8 * 9 + 8 * 16 + 2 * 16
    assert count_params(architecture) == first + second + 16 * 10 + 10
    area = 26 * 26
    assert cost(architecture).macs == area * (8 * 9 + 8 * 9 + 8 * 16) + 16 * 10
    assert cost(architecture).peak_memory == area * (8 + 16)


def test_a_live_shortcut_by_hand() -> None:
    """What is added waits; the sum is written in its place."""
    same = Block(kind="residual", out_channels=4, shortcut="identity")
    other = Block(kind="residual", out_channels=6, stride=2, shortcut="conv")
    head = Head(kind="pool")
    net = net_of(same, shape=(4, 8, 8), classes=4, head=head)
    assert count_params(net) == 2 * (4 * 4 * 9 + 2 * 4)
    assert cost(net).peak_memory == 2 * (4 * 64)
    net = replace(net, num_classes=6, blocks=(other,))
    assert count_params(net) == (4 * 6 + 6 * 6) * 9 + 4 * 6 + 3 * 2 * 6
    assert cost(net).macs == 16 * ((4 * 6 + 6 * 6) * 9 + 4 * 6)
    # The block's input and both inputs of the sum, at a quarter of the area.
    assert cost(net).peak_memory == 4 * 64 + 2 * (6 * 16)
    assert [layer.description for layer in layers(net)] == [
        "conv 3x3 stride 2, batch norm, relu",
        "shortcut conv 1x1 stride 2, batch norm",
        "conv 3x3, batch norm, + shortcut, relu",
        "global average pool",
    ]


def test_a_shortcut_of_zeros_by_hand() -> None:
    """It has a map of its own, and neither parameters nor multiply-accumulates."""
    block = Block(kind="residual", out_channels=6, stride=2, shortcut="pad")
    net = net_of(block, shape=(4, 8, 8), classes=6, head="pool")
    assert count_params(net) == (4 * 6 + 6 * 6) * 9 + 2 * 2 * 6
    assert cost(net).macs == 16 * (4 * 6 + 6 * 6) * 9
    assert cost(net).peak_memory == 4 * 64 + 2 * (6 * 16)
    assert layers(net)[1].description == "shortcut pad stride 2"


def test_a_bottleneck_by_hand() -> None:
    """Its middle is as many times narrower as the expansion says, rounded down."""
    block = Block(kind="bottleneck", out_channels=7, expansion=3, shortcut="bare_conv")
    net = net_of(block, shape=(4, 8, 8), classes=7, head="pool")
    weights = 4 * 2 + 2 * 2 * 9 + 2 * 7 + 4 * 7
    assert count_params(net) == weights + 2 * (2 + 2 + 7)
    assert cost(net).macs == 64 * weights


def test_gates_by_hand() -> None:
    """The wide map, and the block's input, wait while its gates are made of its means."""
    block = Block(
        kind="inverted_bottleneck",
        out_channels=4,
        expansion=3,
        squeeze_excitation=4,
        shortcut="identity",
    )
    net = net_of(block, shape=(4, 4, 4), classes=4, head="pool")
    gates = 2 * 12 * 3
    assert count_params(net) == 4 * 12 + 24 + 9 * 12 + 24 + gates + 15 + 12 * 4 + 8
    assert cost(net).macs == 16 * (4 * 12 + 9 * 12 + 12 * 4) + gates
    # Two wide maps and the input; beside that a map of single pixels is nothing.
    assert cost(net).peak_memory == 16 * (4 + 12 + 12)
    found = layers(net)[4]
    assert found.description == "excite: conv 1x1, bias, sigmoid, times features"
    assert found.memory == 16 * (4 + 12) + 12 + 3


def test_shared_and_inception_blocks_by_hand() -> None:
    """Weights of a shared block count once, its batch norms and MACs each time."""
    architecture = net_of(
        Block(kind="inception", out_channels=8, kernel_size=5, bias="yes"),
        Block(kind="separable", out_channels=8, repeats=3, pool="max"),
        classes=8,
        head="pool",
    )
    first = 3 * 1 + 3 * 9 + 2 * 25
    shared = 8 * 9 + 8 * 8
    assert count_params(architecture) == first + 8 + 16 + shared + 3 * 16
    assert cost(architecture).macs == 64 * (first + 3 * shared)
    assert cost(architecture).peak_memory == 64 * 16


@pytest.mark.parametrize("kind", ["gap", "flatten", "conv"])
def test_a_head_alone_is_a_network(kind: Any) -> None:
    """Without any block the head works on the image itself."""
    architecture = net_of(shape=(3, 5, 4), classes=3, head=kind)
    assert replace(cost(architecture), flash=0) == measure(architecture)
