"""What an exported net takes as input: one sentence, the same in every file."""

from __future__ import annotations

from nas.architecture import Shape

BYTES = (0.0, 1.0)
"""The values that the bytes 0 and 255 stand for where the data were bytes."""

FIXED_RANGES = (BYTES, (0.0, 255.0), (-128.0, 127.0))
"""Those that follow from the type of the data; any other was measured on them."""


def contract(input_shape: Shape) -> str:
    """Return the one contract of model.py, ONNX and C for images of that shape."""
    channels, height, width = input_shape
    return (
        f"Input: raw images, uint8 from 0 to 255, {channels} x {height} x {width} "
        "(channels, height, width), as the data set has them; not divided by 255, not "
        "normalised: the net does that itself."
    )


def origin(value_range: tuple[float, float], signal_length: int) -> str:
    """Return how the bytes come from the data as they were, "" where they are those."""
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
