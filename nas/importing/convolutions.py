"""What nas takes of a convolution."""

from __future__ import annotations

from torch import nn

from nas.importing.layer import Layer
from nas.importing.refusals import refuse


def check_plain(conv: nn.Conv2d, layer: Layer) -> None:
    """Raise ArchitectureError for a convolution that nas does not have."""
    if conv.padding_mode != "zeros":
        raise refuse(
            layer.name, "nas pads with zeros; the nearest is padding_mode='zeros'"
        )
    if len({*_strides(conv, layer)}) > 1 or len({*dilations(conv)}) > 1:
        raise refuse(
            layer.name,
            "nas has one stride and one dilation for rows and columns; the nearest is "
            "the same for both",
        )


def stride_of(conv: nn.Conv2d, layer: Layer) -> int:
    """Return the stride of a convolution that is plain."""
    return max(_strides(conv, layer), default=1)


def _strides(conv: nn.Conv2d, layer: Layer) -> list[int]:
    """Return the strides along the sides, but that along a side of a single pixel."""
    sides = zip(conv.stride, conv.kernel_size, layer.out_shape[1:], strict=True)
    # From one pixel to one pixel with stride 1: what is the input's side, too.
    return [step for step, taps, pixels in sides if (step, taps, pixels) != (1, 1, 1)]


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


def padding_of(conv: nn.Conv2d, layer: Layer) -> str | tuple[int, int]:
    """Return the padding of a block; raise ArchitectureError for one that nas lacks."""
    apart = max(dilations(conv), default=1)
    most = [apart * (taps - 1) for taps in conv.kernel_size]
    padding = conv.padding
    if padding == "same" and any(side % 2 for side in most):
        raise refuse(
            layer.name,
            "padding='same' pads one side of an even kernel more than the other; nas pads "
            "both alike; the nearest is an odd kernel, or padding in numbers",
        )
    if isinstance(padding, str):
        padding = tuple(side // 2 if padding == "same" else 0 for side in most)
    above, beside = (
        own + before for own, before in zip(padding, layer.padding, strict=True)
    )
    if [2 * above, 2 * beside] == most:
        return "same"
    if above > most[0] or beside > most[1]:
        nearest = (min(above, most[0]), min(beside, most[1]))
        raise refuse(
            layer.name,
            f"its padding is {(above, beside)}, so that it begins beyond the feature map; "
            f"the nearest is {nearest}",
        )
    return (above, beside) if above or beside else "valid"
