"""The kernels as autograd functions, one a kind of layer.

Features are ``[G, C, H, W, V]``, contiguous: V images in the lanes of a vector register.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.training.kernels.library import call, count_lanes


@dataclass(frozen=True, slots=True)
class FusedNorm:
    """Batch norm with what stands around it, all done while the values are at hand."""

    norm: nn.BatchNorm2d
    bias: Tensor | None  # of the convolution before
    relu_before: bool
    relu_after: bool
    dropout: float


def conv(features: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return what the layer does without its bias."""
    depthwise = int(layer.groups > 1)
    return _apply(
        _Conv, features, layer.weight, layer.stride[0], layer.padding,
        layer.dilation[0], depthwise,
    )  # fmt: skip


def norm(features: Tensor, fused: FusedNorm) -> Tensor:
    """Return what the layers do, with the batch's statistics in training."""
    layer = fused.norm
    if layer.training:
        return _apply(_Norm, features, fused.bias, layer.weight, layer.bias, fused)
    if fused.bias is not None:
        features = features + fused.bias.view(-1, 1, 1, 1)
    if fused.relu_before:
        features = features.relu()
    result = torch.empty_like(features)
    groups, channels, height, width, _ = features.shape
    call(
        "norm_eval",
        *(features, result, groups, channels, height * width, layer.weight, layer.bias),
        *(layer.running_mean, layer.running_var, layer.eps, fused.relu_after),
    )
    return result


def avg_pool(features: Tensor) -> Tensor:
    """Return the means of 2x2 squares."""
    return _apply(_AvgPool, features)


def max_pool(features: Tensor) -> Tensor:
    """Return the maxima of 2x2 squares."""
    return _apply(_MaxPool, features)


def hardswish(features: Tensor) -> Tensor:
    """Return hardswish of each value."""
    return _apply(_Hardswish, features)


def dropout(features: Tensor, probability: float) -> Tensor:
    """Drop values with this probability, from torch's random numbers; scale the others."""
    return _apply(_Dropout, features, probability)


def warp(images: Tensor, matrices: Tensor, *, repeat: bool = False) -> Tensor:
    """Return what nas.training.augmentation.warp does, for images on the CPU."""
    images = images.contiguous()
    result = torch.empty_like(images)
    call("warp", images, matrices.contiguous(), result, *images.shape, repeat)
    return result


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)
    return result


class _Conv(torch.autograd.Function):
    """A convolution or, with one input channel a filter, a depthwise one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        stride: int,
        padding: tuple[int, int],
        apart: int,
        depthwise: int,
    ) -> Tensor:
        groups, _, *sides, lanes = x.shape
        out_channels, _, *kernel = weight.shape
        weight = weight.contiguous()
        out = [
            (side + 2 * zeros - apart * (taps - 1) - 1) // stride + 1
            for side, zeros, taps in zip(sides, padding, kernel, strict=True)
        ]
        y = x.new_empty(groups, out_channels, *out, lanes)
        ctx.save_for_backward(x, weight)
        ctx.settings = (stride, padding, apart, depthwise)
        shape = _shape(x, y, weight, stride, padding, apart)
        call("depthwise" if depthwise else "conv", x, weight, y, shape, 0)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, apart, depthwise = ctx.settings
        name = "depthwise" if depthwise else "conv"
        g = g.contiguous()
        g_weight = torch.empty_like(weight)
        shape = _shape(x, g, weight, stride, padding, apart)
        call(f"{name}_weight", x, g, g_weight, shape)
        g_x = None
        if ctx.needs_input_grad[0]:
            g_x = torch.empty_like(x)
            # The same convolution backwards; a stride becomes a dilation.
            turned = [
                apart * (taps - 1) - zeros
                for taps, zeros in zip(weight.shape[2:], padding, strict=True)
            ]
            shape = _shape(g, g_x, weight, 1, turned, apart, dilation=stride)
            call(name, g, weight, g_x, shape, 1)
        return g_x, g_weight, None, None, None, None


class _Norm(torch.autograd.Function):
    """Batch norm in training, with what stands around it."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        weight: Tensor,
        shift: Tensor,
        fused: FusedNorm,
    ) -> Tensor:
        layer = fused.norm
        y = torch.empty_like(x)
        saved = torch.empty(4, x.shape[1])
        ctx.save_for_backward(x, bias, saved)
        ctx.fused, ctx.drop = fused, _draw(fused.dropout)
        call(
            "batch_norm",
            *(x, y, _struct(x, bias, ctx.drop, fused), weight, shift),
            *(layer.running_mean, layer.running_var, layer.momentum, layer.eps, saved),
        )
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, saved = ctx.saved_tensors
        g_x, g_weight, g_shift = torch.empty_like(x), saved[0].clone(), saved[0].clone()
        g_bias = None if bias is None else torch.empty_like(bias)
        call(
            "batch_norm_back",
            *(g.contiguous(), x, g_x, _struct(x, bias, ctx.drop, ctx.fused), saved),
            *(g_weight, g_shift, g_bias),
        )
        return g_x, g_bias, g_weight, g_shift, None


class _DroppedStruct(ctypes.Structure):
    """The C struct ``dropped``."""

    _fields_ = (
        ("seeds", ctypes.c_uint32 * 2),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    )


class _AroundStruct(ctypes.Structure):
    """The C struct ``fused_norm``."""

    _fields_ = (
        ("groups", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("area", ctypes.c_long),
        ("bias", ctypes.c_void_p),
        ("drop", _DroppedStruct),
        ("before", ctypes.c_int),
        ("after", ctypes.c_int),
    )


def _struct(
    x: Tensor, bias: Tensor | None, drop: _DroppedStruct, fused: FusedNorm
) -> Any:
    groups, channels, height, width, _ = x.shape
    struct = _AroundStruct(
        groups,
        channels,
        height * width,
        None if bias is None else bias.data_ptr(),
        drop,
        fused.relu_before,
        fused.relu_after,
    )
    return ctypes.byref(struct)


class _AvgPool(torch.autograd.Function):
    """2x2 average pooling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        groups, channels, height, width, lanes = x.shape
        y = x.new_empty(groups, channels, height // 2, width // 2, lanes)
        ctx.shape = x.shape
        call("avg_pool", x, y, groups * channels, height, width)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        groups, channels, height, width, _ = ctx.shape
        g_x = g.new_empty(ctx.shape)
        call("avg_pool_back", g.contiguous(), g_x, groups * channels, height, width)
        return g_x


class _Hardswish(torch.autograd.Function):
    """Hardswish, as torch defines it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        ctx.save_for_backward(x)
        call("hardswish", x, y, x.numel() // count_lanes())
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        g_x = torch.empty_like(x)
        call("hardswish_back", g.contiguous(), x, g_x, x.numel() // count_lanes())
        return g_x


class _MaxPool(torch.autograd.Function):
    """2x2 max pooling; of equal values the first gets the gradient, as in torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        groups, channels, height, width, lanes = x.shape
        y = x.new_empty(groups, channels, height // 2, width // 2, lanes)
        winner = torch.empty(y.shape, dtype=torch.uint8)
        ctx.save_for_backward(winner)
        ctx.shape = x.shape
        call("max_pool", x, y, winner, groups * channels, height, width)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (winner,) = ctx.saved_tensors
        groups, channels, height, width, _ = ctx.shape
        g_x = g.new_empty(ctx.shape)
        planes = groups * channels
        call("max_pool_back", g.contiguous(), winner, g_x, planes, height, width)
        return g_x


class _Dropout(torch.autograd.Function):
    """Dropout, from torch's global random numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        ctx.drop = _draw(probability)
        return _drop(x, ctx.drop)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _drop(g.contiguous(), ctx.drop), None


def _draw(probability: float) -> _DroppedStruct:
    """Return which values are dropped: all follow from two numbers that torch draws."""
    threshold = min(round(probability * 2**32), 2**32 - 1)
    if not threshold:
        return _DroppedStruct()
    seeds = torch.randint(0, 2**32, (2,)).tolist()
    return _DroppedStruct(
        (ctypes.c_uint32 * 2)(*seeds), threshold, 1 / (1 - threshold / 2**32)
    )


def _drop(x: Tensor, drop: _DroppedStruct) -> Tensor:
    y = torch.empty_like(x)
    call("dropout", x, y, x.numel() // count_lanes(), ctypes.byref(drop))
    return y


def _shape(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    stride: int,
    padding: Sequence[int],
    apart: int,
    dilation: int = 1,
) -> Any:
    """Return the C struct ``shape``."""
    sizes = (*x.shape[:4], *y.shape[1:4], *weight.shape[2:])
    numbers = (*sizes, stride, *padding, dilation, apart)
    return (ctypes.c_int * len(numbers))(*numbers)
