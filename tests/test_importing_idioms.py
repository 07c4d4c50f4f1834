"""Everyday ways of writing a net that are no list of torch's layers."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from importable_nets import Gated
from torch import Tensor, nn
from torch.nn import functional

from nas.api.networks import reference_of
from nas.architecture import Architecture
from nas.architecture.notation import describe
from nas.errors import ArchitectureError
from nas.importing import assemble, check_same, trace, unwrapped


def imported(module: nn.Module) -> tuple[Architecture, list[str]]:
    """Import a module for 1x12x12 images; that it computes the same is part of it."""
    model = unwrapped(module)
    chain = trace(model, (1, 12, 12))
    architecture, notes = assemble(chain, (1, 12, 12))
    check_same(model, chain, architecture)
    return architecture, notes


Change = Callable[[Tensor], Any]


class Net(nn.Module):
    """A convolution with batch norm and a classifier, with something at each place."""

    def __init__(
        self,
        *,
        before: Change = lambda x: x,
        activation: Change = torch.relu,
        behind: Change = lambda x: x,
        conv: nn.Module | None = None,
        out: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.out = out or nn.Linear(4, 10)
        self.before, self.activation, self.behind = before, activation, behind
        self.register_buffer("mean", torch.tensor([0.1]).view(1, 1, 1))

    def forward(self, x: Tensor) -> Any:
        """Return logits."""
        features = self.activation(self.norm(self.conv(self.before(x))))
        return self.behind(self.out(features.mean((2, 3))))


class Swish(nn.Module):
    """As many write it who learnt torch before it had nn.SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the values, gated by themselves."""
        return x * torch.sigmoid(x)


def cut(x: Tensor) -> Tensor:
    """Return ReLU by an assignment."""
    x[x < 0] = 0
    return x


ACTIVATIONS: dict[str, tuple[Change, str]] = {
    "swish": (Swish(), "silu"),
    "swish, in place": (lambda x: x.mul(x.sigmoid()), "silu"),
    "hard swish": (lambda x: x * functional.relu6(x + 3.0) / 6.0, "hardswish"),
    "hard swish of a gate": (lambda x: x * functional.hardsigmoid(x), "hardswish"),
    "clamp": (lambda x: x.clamp(min=0), "relu"),
    "assignment": (cut, "relu"),
    "bounds": (lambda x: x.clamp(0, 6), "relu6"),
    "threshold": (lambda x: functional.threshold(x, 0.0, 0.0), "relu"),
    "maximum": (lambda x: torch.max(x, torch.zeros_like(x)), "relu"),
    "half of the sum": (lambda x: 0.5 * (x + x.abs()), "relu"),
    "slope 0": (lambda x: functional.leaky_relu(x, 0.0), "relu"),
    "where": (lambda x: torch.where(x > 0, x, 0.01 * x), "leaky_relu"),
    "larger of two": (lambda x: torch.maximum(x, x * 0.01), "leaky_relu"),
    "tanh of torch": (torch.tanh, "tanh"),
    "tanh of functional": (functional.tanh, "tanh"),
    "tanh in place": (lambda x: x.tanh_(), "tanh"),
    "tanh by exponentials": (lambda x: 1 - 2 / (torch.exp(2 * x) + 1), "tanh"),
    "tanh that overflows": (
        lambda x: (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
        "tanh",
    ),
    "sigmoid": (lambda x: x.sigmoid(), "sigmoid"),
    "sigmoid of another name": (torch.special.expit, "sigmoid"),
    "sigmoid by exponentials": (lambda x: 1 / (1 + torch.exp(-x)), "sigmoid"),
    "gelu": (functional.gelu, "gelu"),
    "gelu by hand": (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), "gelu"),
    "elu": (nn.ELU(inplace=True), "elu"),
    "celu": (functional.celu, "elu"),
    "elu by hand": (lambda x: torch.where(x > 0, x, torch.expm1(x)), "elu"),
    "TorchScript": (lambda x: compiled(x), "silu"),  # noqa: PLW0108 - defined below
    "gradient of its own": (lambda x: Memoryless.apply(x), "silu"),  # noqa: PLW0108
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_hand_are_known_by_what_they_compute(name: str) -> None:
    """However they are written."""
    activation, expected = ACTIVATIONS[name]
    (block,) = imported(Net(activation=activation))[0].blocks
    assert block.activation == expected


@pytest.mark.parametrize(
    ("activation", "words"),
    [
        (lambda x: x * torch.tanh(x), "no such activation"),
        (lambda x: x * torch.sigmoid(1.702 * x), "no gates"),
        (lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), "nas makes gates by"),
        (lambda x: functional.leaky_relu(x, 0.2), "slope=0.2; nas has 0.01; the nearest"),
        (lambda x: functional.elu(x, 0.5), "alpha=0.5; nas has 1.0; the nearest"),
        (lambda x: functional.gelu(x, approximate="tanh"), "approximate='tanh'; nas has 'none'"),
        (nn.GELU("tanh"), "approximate='tanh'; nas has"),
        (nn.PReLU(), "no such activation; the nearest"),
        (lambda x: x.clamp(0, 5), "no such activation; the nearest"),
        (lambda x: x.clamp(0, 8), "no such activation; the nearest are ReLU6"),
        (lambda x: functional.hardtanh(x, 0, 1000), "no such activation; the nearest are ReLU6"),
        (lambda x: (x > 0).float(), r"gt \(.*nas has no such layer"),
        (lambda x: x.half().float(), r"half \(.*nas has no such layer"),
    ],
)  # fmt: skip
def test_what_computes_something_else_is_none(activation: Change, words: str) -> None:
    """Also where it looks alike; the line is told."""
    with pytest.raises(ArchitectureError, match=words) as caught:
        imported(Net(activation=activation))
    assert re.search(r"test_importing_idioms.py line \d+", str(caught.value))


def checked(x: Tensor) -> Tensor:
    """Return the images, which are looked at as many do."""
    if not isinstance(x, Tensor) or isinstance(x, list | tuple):
        raise TypeError(x)
    assert torch.is_tensor(x)
    assert not torch.isnan(x).any()
    assert torch.isfinite(x).all(), "diverged"
    return x.type(torch.float32).cpu()


class Memoryless(torch.autograd.Function):
    """Swish that keeps less for its gradient, as in many an EfficientNet."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return swish."""
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        """Return its gradient."""
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return grad * gate * (1 + x * (1 - gate))


class StraightSwish(torch.autograd.Function):
    """Swish with another gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - torch gives it
        """Return swish."""
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        """Return it as it is."""
        return grad


class Scaled(torch.autograd.Function):
    """A multiple of the values, which come second."""

    @staticmethod
    def forward(ctx: Any, by: int, x: Tensor) -> Tensor:  # noqa: ARG004 - torch gives it
        """Return the multiple."""
        return by * x


class OwnSize(nn.Conv2d):
    """A subclass that only has its own way of being made."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, 5, padding=2, bias=False)
        nn.init.kaiming_normal_(self.weight)


class Same(nn.Conv2d):
    """TensorFlow's padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Return as many pixels as there are, by the stride."""
        size, (kernel, _), (stride, _) = x.shape[-1], self.kernel_size, self.stride
        pad = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        x = functional.pad(x, [pad // 2, pad - pad // 2] * 2)
        return functional.conv2d(x, self.weight, self.bias, self.stride)


class Parameters(nn.Module):
    """Weights as bare parameters, the convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Parameter(torch.zeros(4, 1, 3, 3))
        self.conv = nn.Parameter(torch.zeros(4, 4, 3, 3))
        self.weight = nn.Parameter(torch.zeros(10, 4))
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = functional.relu(functional.conv2d(x, self.stem, stride=2))
        for _ in range(2):
            x = functional.relu(functional.conv2d(x, self.conv, padding=1))
        return functional.linear(x.mean((2, 3)), self.weight, self.bias)


def dense(*layers: nn.Module) -> nn.Module:
    """Return a net with these layers behind 4x5x5 values."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), *layers
    )


TAKEN: dict[str, Callable[[], nn.Module]] = {
    "looks at its input": lambda: Net(before=checked),
    "pads by a function": lambda: Net(
        before=lambda x: functional.pad(x, (2, 2, 2, 2)), conv=nn.Conv2d(1, 4, 5)
    ),
    "pads by a module, and the convolution": lambda: Net(
        before=nn.ZeroPad2d(1), conv=nn.Conv2d(1, 4, 5, padding=1, stride=2)
    ),
    "pads by nothing": lambda: Net(before=lambda x: functional.pad(x, [0] * 4)),
    "subclass": lambda: Net(conv=OwnSize(4)),
    "subclass with padding of its own": lambda: Net(conv=Same(1, 4, 3)),
    "bare parameters": Parameters,
    "logits in a dict": lambda: Net(behind=lambda x: {"logits": x}),
    "logits in a tuple": lambda: Net(behind=lambda x: (x,)),
    "data parallel": lambda: nn.DataParallel(Net()),
    "three linear layers": lambda: dense(
        nn.Linear(100, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 10)
    ),
    "norm between linear layers": lambda: dense(
        nn.Linear(100, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(12, 10),
    ),
    "SiLU between linear layers": lambda: dense(
        nn.Linear(100, 12), nn.SiLU(), nn.Linear(12, 10)
    ),
    "changed in place": lambda: Net(activation=relu_in_place),
    "squeezed in place": lambda: SqueezedInPlace(
        nn.Conv2d(1, 10, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    ),
    "ReLU twice": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(100, 10),
    ),
    "pooling that keeps the size": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d((5, 5)),
        nn.Flatten(), nn.Linear(100, 10),
    ),
    "pooling to half the size": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((5, 5)), nn.Flatten(),
        nn.Linear(100, 10),
    ),
    "linear layers alone": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(),
        nn.Linear(5, 10),
    ),
    "dropout before ReLU": lambda: dense(
        nn.Linear(100, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 10)
    ),
    "softmax before flatten": lambda: nn.Sequential(
        nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.LogSoftmax(1), nn.Flatten()
    ),
    "log of softmax": lambda: Net(behind=lambda x: torch.log(torch.softmax(x, 1))),
    "maxima of the map": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), Changed(lambda x: x.amax((2, 3))), nn.Linear(4, 10)
    ),
    "a sixth of the product with gates": lambda: gated_by(lambda x: x / 6),
    "the same, multiplied": lambda: gated_by(lambda x: x * (1 / 6)),
}  # fmt: skip


class Changed(nn.Module):
    """A function as a module."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Any:
        """Return what it makes of the values."""
        return self.change(x)


def gated_by(change: Change) -> nn.Module:
    """Return a net whose gates go from 0 to 6 before this change of the product."""
    gated = Gated(4, 8, 2, last=lambda x: functional.relu6(x + 3))
    gated.project = nn.Sequential(Changed(change), gated.project)  # type: ignore[assignment]
    return Net(activation=nn.Sequential(nn.ReLU(), gated))


def relu_in_place(x: Tensor) -> Tensor:
    """Return what was changed, by its first name."""
    functional.relu(x, inplace=True)
    return x


class SqueezedInPlace(nn.Sequential):
    """Changes the shape of what it returns."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = super().forward(x)
        logits.squeeze_(-1)
        logits.squeeze_(-1)
        return logits


UNBIASED = {
    "behind the mean": lambda: Net(out=nn.Linear(4, 10, bias=False)),
    "1x1 convolution": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(10), nn.Conv2d(4, 10, 1, bias=False),
        nn.Flatten(), nn.LogSoftmax(1),
    ),
    "flattened": lambda: dense(nn.Linear(100, 10, bias=False)),
    "hidden one": lambda: dense(
        nn.Linear(100, 8, bias=False), nn.ReLU(), nn.Linear(8, 10)
    ),
    "linear layers alone": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(144, 6, bias=False), nn.ReLU(),
        nn.Linear(6, 10, bias=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNBIASED)
def test_linear_layers_without_bias_are_convolutions(name: str) -> None:
    """Before the global average pooling, which a note says, or in place of them."""
    architecture, notes = imported(UNBIASED[name]())
    assert (architecture.head.kind == "pool") == (name != "hidden one")
    said = [note for note in notes if "before the global average pooling" in note]
    assert len(said) == (name in {"behind the mean", "1x1 convolution"})


def behind_the_mean(*layers: nn.Module, pooling: nn.Module | None = None) -> nn.Module:
    """Return a net with these layers behind the means of 4 channels."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), pooling or nn.Identity(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers,
    )  # fmt: skip


HEADS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "norm": (
        lambda: behind_the_mean(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 10)
        ),
        "4c3v/avg10 late - 8c1 bias+norm drop0.5 - flatten",
    ),
    "convolutions": (
        lambda: behind_the_mean(
            nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8),
            nn.Hardswish(), nn.Conv2d(8, 10, 1), nn.Flatten(),
        ),
        "4c3v/avg10 late - 8c1 hardswish - flatten",
    ),
    "two activations": (
        lambda: behind_the_mean(
            nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 10)
        ),
        "4c3v/avg10 late - 8c1 bias - 6c1 tanh bias - flatten",
    ),
    "no bias": (
        lambda: behind_the_mean(
            nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 10, bias=False)
        ),
        "4c3v/avg10 late - 8c1 bare - 10c1 linear bare - pool",
    ),
    "behind a pooling": (
        lambda: behind_the_mean(
            nn.Dropout(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 10),
            pooling=nn.MaxPool2d(2),
        ),
        "4c3v/max late - 8c1/avg5 linear bias+norm - flatten",
    ),
    "ReLU at the end": (
        lambda: behind_the_mean(nn.Linear(4, 10), nn.ReLU()),
        "4c3v/avg10 late - 10c1 bias - pool",
    ),
    "dropout at the end": (
        lambda: dense(nn.Linear(100, 10), nn.Dropout(0.1)),
        "4c3v/max bias late - 10c5v linear bias drop0.1 - pool",
    ),
    "norm at the end": (
        lambda: dense(nn.Linear(100, 10), nn.BatchNorm1d(10)),
        "4c3v/max bias late - 10c5v linear bias+norm - pool",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_layers_that_no_head_has_are_convolutions_of_one_pixel(name: str) -> None:
    """Behind the pooling of the block before, or of their own, which a note says."""
    make, expected = HEADS[name]
    architecture, notes = imported(make())
    assert describe(architecture) == expected
    said = [note for note in notes if "the block before it pools already" in note]
    assert len(said) == (name == "behind a pooling")


DROPPED: dict[str, tuple[Callable[[], nn.Module], str, list[float]]] = {
    "before all": (
        lambda: nn.Sequential(nn.Dropout(), Net()), "is left out", [0, 0]
    ),
    "within an addition": (
        lambda: Net(activation=dropping()), "is left out", [0, 0]
    ),
    "before a hidden layer": (
        lambda: Net(out=hidden(nn.Dropout(0.2))), "behind the first linear", [0, 0.2]
    ),
    "before its activation": (
        lambda: dense(
            nn.Linear(100, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 9), nn.Linear(9, 10)
        ),
        "changes its place", [0, 0],
    ),
    "before and behind it": (
        lambda: Net(out=hidden(nn.Dropout(0.2), nn.Dropout(0.4))), "is left out", [0, 0.4]
    ),
}  # fmt: skip


def hidden(before: nn.Module, behind: nn.Module | None = None) -> nn.Module:
    """Return two linear layers with dropout."""
    return nn.Sequential(
        before, nn.Linear(4, 8), nn.ReLU(), behind or nn.Identity(), nn.Linear(8, 10)
    )


def dropping() -> nn.Module:
    """Return an inverted bottleneck with dropout before the addition."""
    block = Gated(4, 8, 2)
    block.project = nn.Sequential(*block.project, nn.Dropout())
    return nn.Sequential(nn.ReLU(), block)


@pytest.mark.parametrize("name", DROPPED)
def test_a_dropout_without_a_place_is_noted(name: str) -> None:
    """It matters in training alone."""
    make, words, shares = DROPPED[name]
    architecture, (note,) = imported(make())
    assert words in note
    assert "matters in training alone" in note
    assert [architecture.blocks[0].dropout, architecture.head.dropout] == shares


@pytest.mark.parametrize(
    "returned",
    [
        lambda x: (x.features, x.logits),
        lambda x: {"logits": x.logits, "features": [x.features]},
        lambda x: (x.features, x.logits.argmax(1), x.logits),
        lambda x: {"logits": x.logits, "class": x.logits.argmax(1)},
    ],
)
def test_features_beside_the_logits_are_noted(returned: Any) -> None:
    """Where the logits are made of them; in whatever order."""

    class Featured(Net):
        def forward(self, x: Tensor) -> Any:
            features = self.norm(self.conv(x)).relu()
            logits = self.out(features.mean((2, 3)))
            return returned(SimpleNamespace(features=features, logits=logits))

    architecture, (note,) = imported(Featured())
    assert "more than the logits" in note
    assert architecture == imported(Net())[0]


class StochasticDepth(nn.Module):
    """Leaves out what some images get, in training."""

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros for these images."""
        if not self.training:
            return x
        return x * (torch.rand(len(x), 1, 1, 1) < 0.9) / 0.9


class Auxiliary(nn.Module):
    """Returns other logits, too, in training."""

    def forward(self, x: Tensor) -> Any:
        """Return a tuple in training alone."""
        return (x.relu(), x.neg()) if self.training else x


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Net(activation=StochasticDepth()), "no arithmetic"),
        (Net(activation=nn.Identity(), behind=Auxiliary()), "returns more"),
    ],
)
def test_what_is_done_in_training_alone_is_noted(module: nn.Module, words: str) -> None:
    """Where nas lacks it, the net is the one of the evaluation."""
    architecture, (note,) = imported(module)
    assert architecture.blocks[0].activation == "none"
    assert words in note
    assert "taken as it is in evaluation" in note


@pytest.mark.parametrize("name", TAKEN)
def test_everyday_idioms_are_taken(name: str) -> None:
    """With equal logits for random weights, and as many parameters."""
    assert imported(TAKEN[name]())[1] == []


def test_a_compiled_module_is_taken_as_what_it_was_made_of() -> None:
    """Without compiling it."""
    net = Net()
    assert unwrapped(torch.compile(net)) is net  # type: ignore[arg-type]


def test_the_same_parameter_twice_is_one_block_applied_twice() -> None:
    """Although no module holds it."""
    assert imported(Parameters())[0].blocks[1].repeats == 2


@pytest.mark.parametrize(
    "normalise",
    [
        lambda x: (x.float() / 255 - 0.13) / 0.31,
        lambda x: x.mul(2).sub_(1),
        lambda x: (x - torch.tensor([0.1]).view(1, 1, 1, 1)) * 3,
    ],
)
def test_a_forward_that_normalises_the_images_is_taken_without(
    normalise: Change,
) -> None:
    """With a note; the rest computes the same."""
    architecture, (note,) = imported(Net(before=normalise))
    assert "nas itself normalises the images" in note
    assert architecture == imported(Net())[0]


class Straight(torch.autograd.Function):
    """Signs whose gradient goes straight through, as binary nets have."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - torch gives it
        """Return the signs."""
        return x.sign()


def compiled(x: Tensor) -> Tensor:
    """Return swish by a function that torch has compiled."""
    with warnings.catch_warnings(action="ignore"):  # that it is going out of use
        function = torch.jit.trace(_swish, torch.zeros(1))
    return function(x)  # type: ignore[no-any-return]


def compiled_sine(x: Tensor) -> Tensor:
    """Return what nas has not, by such a function."""
    with warnings.catch_warnings(action="ignore"):
        function = torch.jit.trace(torch.sin, torch.zeros(1))
    return function(x)  # type: ignore[no-any-return]


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@pytest.mark.parametrize("function", [compiled_sine, torch.as_tensor, Straight.apply])
def test_compiled_code_is_given_no_values(function: Change) -> None:
    """It would take them for tensors, and crash; isinstance stays what it was."""
    before = isinstance
    with pytest.raises(ArchitectureError):
        imported(Net(activation=function))
    assert isinstance is before
    assert Straight.apply(torch.tensor([-3.0])) == -1


def test_imports_at_the_same_time_leave_python_as_it_was() -> None:
    """While a forward is recorded, isinstance and torch's compiled code are changed."""
    before = isinstance, vars(torch.autograd.Function)["apply"]
    call = torch.jit.ScriptFunction.__call__
    nets = [Net() for _ in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda net: reference_of(net, (1, 12, 12)), nets))
    assert found == [found[0]] * len(nets)
    assert (isinstance, vars(torch.autograd.Function)["apply"]) == before
    assert torch.jit.ScriptFunction.__call__ is call


def gated(x: Tensor) -> Tensor:
    """Return gates' product, with swish written by hand on the way."""
    mean = x.mean((2, 3), keepdim=True)
    return x * torch.sigmoid(mean * mean.sigmoid())


class Added(nn.Module):
    """A residual block with a convolution and an activation in its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.way = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        return torch.relu(self.norm(self.conv(x)) + self.way(x).relu())


class NeedsScale(Net):
    """Cannot be called with images alone."""

    def forward(self, x: Tensor, scale: Tensor) -> Any:  # type: ignore[override]
        """Return logits."""
        return super().forward(x) * scale


class Inverting(Net):
    """Changes its weights by a function that takes a number before them."""

    def forward(self, x: Tensor) -> Any:
        """Return logits."""
        with torch.no_grad():
            self.conv.weight.copy_(torch.sub(1.0, self.conv.weight))
        return super().forward(x)


def scripted() -> nn.Module:
    """Return a net without Python code."""
    with warnings.catch_warnings(action="ignore"):  # that it is going out of use
        return torch.jit.trace(nn.Linear(3, 3), torch.zeros(1, 3))  # type: ignore[no-any-return,no-untyped-call]


def assigned(x: Tensor) -> Tensor:
    """Return a feature map without its edge."""
    x[:, :, 0] = 0
    return x


def emptied(x: Tensor) -> Tensor:
    """Do the same by a view, whose change is not seen."""
    x[:, :, 0].zero_()
    return x


class Weakened(nn.Module):
    """Too little to show in the logits of a net without batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map with a weaker edge."""
        x[:, :, 0].mul_(0.9)
        return x


def hooked() -> nn.Module:
    """Return a net with a hook that changes what a layer gives."""
    net = Net()
    net.norm.register_forward_hook(lambda module, taken, given: given * 2)  # noqa: ARG005
    return net


class Way(nn.Module):
    """Something done with a feature map and with what a convolution makes of it."""

    def __init__(
        self, change: Callable[[Tensor, Tensor], Tensor], **options: Any
    ) -> None:
        super().__init__()
        self.conv, self.change = nn.Conv2d(4, 4, 3, **options), change

    def forward(self, x: Tensor) -> Tensor:
        """Return the change."""
        return self.change(x, self.conv(x))


class Dilated(nn.Module):
    """Two convolutions side by side, one of them dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            nn.Conv2d(4, 2, 1),
            nn.Conv2d(4, 2, 3, padding=2, dilation=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return both."""
        return torch.cat([self.one(x), self.two(x)], 1)


class Frozen(nn.Module):
    """Filters that are fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.ones(4, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return four channels."""
        return functional.conv2d(x, self.filters)  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "uneven padding": (
        lambda: Net(conv=Same(1, 4, 3, stride=2)),
        "pad .* pads the sides by 0, 1, 0, 1; .* nearest",
    ),
    "other padding": (
        lambda: Net(before=lambda x: functional.pad(x, [1] * 4, mode="reflect")),
        "the nearest is mode='constant'",
    ),
    "padding with ones": (
        lambda: Net(before=nn.ConstantPad2d(1, 1.0)), "nearest is the convolution's own"
    ),
    "padding of what is pooled": (
        lambda: Net(activation=lambda x: functional.pad(x, [1] * 4)),
        "the nearest is a convolution right behind it",
    ),
    "too much padding": (
        lambda: Net(before=nn.ZeroPad2d(3)), r"its padding is \(4, 4\).* nearest is \(2, 2\)"
    ),
    "weight norm": (
        lambda: Net(
            conv=nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3))
        ),
        "weights are computed from others .* nearest is the plain layer",
    ),
    "frozen weights": (
        lambda: Net(conv=Frozen()), "no parameters, so they are not trained",
    ),
    "norm before all": (
        lambda: nn.Sequential(nn.BatchNorm2d(1), Net()), "nas itself normalises",
    ),
    "pooling before all": (
        lambda: nn.Sequential(nn.MaxPool2d(2), Net()), "nas pools behind a convolution",
    ),
    "a gradient of its own": (
        lambda: Net(activation=lambda x: Straight.apply(x)),  # noqa: PLW0108
        r"Straight \(test_importing_idioms.py line \d+\) .* gradient of its own",
    ),
    "swish with another gradient": (
        lambda: Net(activation=lambda x: StraightSwish.apply(x)),  # noqa: PLW0108
        r"StraightSwish \(test_importing_idioms.py line \d+\) .* gradient of its own",
    ),
    "TorchScript of something else": (
        lambda: Net(activation=compiled_sine),
        r"sin \(test_importing_idioms.py line \d+\) .* is TorchScript, .* nearest",
    ),
    "a fifth of gates": (
        lambda: gated_by(lambda x: x / 5), r"mul \(importable.* nas makes gates by"
    ),
    "softmax twice": (
        lambda: Net(behind=lambda x: x.softmax(1).log_softmax(1)),
        r"log_softmax \(.* stands behind the softmax, .* nearest is without it",
    ),
    "another addition in the shortcut": (
        lambda: Net(activation=Way(lambda x, y: y.relu() + functional.max_pool2d(x, 3, 1, 1), padding=1)),
        "two ways side by side only where .* the nearest is that",
    ),
    "swish within gates": (
        lambda: Net(activation=gated), "nas makes gates by .* ReLU"
    ),
    "mean between norm and activation": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(100, 10),
        ),
        "behind it stand norm, pool, activation; the nearest are pool, norm, activation",
    ),
    "another size": (
        lambda: Net(activation=lambda x: functional.adaptive_avg_pool2d(x, 5)),
        "it pools 12x12 to 5x5; .* the nearest",
    ),
    "no norm of an activated shortcut": (
        lambda: Net(activation=Added()),
        r"activation.way \(Conv2d, .* line \d+\) .* nearest is batch norm behind this",
    ),
    "more channels": (
        lambda: Net(before=lambda x: x.repeat(1, 3, 1, 1), conv=nn.Conv2d(3, 4, 3)),
        "nas repeats no channels; the nearest",
    ),
    "more than images": (NeedsScale, r"more than the images \(scale\)"),
    "sigmoid of the logits": (lambda: Net(behind=torch.sigmoid), "classifies by softmax"),
    "sigmoid at the end": (lambda: Net(behind=nn.Sigmoid()), "classifies by softmax"),
    "sigmoid before the last flatten": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Sigmoid(), nn.Flatten(),
        ),
        r"2 \(Sigmoid\) .* classifies by softmax",
    ),
    "a confidence": (
        lambda: Net(behind=lambda x: (x, x.softmax(1).amax(1))), "amax .* the nearest"
    ),
    "batch norm behind two poolings": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 10),
        ),
        r"5 \(BatchNorm1d\) .* the nearest",
    ),
    "a function of something else first": (
        lambda: Net(activation=lambda x: Scaled.apply(2, x)),
        r"Scaled \(test_importing_idioms.py line \d+\) .* first argument",
    ),
    "scaled logits": (lambda: Net(behind=lambda x: x * 0.125), "no arithmetic in a net"),
    "features, too": (
        lambda: Net(behind=lambda x: (x.relu(), x.neg())), "returns more .* the nearest"
    ),
    "part of the map": (
        lambda: Net(activation=lambda x: x[:, :, ::2, ::2]), "the nearest is a stride"
    ),
    "another order": (
        lambda: Net(before=lambda x: x.permute(0, 1, 3, 2)), "channels, height, width"
    ),
    "resized": (
        lambda: Net(before=lambda x: functional.interpolate(x, size=(6, 6))),
        "--image-size",
    ),
    "product": (
        lambda: Net(behind=lambda x: torch.einsum("ij->ij", x)), "nearest is nn.Linear"
    ),
    "two poolings": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(16, 10),
        ),
        "a second pool .* the nearest",
    ),
    "an assignment": (
        lambda: Net(activation=assigned),
        r"setitem \(test_importing_idioms.py line \d+\) .* the nearest",
    ),
    "a change of a view": (
        lambda: Net(activation=emptied),
        r"between norm \(BatchNorm2d.* and out \(Linear, .* does not see.* the nearest",
    ),
    "a small change of a view": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), Weakened(), nn.Conv2d(4, 4, 3), nn.ReLU(),
            nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
        ),
        r"between 0 \(Conv2d\) and 2 \(Conv2d\) forward does something .* the nearest",
    ),
    "a hook": (hooked, r"between norm .* such as the hooks of norm, .* the nearest"),
    "part of a sum": (
        lambda: Net(activation=Way(lambda x, y: torch.add(x, y, alpha=0.99), padding=1)),
        r"add \(test_importing_idioms.py line \d+\) .* the nearest is alpha=1",
    ),
    "padding before an addition": (
        lambda: Net(activation=Way(lambda x, y: x + functional.pad(y, [1] * 4))),
        r"pad \(test_importing_idioms.py line \d+\) .* the nearest is a convolution right",
    ),
    "a dilated branch": (
        lambda: Net(activation=Dilated()), "side by side; the nearest is dilation=1"
    ),
    "padding of a 1x1 convolution": (
        lambda: Net(
            activation=nn.Sequential(
                nn.Conv2d(4, 8, 1, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8),
                nn.ReLU(), nn.Conv2d(8, 4, 1),
            )
        ),
        r"activation.0 \(Conv2d.* its padding is \(1, 1\).* nearest is \(0, 0\)",
    ),
    "padding of a mean": (
        lambda: Net(activation=nn.AvgPool2d(12, 1, 6)), "the nearest is padding=0"
    ),
    "mean over channels": (
        lambda: Net(
            conv=nn.Conv2d(1, 4, 9), activation=lambda x: x.mean((1, 2))[..., None, None]
        ),
        r"mean \(test_importing_idioms.py line \d+\) .* no mean over height and width",
    ),
    "some of the values": (
        lambda: Net(
            conv=nn.Conv2d(1, 4, 12), activation=lambda x: x[:, :3, 0, 0, None, None],
            out=nn.Linear(3, 10),
        ),
        r"getitem \(test_importing_idioms.py line \d+\) .* takes no part",
    ),
    "one layer twice": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            *[nn.Linear(4, 4)] * 2,
        ),
        r"the weights of \S+ \(Linear\) are used more than once; the nearest",
    ),
    "weights that forward changes": (
        Inverting,
        r"between conv \(Conv2d, .* and norm \(BatchNorm2d, .* a change of weights",
    ),
    "TorchScript": (scripted, "give the module that it was made of"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_with_what_comes_nearest(name: str) -> None:
    """In one line, which speaks of no tracer."""
    make, words = REFUSED[name]
    with pytest.raises(ArchitectureError, match=words) as caught:
        imported(make())
    assert "\n" not in str(caught.value)
    assert not re.search("trac|aten|symbolic|report it|proxy", str(caught.value))
