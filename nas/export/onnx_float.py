"""Writes the float ONNX model: raw uint8 images in, the torch model's logits out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.architecture import Shape
from nas.architecture.activations import ACTIVATIONS
from nas.architecture.parts import Pooling
from nas.export.contract import contract
from nas.export.graph import INPUT, OUTPUT, Graph
from nas.export.stages import (
    Activation,
    Affine,
    After,
    Array,
    Pad,
    Resize,
    Stage,
    areas,
)


def onnx_float(
    chain: Sequence[Stage],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
) -> bytes:
    """Return the model as bytes, checked by onnx.checker.

    Its input is ``image``, uint8 ``[batch, C, H, W]``, which it normalises itself; its
    output is ``logits``, float ``[batch, num_classes]``.
    """
    graph = Graph()
    tensors = [_normalised(graph, mean, std)]
    for number, stage in enumerate(chain):
        prefix = f"stage{number}"
        features = taken(graph, stage, tensors, prefix)
        joined = [
            _convolved(graph, stage, features, index, f"{prefix}.conv{index}")
            for index in range(len(stage.convolutions))
        ]
        if len(joined) > 1:
            joined = [graph.node("Concat", joined, f"{prefix}.joined", axis=1)]
        features = joined[0] if joined else features
        if stage.adds:
            both = [features, tensors[-stage.adds]]
            features = graph.node("Add", both, f"{prefix}.sum")
        shape = stage.conv_shape
        for index, step in enumerate(stage.after):
            features = follow(graph, step, features, f"{prefix}.{index}", shape)
            shape = stage.output_shape if isinstance(step, Pooling | Resize) else shape
        tensors.append(features)
    graph.node("Flatten", [tensors[-1]], OUTPUT, axis=1)
    return graph.model(
        chain[0].input_shape, num_classes, contract(chain[0].input_shape)
    )


def _normalised(graph: Graph, mean: Sequence[float], std: Sequence[float]) -> str:
    pixels = graph.node("Cast", [INPUT], "pixels", to=1)  # 1 is float
    middle = 255 * np.asarray(mean, dtype=np.float64)
    scale = 1 / (255 * np.asarray(std, dtype=np.float64))
    graph.constant("mean", middle.reshape(-1, 1, 1), np.float32)
    graph.constant("scale", scale.reshape(-1, 1, 1), np.float32)
    centred = graph.node("Sub", [pixels, "mean"], "centred")
    return graph.node("Mul", [centred, "scale"], "normalised")


def _convolved(graph: Graph, stage: Stage, features: str, index: int, name: str) -> str:
    convolution = stage.convolutions[index]
    weight = graph.constant(f"{name}.weight", convolution.weight, np.float32)
    bias = graph.constant(f"{name}.bias", convolution.bias, np.float32)
    return graph.node(
        "Conv", [features, weight, bias], name, **conv_attributes(stage, index)
    )


def taken(graph: Graph, stage: Stage, tensors: Sequence[str], name: str) -> str:
    """Return the name of the stage's input; add a Mul node first if it is gated."""
    features = tensors[-stage.takes]
    if not stage.gates:
        return features
    return graph.node("Mul", [features, tensors[-stage.gates]], f"{name}.gated")


def conv_attributes(stage: Stage, index: int) -> dict[str, int | list[int]]:
    """Return the ONNX Conv attributes of a stage's convolution."""
    convolution = stage.convolutions[index]
    return {
        "kernel_shape": list(convolution.weight.shape[2:]),
        "strides": [stage.stride] * 2,
        "dilations": [stage.dilation] * 2,
        "pads": [*convolution.padding, *convolution.padding],
        "group": stage.groups,
    }


def follow(graph: Graph, step: After, features: str, name: str, shape: Shape) -> str:
    """Add a step that follows a convolution; ``shape`` is that of its input."""
    match step:
        case Pooling("avg", window) if window == shape[1:]:
            return graph.node("GlobalAveragePool", [features], f"{name}.pool")
        case Pooling(kind, window, strides, padding):
            return graph.node(
                "MaxPool" if kind == "max" else "AveragePool",
                [features],
                f"{name}.pool",
                kernel_shape=list(window),
                strides=list(strides),
                pads=[*padding, *padding],
            )
        case Resize():
            return resized(graph, features, name, shape, step)
        case Pad(stride, before, behind):
            # Both axes, to their ends.
            limits = {"starts": [0, 0], "ends": shape[1:], "axes": [2, 3]}
            limits["steps"] = [stride, stride]
            inputs = [
                graph.constant(f"{name}.{key}", value, np.int64)
                for key, value in limits.items()
            ]
            features = graph.node("Slice", [features, *inputs], f"{name}.kept")
            beside = [0, before, 0, 0, 0, behind, 0, 0]
            pads = graph.constant(f"{name}.pads", beside, np.int64)
            return graph.node("Pad", [features, pads], f"{name}.padded")
        case Affine(scale, shift):
            scales = graph.constant(f"{name}.s", scale.reshape(-1, 1, 1), np.float32)
            features = graph.node("Mul", [features, scales], f"{name}.scaled")
            if not shift.any():
                return features
            shifts = graph.constant(f"{name}.b", shift.reshape(-1, 1, 1), np.float32)
            return graph.node("Add", [features, shifts], f"{name}.shifted")
        case Activation("relu6" | "unit" as kind):
            ends = [
                graph.constant(f"{name}.{end}", value, np.float32)
                for end, value in (("low", 0), ("high", 6 if kind == "relu6" else 1))
            ]
            return graph.node("Clip", [features, *ends], f"{name}.{kind}")
        case Activation(kind) if ACTIVATIONS[kind].onnx:
            return graph.node(ACTIVATIONS[kind].onnx, [features], f"{name}.{kind}")
        case Activation("silu"):
            sigmoid = graph.node("Sigmoid", [features], f"{name}.sigmoid")
            return graph.node("Mul", [features, sigmoid], f"{name}.silu")
        case Activation("gelu"):
            # The operator of that name is of a later opset.
            root = graph.constant(f"{name}.root", math.sqrt(2), np.float32)
            one, half = (
                graph.constant(f"{name}.{value}", value, np.float32)
                for value in (1, 0.5)
            )
            scaled = graph.node("Div", [features, root], f"{name}.scaled")
            erf = graph.node("Erf", [scaled], f"{name}.erf")
            above = graph.node("Add", [erf, one], f"{name}.above")
            twice = graph.node("Mul", [features, above], f"{name}.twice")
            return graph.node("Mul", [twice, half], f"{name}.gelu")
    raise NotImplementedError(step)


def resized(graph: Graph, features: str, name: str, shape: Shape, step: Resize) -> str:
    """Add the average over areas as two matrix products; ``shape`` is the input's."""
    rows = _means(shape[1], step.sides[0])
    columns = _means(shape[2], step.sides[1]).T
    left = graph.constant(f"{name}.rows", rows, np.float32)
    right = graph.constant(f"{name}.columns", columns, np.float32)
    features = graph.node("MatMul", [left, features], f"{name}.lower")
    return graph.node("MatMul", [features, right], f"{name}.resized")


def _means(before: int, after: int) -> Array:
    """Return the matrix [after, before] that averages areas along one axis."""
    weights = np.zeros((after, before))
    for place, (start, end) in enumerate(areas(before, after)):
        weights[place, start:end] = 1 / (end - start)
    return weights
