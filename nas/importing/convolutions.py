"""What nas takes of a convolution."""

from __future__ import annotations

from torch import nn

from nas.importing.layer import Layer
from nas.importing.refusals import refuse


def check_plain(conv: nn.Conv2d, name: str) -> None:
    """Raise ArchitectureError for a convolution that nas does not have."""
    if conv.dilation != (1, 1):
        raise refuse(
            name, "nas has no dilation; the nearest is dilation=1 with a larger kernel"
        )
    if conv.padding_mode != "zeros":
        raise refuse(name, "nas pads with zeros")
    if conv.kernel_size[0] != conv.kernel_size[1] or conv.stride[0] != conv.stride[1]:
        raise refuse(
            name, "nas has square kernels and strides; the nearest is a square one"
        )


def padding_of(conv: nn.Conv2d, layer: Layer) -> str:
    """Return the padding in nas's words; raise ArchitectureError for another."""
    size, padding = conv.kernel_size[0], conv.padding
    if padding in {"same", "valid"} and not layer.padding:
        return str(padding)
    if isinstance(padding, str):
        padding = (0, 0) if padding == "valid" else (size // 2, size // 2)
    padding = tuple(side + layer.padding for side in padding)
    if padding == (size // 2, size // 2) and size % 2:
        return "same"
    if padding == (0, 0):
        return "valid"
    if size % 2 == 0:
        why = "nas pads no even kernel; the nearest is an odd one"
    else:
        why = f"nas has none, or {size // 2} ('same'); the nearest is one of these"
    raise refuse(layer.name, f"its padding is {padding}; {why}")
