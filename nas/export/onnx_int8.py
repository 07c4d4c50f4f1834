"""The int8 ONNX model: the float graph with QuantizeLinear and DequantizeLinear pairs.

Weights are int8 with one scale per output channel; activations are int8 with one scale
per tensor. The numbers are those of the C code, whose uint8 activations are 128 larger.
The part before the first quantised convolution is exact in float.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.architecture.parts import Pooling
from nas.export.contract import contract
from nas.export.graph import INPUT, OUTPUT, Graph
from nas.export.integer_stages import IntegerStage, Range, resize_of
from nas.export.onnx_float import conv_attributes, follow, resized, taken


def onnx_int8(table: Sequence[IntegerStage]) -> bytes:
    """Return the model as bytes, checked by onnx.checker.

    Input and output are as in onnx_float: raw uint8 images and float logits.
    """
    graph = Graph()
    pixels = graph.node("Cast", [INPUT], "pixels", to=1)  # 1 is float
    shape = table[0].float_stage.input_shape
    if (step := resize_of(table[0].float_stage)) is not None:
        pixels = resized(graph, pixels, "input", shape, step)
        half = graph.constant("half", 0.5, np.float32)
        pixels = graph.node("Add", [pixels, half], "above")
        pixels = graph.node("Floor", [pixels], "rounded")
    zero = table[0].input_zero.reshape(-1, 1, 1)
    graph.constant("zero", zero, np.float32)
    graph.constant("scale", table[0].input_scale, np.float32)
    centred = graph.node("Sub", [pixels, "zero"], "centred")
    tensors = [graph.node("Mul", [centred, "scale"], "normalised")]
    for number, stage in enumerate(table):
        if resize_of(stage.float_stage) is not None:
            continue  # the images, which the graph already has
        tensors.append(_stage(graph, stage, tensors, f"stage{number}"))
    graph.node("Flatten", [tensors[-1]], OUTPUT, axis=1)
    return graph.model(shape, table[-1].output_shape[0], contract(shape))


def _stage(graph: Graph, stage: IntegerStage, tensors: list[str], prefix: str) -> str:
    source = stage.float_stage
    features = taken(graph, source, tensors, prefix)
    if source.convolutions:
        joined = [
            _convolved(graph, stage, index, features, f"{prefix}.conv{index}")
            for index in range(len(source.convolutions))
        ]
        features = joined[0]
        if len(joined) > 1:
            features = graph.node("Concat", joined, f"{prefix}.joined", axis=1)
    if source.adds:
        features = graph.node("Add", [features, tensors[-source.adds]], f"{prefix}.sum")
    shape = source.conv_shape
    for index, step in enumerate(source.after):
        if step is stage.late and stage.output is not None:
            features = _quantised(graph, stage.output, features, f"{prefix}.before")
        features = follow(graph, step, features, f"{prefix}.{index}", shape)
        shape = source.output_shape if isinstance(step, Pooling) else shape
    if stage.output is None:
        return features
    return _quantised(graph, stage.output, features, f"{prefix}.output")


def _convolved(
    graph: Graph, stage: IntegerStage, index: int, features: str, name: str
) -> str:
    convolution = stage.convolutions[index]
    part = slice(convolution.start, convolution.start + len(convolution.weight))
    scale = stage.weight_scale[part]
    inputs = [features]
    for kind, values, scales, dtype in (
        ("weight", convolution.weight, scale, np.int8),
        ("bias", stage.bias[part], scale * stage.input_scale, np.int32),
    ):
        names = [
            graph.constant(f"{name}.{kind}", values, dtype),
            graph.constant(f"{name}.{kind}.scale", scales, np.float32),
        ]
        inputs.append(
            graph.node("DequantizeLinear", names, f"{name}.{kind}.real", axis=0)
        )
    return graph.node("Conv", inputs, name, **conv_attributes(stage.float_stage, index))


def _quantised(graph: Graph, numbers: Range, features: str, name: str) -> str:
    scale = graph.constant(f"{name}.scale", numbers.scale, np.float32)
    zero = graph.constant(f"{name}.zero", numbers.zero - 128, np.int8)
    rounded = graph.node("QuantizeLinear", [features, scale, zero], f"{name}.numbers")
    return graph.node("DequantizeLinear", [rounded, scale, zero], f"{name}.real")
