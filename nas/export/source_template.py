"""The text of model.py, with gaps for what differs between networks."""

from __future__ import annotations

from string import Template

MODEL = Template('''\
"""A convolutional classifier: $num_params parameters, $macs MACs an image.

    $summary

${notes}Needs torch and safetensors. Weights and this file belong together:

    model = load("weights.safetensors")
    labels = predict(model, images)

$contract

``python $file_name`` checks the file and the weights beside it. Written by nas.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

NUM_PARAMS = $num_params_literal
$input_shape
"""Channels, height, width."""
$mean
$std
"""Of the training images, one number a channel, for pixels of 0 to 1."""
$value_range
"""What the bytes 0 and 255 stand for in images that are not uint8."""
$value_margin
"""How far values may lie beyond that; they are cut."""
$signal_length$class_names


def named(**layers: nn.Module) -> nn.Sequential:
    """Return the layers as one module that applies them in this order."""
    return nn.Sequential(OrderedDict(layers))

$classes
class Model(nn.Module):
    """Takes normalised images [N, $shape], returns logits [N, $num_classes]."""

    def __init__(self) -> None:
        """Build the layers with random weights."""
        super().__init__()
$layers

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of normalised images."""
        features: Tensor = self.blocks($resized)
        logits: Tensor = self.head(features)
        return logits


def load(path: str | Path) -> Model:
    """Return the model with the weights of that file, ready to predict."""
    model = Model()
    model.load_state_dict(load_file(path))
    return model.eval()


def arrange(images: Tensor) -> Tensor:
    """Return [N, $shape] of images with the axes of any layout that nas reads.

    Raises ValueError for another shape.
    """
    shape = tuple(images.shape[1:])
$layouts
    if images.shape[1:] != INPUT_SHAPE:
        raise ValueError(
            f"images are of shape (N, {', '.join(map(str, shape))}): "
            "give $layout_names, or as the data set had them"
        )
    return images


def pixels(images: Tensor) -> Tensor:
    """Return the bytes 0 to 255, as floats, of raw uint8 or of values as nas reads.

    Raises TypeError for another type, ValueError for values out of range.
    """
    if images.dtype == torch.uint8:
        return images.float()
    if images.dtype == torch.bool:
        images = images.float()
    low, high = VALUE_RANGE
    if not images.is_floating_point() and VALUE_RANGE == (0.0, 1.0):
        raise TypeError(
            f"images are {images.dtype}: give raw uint8 pixels, 0 to 255, or floats "
            "from 0 to 1"
        )
    values = images.double()
    if bool(values.isnan().any()):
        raise ValueError("images hold NaN: replace those values")
    least, most = low - VALUE_MARGIN, high + VALUE_MARGIN
    if bool(((values < least) | (values > most)).any()):
        raise ValueError(
            f"images have values from {float(values.min()):g} to "
            f"{float(values.max()):g}, and the training images from {low:g} to "
            f"{high:g}: scale them alike, or give raw uint8 pixels"
        )
    return ((values.clamp(low, high) - low) * (255 / (high - low))).round().float()


def normalise(images: Tensor) -> Tensor:
    """Return images, as arrange and pixels take them, as the model takes them."""
    # A copy of an array, since torch warns of sharing one that is read-only.
    images = images if isinstance(images, Tensor) else torch.tensor(images)
    images = pixels(arrange(images))
    mean = torch.tensor(MEAN, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, -1, 1, 1)
    return (images / 255 - mean) / std


@torch.no_grad()
def predict(model: Model, images: Tensor) -> Tensor:
    """Return the classes [N], indices into CLASS_NAMES, of images: tensor or array.

    Takes raw uint8 images, or images as the data set has them; raises what arrange and
    pixels raise for others.
    """
    logits: Tensor = model(normalise(images))
    return logits.argmax(dim=1)


def main() -> None:
    """Check the number of parameters, the weights if they are there, and the shapes."""
    weights = Path(__file__).with_name("weights.safetensors")
    model = load(weights) if weights.exists() else Model().eval()
    num_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    images = torch.randint(256, (2, *INPUT_SHAPE), dtype=torch.uint8)
    logits = model(normalise(images))
    if num_params != NUM_PARAMS or logits.shape != (2, len(CLASS_NAMES)):
        raise SystemExit(f"wrong: {num_params} parameters, logits {logits.shape}")
    state = "trained" if weights.exists() else "untrained, no weights.safetensors here"
    print(f"{num_params:,} parameters ({state}), logits {tuple(logits.shape)}")


if __name__ == "__main__":
    main()
''')

SIGNAL_LENGTH = """\
SIGNAL_LENGTH = {}
\"\"\"Steps of a signal; it is folded into rows.\"\"\"
"""

IMAGE_LAYOUTS = """\
channels, *sides = INPUT_SHAPE
if channels == 1 and shape == tuple(sides):
    images = images.unsqueeze(1)
elif shape == (*sides, channels) != INPUT_SHAPE:
    images = images.movedim(-1, 1)"""

SIGNAL_LAYOUTS = """\
channels, length = INPUT_SHAPE[0], SIGNAL_LENGTH
if channels == 1 and shape == (length,):
    images = images.unsqueeze(1)
elif shape == (length, channels) != (channels, length):
    images = images.movedim(-1, 1)
if images.shape[1:] == (channels, length):
    missing = INPUT_SHAPE[1] * INPUT_SHAPE[2] - length
    images = torch.cat([images, *[images[..., -1:]] * missing], dim=-1)
    images = images.reshape(-1, *INPUT_SHAPE)"""
