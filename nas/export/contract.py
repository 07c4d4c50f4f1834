"""What an exported net takes as input: one sentence, the same in every file."""

from __future__ import annotations

from nas.architecture import Shape


def contract(input_shape: Shape) -> str:
    """Return the one contract of model.py, ONNX and C for images of that shape."""
    channels, height, width = input_shape
    return (
        f"Input: raw images, uint8 from 0 to 255, {channels} x {height} x {width} "
        "(channels, height, width), as the data set has them; not divided by 255, not "
        "normalised: the net does that itself."
    )
