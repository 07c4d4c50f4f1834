"""The source of a model's layers, as calls of torch's constructors.

It is rendered from the model that nas.training.model builds, so the names of its weights
always match the trained ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from nas.architecture import Architecture, feature_shapes
from nas.architecture.notation import describe_block, describe_head
from nas.training.model import (
    ACTIVATION_MODULES,
    OWN_MODULES,
    Inception,
    PadChannels,
    Residual,
    Shared,
    SqueezeExcitation,
    build,
)

LINE_LENGTH = 88


def layers(architecture: Architecture) -> Iterator[str]:
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
        case _:
            arguments = ", ".join(_arguments(module))
            origin = "" if isinstance(module, OWN_MODULES) else "nn."
            opening = f"{start}{origin}{type(module).__name__}("
            if len(opening + arguments + "),") <= LINE_LENGTH:
                yield f"{opening}{arguments}),"
                return
            yield opening
            yield f"{indent}    {arguments}"
    yield f"{indent}),"


def _named_layers(module: nn.Module, indent: str) -> Iterator[str]:
    for name, layer in module.named_children():
        yield from _module(layer, indent, name)


def classes(architecture: Architecture) -> str:
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
            yield _side(layer.kernel_size)
            if layer.stride != layer.kernel_size:
                yield f"stride={_side(layer.stride)}"
            if _side(layer.padding) != "0":
                yield f"padding={_side(layer.padding)}"
        case nn.AdaptiveAvgPool2d():
            yield str(layer.output_size)
        case nn.Dropout():
            yield str(layer.p)
        case PadChannels():
            yield from map(str, (layer.stride, layer.before, layer.behind))
        case SqueezeExcitation():
            yield from map(str, (layer.squeeze.in_channels, layer.squeeze.out_channels))
            for one in (layer.activation, layer.gate):
                yield "".join(_module(one, "")).removesuffix(",")
            if layer.squeeze.bias is None:
                yield "bias=False"
        case nn.Flatten() | nn.Hardsigmoid():
            return
        case _ if type(layer) not in ACTIVATION_MODULES.values():
            raise NotImplementedError(f"no source for {type(layer).__name__}")


def _side(size: Any) -> str:
    """Return torch's pair of height and width, as one number if they are equal."""
    pair = size if isinstance(size, tuple) else (size, size)
    return str(pair[0]) if pair[0] == pair[1] else repr(pair)
