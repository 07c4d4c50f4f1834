"""The C code: strict C99, no undefined behaviour, and the reference's every bit."""

from __future__ import annotations

import math
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from exporting import fits_int8, normalised, numpy_weights, random_images, random_model
from hypothesis import HealthCheck, given, settings
from nets import net_of
from strategies import architectures, examples
from system_programs import need

from nas.architecture import Activation, Architecture, Block, Head
from nas.architecture.activations import ACTIVATIONS
from nas.architecture.cost import cost, is_shaped
from nas.architecture.definition import MONOTONE
from nas.architecture.kinds import ORDERS
from nas.errors import ExportError
from nas.export import integer
from nas.export.c import arena_size, c_files
from nas.export.chain import stages
from nas.export.integer_stages import IntegerStage
from nas.export.quantise import quantise
from nas.space import Caps, RandomDraws, available, find_space, sample

MEAN, STD = [0.13, 0.4, 0.55], [0.31, 0.2, 0.25]
SANITISED = "-O2 -fsanitize=address,undefined -fno-sanitize-recover=all"


def integer_net(
    architecture: Architecture, images: npt.NDArray[np.uint8], seed: int = 1
) -> list[IntegerStage]:
    """Return a net of random weights in whole numbers, calibrated on the images."""
    channels = architecture.input_shape[0]
    chain = stages(architecture, numpy_weights(random_model(architecture, seed)))
    return quantise(chain, images, mean=MEAN[:channels], std=STD[:channels])


def built(table: list[IntegerStage], folder: Path, flags: str = SANITISED) -> Path:
    """Return the program that the written Makefile makes with these flags."""
    need("make", "cc")
    files = c_files(
        table,
        class_names=[f"class */ {i}" for i in range(table[-1].output_shape[0])],
        summary="a net */ for tests",
    )
    for name, text in files.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        ["make", "-s", "-C", str(folder), f"CFLAGS={flags}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "classify"


def run(program: Path, images: bytes) -> npt.NDArray[np.int64]:
    """Return the class and the logits of each image, [N, 1 + num_classes]."""
    done = subprocess.run(
        [program, "--logits"], input=images, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    return np.array([[int(word) for word in line.split()] for line in lines])


def check(architecture: Architecture, seed: int = 1) -> None:
    """Build the net with sanitisers and hold its every bit against the reference."""
    images = random_images(architecture, 8, seed)
    table = integer_net(architecture, images, seed)
    # Images that calibration has not seen: noise, all black and all white.
    others = random_images(architecture, 4, seed + 1)
    others[2], others[3] = 0, 255
    expected = integer.run(table, others)
    with tempfile.TemporaryDirectory() as folder:
        got = run(built(table, Path(folder)), others.tobytes())
    np.testing.assert_array_equal(got[:, 1:], expected)
    np.testing.assert_array_equal(got[:, 0], expected.argmax(axis=1))
    assert arena_size(table) <= cost(architecture).peak_memory


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(architecture=architectures().filter(fits_int8))
def test_c_gives_the_reference_s_every_bit(architecture: Architecture) -> None:
    """Any architecture, under ASan and UBSan, and an arena within peak memory."""
    check(architecture)


@pytest.mark.parametrize("name", available())
def test_every_space_s_nets_compile_and_agree(name: str) -> None:
    """Nets drawn from each space that comes with nas, over two kinds of images."""
    space = find_space(name)
    for seed, shape in enumerate([(1, 28, 28), (3, 16, 20)]):
        draws = RandomDraws(seed)
        architecture = sample(
            space, draws, input_shape=shape, num_classes=10, caps=Caps(4000)
        )
        check(architecture, seed)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("activation", [n for n in ACTIVATIONS if n != "relu6"])
def test_every_order_of_what_follows(order: str, activation: str) -> None:
    """Maximum and mean, batch norm and none, separable, inception and repeated."""
    common: dict[str, Any] = {"order": order, "activation": activation}
    falls = order == "norm_last" and activation not in MONOTONE
    check(
        net_of(
            Block(out_channels=6, pool="avg" if falls else "max", **common),
            Block(kind="separable", out_channels=6, repeats=2, **common),
            Block(kind="inception", out_channels=7, kernel_size=5, **common),
            Block(out_channels=5, norm="none", pool="avg", stride=2, **common),
            shape=(1, 19, 17),
            classes=5,
            head=Head(kind="conv", kernel_size=1),
        )
    )


def test_a_maximum_of_what_falls_before_batch_norm_is_refused() -> None:
    """In whole numbers; its order and the remedy are named."""
    block = Block(out_channels=4, pool="max", order="norm_last", activation="silu")
    net = net_of(block, classes=4)
    with pytest.raises(
        ExportError, match="block 1: an activation that also falls, max"
    ):
        integer_net(net, random_images(net, 8))


@pytest.mark.parametrize("activation", ["relu", "relu6", "silu"])
def test_shortcuts_of_every_kind(activation: str) -> None:
    """Added in place, or apart; of the images by a convolution; pooled behind it."""
    common = {"activation": activation}
    net = net_of(
        Block(kind="residual", out_channels=5, shortcut="conv", **common),
        Block(kind="residual", out_channels=5, shortcut="identity", **common),
        Block(out_channels=5, shortcut="identity", pool="avg", **common),
        Block(kind="separable", out_channels=6, shortcut="conv", **common),
        Block(kind="mobilenet", out_channels=6, shortcut="identity", **common),
        Block(
            kind="mobilenet",
            out_channels=6,
            shortcut="identity",
            squeeze_excitation=4,
            **common,
        ),
        Block(
            kind="inverted_bottleneck",
            out_channels=6,
            stride=2,
            expansion=2,
            squeeze_excitation=3,
            **common,
        ),
        Block(
            kind="inverted_bottleneck",
            out_channels=6,
            expansion=3,
            shortcut="identity",
            **common,
        ),
        Block(
            kind="residual",
            out_channels=6,
            shortcut="identity",
            pool="max",
            **common,
        ),
        shape=(3, 19, 17),
        classes=5,
    )
    check(net)


@pytest.mark.parametrize("activation", ["relu6", "silu"])
def test_further_shortcuts_and_bottlenecks(activation: str) -> None:
    """By a convolution without norm or with activation; with zeros, and with channels cut."""
    common = {"activation": activation}
    net = net_of(
        Block(kind="residual", out_channels=5, shortcut="activated_conv", **common),
        Block(kind="bottleneck", out_channels=8, expansion=3, stride=2,
              shortcut="pad", **common),
        Block(kind="residual", out_channels=5, shortcut="pad", **common),
        Block(out_channels=7, stride=2, shortcut="bias_conv", pool="max", **common),
        Block(kind="full_bottleneck", out_channels=6, shortcut="bare_conv", **common),
        Block(kind="full_bottleneck", out_channels=6, squeeze_excitation=2,
              shortcut="pad", gate="hard_sigmoid", **common),
        Block(kind="inverted_bottleneck", out_channels=5, expansion=2,
              squeeze_excitation=2, shortcut="conv", **common),
        shape=(3, 19, 17),
        classes=5,
    )  # fmt: skip
    check(net)


@pytest.mark.parametrize(
    ("shape", "resolution"), [((1, 20, 28), 14), ((3, 9, 9), 8), ((2, 16, 12), 6)]
)
def test_images_in_a_lower_resolution(
    shape: tuple[int, int, int], resolution: int
) -> None:
    """Means of areas, of which some overlap; the first block pads with their zeros."""
    blocks = (Block(out_channels=5), Block(kind="separable", out_channels=6, stride=2))
    net = net_of(*blocks, shape=shape, classes=5, resolution=resolution)
    check(net)
    depthwise = Block(kind="mobilenet", out_channels=4, squeeze_excitation=2)
    check(replace(net, blocks=(depthwise, *blocks)))


@pytest.mark.parametrize("values", [{"kernel_width": 5}, {"dilation": 2}])
def test_rectangular_and_dilated_kernels(values: dict[str, Any]) -> None:
    """Of colour images and of feature maps, padded and not, with strides and pooling."""
    check(
        net_of(
            Block(out_channels=5, stride=2, **values),
            Block(kind="separable", out_channels=6, pool="max", **values),
            Block(kind="residual", out_channels=6, shortcut="identity", **values),
            Block(kind="mobilenet", out_channels=6, kernel_size=1, **values),
            shape=(3, 19, 17),
            classes=5,
        )
    )
    block = Block(out_channels=5, kernel_size=2, padding="valid", pool="avg", **values)
    depthwise = replace(block, kind="separable", stride=2, pool="none")
    check(net_of(block, depthwise, shape=(1, 19, 17), classes=5, head="flatten"))


@pytest.mark.parametrize(
    ("block", "shaped"),
    [
        (Block(out_channels=4, kernel_width=5), 1),
        (Block(out_channels=4, kernel_width=5, padding="valid"), 0),
        (Block(out_channels=4, kernel_size=2, kernel_width=4, padding=(1, 1)), 0),
        (Block(kind="residual", out_channels=4, shortcut="conv", dilation=2), 1),
    ],
)
def test_flash_has_the_code_for_shapes_where_c_has_it(
    block: Block, shaped: int
) -> None:
    """Of uneven padding and of dilation, not of every rectangular kernel."""
    net = Architecture(
        input_shape=(1, 9, 9), num_classes=2, blocks=(block,), head=Head()
    )
    table = integer_net(net, random_images(net, 4))
    files = c_files(table, class_names=list("ab"), summary="a net")
    assert f"#define NET_HAS_SHAPES {shaped}\n" in "".join(files.values())
    assert is_shaped(block.zeros, block.dilation) == shaped


@pytest.mark.parametrize("padding", [(2, 2), (0, 1), (1, 0)])
def test_padding_in_numbers(padding: tuple[int, int]) -> None:
    """Of even and odd kernels; of colour images and of feature maps, depthwise, too."""
    check(
        net_of(
            Block(out_channels=5, kernel_size=4, padding=padding),
            Block(out_channels=6, padding=padding, pool="max"),
            Block(kind="separable", out_channels=6, padding=padding),
            Block(
                kind="mobilenet",
                out_channels=6,
                kernel_size=4,
                padding=padding,
                stride=2,
            ),
            shape=(3, 19, 17),
            classes=5,
        )
    )


@pytest.mark.parametrize("values", [{}, {"dilation": 2, "kernel_width": 5}])
def test_groups_of_channels(values: dict[str, Any]) -> None:
    """Of colour images and of feature maps; of one to nine channels, given and taken."""
    check(
        net_of(
            Block(out_channels=18, groups=3, stride=2, **values),
            Block(out_channels=18, groups=2, pool="avg", activation="silu"),
            Block(out_channels=18, groups=9, shortcut="identity", **values),
            Block(kind="separable", out_channels=6),
            Block(out_channels=12, groups=6, padding="valid", pool="max"),
            Block(kind="inception", out_channels=8),
            shape=(3, 19, 17),
            classes=5,
        )
    )


@pytest.mark.parametrize(
    "block",
    [
        Block(kind="residual", out_channels=6, shortcut="identity"),
        Block(kind="residual", out_channels=9, stride=2, shortcut="pad"),
        Block(kind="mobilenet", out_channels=6, squeeze_excitation=2),
        Block(
            kind="mobilenet", out_channels=6, squeeze_excitation=2, gate="hard_sigmoid"
        ),
        Block(out_channels=6, groups=2),
        *(
            Block(out_channels=6, activation=name, order="activation_first")
            for name in get_args(Activation)
        ),
    ],
)
def test_additions_gates_and_activations_are_as_exact_as_convolutions(
    block: Block,
) -> None:
    """The int8 sums and products are those of float, to a hundredth of their range."""
    net = net_of(
        Block(out_channels=6), block, shape=(1, 16, 16), classes=4, head="flatten"
    )
    images = random_images(net, 64)
    table = integer_net(net, images)
    whole = integer.run(table, images) / 2.0 ** table[-1].logit_bits
    with torch.no_grad():
        exact = random_model(net)(normalised(images, MEAN[:1], STD[:1])).numpy()
    assert abs(whole - exact).max() < 0.03 * np.ptp(exact)


def test_hard_gates_are_cut_at_both_ends() -> None:
    """As torch cuts them, to a few hundredths, by the range of their numbers alone."""
    block = Block(
        kind="mobilenet", out_channels=6, squeeze_excitation=1, gate="hard_sigmoid"
    )
    net = net_of(block, block, shape=(3, 8, 8), classes=4)
    model, images = random_model(net), random_images(net, 64)
    model.blocks[1].gates1.excite.weight.data *= 5
    model.blocks[1].gates1.excite.bias.data = torch.linspace(-5, 5, 6)
    found: list[torch.Tensor] = []
    model.blocks[1].gates1.gate.register_forward_hook(lambda *o: found.append(o[2]))
    with torch.no_grad():
        model(normalised(images, MEAN, STD))
    chain = stages(net, numpy_weights(model))
    table = quantise(chain, images, mean=MEAN, std=STD)
    tensors = [images.astype(np.int64)]
    for stage in table:
        tensors.append(integer.apply(stage, tensors))
    names = [stage.float_stage.name for stage in table]
    gates = tensors[1 + names.index("block 2 excite")]
    assert {0, 255} < {*gates.flatten().tolist()}
    assert abs(gates / 255 - found[0].numpy()).mean() < 0.03
    assert all(stage.activation_step is None for stage in table)


@pytest.mark.parametrize(
    ("shortcut", "name"), [("identity", "block 1"), ("pad", "block 1 shortcut")]
)
def test_the_images_themselves_are_not_added(shortcut: Any, name: str) -> None:
    """In whole numbers they have another scale for each channel: refused by name."""
    net = net_of(Block(out_channels=3, shortcut=shortcut), shape=(3, 8, 8), classes=4)
    with pytest.raises(ExportError, match=f"{name}: a shortcut of the input image"):
        integer_net(net, random_images(net, 8))


def test_repeats_share_their_weights() -> None:
    """A block applied three times has its int8 weights once, whatever its norms."""
    architecture = net_of(
        Block(out_channels=6),
        Block(kind="separable", out_channels=6, repeats=3, activation="hardswish"),
        shape=(1, 12, 12),
        classes=4,
    )
    table = integer_net(architecture, random_images(architecture, 16))
    files = c_files(table, class_names=list("abcd"), summary="a net")
    sizes = [
        int(line.split("[")[1].split("]")[0])
        for line in files["net.c"].splitlines()
        if line.startswith("static const int8_t")
    ]
    # Convolution, depthwise, pointwise, ones of the pooling, classifier.
    assert sizes == [6 * 9, 6 * 9, 6 * 6, 6, 6 * 4]


def test_the_program_refuses_half_an_image(tmp_path: Path) -> None:
    """One line says what was expected, after the whole images' answers."""
    architecture = net_of(Block(out_channels=2), classes=3)
    images = random_images(architecture, 4)
    program = built(integer_net(architecture, images), tmp_path)
    done = subprocess.run(
        [program], input=images.tobytes()[:-3], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3
    assert b"the last image has 61 bytes, not 64" in done.stderr
    done = subprocess.run([program, "--wrong"], capture_output=True, check=False)
    assert done.returncode == 2


def test_the_arena_is_the_largest_pair() -> None:
    """Without a pooling to save anything it is nas.cost's peak memory to the byte."""
    architecture = net_of(
        Block(out_channels=4),
        Block(kind="separable", out_channels=6),
        shape=(1, 10, 10),
        classes=3,
    )
    table = integer_net(architecture, random_images(architecture, 4))
    assert arena_size(table) == cost(architecture).peak_memory == 100 * (4 + 6)
    assert arena_size(table) >= math.prod(architecture.input_shape)
