"""The input format of an exported net, in one sentence that all files share."""

from __future__ import annotations

from nas.architecture import Shape

BYTES = (0.0, 1.0)
"""The values of the bytes 0 and 255 if the data were bytes."""

FIXED_RANGES = (BYTES, (0.0, 255.0), (-128.0, 127.0))
"""The ranges that follow from the data's type; others were measured on the data."""


def contract(input_shape: Shape) -> str:
    """Return the contract that model.py, ONNX and C share, for this image shape."""
    channels, height, width = input_shape
    return (
        f"Input: raw images, uint8 from 0 to 255, {channels} x {height} x {width} "
        "(channels, height, width), as the data set has them; not divided by 255, not "
        "normalised: the net does that itself."
    )


def origin(value_range: tuple[float, float], signal_length: int) -> str:
    """Return how the bytes derive from the original data; "" if they are the same."""
    low, high = value_range
    text = ""
    if value_range != BYTES:
        text += (
            f"The byte b stands for the value {low:g} + b * {(high - low) / 255:.6g}; "
            "values beyond are cut. "
        )
    if signal_length:
        text += (
            f"A signal of {signal_length} steps is folded row after row, its last value "
            "repeated to fill the last row."
        )
    return text.strip()
