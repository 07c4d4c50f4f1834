"""Flash, RAM and latency: predicted, capped, and measured on an emulated Cortex-M."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Invoke
from drawing import draw
from exporting import numpy_weights, random_images, random_model
from nets import net_of
from studying import one_line
from system_programs import need
from test_export_c import MEAN, STD, built

from nas.architecture import Architecture, Block, Head
from nas.architecture.boards import Board, find_board, read_limit
from nas.architecture.cost import STACK, cost, layers
from nas.data import load_dataset
from nas.errors import ArchitectureError, SpaceError
from nas.export import integer
from nas.export.c import c_files, target
from nas.export.chain import stages
from nas.export.integer_stages import IntegerStage
from nas.export.quantise import quantise
from nas.export.trained import read_trained
from nas.space import Caps, available, find_space, resize

BEST = Path(__file__).parents[1] / "benchmarks" / "nets" / "4719"
NET = net_of(
    Block(out_channels=6, kernel_size=5, stride=2),
    Block(kind="separable", out_channels=10, activation="hardswish", pool="max"),
    shape=(1, 28, 28),
    head=Head(hidden=8),
)


def integer_net(architecture: Architecture) -> list[IntegerStage]:
    """Return a net of random weights in whole numbers."""
    channels = architecture.input_shape[0]
    return quantise(
        stages(architecture, numpy_weights(random_model(architecture))),
        random_images(architecture, 8),
        mean=MEAN[:channels],
        std=STD[:channels],
    )


def written(table: list[IntegerStage]) -> dict[str, str]:
    """Return the C files of the net."""
    names = [str(number) for number in range(table[-1].output_shape[0])]
    return c_files(table, class_names=names, summary="a net")


@pytest.mark.parametrize("cpu", ["cortex-m3", "cortex-m4"])
def test_a_cortex_m_gives_the_host_s_bytes(cpu: str, tmp_path: Path) -> None:
    """A trained winner on 100 real images: the same classes and logits, bit by bit."""
    need("arm-none-eabi-gcc", "qemu-system-arm", "make", "cc")
    dataset = load_dataset("mnist")
    images = dataset.test_images.numpy()[:100]
    net = read_trained(BEST)
    table = quantise(
        stages(net.architecture, net.weights),
        dataset.images.numpy()[:100],
        mean=net.mean,
        std=net.std,
    )
    host = subprocess.run(
        [built(table, tmp_path, "-O2"), "--logits"],
        input=images.tobytes(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    files = written(table)
    emulated = target.emulate(files, images, cpu)
    footprint = target.footprint(files, cpu)
    assert emulated is not None
    assert footprint is not None
    assert emulated.output == host
    classes = [int(line.split()[0]) for line in host.splitlines()]
    assert np.mean(classes == dataset.test_labels.numpy()[:100]) > 0.97
    costs = cost(net.architecture)
    assert footprint.flash <= costs.flash <= 1.1 * footprint.flash
    ram = footprint.ram + emulated.stack
    assert ram <= costs.peak_memory + STACK <= 1.1 * ram
    assert emulated.instructions > costs.macs


@pytest.mark.parametrize("name", available())
def test_flash_is_predicted(name: str) -> None:
    """Within ten per cent and never under, for nets of each space."""
    need("arm-none-eabi-gcc", "make")
    for seed, shape in enumerate([(1, 28, 28), (3, 20, 24)]):
        architecture = draw(find_space(name), seed, Caps([4000, 1000][seed]), shape)
        files = written(integer_net(architecture))
        for cpu in ("cortex-m3", "cortex-m4"):
            found = target.footprint(files, cpu)
            assert found is not None
            assert found.flash <= cost(architecture).flash <= 1.1 * found.flash


def test_flash_of_a_lower_resolution() -> None:
    """The averaging of the images is counted."""
    need("arm-none-eabi-gcc", "make")
    net = net_of(
        Block(out_channels=5), Block(out_channels=5), shape=(1, 28, 28), resolution=20
    )
    found = target.footprint(written(integer_net(net)))
    assert found is not None
    assert found.flash <= cost(net).flash <= 1.1 * found.flash


@pytest.mark.parametrize(
    "block",
    [
        Block(out_channels=5, activation="silu"),
        Block(out_channels=5, activation="leaky_relu", order="activation_first"),
        Block(out_channels=5, activation="hardswish", order="late_pool", pool="avg"),
        Block(out_channels=5, activation="silu", order="norm_last", pool="avg"),
        Block(out_channels=5, order="norm_last", pool="max"),
        Block(kind="inception", out_channels=7, kernel_size=5, activation="silu"),
        Block(kind="separable", out_channels=6, norm="none", activation="none"),
        Block(kind="residual", out_channels=6, shortcut="conv", pool="max"),
        Block(kind="inception", out_channels=8, shortcut="conv", activation="silu"),
        Block(kind="residual", out_channels=9, stride=2, shortcut="pad"),
        Block(
            kind="bottleneck", out_channels=8, expansion=2, shortcut="activated_conv"
        ),
        Block(kind="full_bottleneck", out_channels=6, shortcut="bias_conv"),
        Block(kind="inverted_bottleneck", out_channels=6, expansion=3),
        Block(kind="mobilenet", out_channels=6, activation="silu"),
        Block(kind="mobilenet", out_channels=6, squeeze_excitation=4),
        Block(kind="mobilenet", out_channels=6, gate_width=5, gate_activation="silu"),
        Block(
            kind="mobilenet", out_channels=6, squeeze_excitation=2, gate="hard_sigmoid"
        ),
        Block(
            kind="mobilenet",
            out_channels=6,
            activation="hardswish",
            squeeze_excitation=4,
            gate="hard_sigmoid",
        ),
        Block(out_channels=6, kernel_size=3, kernel_width=7),
        Block(out_channels=6, kernel_size=4, padding=(2, 1)),
        Block(out_channels=6, dilation=2),
        Block(kind="separable", out_channels=6, kernel_width=5, dilation=2),
        Block(out_channels=6, groups=3, activation="silu", shortcut="conv"),
        Block(out_channels=8, groups=2, kernel_width=5, pool="avg"),
        Block(out_channels=20, pool="max", pool_size=3, pool_stride=2, pool_padding=1),
        Block(out_channels=5, pool="avg", pool_size=3, order="late_pool"),
        Block(
            kind="inverted_bottleneck",
            out_channels=8,
            expansion=3,
            squeeze_excitation=4,
            activation="hardswish",
        ),
        Block(out_channels=5, activation="relu6", order="activation_first"),
        Block(out_channels=5, kernel_size=2, kernel_width=4, padding=(1, 1)),
        Block(out_channels=5, activation="tanh"),
        Block(out_channels=5, activation="gelu", pool="avg"),
        Block(kind="mobilenet", out_channels=6, activation="elu"),
        Block(
            kind="mobilenet", out_channels=6, activation="sigmoid", squeeze_excitation=4
        ),
    ],
)
def test_flash_of_every_kind_of_part(block: Block) -> None:
    """Of those that spaces draw seldom or never, too."""
    need("arm-none-eabi-gcc", "make")
    # Images of one channel have no groups, and a shortcut of them can be no zeros.
    first = replace(block, groups=1)
    if block.shortcut == "pad":
        first = replace(first, shortcut="conv")
    architecture = net_of(first, block, shape=(1, 14, 14))
    found = target.footprint(written(integer_net(architecture)))
    assert found is not None
    assert found.flash <= cost(architecture).flash <= 1.1 * found.flash


@pytest.mark.parametrize(
    "name",
    [
        # Its tables for four caps take seconds; those of the others are of the same code.
        pytest.param(name, marks=pytest.mark.slow if name == "mixed" else [])
        for name in available()
    ],
)
def test_caps_on_flash_and_latency_hold_by_construction(name: str) -> None:
    """No draw is over one, down to caps that leave little room."""
    space, board = find_space(name), find_board("nrf52840")
    for caps in (
        Caps(3000, flash=5_000),
        Caps(3000, latency=4_000_000, board=board),
        Caps(3000, macs=200_000, flash=6_000, latency=9_000_000, board=board),
    ):
        for seed in range(8):
            found = draw(space, seed, caps)
            assert caps.allow(cost(found, board))


def test_a_cap_on_flash_is_used_up() -> None:
    """A net is widened until flash allows no more, as with the other caps."""
    sized = resize(NET, Caps(10**6, flash=9_000))
    assert 8_000 < cost(sized).flash <= 9_000
    with pytest.raises(ArchitectureError, match="bytes of flash"):
        resize(NET, Caps(10**6, flash=500))
    with pytest.raises(ArchitectureError, match="bytes of flash, 0"):
        resize(NET, Caps(10**6, latency=10, board=find_board("esp32")))
    with pytest.raises(SpaceError, match="--max-flash 500 is below"):
        draw(find_space("plain"), 0, Caps(3000, flash=500))


def test_the_command_line_tells_caps_in_their_own_words(invoke: Invoke) -> None:
    """A cap that allows nothing names the least; what was given is frozen."""
    common = ("--dataset", "digits", "--budget", 900, "--trials", 1, "--device", "cpu")
    done = invoke("search", *common, "--max-latency", "nrf52840=0.001")
    assert done.code == 1
    line = one_line(done.err)
    assert "--max-latency nrf52840=0.001 is below the smallest net" in line
    least = line.rpartition("nrf52840=")[2]
    assert 0.001 < float(least) < 1
    caps = ("--max-latency", "nrf52840=1.5", "--max-flash", 4000)
    done = invoke("search", *common, *caps, "--workers", 1, "--epochs", 1)
    assert done.code == 0, done.err
    done = invoke("search", *common, "--max-latency", "esp32=1.5")
    assert done.code == 1
    assert "board nrf52840 (64 MHz" in one_line(done.err)
    done = invoke("search", *common, *caps, "--start-from", "s0", "--study", "other")
    assert done.code == 1
    done = invoke("front", "--board", "nrf52840", "--format", "csv")
    heading, *rows = done.out.splitlines()
    assert "flash,latency_ms,key" in heading
    for row in rows:
        flash, latency = row.split(",")[5:7]
        assert (int(flash) <= 4000, float(latency) <= 1.5) == (True, True)
    done = invoke("show", 0, "--board", "esp32")
    assert "ms on" in done.out
    done = invoke("front", "--board", "uno")
    assert (done.code, "unknown board 'uno'" in one_line(done.err)) == (1, True)


def test_latency_is_macs_by_kind_of_layer() -> None:
    """The sum over layers of MACs by the rate of its kind, to a nanosecond each."""
    board = Board(name="b", mhz=10, conv=0.5, depthwise=0.1, linear=0.25)
    rates = {"conv": 0.5, "depthwise": 0.1, "linear": 0.25}
    expected = sum(
        layer.macs / rates[layer.operation] / 10 * 1000
        for layer in layers(NET)
        if layer.macs
    )
    kinds = [layer.operation for layer in layers(NET)]
    assert kinds == ["conv", "depthwise", "conv", "pool", "pool", "linear", "linear"]
    assert expected <= cost(NET, board).latency <= expected + len(kinds)
    assert cost(NET).latency == 0


def test_a_board_of_one_s_own(tmp_path: Path) -> None:
    """A file with one table; what is wrong with it is one line."""
    path = tmp_path / "mine.toml"
    path.write_text("[mine]\nmhz = 100\nconv = 0.2\ndepthwise = 0.1\nlinear = 0.3\n")
    assert read_limit(f"{path}=12.5") == (
        Board(name="mine", mhz=100.0, conv=0.2, depthwise=0.1, linear=0.3),
        12.5,
    )
    for text, said in [
        ("", "has 0 boards"),
        ("[a]\nmhz = 1\n", "needs mhz, conv, depthwise, linear"),
        ("[a]\nmhz = 1\nconv = 0\ndepthwise = 1\nlinear = 1\n", "a.conv is 0"),
        ("[a", "cannot read"),
    ]:
        other = tmp_path / f"{abs(hash(text))}.toml"
        other.write_text(text)
        with pytest.raises(ArchitectureError, match=said):
            find_board(str(other))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nrf52840", "give BOARD=MS"),
        ("nrf52840=-1", "give BOARD=MS"),
        ("nrf52840=fast", "give BOARD=MS"),
        ("uno=5", "unknown board 'uno': give one of esp32, nrf52840"),
        ("no.toml=5", "cannot read no.toml"),
    ],
)
def test_what_is_no_latency(text: str, said: str, invoke: Invoke) -> None:
    """One line, before anything is loaded."""
    done = invoke("resize", "s0", "--budget", 1000, "--max-latency", text)
    assert (done.code, said in one_line(done.err)) == (1, True), done.err


def test_the_emulated_net_is_the_reference_s() -> None:
    """Of random weights, too: the logits of the numpy reference."""
    need("arm-none-eabi-gcc", "qemu-system-arm", "make")
    table = integer_net(NET)
    images = random_images(NET, 2)
    emulated = target.emulate(written(table), images)
    assert emulated is not None
    lines = [line.split()[1:] for line in emulated.output.splitlines()]
    assert np.array_equal(np.array(lines, dtype=int), integer.run(table, images))


def test_emulate_without_images_says_what_is_missing(tmp_path: Path) -> None:
    """In a line of its own, before QEMU is started."""
    need("make")
    files = written(integer_net(NET))
    (tmp_path / "Makefile").write_text(files["Makefile"])
    (tmp_path / "cortex_m.elf").touch()
    done = subprocess.run(
        ["make", "-o", "cortex_m.elf", "emulate"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no images.bin here" in done.stderr
    assert "qemu" not in done.stdout


def test_a_cost_of_no_board_is_no_answer() -> None:
    """A cap on latency is not held by a cost that knows none."""
    board = find_board("esp32")
    caps = Caps(10**6, latency=10**9, board=board)
    assert caps.allow(cost(NET, board))
    with pytest.raises(ValueError, match="needs the cost on its board"):
        caps.allow(cost(NET))
