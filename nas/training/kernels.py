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
    for before, layer, after in zip(
        [None, *layers[:-1]], layers, [*layers[1:], None], strict=True
    ):
        if isinstance(layer, nn.Conv2d):
            features = _conv(features, layer)
        elif isinstance(layer, Inception):
            branches = [_conv(features, branch) for branch in layer.branches]  # type: ignore[arg-type]
            features = torch.cat(branches, dim=1)
        elif isinstance(layer, nn.BatchNorm2d):
            features = _norm(features, layer, relu=isinstance(after, nn.ReLU))
        elif isinstance(layer, nn.ReLU) and isinstance(before, nn.BatchNorm2d):
            pass  # done together with the batch norm
        elif isinstance(layer, nn.MaxPool2d):
            features = _apply(_MaxPool, features)
        elif isinstance(layer, nn.AvgPool2d):
            features = _avg_pool(features)
        elif isinstance(layer, nn.Dropout):
            features = (
                _apply(_Dropout, features, layer.p) if layer.training else features
            )
        else:
            features = layer(features)  # an activation takes any shape
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
    depthwise = int(layer.groups > 1)
    arguments = (layer.weight, layer.stride[0], int(layer.padding[0]), depthwise)
    result = _apply(_Conv, features, *arguments)
    return result if layer.bias is None else result + layer.bias.view(-1, 1, 1, 1)


def _norm(features: Tensor, layer: nn.BatchNorm2d, *, relu: bool) -> Tensor:
    if layer.training:
        return _apply(_Norm, features, layer.weight, layer.bias, layer, int(relu))
    result = torch.empty_like(features)
    groups, channels, height, width, _ = features.shape
    _call(
        "norm_eval",
        *(features, result, groups, channels, height * width, layer.weight, layer.bias),
        *(layer.running_mean, layer.running_var, layer.eps, relu),
    )
    return result


def _avg_pool(features: Tensor) -> Tensor:
    groups, channels, height, width, lanes = features.shape
    halves = (height // 2, width // 2)
    even = features[:, :, : 2 * halves[0], : 2 * halves[1]]
    return even.reshape(groups, channels, halves[0], 2, halves[1], 2, lanes).mean(
        (3, 5)
    )


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
    """Batch norm in training, followed by a ReLU or not."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        layer: nn.BatchNorm2d,
        relu: int,
    ) -> Tensor:
        groups, channels, height, width, _ = x.shape
        y = torch.empty_like(x)
        saved = torch.empty(4, channels)
        ctx.save_for_backward(x, saved)
        ctx.relu = relu
        _call(
            "norm",
            *(x, y, groups, channels, height * width, weight, bias),
            *(layer.running_mean, layer.running_var, layer.momentum, layer.eps),
            *(saved, relu),
        )
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, saved = ctx.saved_tensors
        groups, channels, height, width, _ = x.shape
        g_x, g_weight, g_bias = torch.empty_like(x), saved.new_empty(channels), None
        g_bias = torch.empty_like(g_weight)
        _call(
            "norm_back",
            *(g.contiguous(), x, g_x, groups, channels, height * width),
            *(saved, g_weight, g_bias, ctx.relu),
        )
        return g_x, g_weight, g_bias, None, None


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
        # A quarter of torch's own time: one 64-bit number drawn gives eight bytes.
        words = torch.empty(x.numel() // 8, dtype=torch.int64)
        words.random_(-(2**63), None)
        ctx.save_for_backward(words)
        ctx.threshold = round(probability * 256)
        return _drop(x, words, ctx.threshold)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (words,) = ctx.saved_tensors
        return _drop(g.contiguous(), words, ctx.threshold), None


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
    "max_pool": "pppiii",
    "max_pool_back": "pppiii",
    "norm": "ppiilppppffpi",
    "norm_eval": "ppiilppppfi",
    "norm_back": "pppiilpppi",
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
