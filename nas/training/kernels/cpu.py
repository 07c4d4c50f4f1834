"""Records a model's layers as a tape of calls of the C functions in kernels.c."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas.training.kernels import library
from nas.training.kernels.recording import (
    Back,
    NormInside,
    Recorder,
    area_of,
    is_grouped,
    kept_scale,
    threshold_of,
)
from nas.training.kernels.tape import Call, Gradients, Pool, Tape


def record(
    layers: Sequence[nn.Module], shape: Sequence[int], *, training: bool
) -> Tape:
    """Return the tape of the layers, which get images of that shape, ``[G, C, H, W, V]``.

    In evaluation it has no backward pass.
    """
    return _CpuRecorder(layers, training=training).record(shape)


class Dropped(ctypes.Structure):
    """The C struct ``dropped``: what is dropped follows from two random numbers."""

    _fields_ = (
        ("seeds", ctypes.c_uint32 * 2),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    )

    def draw(self, probability: float) -> None:
        """Drop other values than before, from torch's global random numbers."""
        self.threshold = threshold_of(probability)
        if self.threshold:
            self.seeds[:] = torch.randint(0, 2**32, (2,)).tolist()
            self.scale = kept_scale(self.threshold)


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


class _CpuRecorder(Recorder):
    """Records calls of C functions, and of torch's where the kernels have none."""

    def __init__(self, layers: Sequence[nn.Module], *, training: bool) -> None:
        super().__init__(layers, training=training, device=torch.device("cpu"))
        compiled = library.load()
        assert compiled is not None  # supports() has said so
        self._kernels = compiled
        self._calls: list[Call] = []
        self._batch_counts: list[Tensor] = []
        self._held: list[Tensor] = []
        self._gradients = Gradients(self._parameters)

    def record(self, shape: Sequence[int]) -> Tape:
        """Record both passes."""
        images = torch.empty(*shape)
        output, back = self._chain([*self._layers], images, first=True)
        forward, self._calls = self._calls, []
        gradient = None
        if self._training:
            # What the forward pass has written is needed until the gradients are there.
            self._pool = Pool(self._device)
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

    def _emit(self, name: str, *arguments: Any) -> None:
        """Record a call; of tensors the C functions get the address."""
        if name in _TORCHS:
            self._calls.append((_TORCHS[name], arguments))
            return
        self._held += [a for a in arguments if isinstance(a, Tensor)]
        addresses = tuple(
            a.data_ptr() if isinstance(a, Tensor) else a for a in arguments
        )
        self._calls.append((getattr(self._kernels, name), addresses))

    def _place(self, parameter: Tensor | None, start: int = 0) -> int | None:
        place = self._gradients.place(parameter)
        return None if place is None else place + start * ctypes.sizeof(ctypes.c_float)

    def _conv(
        self, x: Tensor, layer: nn.Conv2d, *, input_gradient: bool
    ) -> tuple[Tensor, Back]:
        """Record each group of a grouped convolution on a copy of its channels."""
        if not is_grouped(layer):
            return super()._conv(x, layer, input_gradient=input_gradient)
        taken = layer.in_channels // layer.groups
        given = layer.out_channels // layer.groups
        y: Tensor | None = None
        backs: list[Back] = []
        for number, weight in enumerate(layer.weight.detach().split(given)):
            part = self._pool.take((x.shape[0], taken, *x.shape[2:]))
            self._join(part, x, number * taken, back=1)
            place = partial(self._place, layer.weight, number * weight.numel())
            own, back = self._convolved(
                part, layer, "conv", weight, place, input_gradient=input_gradient
            )
            backs.append(back)
            if y is None:
                y = self._pool.take((x.shape[0], layer.out_channels, *own.shape[2:]))
            self._join(own, y, number * given, back=0)
            if not self._training:
                self._pool.give(part)
                self._pool.give(own)
        assert y is not None

        def back_of_all(g: Tensor) -> Tensor | None:
            gx = self._pool.take(x.shape) if input_gradient else None
            for number, back in enumerate(backs):
                own = self._pool.take((g.shape[0], given, *g.shape[2:]))
                self._join(own, g, number * given, back=1)
                part = back(own)
                if gx is not None and part is not None:
                    self._join(part, gx, number * taken, back=0)
                    self._pool.give(part)
            self._pool.give(g)
            return gx

        return y, back_of_all

    def _norm(
        self, x: Tensor, bias: Tensor | None, fused: NormInside
    ) -> tuple[Tensor, Back]:
        layer, before, after, dropout = fused
        y = torch.empty_like(x)
        saved = torch.empty(4, x.shape[1])
        around = _FusedNorm(
            *x.shape[:2], area_of(x), _address(bias), Dropped(), before, after
        )
        if dropout:
            self._calls.append((around.drop.draw, (dropout,)))
        if layer.num_batches_tracked is not None:
            self._batch_counts.append(layer.num_batches_tracked)
        reference = ctypes.byref(around)
        self._emit(
            "batch_norm",
            *(x, y, reference, layer.weight, layer.bias),
            *(layer.running_mean, layer.running_var, layer.momentum, layer.eps, saved),
        )

        def back(g: Tensor) -> Tensor:
            places = map(self._place, (layer.weight, layer.bias, bias))
            self._emit("batch_norm_back", g, x, g, reference, saved, *places)
            return g

        return y, back

    def _dropout(self, x: Tensor, probability: float) -> tuple[Tensor, Back]:
        y = self._pool.take(x.shape)
        drop = Dropped()
        count, reference = x.numel() // x.shape[4], ctypes.byref(drop)
        self._calls.append((drop.draw, (probability,)))
        self._emit("dropout", x, y, count, reference)

        def back(g: Tensor) -> Tensor:
            self._emit("dropout", g, g, count, reference)
            return g

        return y, back


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


# What a call returns says that it failed, so these return nothing. Exponentials are no
# kernels' work: torch's are vectorised.


def _copy(to: Tensor, what: Tensor) -> None:
    to.copy_(what)


def _pad_channels(x: Tensor, y: Tensor, stride: int, before: int, back: int) -> None:
    """Put x into y, or a gradient of y into that of x; what has no place there is 0."""
    first, start = max(-before, 0), max(before, 0)
    count = min(x.shape[1] - first, y.shape[1] - start)
    here = x[:, first : first + count, ::stride, ::stride]
    there = y[:, start : start + count]
    (x if back else y).zero_()
    if back:
        here.copy_(there)
    else:
        there.copy_(here)


def _curve(name: str, x: Tensor, y: Tensor) -> None:
    getattr(torch.ops.aten, name).out(x, out=y)


def _curve_back(name: str, g: Tensor, x: Tensor, y: Tensor) -> None:
    # Some gradients follow from what the function has made.
    taken = {"tanh": (y,), "sigmoid": (y,), "elu": (1, 1, 1, False, x)}.get(name, (x,))
    getattr(torch.ops.aten, f"{name}_backward").grad_input(g, *taken, grad_input=g)


_TORCHS: dict[str, Callable[..., None]] = {
    "copy": _copy,
    "curve": _curve,
    "curve_back": _curve_back,
    "pad_channels": _pad_channels,
}
