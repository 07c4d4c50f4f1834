"""Records convolutions, the gradients of their weights, and biases."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nas.training.kernels.gpu_recording.operations import (
    VIRTUAL_BLOCKS,
    WARPS,
    Operations,
    share_planes,
)
from nas.training.kernels.program import CODES

MAX_TAPS = 512
"""The kernel holds no convolution of more."""
# So many weights have the threads of a block in common.
_ROOM = 4096
_COLUMNS = 7
# Output and input channels of a virtual block of conv_weight, by the kernel's side.
_WEIGHT_TILES = {0: (4, 4), 1: (8, 8), 3: (4, 1), 5: (2, 1)}


def conv(
    to: Operations, x: Tensor, w: Tensor, y: Tensor, shape: Any, transposed: int
) -> None:
    """Record a convolution, or the gradient of its input (``transposed``)."""
    name = _specialised("conv", shape)
    rows = 8 if name == "conv_1" else 4
    if name == "conv_1" and shape[10:12] == [0, 0]:
        shape = _in_one_row(shape)
    _, _, _, _, channels, _, _, high, wide, *_ = shape
    room = _ROOM // (rows * high * wide)
    together = min(WARPS, _power(-(-channels // rows)), _power(room + 1) // 2)
    _convolve(to, name, rows, together, (x, w, y), shape, transposed)


def depthwise(
    to: Operations, x: Tensor, w: Tensor, y: Tensor, shape: Any, transposed: int
) -> None:
    """Record a depthwise convolution, or the gradient of its input."""
    name = _specialised("depthwise", shape)
    _convolve(to, name, 1, 1, (x, w, y), shape, transposed)


def _convolve(
    to: Operations,
    name: str,
    rows: int,
    together: int,
    tensors: tuple[Tensor, Tensor, Tensor],
    shape: Any,
    transposed: int,
) -> None:
    groups, _, _, _, out_channels, height, width, *_ = shape
    items = groups * height * -(-width // _COLUMNS)
    blocks = -(-items // (WARPS // together)), -(-out_channels // (rows * together))
    to.add(name, blocks, *tensors, integers=(*shape, transposed, 0, together))


def conv_weight(
    to: Operations, x: Tensor, g: Tensor, number: int | None, shape: Any
) -> None:
    """Record the gradient of a convolution's weights."""
    name = _specialised("conv_weight", shape)
    rows, columns = _WEIGHT_TILES[_side(name)]
    items = -(-shape[4] // rows) * -(-shape[1] // columns)
    _weigh(to, name, items, (x, g), number, shape)


def depthwise_weight(
    to: Operations, x: Tensor, g: Tensor, number: int | None, shape: Any
) -> None:
    """Record the gradient of a depthwise convolution's weights."""
    name = _specialised("depthwise_weight", shape)
    _weigh(to, name, shape[4], (x, g), number, shape)


def _weigh(
    to: Operations,
    name: str,
    items: int,
    tensors: tuple[Tensor, Tensor],
    number: int | None,
    shape: Any,
) -> None:
    if not _side(name):
        items *= shape[7] * shape[8]
    rows = shape[0] * shape[5]
    together = min(WARPS, _power(items))
    blocks = -(-items // together)
    splits = max(1, min(-(-VIRTUAL_BLOCKS // blocks), rows * together // WARPS))
    part = to.part(number, splits * WARPS // together)
    if part is not None:
        integers = *shape, together, items
        to.add(name, (splits, blocks), *tensors, part, integers=integers)


def add_bias(
    to: Operations, x: Tensor, bias: Tensor, planes: int, channels: int, area: int
) -> None:
    """Record the addition of a bias in place."""
    blocks = share_planes(planes, area)
    to.add("add_bias", blocks, x, bias, integers=(planes, channels, area))


def add_bias_back(
    to: Operations, g: Tensor, number: int | None, planes: int, channels: int, area: int
) -> None:
    """Record the gradient of a bias."""
    part = to.part(number, planes // channels)
    to.add("add_bias_back", (1, planes), g, part, integers=(planes, channels, area))


def _side(name: str) -> int:
    """Return the kernel's side that an operation is made for, 0 for any."""
    return int(name[-1]) if name[-1].isdigit() else 0


def _power(number: int) -> int:
    """Return the least power of two that is not below the number."""
    return 1 << max(0, number - 1).bit_length()


def _in_one_row(shape: Any) -> list[int]:
    """Return the shape of a 1x1 convolution over all places as if in one row."""
    groups, inputs, height, width, outputs, _, _, *rest = shape
    return [groups, inputs, 1, height * width, outputs, 1, height * width, *rest]


def _specialised(name: str, shape: Any) -> str:
    """Return the operation for a convolution, one of its own for the usual kernels."""
    *_, high, wide, stride, _, _, dilation, apart = shape
    special = f"{name}_{high}"
    usual = high == wide and (stride, dilation, apart) == (1, 1, 1)
    return special if usual and special in CODES else name
