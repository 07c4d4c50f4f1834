"""Faster training of tiny networks on one CPU core, by kernels in C (kernels.c).

Torch's own kernels put channels into the lanes of the vector registers, and tiny
networks have too few of them; these put images there. ``available()`` compiles them
once for this machine with its C compiler, in some three seconds, and tells whether
that went well. Without them, and on GPUs, the model itself is trained: slower, and
the same but for rounding.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.model import Inception, Shared

_SOURCE = Path(__file__).with_name("kernels.c")
# The compiler must not assume that there are no NaNs: they tell of divergence.
_FLAGS = ["-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno"]
_LINK = ["-shared", "-fPIC", "-lm"]
_LAYERS = (
    nn.Conv2d,
    Inception,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.Dropout,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.SiLU,
)


def available() -> bool:
    """Return whether the kernels work here; the first call may compile them.

    ``NAS_KERNELS=0`` in the environment turns them off.
    """
    return _library() is not None


def supports(model: nn.Module, batch_size: int) -> bool:
    """Return whether forward can stand in for ``model(images)`` in training.

    It can for what ``nas.model.build`` builds, on the CPU, in batches that fill the
    vector registers: multiples of 16 always do.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(model, "head"):
        return False
    layers = _layers(model)
    return (
        all(isinstance(layer, _LAYERS) for layer in layers)
        and all(p.device.type == "cpu" for p in model.parameters())
        and all(p.dtype == torch.float32 for p in model.parameters())
        and available()
        and batch_size % _lanes() == 0
    )


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """Return ``model(images)``, float ``[N, C, H, W]`` to logits ``[N, num_classes]``.

    Gradients, batch norm's running statistics and the difference between training and
    evaluation are those of the model.
    """
    count, lanes = len(images), _lanes()
    missing = -count % lanes  # only in evaluation, where images don't mix
    if missing:
        images = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
    # [N, C, H, W] -> [G, C, H, W, V]: image g * V + v stands in lane v of group g.
    grouped = images.view(-1, lanes, *images.shape[1:]).permute(0, 2, 3, 4, 1)
    features = grouped.contiguous()
    layers = _layers(model)
    bias: Tensor | None = None  # of the last convolution, not added yet
    while layers:
        if around := _taken(layers, bias):
            features, bias = _norm(features, around), None
            continue
        if bias is not None:
            features, bias = features + bias.view(-1, 1, 1, 1), None
        layer = layers.pop(0)
        if isinstance(layer, nn.Conv2d):
            features, bias = _conv(features, layer), layer.bias
        elif isinstance(layer, Inception):
            branches = [
                branch for branch in layer.branches if isinstance(branch, nn.Conv2d)
            ]
            features = torch.cat(
                [_conv(features, branch) for branch in branches], dim=1
            )
            biases = [branch.bias for branch in branches if branch.bias is not None]
            bias = torch.cat(biases) if biases else None
        elif isinstance(layer, nn.MaxPool2d):
            features = _apply(_MaxPool, features)
        elif isinstance(layer, nn.AvgPool2d):
            features = _apply(_AvgPool, features)
        elif isinstance(layer, nn.Hardswish):
            features = _apply(_Hardswish, features)
        elif isinstance(layer, nn.Dropout):
            features = (
                _apply(_Dropout, features, layer.p) if layer.training else features
            )
        else:
            features = layer(features)  # an activation takes any shape
    if bias is not None:
        features = features + bias.view(-1, 1, 1, 1)
    ungrouped = features.permute(0, 4, 1, 2, 3).reshape(-1, *features.shape[1:4])
    logits: Tensor = model.get_submodule("head")(ungrouped)
    return logits[:count]


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Return what nas.augmentation.warp does, for images on the CPU."""
    images = images.contiguous()
    result = torch.empty_like(images)
    _call("warp", images, matrices.contiguous(), result, *images.shape)
    return result


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of the blocks in the order in which they are applied."""
    layers: list[nn.Module] = []
    for block in model.get_submodule("blocks").children():
        if isinstance(block, Shared):
            for following in block.applications:
                layers += [*block.convolutions, *following.children()]
        else:
            layers += block.children()
    return layers


def _conv(features: Tensor, layer: nn.Conv2d) -> Tensor:
    """Return what the layer does without its bias."""
    depthwise = int(layer.groups > 1)
    arguments = (layer.weight, layer.stride[0], int(layer.padding[0]), depthwise)
    return _apply(_Conv, features, *arguments)


@dataclass(frozen=True, slots=True)
class _Around:
    """Batch norm with what stands around it, all done while the values are at hand."""

    norm: nn.BatchNorm2d
    bias: Tensor | None  # of the convolution before
    relu_before: bool
    relu_after: bool
    dropout: float


def _taken(layers: list[nn.Module], bias: Tensor | None) -> _Around | None:
    """Take batch norm and its neighbours off the layers' front, if they begin so."""
    kinds = [type(layer) for layer in layers[:4]]
    relu_before = kinds[:2] == [nn.ReLU, nn.BatchNorm2d]
    kinds = kinds[relu_before:]
    if kinds[:1] != [nn.BatchNorm2d]:
        return None
    norm = layers[relu_before]
    assert isinstance(norm, nn.BatchNorm2d)
    relu_after = kinds[1:2] == [nn.ReLU]
    count = relu_before + 1 + relu_after
    dropout = layers[count] if len(layers) > count else None
    share = 0.0
    if isinstance(dropout, nn.Dropout):
        share = dropout.p if dropout.training else 0.0
        count += 1
    del layers[:count]
    return _Around(norm, bias, relu_before, relu_after, share)


def _norm(features: Tensor, around: _Around) -> Tensor:
    layer = around.norm
    if layer.training:
        return _apply(_Norm, features, around.bias, layer.weight, layer.bias, around)
    if around.bias is not None:
        features = features + around.bias.view(-1, 1, 1, 1)
    if around.relu_before:
        features = features.relu()
    result = torch.empty_like(features)
    groups, channels, height, width, _ = features.shape
    _call(
        "norm_eval",
        *(features, result, groups, channels, height * width, layer.weight, layer.bias),
        *(layer.running_mean, layer.running_var, layer.eps, around.relu_after),
    )
    return result


# From here on: features are [G, C, H, W, V], contiguous.


class _Conv(torch.autograd.Function):
    """A convolution or, with one input channel a filter, a depthwise one."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, depthwise: int
    ) -> Tensor:
        groups, _, height, width, lanes = x.shape
        out_channels, _, size, _ = weight.shape
        weight = weight.contiguous()
        out = [(n + 2 * padding - size) // stride + 1 for n in (height, width)]
        y = x.new_empty(groups, out_channels, *out, lanes)
        ctx.save_for_backward(x, weight)
        ctx.settings = (stride, padding, depthwise)
        shape = _shape(x, y, size, stride, padding)
        _call("depthwise" if depthwise else "conv", x, weight, y, shape, 0)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, depthwise = ctx.settings
        name, size = "depthwise" if depthwise else "conv", weight.shape[-1]
        g = g.contiguous()
        g_weight = torch.empty_like(weight)
        _call(f"{name}_weight", x, g, g_weight, _shape(x, g, size, stride, padding))
        g_x = None
        if ctx.needs_input_grad[0]:
            g_x = torch.empty_like(x)
            # The same convolution backwards; a stride becomes a dilation.
            shape = _shape(g, g_x, size, 1, size - 1 - padding, dilation=stride)
            _call(name, g, weight, g_x, shape, 1)
        return g_x, g_weight, None, None, None


class _Norm(torch.autograd.Function):
    """Batch norm in training, with what stands around it."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        weight: Tensor,
        shift: Tensor,
        around: _Around,
    ) -> Tensor:
        layer = around.norm
        y = torch.empty_like(x)
        saved = torch.empty(4, x.shape[1])
        words = _random_bytes(x) if around.dropout > 0 else None
        ctx.save_for_backward(x, bias, saved, words)
        ctx.around = around
        _call(
            "batch_norm",
            *(x, y, _struct(x, bias, words, around), weight, shift),
            *(layer.running_mean, layer.running_var, layer.momentum, layer.eps, saved),
        )
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, saved, words = ctx.saved_tensors
        g_x, g_weight, g_shift = torch.empty_like(x), saved[0].clone(), saved[0].clone()
        g_bias = None if bias is None else torch.empty_like(bias)
        _call(
            "batch_norm_back",
            *(g.contiguous(), x, g_x, _struct(x, bias, words, ctx.around), saved),
            *(g_weight, g_shift, g_bias),
        )
        return g_x, g_bias, g_weight, g_shift, None


class _AroundStruct(ctypes.Structure):
    """The C struct ``around``."""

    _fields_ = (
        ("groups", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("area", ctypes.c_long),
        ("bias", ctypes.c_void_p),
        ("random", ctypes.c_void_p),
        ("threshold", ctypes.c_int),
        ("before", ctypes.c_int),
        ("after", ctypes.c_int),
    )


def _struct(
    x: Tensor, bias: Tensor | None, words: Tensor | None, around: _Around
) -> Any:
    groups, channels, height, width, _ = x.shape
    struct = _AroundStruct(
        groups,
        channels,
        height * width,
        None if bias is None else bias.data_ptr(),
        None if words is None else words.data_ptr(),
        round(around.dropout * 256),
        around.relu_before,
        around.relu_after,
    )
    return ctypes.byref(struct)


class _AvgPool(torch.autograd.Function):
    """2x2 average pooling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        groups, channels, height, width, lanes = x.shape
        y = x.new_empty(groups, channels, height // 2, width // 2, lanes)
        ctx.shape = x.shape
        _call("avg_pool", x, y, groups * channels, height, width)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        groups, channels, height, width, _ = ctx.shape
        g_x = g.new_empty(ctx.shape)
        _call("avg_pool_back", g.contiguous(), g_x, groups * channels, height, width)
        return g_x


class _Hardswish(torch.autograd.Function):
    """Hardswish, as torch defines it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        ctx.save_for_backward(x)
        _call("hardswish", x, y, x.numel() // _lanes())
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        g_x = torch.empty_like(x)
        _call("hardswish_back", g.contiguous(), x, g_x, x.numel() // _lanes())
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
        _call("max_pool", x, y, winner, groups * channels, height, width)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (winner,) = ctx.saved_tensors
        groups, channels, height, width, _ = ctx.shape
        g_x = g.new_empty(ctx.shape)
        planes = groups * channels
        _call("max_pool_back", g.contiguous(), winner, g_x, planes, height, width)
        return g_x


class _Dropout(torch.autograd.Function):
    """Dropout with a probability of full 256ths, from torch's global random numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        words = _random_bytes(x)
        ctx.save_for_backward(words)
        ctx.threshold = round(probability * 256)
        return _drop(x, words, ctx.threshold)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (words,) = ctx.saved_tensors
        return _drop(g.contiguous(), words, ctx.threshold), None


def _random_bytes(x: Tensor) -> Tensor:
    """Return a random byte for each value, eight in a number of 64 bits.

    A quarter of the time of torch's own draw for each value.
    """
    words = torch.empty(x.numel() // 8, dtype=torch.int64)
    return words.random_(-(2**63), None)


def _drop(x: Tensor, words: Tensor, threshold: int) -> Tensor:
    y = torch.empty_like(x)
    _call("dropout", x, words, y, x.numel() // _lanes(), threshold)
    return y


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)
    return result


def _shape(
    x: Tensor, y: Tensor, size: int, stride: int, padding: int, dilation: int = 1
) -> Any:
    """Return the C struct ``shape``."""
    numbers = (*x.shape[:4], *y.shape[1:4], size, stride, padding, dilation)
    return (ctypes.c_int * 11)(*numbers)


# The arguments: p a tensor or a shape, i an int, l a long, f a float.
_SIGNATURES = {
    "conv": "ppppi",
    "conv_weight": "pppp",
    "depthwise": "ppppi",
    "depthwise_weight": "pppp",
    "avg_pool": "ppiii",
    "avg_pool_back": "ppiii",
    "hardswish": "ppl",
    "hardswish_back": "pppl",
    "max_pool": "pppiii",
    "max_pool_back": "pppiii",
    "batch_norm": "pppppppffp",
    "norm_eval": "ppiilppppfi",
    "batch_norm_back": "pppppppp",
    "dropout": "pppli",
    "warp": "pppiiii",
}
_TYPES = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_long,
    "f": ctypes.c_float,
}


def _call(name: str, *arguments: Any) -> None:
    library = _library()
    assert library is not None  # supports() has said so
    getattr(library, name)(
        *(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
    )


@functools.cache
def _lanes() -> int:
    library = _library()
    assert library is not None
    return int(library.lanes())


@functools.cache
def _library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where there is no way to have them."""
    if os.environ.get("NAS_KERNELS") == "0":
        return None
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    try:
        library = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError):
        return None
    for name, signature in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [_TYPES[letter] for letter in signature]
        function.restype = None
    return library


def _compiled(compiler: str) -> Path:
    """Return the shared library for this source, compiler and processor.

    It stays in the user's cache, whose home may be shared by machines of all kinds.
    """
    parts = (_SOURCE.read_text(), compiler, *_FLAGS, platform.machine(), _processor())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = platformdirs.user_cache_path("nas")
    path = folder / f"kernels-{digest}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        fresh = Path(temporary) / path.name
        subprocess.run(  # noqa: S603 - the user's own compiler on our own source
            [compiler, *_FLAGS, str(_SOURCE), "-o", str(fresh), *_LINK],
            check=True,
            capture_output=True,
            timeout=300,
        )
        fresh.replace(path)  # at once: other trainers may be at the same
    return path


def _processor() -> str:
    """Return what tells processors with other instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
