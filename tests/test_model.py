"""Building models: shapes, names, order of layers and seeds."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from nets import net_of
from torch import nn
from torch.nn import functional

from nas.architecture import (
    Activation,
    Architecture,
    Block,
    Head,
    Pool,
    feature_shapes,
)
from nas.architecture.activations import ACTIVATIONS
from nas.architecture.kinds import parts_of
from nas.training.model import ACTIVATION_MODULES, build


def architecture(*blocks: Block, **head: Any) -> Architecture:
    """Return an architecture for 2x13x12 images and 7 classes."""
    return net_of(*blocks, shape=(2, 13, 12), classes=7, head=Head(**head))


@pytest.mark.parametrize("kind", ["conv", "separable"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pool", get_args(Pool))
def test_blocks_have_the_predicted_shape(
    kind: Any, padding: Any, kernel_size: int, stride: int, pool: Any
) -> None:
    """Every kind of block gives the feature map that feature_shapes predicts."""
    block = Block(
        kind=kind,
        out_channels=5,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        pool=pool,
    )
    described = architecture(block)
    blocks = build(described, seed=0).get_submodule("blocks")
    features = blocks(torch.zeros(3, 2, 13, 12))
    assert tuple(features.shape) == (3, *feature_shapes(described)[-1])


@pytest.mark.parametrize("kind", ["gap", "conv", "flatten"])
@pytest.mark.parametrize("hidden", [0, 6])
def test_heads_give_one_logit_a_class(kind: Any, hidden: int) -> None:
    """Every kind of head ends in one logit a class, dropout right before the last."""
    described = architecture(
        Block(out_channels=4), kind=kind, kernel_size=3, hidden=hidden, dropout=0.2
    )
    model = build(described, seed=0)
    assert model(torch.zeros(3, 2, 13, 12)).shape == (3, 7)
    names = [name for name, _ in model.get_submodule("head").named_children()]
    assert names[names.index("dropout") + 1] == "classifier"
    assert ("hidden" in names) == (hidden > 0 and kind != "conv")


def test_a_pool_head_has_no_parameters() -> None:
    """The last block's channels, averaged, are the logits."""
    model = build(architecture(Block(out_channels=7), kind="pool", dropout=0.2))
    assert not list(model.get_submodule("head").parameters())
    images = torch.randn(3, 2, 13, 12)
    features = model.get_submodule("blocks")(images)
    assert torch.allclose(model(images), features.mean((2, 3)))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("early_pool", ["pool", "norm", "activation", "dropout"]),
        ("late_pool", ["norm", "activation", "dropout", "pool"]),
        ("activation_first", ["activation", "norm", "dropout", "pool"]),
        ("norm_last", ["activation", "pool", "norm", "dropout"]),
    ],
)
def test_layers_stand_in_the_documented_order(order: Any, expected: list[str]) -> None:
    """After the convolutions come the layers that the order tells."""
    block = Block(
        kind="separable", out_channels=4, pool="max", dropout=0.1, order=order
    )
    layers = build(architecture(block)).get_submodule("blocks.0")
    names = [name for name, _ in layers.named_children()]
    assert names == ["depthwise", "pointwise", *expected]


def test_an_inception_block_joins_its_branches() -> None:
    """Each branch sees the whole input; the channels stand in the branches' order."""
    block = Block(
        kind="inception", out_channels=8, kernel_size=5, norm="none", activation="none"
    )
    (joined,) = parts_of(block, 2)
    assert [(one.kernel_size, one.out_channels) for one in joined.convolutions] == [
        (1, 3),
        (3, 3),
        (5, 2),
    ]
    layers = build(architecture(block)).get_submodule("blocks.0")
    images = torch.randn(3, 2, 13, 12)
    parts = layers(images).split([3, 3, 2], dim=1)
    for number, part in enumerate(parts):
        branch = layers.get_submodule(f"inception.branches.{number}")
        assert torch.equal(branch(images), part)


def test_a_shared_block_applies_the_same_weights() -> None:
    """Without batch norm a block three times is the block's function three times."""
    first = Block(out_channels=4)
    block = Block(out_channels=4, norm="none", activation="silu", repeats=3, pool="avg")
    described = architecture(first, block)
    shared = build(described).get_submodule("blocks.1")
    weights = shared.get_submodule("convolutions.conv")
    features = torch.randn(3, 4, 13, 12)
    expected = features
    for number in range(3):
        expected = weights(expected)
        expected = functional.avg_pool2d(expected, 2) if number == 2 else expected
        expected = functional.silu(expected)
    assert torch.allclose(shared(features), expected)
    assert len(list(shared.parameters())) == 2


def test_a_shared_block_has_a_batch_norm_each_time() -> None:
    """The applications see other distributions, so their statistics are their own."""
    described = architecture(
        Block(out_channels=4), Block(kind="separable", out_channels=4, repeats=2)
    )
    shared = build(described).get_submodule("blocks.1")
    norms = [m for m in shared.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 2
    shared(torch.randn(8, 4, 13, 12))
    assert not torch.equal(norms[0].running_var, norms[1].running_var)


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation_is_known(activation: Any) -> None:
    """Each activation of the description builds and runs."""
    described = architecture(Block(out_channels=4, activation=activation))
    assert build(described)(torch.ones(1, 2, 13, 12)).isfinite().all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_facts_of_an_activation_are_torch_s(name: str) -> None:
    """By its name and by its module torch computes the same, and rising where said."""
    assert get_args(Activation) == (*ACTIVATIONS, "none")
    numbers = torch.linspace(-8, 8, 999)
    values = ACTIVATION_MODULES[name]()(numbers)
    torch.testing.assert_close(values, getattr(functional, name)(numbers))
    assert ACTIVATIONS[name].monotone == bool((values.diff() >= 0).all())


def test_only_convolutions_without_batch_norm_have_a_bias() -> None:
    """Batch norm takes the convolution's bias's place, unless the block says else."""
    blocks = (
        Block(out_channels=4),
        Block(out_channels=4, norm="none"),
        Block(kind="separable", out_channels=4, norm="none"),
        Block(out_channels=4, bias="yes"),
        Block(out_channels=4, norm="none", bias="no"),
    )
    names = dict(build(architecture(*blocks)).named_parameters())
    assert {name for name in names if name.endswith("bias")} == {
        "blocks.0.norm.bias",
        "blocks.1.conv.bias",
        "blocks.2.pointwise.bias",
        "blocks.3.conv.bias",
        "blocks.3.norm.bias",
        "head.classifier.bias",
    }


def test_the_same_seed_gives_the_same_weights() -> None:
    """Weights follow from the seed alone and other seeds give other weights."""
    described = architecture(Block(out_channels=4))
    torch.rand(3)
    first, second, other = (build(described, seed=seed) for seed in (1, 1, 2))
    name = "blocks.0.conv.weight"
    assert torch.equal(first.get_parameter(name), second.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))


def test_a_seed_leaves_the_global_random_state_alone() -> None:
    """Building with a seed does not disturb the numbers that others draw."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    build(architecture(Block(out_channels=4)), seed=1)
    assert torch.equal(torch.rand(2), expected)


def test_the_model_is_made_of_plain_torch_layers() -> None:
    """Nothing in a model needs this package to be loaded again."""
    model = build(architecture(Block(kind="separable", out_channels=4), dropout=0.1))
    assert isinstance(model, nn.Sequential)
    assert all(type(m).__module__.startswith("torch.nn.") for m in model.modules())
