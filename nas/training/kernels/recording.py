"""Records a model's layers as a tape: which kernels are called, on which memory."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.training.kernels import library
from nas.training.kernels.tape import Call, Gradients, Pool, Tape
from nas.training.model import Inception, Residual, SqueezeExcitation

# Emits the calls that turn the gradient of a layer's output into that of its input, and
# returns where that will be; None where nobody needs it.
_Back = Callable[[Tensor], Tensor | None]

_RECTIFIERS: dict[type[nn.Module], int] = {
    nn.ReLU: 0,
    nn.LeakyReLU: 1,
    nn.ReLU6: 2,
    nn.Hardswish: 3,
}
"""Activations and their numbers in kernels.c."""

LAYERS: tuple[type[nn.Module], ...] = (
    *_RECTIFIERS,
    nn.SiLU,
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    Inception,
    Residual,
    SqueezeExcitation,
)
"""What a tape can hold."""


def record(
    layers: Sequence[nn.Module], shape: Sequence[int], *, training: bool
) -> Tape:
    """Return the tape of the layers, which get images of that shape, ``[G, C, H, W, V]``.

    In evaluation it has no backward pass.
    """
    return _Recorder(layers, training=training).record(shape)


class Dropped(ctypes.Structure):
    """The C struct ``dropped``: what is dropped follows from two random numbers."""

    _fields_ = (
        ("seeds", ctypes.c_uint32 * 2),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    )

    def draw(self, probability: float) -> None:
        """Drop other values than before, from torch's global random numbers."""
        self.threshold = min(round(probability * 2**32), 2**32 - 1)
        if self.threshold:
            self.seeds[:] = torch.randint(0, 2**32, (2,)).tolist()
            self.scale = 1 / (1 - self.threshold / 2**32)


class _FusedNorm(ctypes.Structure):
    """The C struct ``fused_norm``."""

    _fields_ = (
        ("groups", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("area", ctypes.c_long),
        ("bias", ctypes.c_void_p),
        ("drop", Dropped),
        ("before", ctypes.c_int),
        ("after", ctypes.c_int),
    )


class _NormInside(NamedTuple):
    """Batch norm, whether a ReLU comes before and after it, and the share dropped then."""

    layer: nn.BatchNorm2d
    before: bool
    after: bool
    dropout: float


class _Recorder:
    """Records layer by layer; each gives its output and how its gradient is made."""

    def __init__(self, layers: Sequence[nn.Module], *, training: bool) -> None:
        compiled = library.load()
        assert compiled is not None  # supports() has said so
        self._kernels = compiled
        self._layers, self._training = layers, training
        self._calls: list[Call] = []
        self._pool = Pool()
        self._batch_counts: list[Tensor] = []
        self._held: list[Tensor] = []
        each = {id(p): p for layer in layers for p in layer.parameters()}
        self._parameters = list(each.values())
        self._gradients = Gradients(self._parameters)

    def record(self, shape: Sequence[int]) -> Tape:
        """Record both passes."""
        images = torch.empty(*shape)
        output, back = self._chain([*self._layers], images, first=True)
        forward, self._calls = self._calls, []
        gradient = None
        if self._training:
            # What the forward pass has written is needed until the gradients are there.
            self._pool = Pool()
            gradient = self._pool.take(output.shape)
            back(gradient)
        return Tape(
            images=images,
            output=output,
            gradient=gradient,
            forward=forward,
            backward=self._calls,
            gradients=self._gradients,
            parameters=self._parameters,
            buffers=[b for layer in self._layers for b in layer.buffers()],
            batch_counts=self._batch_counts,
            held=(images, output, *self._held),
        )

    def _emit(self, function: str | Callable[..., Any], *arguments: Any) -> None:
        """Record a call; of tensors the C functions get the address."""
        if isinstance(function, str):
            self._held += [a for a in arguments if isinstance(a, Tensor)]
            arguments = tuple(
                a.data_ptr() if isinstance(a, Tensor) else a for a in arguments
            )
            self._calls.append((getattr(self._kernels, function), arguments))
        else:
            self._calls.append((function, arguments))

    def _chain(
        self,
        layers: list[nn.Module],
        x: Tensor,
        *,
        first: bool = False,
        keep: bool = False,
    ) -> tuple[Tensor, _Back]:
        """Record layers one after the other; ``first`` ones need no gradient of x.

        In evaluation memory is used again once it is no longer needed; ``keep`` says
        that x still is.
        """
        backs: list[_Back] = []
        bias: Tensor | None = None  # of the last convolution, not added yet
        start = x

        def record(result: tuple[Tensor, _Back]) -> None:
            nonlocal x
            before, (x, back) = x, result
            backs.append(back)
            free = before is not x and not (keep and before is start)
            if free and not self._training:
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

    def _layer(self, x: Tensor, layer: nn.Module) -> tuple[Tensor, _Back]:
        if isinstance(layer, Inception):
            return self._inception(x, layer)
        if isinstance(layer, Residual):
            return self._residual(x, layer)
        if isinstance(layer, SqueezeExcitation):
            return self._gated(x, layer)
        if isinstance(layer, nn.BatchNorm2d):
            return self._norm_eval(x, layer)
        if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
            return self._pooling(x, largest=isinstance(layer, nn.MaxPool2d))
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            return self._mean(x)
        if isinstance(layer, nn.Dropout):
            return self._dropout(x, layer.p)
        if isinstance(layer, nn.SiLU):
            return self._silu(x)
        return self._rectifier(x, layer)

    def _conv(
        self, x: Tensor, layer: nn.Conv2d, *, input_gradient: bool
    ) -> tuple[Tensor, _Back]:
        """Record a convolution without its bias, or a depthwise one."""
        stride, apart = layer.stride[0], layer.dilation[0]
        padding = [int(zeros) for zeros in layer.padding]
        name = "depthwise" if layer.groups > 1 else "conv"
        groups, _, *sides, lanes = x.shape
        weight: Tensor = layer.weight
        kernel = weight.shape[2:]
        out = [
            (side + 2 * zeros - apart * (taps - 1) - 1) // stride + 1
            for side, zeros, taps in zip(sides, padding, kernel, strict=True)
        ]
        y = self._pool.take((groups, layer.out_channels, *out, lanes))
        if not weight.is_contiguous():
            contiguous = torch.empty(weight.shape)
            self._emit(_copy, contiguous, weight)
            weight = contiguous
        forwards = _shape(x, y, kernel, stride, padding, apart)
        self._emit(name, x, weight, y, forwards, 0)

        def back(g: Tensor) -> Tensor | None:
            place = self._gradients.place(layer.weight)
            self._emit(f"{name}_weight", x, g, place, forwards)
            if not input_gradient:
                return None
            gx = self._pool.take(x.shape)
            # The same convolution backwards; a stride becomes a dilation.
            turned = [
                apart * (taps - 1) - zeros
                for taps, zeros in zip(kernel, padding, strict=True)
            ]
            shape = _shape(g, gx, kernel, 1, turned, apart, dilation=stride)
            self._emit(name, g, weight, gx, shape, 1)
            self._pool.give(g)
            return gx

        return y, back

    def _bias(self, x: Tensor, bias: Tensor) -> tuple[Tensor, _Back]:
        """Record the addition of a bias in place: nobody needs what it is added to."""
        sizes = _planes(x), x.shape[1], _area(x)
        self._emit("add_bias", x, bias, *sizes)

        def back(g: Tensor) -> Tensor:
            self._emit("add_bias_back", g, self._gradients.place(bias), *sizes)
            return g

        return x, back

    def _norm(
        self, x: Tensor, bias: Tensor | None, fused: _NormInside
    ) -> tuple[Tensor, _Back]:
        """Record batch norm in training, with what stands around it."""
        layer, before, after, dropout = fused
        y = torch.empty_like(x)
        saved = torch.empty(4, x.shape[1])
        around = _FusedNorm(
            *x.shape[:2], _area(x), _address(bias), Dropped(), before, after
        )
        if dropout:
            self._emit(around.drop.draw, dropout)
        if layer.num_batches_tracked is not None:
            self._batch_counts.append(layer.num_batches_tracked)
        reference = ctypes.byref(around)
        self._emit(
            "batch_norm",
            *(x, y, reference, layer.weight, layer.bias),
            *(layer.running_mean, layer.running_var, layer.momentum, layer.eps, saved),
        )

        def back(g: Tensor) -> Tensor:
            places = map(self._gradients.place, (layer.weight, layer.bias, bias))
            self._emit("batch_norm_back", g, x, g, reference, saved, *places)
            return g

        return y, back

    def _norm_eval(self, x: Tensor, layer: nn.BatchNorm2d) -> tuple[Tensor, _Back]:
        """Record batch norm with the running statistics."""
        y = self._pool.take(x.shape)
        self._emit(
            "norm_eval",
            *(x, y, *x.shape[:2], _area(x), layer.weight, layer.bias),
            *(layer.running_mean, layer.running_var, layer.eps, 0),
        )
        return y, _only_in_training

    def _pooling(self, x: Tensor, *, largest: bool) -> tuple[Tensor, _Back]:
        """Record a 2x2 pooling."""
        groups, channels, height, width, lanes = x.shape
        y = self._pool.take((groups, channels, height // 2, width // 2, lanes))
        sizes = groups * channels, height, width
        winners = []
        if largest:
            winners = [torch.empty(y.shape, dtype=torch.uint8)]
        name = "max_pool" if largest else "avg_pool"
        self._emit(name, x, y, *winners, *sizes)

        def back(g: Tensor) -> Tensor:
            gx = self._pool.take(x.shape)
            self._emit(f"{name}_back", g, *winners, gx, *sizes)
            self._pool.give(g)
            return gx

        return y, back

    def _mean(self, x: Tensor) -> tuple[Tensor, _Back]:
        """Record the mean of each map."""
        y = self._pool.take((*x.shape[:2], 1, 1, x.shape[4]))
        sizes = _planes(x), _area(x)
        self._emit("global_mean", x, y, *sizes)

        def back(g: Tensor) -> Tensor:
            gx = self._pool.take(x.shape)
            self._emit("global_mean_back", g, gx, *sizes, 0)
            self._pool.give(g)
            return gx

        return y, back

    def _rectifier(self, x: Tensor, layer: nn.Module) -> tuple[Tensor, _Back]:
        """Record an activation of straight pieces, or hardswish."""
        y = self._pool.take(x.shape)
        how = x.numel() // x.shape[4], getattr(layer, "negative_slope", 0.0)
        kind = _RECTIFIERS[type(layer)]
        self._emit("activate", x, y, *how, kind)

        def back(g: Tensor) -> Tensor:
            self._emit("activate_back", g, x, g, *how, kind)
            return g

        return y, back

    def _silu(self, x: Tensor) -> tuple[Tensor, _Back]:
        """Record SiLU as torch has it: its exponential is no kernel's work."""
        y = self._pool.take(x.shape)
        self._emit(_silu, x, y)

        def back(g: Tensor) -> Tensor:
            self._emit(_silu_back, g, x)
            return g

        return y, back

    def _dropout(self, x: Tensor, probability: float) -> tuple[Tensor, _Back]:
        """Record dropout, in evaluation nothing."""
        if not self._training:
            return x, _only_in_training
        y = self._pool.take(x.shape)
        drop = Dropped()
        count, reference = x.numel() // x.shape[4], ctypes.byref(drop)
        self._emit(drop.draw, probability)
        self._emit("dropout", x, y, count, reference)

        def back(g: Tensor) -> Tensor:
            self._emit("dropout", g, g, count, reference)
            return g

        return y, back

    def _inception(self, x: Tensor, layer: Inception) -> tuple[Tensor, _Back]:
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
        sizes = *part.shape[:2], whole.shape[1], start, _area(part)
        self._emit("join", part, whole, *sizes, back)

    def _residual(self, x: Tensor, layer: Residual) -> tuple[Tensor, _Back]:
        """Record what is added to the input, or to what a shortcut makes of it."""
        added, shortcut = self._chain([*layer.shortcut], x, keep=True)
        y, body = self._chain([*layer.body], x, keep=True)
        count = y.numel() // y.shape[4]
        self._emit("add", y, added, count)
        if added is not x and not self._training:
            self._pool.give(added)

        def back(g: Tensor) -> Tensor | None:
            copy = self._pool.take(g.shape)
            self._emit(_copy, copy, g)
            return self._sum(body(copy), shortcut(g))

        return y, back

    def _gated(self, x: Tensor, layer: SqueezeExcitation) -> tuple[Tensor, _Back]:
        """Record the channels times what is made of their means."""
        planes, area = _planes(x), _area(x)
        means, _ = self._mean(x)
        inside = [layer.squeeze, nn.ReLU(), layer.excite]
        gates, gates_back = self._chain(inside, means)
        self._emit(_sigmoid, gates)
        y = self._pool.take(x.shape)
        self._emit("scale", x, gates, y, planes, area)
        if not self._training:
            self._pool.give(gates)

        def back(g: Tensor) -> Tensor:
            g_gates = self._pool.take(gates.shape)
            self._emit("scale_back", g, x, gates, g, g_gates, planes, area)
            self._emit(_sigmoid_back, g_gates, gates)
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


def take_norm(layers: list[nn.Module]) -> _NormInside | None:
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
    return _NormInside(norm, before, after, dropout)


def _only_in_training(_: Tensor) -> Tensor | None:
    raise AssertionError("there are no gradients in evaluation")


# Calls of torch return nothing here: what a call returns says that it failed.


def _copy(to: Tensor, what: Tensor) -> None:
    to.copy_(what)


def _silu(x: Tensor, y: Tensor) -> None:
    torch.ops.aten.silu.out(x, out=y)


def _silu_back(g: Tensor, x: Tensor) -> None:
    torch.ops.aten.silu_backward.grad_input(g, x, grad_input=g)


def _sigmoid(x: Tensor) -> None:
    x.sigmoid_()


def _sigmoid_back(g: Tensor, y: Tensor) -> None:
    torch.ops.aten.sigmoid_backward.grad_input(g, y, grad_input=g)


def _planes(x: Tensor) -> int:
    return x.shape[0] * x.shape[1]


def _area(x: Tensor) -> int:
    return x.shape[2] * x.shape[3]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _shape(
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
