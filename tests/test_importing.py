"""A user's own torch code as a reference, or the layer that nas cannot say."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli_runner import Invoke
from hypothesis import assume, given, settings
from importable_nets import REFUSED, TAKEN
from nets import net_of
from sklearn.datasets import load_digits
from strategies import architectures, examples
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture import Architecture, Block, Head, Shape, feature_shapes
from nas.architecture.kinds import KINDS
from nas.errors import ArchitectureError
from nas.export import source
from nas.importing import assemble, check_same, load_module, trace
from nas.references.bundled import available, find_reference
from nas.training.model import build


def imported(model: nn.Module, shape: Shape = (1, 8, 8)) -> Architecture:
    """Import a module; the check is part of it."""
    chain = trace(model, shape)
    architecture, _ = assemble(chain, shape)
    check_same(model, chain, architecture)
    return architecture


@settings(max_examples=examples(60))
@given(architectures())
def test_what_nas_builds_comes_back(architecture: Architecture) -> None:
    """Every block and head that there is, by the canonical key.

    A dropout before a convolution that classifies may be the block's or the head's, and
    before one that covers the whole map is the block's.
    """
    dropouts = [*(b.dropout for b in architecture.blocks), architecture.head.dropout]
    ambiguous = architecture.head.kind == "conv" and any(dropouts)
    if ambiguous:
        architecture = replace(
            architecture,
            blocks=tuple(replace(b, dropout=0.0) for b in architecture.blocks),
        )
        size = architecture.head.kernel_size
        if feature_shapes(architecture)[-1][1:] == (size, size):
            head = replace(architecture.head, dropout=0.0)
            architecture = replace(architecture, head=head)
    # Of a flattened map, or of one pixel, several linear layers come back as blocks.
    head, sides = architecture.head, feature_shapes(architecture)[-1][1:]
    usual = head.hidden in {0, 1, 6} and head.activation == "relu"
    assume(usual or (head.kind != "flatten" and sides != (1, 1)))
    # Without activation one kind is another: an inverted bottleneck without norm has a
    # separable block, a MobileNet block is either of them.
    assume(
        not any(
            block.activation == "none"
            and (
                block.kind == "mobilenet"
                or (KINDS[block.kind].linear and block.norm == "none")
            )
            for block in architecture.blocks
        )
    )
    # Of one channel a depthwise convolution is a plain one.
    assume(
        not any(
            (block.kind == "mobilenet" and shape[0] == 1 and not block.gated)
            or (block.kind == "full_bottleneck" and shape[0] == 1)
            or (block.kind == "bottleneck" and block.out_channels < 2 * block.expansion)
            for block, shape in zip(
                architecture.blocks, feature_shapes(architecture), strict=False
            )
        )
    )
    found = imported(build(architecture), architecture.input_shape)
    assert found.key == architecture.key


@pytest.mark.parametrize("name", available())
def test_each_reference_comes_back_as_the_same_network(name: str) -> None:
    """By its canonical key."""
    architecture = find_reference(name).architecture
    found = imported(build(architecture), architecture.input_shape)
    assert found.num_classes == architecture.num_classes
    if architecture.head.kind != "conv":
        assert found.key == architecture.key


class Handmade(nn.Module):
    """As in tutorials: functional, view, log_softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(6 * 3 * 3, 12)
        self.fc2 = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return log probabilities."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.dropout(functional.max_pool2d(self.conv2(x), 2).relu())
        x = x.view(x.size(0), -1)
        x = functional.relu(self.fc1(x))
        x = functional.dropout(x, 0.5, training=self.training)
        return functional.log_softmax(self.fc2(x), dim=1)


def test_a_functional_forward_is_understood() -> None:
    """Functions, methods and modules mixed; what follows the logits is left out."""
    assert imported(Handmade()) == Architecture(
        input_shape=(1, 8, 8),
        num_classes=10,
        blocks=(
            Block(out_channels=8, padding="valid", bias="yes"),
            Block(out_channels=6, norm="none", bias="no", pool="max", dropout=0.25),
        ),
        head=Head(kind="flatten", hidden=12, dropout=0.5),
    )


class Parallel(nn.Module):
    """An inception module, each branch with its own ReLU."""

    def __init__(self, widths: tuple[int, ...] = (3, 3, 2), dim: int = 1) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(1, width, 2 * n + 1, padding=n) for n, width in enumerate(widths)
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sum(widths), 10)
        )
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        parts = [functional.relu(branch(x)) for branch in self.branches]
        return self.head(torch.cat(parts, self.dim))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """A convolution applied twice."""

    def __init__(self, *, shared_norm: bool = False, between: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
        self.head = nn.Linear(4, 10)
        self.shared_norm, self.between = shared_norm, between

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.first(x)
        for number in range(2):
            x = self.norms[0 if self.shared_norm else number](self.conv(x)).relu()
            if self.between and not number:
                x = self.first(x[:, :1])
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_convolutions_side_by_side_and_shared_ones() -> None:
    """Inception and repeats."""
    (block,) = imported(Parallel()).blocks
    assert (block.kind, block.out_channels, block.kernel_size) == ("inception", 8, 5)
    assert block.activation == "relu"
    assert imported(Twice()).blocks[1].repeats == 2
    pooled = Block(out_channels=4, repeats=3, order="norm_last", pool="max")
    net = Architecture(
        input_shape=(1, 8, 8),
        num_classes=10,
        blocks=(Block(out_channels=4), replace(pooled, activation="tanh")),
        head=Head(),
    )
    assert imported(build(net)).key == net.key


def test_a_dropout_that_changes_its_place_is_noted() -> None:
    """The function of the trained net is the same."""
    conv = nn.Conv2d(1, 4, 3)
    model = nn.Sequential(
        conv, nn.BatchNorm2d(4, eps=1e-3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1),
        nn.Conv2d(4, 10, 3), nn.Flatten(), nn.LogSoftmax(1),
    )  # fmt: skip
    _, notes = assemble(trace(copy.deepcopy(model), (1, 8, 8)), (1, 8, 8))
    assert len(notes) == 2
    architecture = imported(model)
    assert architecture.head.kind == "pool"
    assert architecture.blocks[0].order == "late_pool"


def test_two_dropouts_in_a_row_are_one() -> None:
    """Each value passes both by the product of their chances."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.4), nn.Dropout(0.5),
        nn.Conv2d(4, 10, 3), nn.Flatten(), nn.Linear(160, 10),
    )  # fmt: skip
    architecture, notes = assemble(trace(model, (1, 8, 8)), (1, 8, 8))
    assert architecture.blocks[0].dropout == 0.7
    assert notes == ["2 (Dropout) and 3 (Dropout) are one dropout of 0.7"]
    behind = [nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.4), nn.Dropout(0.5)]
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), GAP, nn.Flatten(), *behind, nn.Linear(8, 10)
    )
    architecture, notes = assemble(trace(model, (1, 8, 8)), (1, 8, 8))
    assert architecture.head.dropout == 0.7
    assert notes == ["5 (Dropout) and 6 (Dropout) are one dropout of 0.7"]


class Residual(nn.Module):
    """Two paths that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return no logits."""
        y: Tensor = x
        return y + functional.relu(self.conv(y))


class Branching(nn.Module):
    """Looks at the images."""

    def forward(self, x: Tensor) -> Tensor:
        """Return something that depends on it."""
        return -x if bool(x.sum() > 0) else x


GAP = nn.AdaptiveAvgPool2d(1)


def net(*layers: nn.Module) -> nn.Sequential:
    """Return a net with these layers behind a convolution."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(10)
    )


def conv(**options: object) -> nn.Sequential:
    """Return a net that begins with such a convolution."""
    first = nn.Conv2d(1, 4, **{"kernel_size": 3} | options)  # type: ignore[arg-type]
    return nn.Sequential(first, nn.Flatten(), nn.LazyLinear(10))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            net(nn.PReLU()),
            r"1 \(PReLU\) cannot .* nearest are ReLU, .* ELU and Sigmoid",
        ),
        (net(nn.LeakyReLU(0.2)), "slope=0.2; nas has 0.01"),
        (net(nn.AdaptiveAvgPool2d(5)), r"1 \(AdaptiveAvg.* nas pools windows of one"),
        (
            net(nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.ReLU()),
            r"4 \(ReLU\) .* second activation behind 0",
        ),
        (net(nn.ReLU(), nn.SiLU()), "there is a second activation behind 0"),
        (net(nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.ReLU()), "behind it stand"),
        (net(nn.BatchNorm2d(4, affine=False)), "affine batch norm"),
        (conv(padding=3), r"its padding is \(3, 3\)"),
        (conv(padding=1, padding_mode="circular"), "pads with zeros"),
        (conv(stride=(2, 1)), "one stride and one dilation"),
        (nn.Sequential(nn.ReLU(), net()), "it stands before all layers"),
        (
            nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)),
            "linear layers, with",
        ),
        (
            nn.Sequential(
                GAP,
                nn.Flatten(),
                nn.Linear(1, 4),
                nn.ReLU(),
                nn.Linear(4, 4),
                nn.Tanh(),
                nn.Linear(4, 10),
            ),
            r"5 \(Tanh\) .* one activation .* the nearest is that behind the first",
        ),
        (
            nn.Sequential(GAP, nn.Flatten(), nn.Linear(1, 10, bias=False)),
            "has a bias .* the nearest is bias=True",
        ),
        (nn.Sequential(nn.Conv2d(1, 10, 3), nn.ReLU()), "without classifier"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), "without classifier"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "does not take 1x8x8 images"),
        (Residual(), r"relu \(test_importing.py line \d+\) .* before the activation"),
        (Branching(), r"test_importing.py line \d+: forward looks at the values"),
        (Parallel((4, 3, 1)), "nas shares the channels out as 3 of 1x1"),
        (Parallel(dim=2), "does not take|does not join channels; the nearest"),
        (Twice(shared_norm=True), "used twice; nas gives each"),
        (Twice(between=True), "cannot be expressed"),
    ],
)
def test_what_nas_cannot_say_is_named(model: nn.Module, words: str) -> None:
    """In one line, with the layer's name and type and the reason."""
    if any(isinstance(layer, nn.LazyLinear) for layer in model.modules()):
        model(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ArchitectureError, match=words) as caught:
        imported(model)
    assert "\n" not in str(caught.value)


def test_frozen_parameters_are_said() -> None:
    """The count is of trainable ones."""
    model = Handmade()
    model.fc1.requires_grad_(False)
    with pytest.raises(
        ArchitectureError, match=r"fc1.weight, fc1.bias are frozen, .* nearest"
    ):
        imported(model)


# --- the user's file --------------------------------------------------------------

CODE = """\
from torch import nn
import beside

class Net(nn.Sequential):
    def __init__(self, width=4):
        super().__init__(
            nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * width, beside.CLASSES),
        )

net = Net(5)
number = 3

def broken():
    raise ValueError("two\\nlines")

def needs(width, depth=3, *more, **options):
    pass
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Write a user's file and its neighbour."""
    (tmp_path / "beside.py").write_text("CLASSES = 10\n")
    path = tmp_path / "own.py"
    path.write_text(CODE)
    return path


def test_an_instance_or_what_makes_one(code: Path) -> None:
    """Both are modules afterwards."""
    assert isinstance(load_module(f"{code}:net"), nn.Sequential)
    assert isinstance(load_module(f"{code}:Net"), nn.Sequential)


def test_a_file_is_run_as_a_script_of_its_own(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its options are not those of nas; its function may import a neighbour."""
    monkeypatch.setattr("sys.argv", ["nas", "import", "own.py:net", "--compare", "s"])
    code.write_text(
        "import argparse\n"
        "from torch import nn\n"
        "width = argparse.ArgumentParser()\n"
        "width.add_argument('--width', default=3)\n"
        "args = width.parse_args()\n"
        "def net():\n"
        "    import beside\n"
        "    return nn.Linear(args.width, beside.CLASSES)\n"
    )
    before = list(sys.path)
    assert isinstance(load_module(f"{code}:net"), nn.Linear)
    assert sys.path == before
    assert sys.argv[0] == "nas"


def test_a_file_of_a_package_may_import_from_it(tmp_path: Path) -> None:
    """As in most repositories."""
    package = tmp_path / "tiny_nets_of_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "layers.py").write_text("from torch.nn import Linear as Layer\n")
    (package / "small.py").write_text("from .layers import Layer\nnet = Layer(3, 4)\n")
    assert isinstance(load_module(f"{package / 'small.py'}:net"), nn.Linear)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own.py:nett", "has no 'nett': its modules and their classes are Net, net"),
        ("own.py:number", "is no nn.Module but int"),
        (
            "own.py:broken",
            r"raises ValueError: two \(own.py line 15\): name a function",
        ),
        ("own.py:needs", r"needs arguments \(width\): give them defaults"),
        ("own.py", "write FILE.py:NAME"),
        ("none.py:net", "no file none.py"),
        ("bad.py:net", "running bad.py raises SyntaxError"),
        ("exit.py:net", "SystemExit: 3 .* behind if __name__ == '__main__'"),
        ("lacks.py:net", r"'ei_nops' \(lacks.py line 1\): install ei_nops"),
    ],
)
def test_what_is_no_module_is_said(
    code: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    """The user's own errors are one line, too."""
    monkeypatch.chdir(code.parent)
    Path("bad.py").write_text("net =")
    Path("exit.py").write_text("raise SystemExit(3)")
    Path("lacks.py").write_text("import ei_nops.torch")
    with pytest.raises(ArchitectureError, match=words):
        load_module(name)


def test_the_command_writes_what_nas_train_takes(invoke: Invoke, code: Path) -> None:
    """And what nas itself wrote as model.py comes back."""
    result = invoke(
        "import", f"{code}:net", "--input-shape", "1x8x8", "-o", "mine.toml"
    )
    assert result.code == 0, result.err
    assert result.out.splitlines() == [
        "5c3v/max late - flatten, 515 parameters",
        "written to mine.toml: `nas train mine.toml` trains it",
    ]
    architecture = find_reference("mine.toml").architecture
    text = source(
        architecture, mean=[0.5], std=[0.5], class_names=[str(n) for n in range(10)]
    )
    Path("model.py").write_text(text)
    result = invoke("import", "model.py:Model", "--input-shape", "1x8x8")
    assert result.code == 0, result.err
    assert find_reference("Model.toml").architecture == architecture
    for shape in ("8x8", "0x8x8", "1x8x8x"):
        result = invoke("import", f"{code}:net", "--input-shape", shape)
        assert (result.code, "is no shape" in result.err) == (2, True)
    result = invoke("import", f"{code}:net")
    assert result.code == 1
    assert "does not take 1x28x28 images" in result.err
    assert "Traceback" not in result.err


# --- the styles in which people write ---------------------------------------------


@pytest.mark.parametrize("name", TAKEN)
def test_everyday_styles_are_taken(name: str) -> None:
    """With as many parameters, and the same logits on real images and random weights."""
    model = copy.deepcopy(TAKEN[name])
    chain = trace(model, (1, 28, 28))
    architecture, _ = assemble(chain, (1, 28, 28))
    check_same(model, chain, architecture)
    ours = build(architecture, seed=1).eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(
        p.numel() for p in model.parameters()
    )
    theirs = trace(ours, (1, 28, 28))
    used = {id(m): m for layer in chain.layers for m in layer.modules}
    found = {id(m): m for layer in theirs.layers for m in layer.modules}
    for one, other in zip(used.values(), found.values(), strict=True):
        for value, target in zip(one.parameters(), other.parameters(), strict=True):
            target.data.copy_(value.data.reshape(target.shape))
        for value, target in zip(one.buffers(), other.buffers(), strict=True):
            target.copy_(value)
    digits = torch.tensor(load_digits().images[:32], dtype=torch.float32)[:, None]
    images = functional.interpolate(digits / 16, 28)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "dropout", lambda x, *_, **__: x)
        wanted = model.eval()(images)
        logits = ours.eval()(images)
    if chain.ending is not None:
        logits = getattr(logits, chain.ending)(1)
    torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-3)


def notes(name: str) -> list[str]:
    """Return what the import of a net in the table remarks."""
    return assemble(trace(copy.deepcopy(TAKEN[name]), (1, 28, 28)), (1, 28, 28))[1]


def test_dropouts_that_differ_in_training_are_noted() -> None:
    """One that is always on, by its line, but not its neighbour; and channels."""
    (note,) = notes("dropout always on")
    assert re.match(
        r"dropout \(importable_nets.py line \d+\) is on in evaluation", note
    )
    (note,) = [n for n in notes("channel dropout") if "whole channels" in n]
    assert note.startswith("1 (Dropout2d")
    assert not notes("lists and dicts")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (functional.selu, r"selu \(test_importing.py line \d+\) .* nearest are"),
        (lambda x: x + functional.relu(x), "no activation at that place; the nearest is"),
        (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), "nas makes gates by global average pooling"),
        (functional.mish, "nearest are ReLU, LeakyReLU"),
        (lambda x: functional.max_pool2d(x, 2, 3), "nas pools with one stride .* nearest"),
        (lambda x: functional.lp_pool2d(x, 2, 2), "no such pooling; the nearest"),
        (functional.instance_norm, "no such norm; the nearest"),
        (lambda x: x.mean(3, keepdim=True) if x.mean() > 0 else x, "looks at the values"),
        (lambda x: x.chunk(2, 1)[0], r"chunk .* one chain of layers"),
        (lambda x: x.amax(3), "no such pooling; the nearest"),
        (lambda x: x / 2, "no arithmetic in a net"),
        (lambda x: x.mean(3, keepdim=True).relu(), "averages over height and width"),
    ],
)  # fmt: skip
def test_refusals_name_the_line_and_the_nearest(
    change: Callable[[Tensor], Tensor], words: str
) -> None:
    """And speak of no tracer."""

    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Conv2d(1, 4, 3)
            self.out = nn.LazyLinear(10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(change(self.c(x)).flatten(1))  # type: ignore[no-any-return]

    with pytest.raises(ArchitectureError, match=words) as caught:
        imported(Changed())
    assert re.search(r"test_importing.py line \d+", str(caught.value))
    assert not re.search("trac|aten|symbolic|report it", str(caught.value))


def test_along_a_single_row_any_stride_is_that_of_the_columns() -> None:
    """Signals are often images of one row, with a stride of (1, 2)."""
    model = nn.Sequential(
        nn.Conv2d(5, 6, (1, 3), stride=(1, 2), padding=(0, 1)), nn.ReLU(),
        nn.Conv2d(6, 8, (1, 9), stride=(1, 2), padding=(0, 4)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    chain = trace(model, (5, 1, 40))
    architecture, _ = assemble(chain, (5, 1, 40))
    check_same(model, chain, architecture)
    assert [block.stride for block in architecture.blocks] == [2, 2]
    with pytest.raises(ArchitectureError, match="one stride and one dilation"):
        assemble(trace(model, (5, 2, 40)), (5, 2, 40))


def test_of_a_single_pixel_a_shortcut_of_zeros_has_the_stride_of_its_block() -> None:
    """x[:, :, ::2, ::2] leaves the pixel, as the convolution's stride does."""
    pooled = [Block(out_channels=4, pool="max") for _ in range(3)]
    residual = Block(out_channels=6, kind="residual", shortcut="pad", stride=2)
    architecture = net_of(*pooled, residual)
    assert imported(build(architecture)).key == architecture.key


def test_a_wrong_image_size_is_told_with_the_right_one() -> None:
    """Of the usual sizes; a slip in the code is told as what it is."""
    model = copy.deepcopy(TAKEN["norm folded"])
    with pytest.raises(
        ArchitectureError, match=r"take 1x32x32 .* --input-shape 1x28x28"
    ):
        trace(model, (1, 32, 32))
    model.forward = lambda x: x.nothing  # type: ignore[assignment]
    with pytest.raises(ArchitectureError, match="forward raises AttributeError"):
        trace(model, (1, 28, 28))


def test_modules_in_a_plain_list_are_told() -> None:
    """Torch would not train them."""
    model = Handmade()
    hidden = [nn.Conv2d(1, 1, 3)]

    def forward(x: Tensor) -> Tensor:
        return hidden[0](x)  # type: ignore[no-any-return]

    model.forward = forward  # type: ignore[method-assign]
    with pytest.raises(
        ArchitectureError, match=r"a Conv2d is no part .* nn.ModuleList"
    ):
        trace(model, (1, 8, 8))


class OwnWeights(nn.Module):
    """A convolution by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 1, 3, 3))
        self.out = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = functional.conv2d(x, self.weight / 2)
        return self.out(x.mean((2, 3)))  # type: ignore[no-any-return]


class Several(Handmade):
    """Returns something else, too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return log probabilities and negative images."""
        return super().forward(x), -x


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            OwnWeights(),
            r"conv2d \(test_importing.py line \d+\) .* computed from others",
        ),
        (Several(), "returns more than the logits"),
    ],
)
def test_weights_of_its_own_and_several_results(model: nn.Module, words: str) -> None:
    """Each is told as what it is."""
    with pytest.raises(ArchitectureError, match=words):
        imported(model)


def test_a_dropout_of_nothing_is_nothing() -> None:
    """Two of them in a row do not count as two layers."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(0.0), nn.Dropout(0.2),
        nn.Flatten(), nn.Linear(144, 10),
    )  # fmt: skip
    assert imported(model).blocks[0].dropout + imported(model).head.dropout == 0.2


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_kinds_of_blocks_that_nas_lacks_are_refused_well(name: str) -> None:
    """By the layer and the nearest."""
    model, words = REFUSED[name]
    with pytest.raises(ArchitectureError, match=words):
        imported(copy.deepcopy(model), (1, 28, 28))
