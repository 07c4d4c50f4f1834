"""What nas takes of a convolution."""

from __future__ import annotations

from torch import nn

from nas.importing.layer import Layer
from nas.importing.refusals import refuse


def check_plain(conv: nn.Conv2d, name: str) -> None:
    """Raise ArchitectureError for a convolution that nas does not have."""
    if conv.padding_mode != "zeros":
        raise refuse(name, "nas pads with zeros; the nearest is padding_mode='zeros'")
    if conv.stride[0] != conv.stride[1] or len({*dilations(conv)}) > 1:
        raise refuse(
            name,
            "nas has one stride and one dilation for rows and columns; the nearest is "
            "the same for both",
        )


def dilations(conv: nn.Conv2d) -> list[int]:
    """Return the dilations along the sides that have more than one tap."""
    sides = zip(conv.kernel_size, conv.dilation, strict=True)
    return [apart for taps, apart in sides if taps > 1]


def kernel_of(conv: nn.Conv2d) -> dict[str, int]:
    """Return the values of a block that say what kernel it has."""
    height, width = conv.kernel_size
    return {
        "kernel_size": height,
        "kernel_width": 0 if width == height else width,
        "dilation": max(dilations(conv), default=1),
    }


def padding_of(conv: nn.Conv2d, layer: Layer) -> str:
    """Return the padding in nas's words; raise ArchitectureError for another."""
    padding = conv.padding
    if padding in {"same", "valid"} and not layer.padding:
        return str(padding)
    apart = max(dilations(conv), default=1)
    same = tuple(apart * (side // 2) for side in conv.kernel_size)
    if isinstance(padding, str):
        padding = (0, 0) if padding == "valid" else same
    padding = tuple(side + layer.padding for side in padding)
    odd = all(side % 2 for side in conv.kernel_size)
    if padding == same and odd:
        return "same"
    if padding == (0, 0):
        return "valid"
    if not odd:
        why = "nas pads no even kernel; the nearest is an odd one"
    else:
        word = same[0] if len({*same}) == 1 else same
        why = f"nas has none, or {word} ('same'); the nearest is one of these"
    raise refuse(layer.name, f"its padding is {padding}; {why}")
