"""Goes through a model's layers and emits kernel calls: which ones, on which memory.

What is the same for CPU and GPU; what differs is in ``cpu.py`` and ``gpu.py``.
"""

from __future__ import annotations

import ctypes
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.architecture.parts import Pooling
from nas.training.kernels.tape import Pool
from nas.training.model import (
    ACTIVATION_MODULES,
    Inception,
    PadChannels,
    Residual,
    SqueezeExcitation,
)

# Emits the calls that turn the gradient of a layer's output into that of its input, and
# returns where that will be; None where nobody needs it.
Back = Callable[[Tensor], Tensor | None]

_RECTIFIERS: dict[type[nn.Module], int] = {
    nn.ReLU: 0,
    nn.LeakyReLU: 1,
    nn.ReLU6: 2,
    nn.Hardswish: 3,
}
"""Activations and their numbers in kernels.c."""

CURVES = {
    module: name
    for name, module in ACTIVATION_MODULES.items()
    if module not in _RECTIFIERS
} | {nn.Hardsigmoid: "hardsigmoid"}
"""What torch computes on a CPU: all with exponentials, hard gates; with its names of them."""

LAYERS: tuple[type[nn.Module], ...] = (
    *_RECTIFIERS,
    *CURVES,
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    Inception,
    Residual,
    PadChannels,
    SqueezeExcitation,
)
"""What a tape can hold; on a GPU no PadChannels, no convolution that `is_grouped`, and no
pooling but those that halve the sides."""


class NormInside(NamedTuple):
    """Batch norm, whether a ReLU comes before and after it, and the share dropped then."""

    layer: nn.BatchNorm2d
    before: bool
    after: bool
    dropout: float


class Recorder(ABC):
    """Records layer by layer; each gives its output and how its gradient is made.

    Subclasses say how a call is emitted, where a parameter's gradient goes, and how
    batch norm in training and dropout are computed.
    """

    def __init__(
        self, layers: Sequence[nn.Module], *, training: bool, device: torch.device
    ) -> None:
        """Take the layers in the order in which they are applied."""
        self._layers, self._training, self._device = layers, training, device
        self._pool = Pool(device)
        each = {id(p): p for layer in layers for p in layer.parameters()}
        self._parameters = list(each.values())

    @abstractmethod
    def _emit(self, name: str, *arguments: Any) -> None:
        """Record a call of the kernel of that name."""

    @abstractmethod
    def _place(self, parameter: Tensor | None) -> Any:
        """Return what tells kernels where a parameter's gradient goes; None for none."""

    @abstractmethod
    def _norm(
        self, x: Tensor, bias: Tensor | None, fused: NormInside
    ) -> tuple[Tensor, Back]:
        """Record batch norm in training, with what stands around it."""

    @abstractmethod
    def _dropout(self, x: Tensor, probability: float) -> tuple[Tensor, Back]:
        """Record dropout in training."""

    def _chain(
        self,
        layers: list[nn.Module],
        x: Tensor,
        *,
        first: bool = False,
        keep: bool = False,
    ) -> tuple[Tensor, Back]:
        """Record layers one after the other; ``first`` ones need no gradient of x.

        In evaluation memory is used again once it is no longer needed; ``keep`` says
        that x still is.
        """
        backs: list[Back] = []
        bias: Tensor | None = None  # of the last convolution, not added yet
        start = x

        def record(result: tuple[Tensor, Back]) -> None:
            nonlocal x
            before, (x, back) = x, result
            backs.append(back)
            moved = before.data_ptr() != x.data_ptr()
            if moved and not self._training and not (keep and before is start):
                self._pool.give(before)

        while layers:
            if self._training and (fused := take_norm(layers)):
                record(self._norm(x, bias, fused))
                bias = None
                continue
            if bias is not None:
                record(self._bias(x, bias))
                bias = None
            layer = layers.pop(0)
            if isinstance(layer, nn.Conv2d):
                record(self._conv(x, layer, input_gradient=bool(backs) or not first))
                bias = layer.bias
            else:
                record(self._layer(x, layer))
        if bias is not None:
            record(self._bias(x, bias))

        def back(g: Tensor) -> Tensor | None:
            gradient: Tensor | None = g
            for one in reversed(backs):
                assert gradient is not None
                gradient = one(gradient)
            return gradient

        return x, back

    def _layer(self, x: Tensor, layer: nn.Module) -> tuple[Tensor, Back]:
        if isinstance(layer, Inception):
            return self._inception(x, layer)
        if isinstance(layer, Residual):
            return self._residual(x, layer)
        if isinstance(layer, PadChannels):
            return self._padded(x, layer)
        if isinstance(layer, SqueezeExcitation):
            return self._gated(x, layer)
        if isinstance(layer, nn.BatchNorm2d):
            return self._norm_eval(x, layer)
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            largest = isinstance(layer, nn.MaxPool2d)
            if is_halving(layer):
                return self._pooling(x, largest=largest)
            return self._windows(x, layer, largest=largest)
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            return self._mean(x)
        if isinstance(layer, nn.Dropout):
            if not self._training:
                return x, _only_in_training
            return self._dropout(x, layer.p)
        if type(layer) in CURVES:
            return self._curve(x, CURVES[type(layer)])
        return self._rectifier(x, layer)

    def _conv(
        self, x: Tensor, layer: nn.Conv2d, *, input_gradient: bool
    ) -> tuple[Tensor, Back]:
        """Record a convolution without its bias, or a depthwise one."""
        name = "depthwise" if layer.groups > 1 else "conv"
        place = partial(self._place, layer.weight)
        return self._convolved(
            x, layer, name, layer.weight, place, input_gradient=input_gradient
        )

    def _convolved(
        self,
        x: Tensor,
        layer: nn.Conv2d,
        name: str,
        weight: Tensor,
        place: Callable[[], Any],
        *,
        input_gradient: bool,
    ) -> tuple[Tensor, Back]:
        """Record a convolution as the layer's, whose weights' gradient goes to a place."""
        stride, apart = layer.stride[0], layer.dilation[0]
        padding = [int(zeros) for zeros in layer.padding]
        groups, _, *sides, lanes = x.shape
        kernel = weight.shape[2:]
        out = [
            (side + 2 * zeros - apart * (taps - 1) - 1) // stride + 1
            for side, zeros, taps in zip(sides, padding, kernel, strict=True)
        ]
        y = self._pool.take((groups, len(weight), *out, lanes))
        if not weight.is_contiguous():
            contiguous = torch.empty(weight.shape)
            self._emit("copy", contiguous, weight)
            weight = contiguous
        forwards = conv_shape(x, y, kernel, stride, padding, apart)
        self._emit(name, x, weight, y, forwards, 0)

        def back(g: Tensor) -> Tensor | None:
            self._emit(f"{name}_weight", x, g, place(), forwards)
            if not input_gradient:
                return None
            gx = self._pool.take(x.shape)
            # The same convolution backwards; a stride becomes a dilation.
            turned = [
                apart * (taps - 1) - zeros
                for taps, zeros in zip(kernel, padding, strict=True)
            ]
            shape = conv_shape(g, gx, kernel, 1, turned, apart, dilation=stride)
            self._emit(name, g, weight, gx, shape, 1)
            self._pool.give(g)
            return gx

        return y, back

    def _bias(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Back]:
        """Record the addition of a bias in place: nobody needs what it is added to."""
        sizes = count_planes(x), x.shape[1], area_of(x)
        self._emit("add_bias", x, bias, *sizes)

        def back(g: Tensor) -> Tensor:
            self._emit("add_bias_back", g, self._place(bias), *sizes)
            return g

        return x, back

    def _norm_eval(self, x: Tensor, layer: nn.BatchNorm2d) -> tuple[Tensor, Back]:
        """Record batch norm with the running statistics."""
        y = self._pool.take(x.shape)
        self._emit(
            "norm_eval",
            *(x, y, *x.shape[:2], area_of(x), layer.weight, layer.bias),
            *(layer.running_mean, layer.running_var, layer.eps, 0),
        )
        return y, _only_in_training

    def _pooling(self, x: Tensor, *, largest: bool) -> tuple[Tensor, Back]:
        """Record a 2x2 pooling."""
        groups, channels, height, width, lanes = x.shape
        y = self._pool.take((groups, channels, height // 2, width // 2, lanes))
        sizes = groups * channels, height, width
        winners = []
        if largest:
            winners = [torch.empty(y.shape, dtype=torch.uint8, device=self._device)]
        name = "max_pool" if largest else "avg_pool"
        self._emit(name, x, y, *winners, *sizes)

        def back(g: Tensor) -> Tensor:
            gx = self._pool.take(x.shape)
            self._emit(f"{name}_back", g, *winners, gx, *sizes)
            self._pool.give(g)
            return gx

        return y, back

    def _windows(
        self, x: Tensor, layer: nn.MaxPool2d | nn.AvgPool2d, *, largest: bool
    ) -> tuple[Tensor, Back]:
        """Record a pooling of any other windows."""
        sizes = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
        out = Pooling("", *sizes).sides(*x.shape[2:4])
        y = self._pool.take((*x.shape[:2], *out, x.shape[4]))
        numbers = count_planes(x), *x.shape[2:4], *out, *itertools.chain(*sizes)
        shape = (ctypes.c_int * len(numbers))(*numbers)
        self._emit("pool", x, y, shape, int(largest))

        def back(g: Tensor) -> Tensor:
            gx = self._pool.take(x.shape)
            self._emit("pool_back", g, x, y, gx, shape, int(largest))
            self._pool.give(g)
            return gx

        return y, back

    def _mean(self, x: Tensor) -> tuple[Tensor, Back]:
        """Record the mean of each map."""
        y = self._pool.take((*x.shape[:2], 1, 1, x.shape[4]))
        sizes = count_planes(x), area_of(x)
        self._emit("global_mean", x, y, *sizes)

        def back(g: Tensor) -> Tensor:
            gx = self._pool.take(x.shape)
            self._emit("global_mean_back", g, gx, *sizes, 0)
            self._pool.give(g)
            return gx

        return y, back

    def _rectifier(self, x: Tensor, layer: nn.Module) -> tuple[Tensor, Back]:
        """Record an activation of straight pieces, or hardswish."""
        y = self._pool.take(x.shape)
        how = x.numel() // x.shape[4], getattr(layer, "negative_slope", 0.0)
        kind = _RECTIFIERS[type(layer)]
        self._emit("activate", x, y, *how, kind)

        def back(g: Tensor) -> Tensor:
            self._emit("activate_back", g, x, g, *how, kind)
            return g

        return y, back

    def _curve(self, x: Tensor, name: str) -> tuple[Tensor, Back]:
        """Record an activation with exponentials."""
        y = self._pool.take(x.shape)
        self._emit("curve", name, x, y)

        def back(g: Tensor) -> Tensor:
            self._emit("curve_back", name, g, x, y)
            return g

        return y, back

    def _inception(self, x: Tensor, layer: Inception) -> tuple[Tensor, Back]:
        """Record convolutions side by side."""
        convolutions = [one for one in layer.branches if isinstance(one, nn.Conv2d)]
        parts = [self._chain([one], x, keep=True) for one in convolutions]
        channels = sum(one.out_channels for one in convolutions)
        groups, _, *place = parts[0][0].shape
        y = self._pool.take((groups, channels, *place))
        starts = list(
            itertools.accumulate((one.out_channels for one in convolutions), initial=0)
        )
        for (part, _), start in zip(parts, starts, strict=False):
            self._join(part, y, start, back=0)
            if not self._training:
                self._pool.give(part)

        def back(g: Tensor) -> Tensor | None:
            total: Tensor | None = None
            for (part, branch), start in zip(parts, starts, strict=False):
                own = self._pool.take(part.shape)
                self._join(own, g, start, back=1)
                total = self._sum(total, branch(own))
            self._pool.give(g)
            return total

        return y, back

    def _join(self, part: Tensor, whole: Tensor, start: int, *, back: int) -> None:
        sizes = *part.shape[:2], whole.shape[1], start, area_of(part)
        self._emit("join", part, whole, *sizes, back)

    def _residual(self, x: Tensor, layer: Residual) -> tuple[Tensor, Back]:
        """Record what is added to the input, or to what a shortcut makes of it."""
        added, shortcut = self._chain([*layer.shortcut], x, keep=True)
        y, body = self._chain([*layer.body], x, keep=True)
        count = y.numel() // y.shape[4]
        self._emit("add", y, added, count)
        if added is not x and not self._training:
            self._pool.give(added)

        def back(g: Tensor) -> Tensor | None:
            copy = self._pool.take(g.shape)
            self._emit("copy", copy, g)
            return self._sum(body(copy), shortcut(g))

        return y, back

    def _padded(self, x: Tensor, layer: PadChannels) -> tuple[Tensor, Back]:
        """Record every so many-th row and column, with channels of zeros around."""
        stride, groups, channels, *sides, lanes = layer.stride, *x.shape
        channels += layer.before + layer.behind
        rows, columns = ((side - 1) // stride + 1 for side in sides)
        y = self._pool.take((groups, channels, rows, columns, lanes))
        self._emit("pad_channels", x, y, stride, layer.before, 0)

        def back(g: Tensor) -> Tensor:
            gx = self._pool.take(x.shape)
            self._emit("pad_channels", gx, g, stride, layer.before, 1)
            self._pool.give(g)
            return gx

        return y, back

    def _gated(self, x: Tensor, layer: SqueezeExcitation) -> tuple[Tensor, Back]:
        """Record the channels times what is made of their means."""
        planes, area = count_planes(x), area_of(x)
        means, _ = self._mean(x)
        inside = [layer.squeeze, layer.activation, layer.excite, layer.gate]
        gates, gates_back = self._chain(inside, means)
        y = self._pool.take(x.shape)
        self._emit("scale", x, gates, y, planes, area)
        if not self._training:
            self._pool.give(gates)

        def back(g: Tensor) -> Tensor:
            g_gates = self._pool.take(gates.shape)
            self._emit("scale_back", g, x, gates, g, g_gates, planes, area)
            g_means = gates_back(g_gates)
            assert g_means is not None
            self._emit("global_mean_back", g_means, g, planes, area, 1)
            self._pool.give(g_means)
            return g

        return y, back

    def _sum(self, one: Tensor | None, other: Tensor | None) -> Tensor | None:
        """Record the sum of two gradients, where both are needed."""
        if one is None or other is None:
            return one if other is None else other
        self._emit("add", one, other, one.numel() // one.shape[4])
        self._pool.give(other)
        return one


def is_grouped(layer: nn.Conv2d) -> bool:
    """Return whether it convolves groups of channels: neither all nor each by itself."""
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    return layer.groups > 1 and not depthwise


def is_halving(layer: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Return whether it pools 2x2 with stride 2, for which there are kernels of their own."""
    sizes = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
    return sizes == ((2, 2), (2, 2), (0, 0))


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    height, width = size if isinstance(size, tuple) else (size, size)
    return height, width


def take_norm(layers: list[nn.Module]) -> NormInside | None:
    """Take batch norm and its neighbours off the layers' front, if they begin so."""
    kinds = [type(layer) for layer in layers[:4]]
    before = kinds[:2] == [nn.ReLU, nn.BatchNorm2d]
    kinds = kinds[before:]
    if kinds[:1] != [nn.BatchNorm2d]:
        return None
    norm = layers[before]
    assert isinstance(norm, nn.BatchNorm2d)
    after = kinds[1:2] == [nn.ReLU]
    count = before + 1 + after
    following = layers[count] if len(layers) > count else None
    dropout = 0.0
    if isinstance(following, nn.Dropout):
        dropout = following.p
        count += 1
    del layers[:count]
    return NormInside(norm, before, after, dropout)


def _only_in_training(_: Tensor) -> Tensor | None:
    raise AssertionError("there are no gradients in evaluation")


def threshold_of(probability: float) -> int:
    """Return below which of 2^32 random numbers a value is dropped."""
    return min(round(probability * 2**32), 2**32 - 1)


def kept_scale(threshold: int) -> float:
    """Return the factor of values that are kept, so that the mean stays."""
    return 1 / (1 - threshold / 2**32)


def count_planes(x: Tensor) -> int:
    """Return how many maps there are: groups times channels."""
    return x.shape[0] * x.shape[1]


def area_of(x: Tensor) -> int:
    """Return how many places a map has."""
    return x.shape[2] * x.shape[3]


def conv_shape(
    x: Tensor,
    y: Tensor,
    kernel: Sequence[int],
    stride: int,
    padding: Sequence[int],
    apart: int,
    dilation: int = 1,
) -> Any:
    """Return the C struct ``shape``."""
    sizes = (*x.shape[:4], *y.shape[1:4], *kernel)
    numbers = (*sizes, stride, *padding, dilation, apart)
    return (ctypes.c_int * len(numbers))(*numbers)
