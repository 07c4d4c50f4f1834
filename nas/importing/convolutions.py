"""What nas takes of a convolution."""

from __future__ import annotations

from torch import nn

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


def padding_of(conv: nn.Conv2d, name: str) -> str:
    """Return the padding in nas's words; raise ArchitectureError for another."""
    size, padding = conv.kernel_size[0], conv.padding
    if padding in {"same", "valid"}:
        return str(padding)
    if padding == (size // 2, size // 2) and size % 2:
        return "same"
    if padding == (0, 0):
        return "valid"
    raise refuse(
        name, f"its padding is {padding}; nas has none, or {size // 2} ('same')"
    )
