"""Small nets in the styles in which different people write them; see test_importing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - as people write it


def cbr(i: int, o: int, k: int | tuple[int, int] = 3, **options: Any) -> nn.Sequential:
    """Return convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(i, o, k, bias=False, **options), nn.BatchNorm2d(o), nn.ReLU(True)
    )


class _Net(nn.Module):
    """Three layers; the subclasses differ in what they do with them."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 3, padding=1)
        self.b1 = nn.BatchNorm2d(6)
        self.c2 = nn.Conv2d(6, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def features(self, x: Tensor) -> Tensor:
        """Return 8 channels of 14x14."""
        return F.relu(self.c2(F.max_pool2d(F.relu(self.b1(self.c1(x))), 2)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.fc(self.pooled(self.features(x)))  # type: ignore[no-any-return]

    def pooled(self, x: Tensor) -> Tensor:
        """Return 8 values an image."""
        raise NotImplementedError


def pooling(how: Any) -> nn.Module:
    """Return a net that pools the feature map so."""
    net = _Net()
    net.pooled = how  # type: ignore[method-assign]
    return net


POOLINGS = {
    "avg_pool2d by size()[2:]": lambda x: F.avg_pool2d(x, x.size()[2:]).view(x.size(0), -1),
    "avg_pool2d by shape[-1]": lambda x: F.avg_pool2d(x, x.shape[-1]).flatten(1),
    "avg_pool2d by shape[2:]": lambda x: F.avg_pool2d(x, tuple(x.shape[2:]))[:, :, 0, 0],
    "avg_pool2d by a number": lambda x: F.avg_pool2d(x, 14).reshape(-1, 8),
    "mean twice": lambda x: x.mean(dim=3).mean(dim=2),
    "mean of two": lambda x: torch.mean(x, dim=(2, 3)),
    "mean of negatives": lambda x: x.mean([-1, -2]),
    "mean, dimensions kept": lambda x: x.mean(-1, keepdim=True).mean(-2, keepdim=True).flatten(1),
    "mean of flattened": lambda x: x.flatten(2).mean(-1),
    "mean of viewed": lambda x: x.view(x.size(0), x.size(1), -1).mean(2),
    "adaptive, squeezed twice": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
    "adaptive, squeezed": lambda x: F.adaptive_avg_pool2d(x, (1, 1)).squeeze(),
    "adaptive, indexed": lambda x: F.adaptive_avg_pool2d(x, 1)[..., 0, 0],
    "adaptive, torch.flatten": lambda x: torch.flatten(F.adaptive_avg_pool2d(x, 1), 1),
    "module": lambda x: nn.functional.adaptive_avg_pool2d(x, 1).view(x.shape[0], x.shape[1]),
}  # fmt: skip


class Optional(_Net):
    """A flag, an assertion, and a branch on the input's size."""

    def forward(
        self,
        x: Tensor,
        features: bool = False,  # noqa: FBT002 - as people write it
        scale: float | None = None,
    ) -> Tensor:
        """Return logits."""
        assert x.dim() == 4
        assert x.shape[1:] == (1, 28, 28)
        if x.ndim == 3:
            x = x.unsqueeze(0)
        b, _, _, _ = x.shape
        f = self.features(x)
        if features:
            return f
        if scale is not None:
            f = f * scale
        return self.fc(f.mean((2, 3)).view(b, -1))  # type: ignore[no-any-return]


class AlwaysDropped(nn.Module):
    """F.dropout without training=self.training, beside one that has it."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 4, 5, 2)
        self.f1 = nn.Linear(4 * 12 * 12, 12)
        self.f2 = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return log probabilities."""
        x = F.dropout(F.relu(self.c1(x)), 0.1, training=self.training)
        x = F.relu(self.f1(torch.flatten(x, 1)))
        x = F.dropout(x, 0.2)
        return F.log_softmax(self.f2(x), dim=-1)


class Listed(nn.Module):
    """Modules in lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([cbr(1, 4), cbr(4, 6), cbr(6, 8, stride=2)])
        self.parts = nn.ModuleDict({"act": nn.SiLU(), "out": nn.Linear(8, 10)})

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        for number, conv in enumerate(self.convs):
            x = conv(x)
            if number == 1:
                x = nn.functional.max_pool2d(x, kernel_size=2, stride=2)
        return self.parts["out"](x.mean((2, 3)))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """One convolution in a loop, a norm for each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = cbr(1, 8, stride=2, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))
        self.out = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.stem(x)
        for norm in self.norms:
            x = norm(self.shared(x)).relu_()
        return self.out(x.mean((2, 3)))  # type: ignore[no-any-return]


def gap_then_conv(hidden: int = 0) -> nn.Module:
    """Return a net that classifies by 1x1 convolutions of one pixel."""
    between = [nn.Conv2d(8, hidden, 1), nn.ReLU()] if hidden else []
    return nn.Sequential(
        cbr(1, 8), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), *between,
        nn.Dropout(0.1), nn.Conv2d(hidden or 8, 10, 1), nn.Flatten(),
    )  # fmt: skip


class Expanding(nn.Module):
    """Expand, depthwise, project, add."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels as it takes."""
        return x + self.layers(x)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Two inverted bottlenecks with a pooling between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU6()
        )
        self.blocks = nn.Sequential(
            Expanding(4, 3), nn.MaxPool2d(2), Expanding(4, 2), nn.Dropout(0.1)
        )
        self.out = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.out(self.blocks(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Added(nn.Module):
    """A stem, one or two convolutions added to what they take, pooling, a classifier."""

    def __init__(
        self,
        i: int,
        o: int,
        stride: int = 1,
        *,
        deep: bool = False,
        first: bool = False,
        early: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.stem = cbr(1, i)
        layers = [*cbr(i, o, stride=stride, padding=1, groups=groups)]
        if deep:
            layers += cbr(o, o, padding=1, groups=groups)
        self.body = nn.Sequential(*(layers if early else layers[:-1]))
        self.downsample = nn.Sequential()
        if stride > 1 or i != o:
            self.downsample = nn.Sequential(
                nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)
            )
        self.first = first
        self.fc = nn.Linear(o, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.stem(x)
        if self.first:
            y = self.downsample(x)
            y += self.body(x)
        else:
            y = self.body(x) + self.downsample(x)
        y = F.max_pool2d(F.relu(y), 2)
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


class Sum(nn.Module):
    """A block and a shortcut of any kind, with or without ReLU behind their sum."""

    def __init__(self, body: nn.Module, way: Any, *, relu: bool = True) -> None:
        super().__init__()
        self.body, self.way, self.relu = body, way, relu

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        y = self.way(x) + self.body(x)
        return F.relu(y) if self.relu else y


def zeros(before: int, behind: int, stride: int = 2) -> Any:
    """Return a shortcut of zeros, as in the first ResNets for CIFAR."""
    return lambda x: F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, behind))


def inside(o: int, *layers: nn.Module) -> nn.Sequential:
    """Return the layers, then a convolution and batch norm."""
    return nn.Sequential(*layers, *cbr(o, o, padding=1)[:2])


def inverted(i: int, inner: int, o: int, stride: int = 1) -> nn.Sequential:
    """Return an inverted bottleneck, its first convolution also where it is as wide."""
    return nn.Sequential(
        *cbr(i, inner, 1), *cbr(inner, inner, 3, stride=stride, padding=1, groups=inner),
        *cbr(inner, o, 1)[:2],
    )  # fmt: skip


class Gates(nn.Module):
    """Squeeze-and-excitation by linear layers, as in its authors' code."""

    def __init__(
        self, channels: int, hidden: int, last: nn.Module | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, **options), nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, **options), last or nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated feature map."""
        b, c, _, _ = x.size()
        y = self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1)
        return x * y.expand_as(x)


class Gated(nn.Module):
    """An inverted bottleneck with gates of convolutions."""

    def __init__(
        self,
        channels: int,
        wide: int,
        hidden: int,
        activation: Any = F.relu,
        last: Any = torch.sigmoid,
    ) -> None:
        super().__init__()
        self.activation, self.last = activation, last
        self.expand = cbr(channels, wide, 1)
        self.depthwise = cbr(wide, wide, padding=1, groups=wide)
        self.reduce = nn.Conv2d(wide, hidden, 1)
        self.grow = nn.Conv2d(hidden, wide, 1)
        self.project = cbr(wide, channels, 1)[:2]

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels as it takes."""
        y = self.depthwise(self.expand(x))
        gates = self.activation(self.reduce(y.mean((2, 3), keepdim=True)))
        return self.project(self.last(self.grow(gates)) * y) + x  # type: ignore[no-any-return]


class Separated(nn.Module):
    """Depthwise and 1x1 convolution, each with a norm, added to what they take."""

    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        depthwise = cbr(i, i, stride=stride, padding=1, groups=i)
        self.body = nn.Sequential(*depthwise, *cbr(i, o, 1)[:2])
        self.short = nn.Identity() if i == o else cbr(i, o, 1, stride=stride)[:2]

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum."""
        return F.relu(self.short(x) + self.body(x))


TAKEN: dict[str, nn.Module] = {f"gap: {k}": pooling(v) for k, v in POOLINGS.items()} | {
    "optional argument": Optional(),
    "dropout always on": AlwaysDropped(),
    "lists and dicts": Listed(),
    "tied weights": Tied(),
    "gap, then a convolution": gap_then_conv(),
    "gap, then two convolutions": gap_then_conv(6),
    "channel dropout": nn.Sequential(
        cbr(1, 4), nn.Dropout2d(0.1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(676, 10)
    ),
    "lenet with relu": nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 5),
        nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(200, 20), nn.ReLU(),
        nn.Linear(20, 10),
    ),
    "named layers": nn.Sequential(
        OrderedDict(
            body=cbr(1, 8, padding=1), pool=nn.MaxPool2d(2), squeeze=cbr(8, 4, 1),
            grow=cbr(4, 8), gap=nn.AdaptiveAvgPool2d((1, 1)), flat=nn.Flatten(),
            out=nn.Linear(8, 10), prob=nn.LogSoftmax(dim=1),
        )
    ),
    "fully convolutional": nn.Sequential(
        cbr(1, 8), nn.MaxPool2d(2, 2), cbr(8, 6), nn.Conv2d(6, 10, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ),
    "the last convolution covers the map": nn.Sequential(
        cbr(1, 4), nn.MaxPool2d(2), cbr(4, 4), nn.Conv2d(4, 10, 11), nn.Flatten()
    ),
    "depthwise and 1x1 at once": nn.Sequential(
        cbr(1, 6), nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "MobileNet v1": nn.Sequential(
        cbr(1, 6, stride=2), cbr(6, 6, padding=1, groups=6), cbr(6, 8, 1),
        cbr(8, 8, stride=2, padding=1, groups=8), cbr(8, 12, 1), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    ),
    "DS-CNN, norm folded": nn.Sequential(
        nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(),
        nn.Conv2d(6, 6, 1), nn.ReLU(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 10),
    ),
    "depthwise and 1x1 with norms, added": nn.Sequential(
        cbr(1, 8), Separated(8, 8), Separated(8, 10, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(10, 10),
    ),
    "MobileNet v1 with squeeze-and-excitation": nn.Sequential(
        cbr(1, 8), cbr(8, 8, padding=1, groups=8), Gates(8, 2), cbr(8, 10, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10),
    ),
    "gated inverted bottlenecks": nn.Sequential(
        cbr(1, 4), Gated(4, 12, 3), Gated(4, 8, 8), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 10),
    ),
    "gates of any width, with SiLU or without biases": nn.Sequential(
        cbr(1, 4), Gated(4, 12, 5, F.silu), Gated(4, 8, 9, lambda x: x * x.sigmoid()),
        cbr(4, 4, groups=4), Gates(4, 3, bias=False), cbr(4, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "hard gates": nn.Sequential(
        cbr(1, 4), Gated(4, 8, 1, nn.ReLU6(), lambda x: F.relu6(x + 3) / 6),
        Gated(4, 8, 2, F.hardswish, lambda x: (x + 3.0).clamp(0, 6) * (1 / 6)),
        Gated(4, 8, 2, F.gelu, F.hardsigmoid),
        Gated(4, 8, 2, F.relu, lambda x: (0.5 + x / 6).clamp_(min=0, max=1)),
        cbr(4, 4, groups=4), Gates(4, 3, nn.Hardsigmoid(inplace=True)), cbr(4, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "DS-CNN's first kernel": nn.Sequential(
        nn.Conv2d(1, 8, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        cbr(8, 8, (3, 3), padding=1, groups=8), cbr(8, 10, 1), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10),
    ),
    "even kernels, padded": nn.Sequential(
        cbr(1, 4, 2, padding=1), cbr(4, 8, 4, stride=2, padding=1),
        nn.ZeroPad2d((1, 1, 2, 2)), nn.Conv2d(8, 8, 4, groups=8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "more and less padding than same": nn.Sequential(
        cbr(1, 4, padding=2), cbr(4, 4, 5, padding=1), nn.MaxPool2d(2),
        cbr(4, 8, (3, 5), padding=(0, 2), dilation=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "kernels along one side": nn.Sequential(
        cbr(1, 6, (9, 1), padding=(4, 0)), nn.MaxPool2d(2), cbr(6, 8, (1, 9)),
        nn.Flatten(), nn.Linear(8 * 14 * 6, 10),
    ),
    "images made smaller": nn.Sequential(
        nn.AdaptiveAvgPool2d((20, 20)), cbr(1, 8), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(648, 10),
    ),
    "images halved": nn.Sequential(
        nn.AvgPool2d(2), cbr(1, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    ),
    "dilated": nn.Sequential(
        cbr(1, 6, padding=1), cbr(6, 6, padding=2, dilation=2),
        nn.Conv2d(6, 6, 3, dilation=3, groups=6, bias=False), cbr(6, 8, 1),
        cbr(8, 8, (1, 5), padding="same", dilation=(1, 2)),
        cbr(8, 8, 2, padding="same", dilation=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "groups": nn.Sequential(
        cbr(1, 8), cbr(8, 12, padding=1, groups=4), nn.MaxPool2d(2),
        cbr(12, 12, 1, groups=3, stride=2), nn.Conv2d(12, 8, (3, 1), groups=2), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "depthwise alone, with norm and with a bias": nn.Sequential(
        cbr(1, 6), cbr(6, 6, padding=1, groups=6), nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 12, 3, groups=6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 10),
    ),
    "norm folded": nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.SiLU(), nn.Conv2d(8, 8, 3, padding="same"),
        nn.LeakyReLU(), nn.Flatten(), nn.Linear(1352, 10), nn.Softmax(-1),
    ),
    "linear layers behind the mean": nn.Sequential(
        cbr(1, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1),
        nn.Linear(6, 9), nn.SiLU(), nn.Dropout(0.2), nn.Linear(9, 8), nn.SiLU(),
        nn.Dropout(0.3), nn.Linear(8, 10),
    ),
    "LeNet-5 with ReLU": nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5),
        nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ),
    "norm behind the pooling": nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(6),
        nn.Conv2d(6, 8, 3), nn.SiLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Dropout(),
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "norm behind the activation": nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Dropout(0.05),
        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "identity": nn.Sequential(
        cbr(1, 6), nn.Identity(), nn.AvgPool2d(26), nn.Flatten(), nn.Linear(6, 10)
    ),
    "residual": Added(8, 8),
    "inverted bottlenecks": Bottleneck(),
    "inverted bottleneck without addition": nn.Sequential(
        cbr(1, 6), cbr(6, 12, 1), cbr(12, 12, stride=2, padding=1, groups=12),
        *cbr(12, 8, 1)[:2], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "residual of two convolutions, its sides swapped": Added(6, 6, deep=True, first=True),
    "residual that changes the shape": Added(6, 9, 2, deep=True),
    "one convolution and a shortcut of another": Added(6, 9, 2),
    "groups, added to the input": Added(8, 8, groups=2),
    "groups and a shortcut without any": Added(6, 9, 2, groups=3),
    "LeNet-5": nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5),
        nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Tanh(),
        nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    ),
    "a shortcut's convolution without norm": nn.Sequential(
        cbr(1, 4), Sum(inside(6, cbr(4, 6, stride=2, padding=1)), nn.Conv2d(4, 6, 1, 2)),
        Sum(inside(8, cbr(6, 8, padding=1)), nn.Conv2d(6, 8, 1, bias=False)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "a shortcut with activation": nn.Sequential(
        cbr(1, 4), Sum(inside(8, cbr(4, 8, stride=2, padding=1)), cbr(4, 8, 1, stride=2)),
        Sum(cbr(8, 6, padding=1)[:2], cbr(8, 6, 1)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    ),
    "shortcuts of zeros": nn.Sequential(
        cbr(1, 4), Sum(inside(8, cbr(4, 8, stride=2, padding=1)), zeros(2, 2)),
        Sum(cbr(8, 8, 1, stride=2)[:2], lambda x: x[..., ::2, ::2]),
        Sum(inside(11, cbr(8, 11, padding=1)), lambda x: F.pad(x, [0] * 4 + [1, 2])),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(11, 10),
    ),
    "inverted bottlenecks of one class for all": nn.Sequential(
        cbr(1, 4), Sum(inverted(4, 4, 6), cbr(4, 6, 1)[:2], relu=False),
        Sum(inverted(6, 6, 6), nn.Identity(), relu=False), inverted(6, 12, 8, 2),
        Sum(inverted(8, 24, 10), cbr(8, 10, 1)[:2], relu=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 10),
    ),
    "bottlenecks": nn.Sequential(
        cbr(1, 4), Sum(
            nn.Sequential(cbr(4, 2, 1), cbr(2, 2, stride=2, padding=1), cbr(2, 8, 1)[:2]),
            cbr(4, 8, 1, stride=2)[:2],
        ),
        Sum(
            nn.Sequential(cbr(8, 4, 1), cbr(4, 4, padding=1), cbr(4, 8, 1)[:2]),
            nn.Identity(),
        ),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    ),
    "relu6": nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 10),
    ),
}  # fmt: skip
"""By style: each takes 1x28x28 images."""


def _ending(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "groups within a residual block": (
        Added(6, 6, deep=True, groups=2),
        r"body.0 \(Conv2d.* nas has no groups; the nearest is groups=1",
    ),
    "strides that differ": (
        _ending(nn.Conv2d(1, 8, 3, (2, 1)), nn.ReLU()),
        "one stride and one dilation for rows and columns",
    ),
    "images squeezed": (
        _ending(nn.AdaptiveAvgPool2d((20, 10)), nn.Conv2d(1, 8, 3)),
        "keeps the proportions of the images; the nearest is 10x10",
    ),
    "an even kernel of same padding": (
        _ending(nn.Conv2d(1, 8, (3, 4), padding="same"), nn.ReLU()),
        "nas pads both alike; the nearest is an odd kernel, or padding in numbers",
    ),
    "a kernel that begins beyond the images": (
        _ending(nn.Conv2d(1, 8, (1, 5), padding=(1, 5)), nn.ReLU()),
        r"its padding is \(1, 5\), so .*; the nearest is \(0, 4\)",
    ),
    "gates of a convolution": (
        _ending(cbr(1, 8), Gates(8, 2)),
        r"mul \(importable_nets.py line \d+\) .* between a depthwise convolution",
    ),
    "gates of another slope": (
        _ending(
            cbr(1, 8), cbr(8, 8, groups=8), Gates(8, 3, nn.Hardtanh(0, 1)), cbr(8, 8, 1)
        ),
        r"Hardtanh.* nas makes gates by .* hard sigmoid",
    ),
    "mish": (_ending(nn.Conv2d(1, 8, 3), nn.Mish()), r"Mish.* nearest are ReLU"),
    "zeros behind alone": (
        _ending(cbr(1, 4), Sum(cbr(4, 8, stride=2, padding=1)[:2], zeros(0, 4))),
        r"pad \(.* 0 channels of zeros before and 4 behind; the nearest .* 2 and 2",
    ),
    "two ways that convolve": (
        _ending(
            cbr(1, 4), Sum(inside(8, cbr(4, 8, padding=1)), cbr(4, 8, padding=1)[:2])
        ),
        "only where one is nothing, zeros or a 1x1 convolution",
    ),
    "another activation in a shortcut": (
        _ending(
            cbr(1, 4),
            Sum(
                inside(8, cbr(4, 8, padding=1)),
                nn.Sequential(*cbr(4, 8, 1)[:2], nn.SiLU()),
            ),
        ),
        r"SiLU.* the activation of its block; the nearest is relu",
    ),
    "a bottleneck that widens": (
        _ending(
            cbr(1, 8),
            Sum(
                nn.Sequential(cbr(8, 12, 1), cbr(12, 12, padding=1), cbr(12, 8, 1)[:2]),
                nn.Identity(),
            ),
        ),
        "has a whole part of the 8 channels .* the nearest is 8",
    ),
    "a bottleneck with the stride before": (
        _ending(
            cbr(1, 4),
            Sum(
                nn.Sequential(
                    cbr(4, 4, 1, stride=2), cbr(4, 4, padding=1), cbr(4, 8, 1)[:2]
                ),
                cbr(4, 8, 1, stride=2)[:2],
            ),
        ),
        "the first and the last 1x1, without stride and groups; the nearest",
    ),
    "groups in a bottleneck": (
        _ending(
            cbr(1, 4),
            Sum(
                nn.Sequential(
                    cbr(4, 4, 1), cbr(4, 4, padding=1, groups=2), cbr(4, 8, 1)[:2]
                ),
                cbr(4, 8, 1)[:2],
            ),
        ),
        "within a bottleneck nas has no groups; the nearest is groups=1",
    ),
    "four convolutions added": (
        _ending(
            cbr(1, 8),
            Sum(inside(8, *(cbr(8, 8, padding=1) for _ in range(3))), nn.Identity()),
        ),
        "to a bottleneck .* this one adds to 4; the nearest",
    ),
    "activation before the addition": (
        Added(8, 8, early=True),
        r"ReLU.* the nearest is the activation behind the addition",
    ),
}
"""What needs blocks that nas lacks, and what is said of it."""
