"""A kind of block is one file and one line: a new one works everywhere at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawing import draw
from exporting import numpy_weights, random_model
from nets import net_of
from system_programs import need_kernels
from test_export_c import check

from nas.architecture import Architecture, Block
from nas.architecture.cost import count_params, layers
from nas.architecture.kinds import KINDS
from nas.architecture.kinds.kind import Kind
from nas.architecture.notation import describe
from nas.architecture.parts import Convolution, Part
from nas.errors import ArchitectureError
from nas.export import floating
from nas.export.chain import stages
from nas.export.source import source
from nas.space import Caps, encode, read_space
from nas.training import kernels
from nas.training.model import build

SPACE = """
[blocks]
depth = [2, 3]
kinds = ["squeezing", "conv"]
kernel_sizes = [3]
shortcuts = ["none", "identity"]
[widths]
min = 2
max = 40
[downsampling]
count = [1, 1]
kinds = ["max"]
[head]
kinds = ["gap"]
"""


def squeezed(block: Block, in_channels: int) -> tuple[Part, ...]:
    """Return a 1x1 convolution to two channels, then one of the kernel's size."""
    norm = block.norm == "batch"
    squeeze = Convolution("squeeze", in_channels, 2, 1, bias=block.has_bias)
    main = Convolution(
        "main", 2, block.out_channels, block.kernel_size, padding=block.zeros,
        bias=block.has_bias,
    )  # fmt: skip
    return Part((squeeze,), norm=norm, activation=block.activation), Part((main,))


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Architecture:
    """Return a net with blocks of a kind that nas does not have."""
    kind = Kind(letter="q", plural="squeezing", parts=squeezed, repeatable=False)
    monkeypatch.setitem(KINDS, "squeezing", kind)
    block = Block(kind="squeezing", out_channels=6, pool="max", shortcut="none")
    added = Block(kind="squeezing", out_channels=6, shortcut="identity")
    return net_of(block, added, shape=(1, 12, 12), classes=4)


def test_a_new_kind_is_counted_built_and_exported(net: Architecture) -> None:
    """Costs, model, its source, float stages and C agree without a word elsewhere."""
    assert describe(net) == "6q3/max - 6q3+ - gap"
    model = random_model(net)
    assert count_params(net) == sum(p.numel() for p in model.parameters())
    assert [layer.description for layer in layers(net)][:3] == [
        "conv 1x1, batch norm, relu",
        "conv 3x3, batch norm, relu",
        "max pool 2x2",
    ]
    images = torch.randn(3, *net.input_shape)
    tensors = [images.double()]
    for stage in stages(net, numpy_weights(model)):
        tensors.append(floating.apply(stage, tensors))
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(tensors[-1].flatten(1), expected, atol=1e-4)
    text = source(net, mean=[0.1], std=[0.3], class_names=list("abcd"))
    assert "squeeze=nn.Conv2d(1, 2, 1, bias=False)" in text
    check(net)


def test_a_new_kind_is_trained_by_the_kernels(net: Architecture) -> None:
    """Their logits are torch's."""
    need_kernels()
    model = build(net, seed=1).eval()
    images = torch.randn(16, *net.input_shape)
    assert kernels.supports(model, 16)
    with torch.inference_mode():
        torch.testing.assert_close(kernels.Compiled(model)(images), model(images))


def test_a_new_kind_is_drawn_and_told_back(net: Architecture) -> None:
    """Under a cap, by a space that names it."""
    space, caps = read_space(SPACE, "new"), Caps(400)
    found = [draw(space, seed, caps, (1, 12, 12), 4) for seed in range(20)]
    assert {block.kind for one in found for block in one.blocks} == set(
        space.kinds.options
    )
    assert all(count_params(one) <= 400 for one in found)
    assert all(encode(space, one, caps) is not None for one in found)
    assert net.blocks[0].kind in KINDS


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"kind": "residual"}, "a residual block takes identity or conv"),
        ({"shortcut": "identity", "stride": 2}, 'stride 1: take shortcut "conv"'),
        ({"shortcut": "conv", "padding": "valid"}, "needs same padding"),
        ({"shortcut": "conv", "order": "late_pool"}, "the pooling comes last"),
        ({"shortcut": "identity", "repeats": 2}, "is not repeated"),
        ({"expansion": 2}, "a conv block has none: leave 1"),
        ({"shortcut": "identity", "out_channels": 5}, "adds the 4 channels that it takes"),
        ({"kind": "bottleneck"}, "a bottleneck block takes identity or conv or bias_conv"),
        ({"kind": "full_bottleneck", "expansion": 2, "shortcut": "conv"}, "has none"),
        ({"kind": "inverted_bottleneck", "expansion": 0}, "at least 1"),
        ({"squeeze_excitation": 4}, "or take inverted_bottleneck or mobilenet or full"),
    ],
)  # fmt: skip
def test_what_a_block_cannot_be_is_said(block: dict[str, object], words: str) -> None:
    """In one line that names the block."""
    with pytest.raises(ArchitectureError, match=words) as caught:
        net_of(Block(**{"out_channels": 4} | block), shape=(4, 8, 8), classes=4)
    assert "block 1" in str(caught.value)
