"""Writes the winner as files that do not need nas: weights, source and report.

The source is rendered layer by layer from the model that nas.training.model builds, so
the names of its weights always match the trained ones.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from nas.architecture import Architecture, Shape, feature_shapes
from nas.architecture.cost import cost
from nas.architecture.notation import describe, describe_block, describe_head
from nas.export.contract import BYTES, FIXED_RANGES, contract, origin
from nas.files import write_together
from nas.training.model import (
    OWN_MODULES,
    Inception,
    Residual,
    Shared,
    SqueezeExcitation,
    build,
)

_LINE_LENGTH = 88
_FILE_NAME = "model.py"

_SOURCE = Template('''\
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

    They have the layout and the values that nas reads; it refuses what normalise does.
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


WRITTEN = ("weights.safetensors", "architecture.json", _FILE_NAME, "report.json")
"""The files of `write_best`."""


def write_best(
    folder: Path,
    architecture: Architecture,
    state: Mapping[str, Tensor],
    report: Mapping[str, Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str],
    value_range: tuple[float, float] = BYTES,
    signal_length: int = 0,
    notes: Sequence[str] = (),
) -> None:
    """Write weights.safetensors, architecture.json, model.py and report.json.

    ``state`` is the state dict of the model that nas.training.model.build returns, on
    any device. ``report`` is plain data for JSON. The other arguments are as for
    ``source``. Either all four files are written or none.
    Raises StudyError if they cannot be written, RuntimeError if the state does not fit
    the architecture and ValueError for a report with a NaN or infinity.
    """
    build(architecture).load_state_dict(dict(state), strict=True)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in state.items()
    }
    text = source(
        architecture,
        mean=mean,
        std=std,
        class_names=class_names,
        value_range=value_range,
        signal_length=signal_length,
        notes=notes,
    )
    write_together(
        {
            folder / "weights.safetensors": save(
                tensors, metadata={"architecture": architecture.to_json()}
            ),
            folder / "architecture.json": _json(architecture.to_dict()),
            folder / _FILE_NAME: text,
            folder / "report.json": _json(report),
        }
    )


def source(
    architecture: Architecture,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str],
    value_range: tuple[float, float] = BYTES,
    signal_length: int = 0,
    notes: Sequence[str] = (),
) -> str:
    """Return a Python module with this one network in plain torch, without nas.

    ``mean``, ``std`` (one number per channel, for pixels of 0 to 1), ``value_range``
    and ``signal_length`` are as in nas.data.Dataset. ``class_names`` has one name per
    class. ``notes`` are lines for the module's docstring, such as the test accuracy and
    how it was measured.
    Raises ValueError if mean, std or class_names do not fit the architecture.
    """
    channels = architecture.input_shape[0]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"{len(mean)} means and {len(std)} deviations for {channels} channels"
        )
    if len(class_names) != architecture.num_classes:
        raise ValueError(
            f"{len(class_names)} class names for {architecture.num_classes} classes"
        )
    costs = cost(architecture)
    return _SOURCE.substitute(
        num_params=f"{costs.num_params:,}",
        num_params_literal=costs.num_params,
        macs=f"{costs.macs:,}",
        summary=_paragraph(describe(architecture), indent="    ").strip(),
        notes="".join(f"{_paragraph(note)}\n" for note in notes) + "\n" * bool(notes),
        file_name=_FILE_NAME,
        contract=_paragraph(
            f"{contract(architecture.input_shape)} "
            f"{origin(value_range, signal_length)}".strip()
            + " In Python values and layouts as nas reads them serve, too."
        ),
        resized="self.resize(images)" if architecture.resolution else "images",
        layouts=_layouts(signal_length),
        layout_names=_layout_names(architecture.input_shape, signal_length),
        value_range=_tuple("VALUE_RANGE = ", map(repr, value_range)),
        signal_length=_SIGNAL_LENGTH.format(signal_length) if signal_length else "",
        value_margin=f"VALUE_MARGIN = {_margin(value_range)!r}",
        shape=", ".join(map(str, architecture.input_shape)),
        input_shape=_tuple("INPUT_SHAPE = ", map(repr, architecture.input_shape)),
        num_classes=architecture.num_classes,
        mean=_tuple("MEAN = ", (repr(float(value)) for value in mean)),
        std=_tuple("STD = ", (repr(float(value)) for value in std)),
        class_names=_tuple("CLASS_NAMES = ", map(_string, class_names)),
        classes=_classes(architecture),
        layers="\n".join(_layers(architecture)),
    )


def _margin(value_range: tuple[float, float]) -> float:
    """Return how far new values may plausibly exceed a measured range."""
    low, high = value_range
    return 0.0 if value_range in FIXED_RANGES else high - low


_SIGNAL_LENGTH = """\
SIGNAL_LENGTH = {}
\"\"\"Steps of a signal; it is folded into rows.\"\"\"
"""

_IMAGE_LAYOUTS = """\
channels, *sides = INPUT_SHAPE
if channels == 1 and shape == tuple(sides):
    images = images.unsqueeze(1)
elif shape == (*sides, channels) != INPUT_SHAPE:
    images = images.movedim(-1, 1)"""

_SIGNAL_LAYOUTS = """\
channels, length = INPUT_SHAPE[0], SIGNAL_LENGTH
if channels == 1 and shape == (length,):
    images = images.unsqueeze(1)
elif shape == (length, channels) != (channels, length):
    images = images.movedim(-1, 1)
if images.shape[1:] == (channels, length):
    missing = INPUT_SHAPE[1] * INPUT_SHAPE[2] - length
    images = torch.cat([images, *[images[..., -1:]] * missing], dim=-1)
    images = images.reshape(-1, *INPUT_SHAPE)"""


def _layouts(signal_length: int) -> str:
    """Return the source lines that bring every layout to channels first."""
    lines = _SIGNAL_LAYOUTS if signal_length else _IMAGE_LAYOUTS
    return textwrap.indent(lines, "    ")


def _layout_names(input_shape: Shape, signal_length: int) -> str:
    """Return the layouts as text without quotes that fits on a line."""
    channels, height, width = input_shape
    if signal_length:
        return f"(N, {channels}, {signal_length})"
    return f"(N, {channels}, {height}, {width})"


def _layers(architecture: Architecture) -> Iterator[str]:
    """Yield the lines of __init__ that build the blocks and the head."""
    model = build(architecture)
    blocks, head = model.get_submodule("blocks"), model.get_submodule("head")
    shapes = ["x".join(map(str, shape)) for shape in feature_shapes(architecture)]
    indent = " " * 8
    if architecture.resolution:
        sides = tuple(feature_shapes(architecture)[0][1:])
        yield f"{indent}self.resize = nn.AdaptiveAvgPool2d({sides})"
    if architecture.blocks:
        yield f"{indent}self.blocks = nn.Sequential("
        for index, (block, module) in enumerate(
            zip(architecture.blocks, blocks.children(), strict=True)
        ):
            change = f"{shapes[index]} -> {shapes[index + 1]}"
            yield f"{indent}    # {describe_block(block)}: {change}"
            yield from _module(module, indent + "    ")
        yield f"{indent})"
    else:
        yield f"{indent}self.blocks = nn.Sequential()"
    change = f"{shapes[-1]} -> {architecture.num_classes} logits"
    yield f"{indent}# {describe_head(architecture.head)}: {change}"
    yield f"{indent}self.head = named("
    yield from _named_layers(head, indent + "    ")
    yield f"{indent})"


def _module(module: nn.Module, indent: str, name: str = "") -> Iterator[str]:
    """Yield the lines that construct a module, as a keyword argument if named."""
    start = f"{indent}{name}=" if name else indent
    match module:
        case nn.Sequential():
            if not len(module):
                yield f"{start}named(),"
                return
            yield f"{start}named("
            yield from _named_layers(module, indent + "    ")
        case Inception():
            yield f"{start}Inception("
            for branch in module.branches:
                yield from _module(branch, indent + "    ")
        case Shared():
            yield f"{start}Shared("
            yield from _module(module.convolutions, indent + "    ")
            for following in module.applications:
                yield from _module(following, indent + "    ")
        case Residual():
            yield f"{start}Residual("
            yield from _module(module.body, indent + "    ")
            yield from _module(module.shortcut, indent + "    ")
        case SqueezeExcitation():
            sizes = f"{module.squeeze.in_channels}, {module.squeeze.out_channels}"
            yield f"{start}SqueezeExcitation({sizes}),"
            return
        case _:
            arguments = ", ".join(_arguments(module))
            opening = f"{start}nn.{type(module).__name__}("
            if len(opening + arguments + "),") <= _LINE_LENGTH:
                yield f"{opening}{arguments}),"
                return
            yield opening
            yield f"{indent}    {arguments}"
    yield f"{indent}),"


def _named_layers(module: nn.Module, indent: str) -> Iterator[str]:
    for name, layer in module.named_children():
        yield from _module(layer, indent, name)


def _classes(architecture: Architecture) -> str:
    """Return the source of the modules that the model needs and torch lacks."""
    used = {type(module) for module in build(architecture).modules()}
    needed = [kind for kind in OWN_MODULES if kind in used]
    return "".join(f"\n{inspect.getsource(kind)}\n" for kind in needed)


def _arguments(layer: nn.Module) -> Iterator[str]:
    """Yield the constructor arguments of a layer that differ from torch's defaults."""
    match layer:
        case nn.Conv2d():
            yield from map(str, (layer.in_channels, layer.out_channels))
            yield _side(layer.kernel_size)
            if _side(layer.stride) != "1":
                yield f"stride={_side(layer.stride)}"
            if _side(layer.padding) != "0":
                yield f"padding={_side(layer.padding)}"
            if _side(layer.dilation) != "1":
                yield f"dilation={_side(layer.dilation)}"
            if layer.groups != 1:
                yield f"groups={layer.groups}"
            if layer.bias is None:
                yield "bias=False"
        case nn.BatchNorm2d():
            yield str(layer.num_features)
            if layer.eps != 1e-5:
                yield f"eps={layer.eps}"
            if layer.momentum != 0.1:
                yield f"momentum={layer.momentum}"
        case nn.Linear():
            yield from map(str, (layer.in_features, layer.out_features))
        case nn.MaxPool2d() | nn.AvgPool2d():
            yield str(layer.kernel_size)
        case nn.AdaptiveAvgPool2d():
            yield str(layer.output_size)
        case nn.LeakyReLU():
            if layer.negative_slope != 0.01:
                yield f"negative_slope={layer.negative_slope}"
        case nn.Dropout():
            yield str(layer.p)
        case nn.ReLU() | nn.ReLU6() | nn.Hardswish() | nn.SiLU() | nn.Flatten():
            return
        case _:
            raise NotImplementedError(f"no source for {type(layer).__name__}")


def _side(size: Any) -> str:
    """Return torch's pair of height and width, as one number if they are equal."""
    pair = size if isinstance(size, tuple) else (size, size)
    return str(pair[0]) if pair[0] == pair[1] else repr(pair)


def _tuple(start: str, items: Iterable[str]) -> str:
    """Return ``start`` and a tuple, with the formatter's line breaks."""
    listed = list(items)
    line = f"{start}({', '.join(listed)}{',' * (len(listed) == 1)})"
    if len(line) <= _LINE_LENGTH:
        return line
    return "\n".join([f"{start}(", *(f"    {item}," for item in listed), ")"])


def _string(text: str) -> str:
    """Return a string literal in double quotes, unless they would need escapes."""
    literal = repr(text)
    return literal if '"' in literal else f'"{literal[1:-1]}"'


def _paragraph(text: str, indent: str = "") -> str:
    """Return text wrapped for a docstring, without characters that could end it."""
    # Python source allows no null byte, and a file no lone surrogate.
    safe = "".join(letter if letter.isprintable() else " " for letter in text)
    return textwrap.fill(
        safe.replace("\\", "\\\\").replace('"""', "'''"),
        _LINE_LENGTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _json(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Put each row of a table on one line; no string has a line break within brackets.
    return re.sub(
        r"\[\n[-+.\de,\s]+\]",
        lambda row: " ".join(row[0].split()).replace("[ ", "[").replace(" ]", "]"),
        text,
    )
