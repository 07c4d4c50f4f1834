"""What is said of a layer that has no place in an architecture."""

from __future__ import annotations

from nas.architecture.activations import ACTIVATIONS
from nas.errors import ArchitectureError


def refuse(name: str, why: str) -> ArchitectureError:
    """Return the error of a layer that nas cannot say."""
    return ArchitectureError(f"{name} cannot be expressed: {why}")


LEFT_OUT = "{} is left out: nas has no dropout there, which matters in training alone"
MOVED = (
    "the dropout behind {} changes its place among its neighbours, which matters in "
    "training alone"
)
OWN_WEIGHTS = (
    "forward gives it the weights; nas knows those of torch's layers, so the nearest is "
    "nn.Conv2d, nn.BatchNorm2d or nn.Linear"
)
_MODULES = [facts.module for facts in ACTIVATIONS.values()]
OTHER_ACTIVATION = (
    f"nas has no such activation; the nearest are {', '.join(_MODULES[:-1])} and "
    f"{_MODULES[-1]}"
)
SIGMOID_END = "nas classifies by softmax, one class an image; the nearest is without it"
_JOIN = (
    "it joins several tensors; nas has one chain of layers, and only inception's cat "
    "joins; the nearest is that, of convolutions of one feature map, or the chain without "
    "it"
)
_SKIP = (
    "nas adds to what one block computes from its input that input, as it is or padded "
    "with zeros, or what a 1x1 convolution makes of it; the nearest is such a block, or "
    "the chain without the addition"
)
_GATE = (
    "nas has no gates but those of squeeze-and-excitation, which are made of a feature "
    "map's means; the nearest is that, or the chain without it"
)
GATES_PLACE = (
    "nas has squeeze-and-excitation between a depthwise convolution, with its norm and "
    "activation, and the 1x1 one behind it; the nearest is such a block, or the chain "
    "without the gates"
)
PAD_PLACE = (
    "nas takes no part of a feature map and puts no channels of zeros around it but in a "
    "shortcut; the nearest is a stride of the convolution before"
)
_MATRICES = (
    "nas has no products of matrices; the nearest is nn.Linear, F.linear or a 1x1 "
    "convolution"
)
_ASSIGNED = "nas assigns nothing to part of a feature map; the nearest is without it"
_PRODUCTS = dict.fromkeys(("matmul", "einsum", "bmm", "mm", "addmm"), _MATRICES)
_JOINS = (
    _PRODUCTS
    | {"setitem": _ASSIGNED}
    | dict.fromkeys(("add", "iadd", "add_"), _SKIP)
    | dict.fromkeys(("mul", "imul", "mul_"), _GATE)
)


def join_reason(kind: str) -> str:
    """Return why several tensors are not joined so, and what comes nearest."""
    return _JOINS.get(kind, _JOIN)


def nearest(kind: str) -> str:
    """Return why nas lacks such a layer, and what comes nearest."""
    plain = kind.lower().rstrip("_")
    if plain in {"hardtanh", "clamp", "clip"}:
        return (
            "nas has no such activation; the nearest are ReLU6 (from 0 to 6), ReLU (from 0 "
            "on) and Tanh (from -1 to 1)"
        )
    if plain in _OTHER_ACTIVATIONS:
        return OTHER_ACTIVATION
    if "norm" in plain:
        return "nas has no such norm; the nearest is BatchNorm2d behind a convolution"
    if "pool" in plain or plain in {"amax", "max"}:
        return (
            "nas has no such pooling; the nearest are max and average pooling, and global "
            "average pooling"
        )
    if plain.startswith("conv"):
        return "nas has no such convolution; the nearest is nn.Conv2d"
    if plain in _ADVICE:
        return _ADVICE[plain]
    if plain in {"add", "sub", "mul", "div", "truediv", "neg"}:
        return (
            "nas has no arithmetic in a net, and itself normalises the images; the "
            "nearest is without it"
        )
    return "nas has no such layer; leave it out, or take a convolution, pooling or linear one"


_AXES = "nas takes images as channels, height, width and keeps them so; leave it out"
_REPEATING = (
    "nas repeats no channels; the nearest is a first convolution that takes as many as "
    "the images have"
)
_RESIZING = (
    "nas resizes by nn.AdaptiveAvgPool2d before all layers, or not at all; the nearest "
    "are that, or images of that size, for instance by --image-size"
)
_ADVICE = (
    _PRODUCTS
    | dict.fromkeys(("permute", "transpose", "swapaxes", "movedim"), _AXES)
    | dict.fromkeys(("repeat", "expand", "tile"), _REPEATING)
    | dict.fromkeys(("interpolate", "upsample", "resize"), _RESIZING)
    | {
        "getitem": PAD_PLACE,
        "setitem": _ASSIGNED,
        "sum": "nas has no sums; the nearest is the mean over height and width",
        "normalize": "nas has no such norm; the nearest is BatchNorm2d behind a "
        "convolution",
        "pixel_unshuffle": "nas does not rearrange pixels; the nearest is a convolution "
        "with stride",
        "pixelunshuffle": "nas does not rearrange pixels; the nearest is a convolution "
        "with stride",
    }
)
_OTHER_ACTIVATIONS = {
    "selu", "celu", "mish", "prelu", "rrelu", "hardsigmoid", "softplus", "softsign",
    "logsigmoid", "threshold", "softshrink", "hardshrink",
    "tanhshrink", "glu",
}  # fmt: skip
