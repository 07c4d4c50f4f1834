"""A short way to build ONNX graphs: nodes, constants, the checked model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nas import __version__
from nas.architecture import Shape
from nas.errors import ExportError

OPSET = 17
"""From 2022; onnxruntime 1.12 and today's converters accept it. HardSwish needs 14."""
_IR_VERSION = 8  # released with this opset

INPUT, OUTPUT = "image", "logits"


class Graph:
    """Nodes in order; each method that adds nodes returns the name of the output."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, value: npt.ArrayLike, dtype: Any) -> str:
        """Add a constant of that dtype."""
        from onnx import numpy_helper

        array = np.asarray(value, dtype=dtype, order="C")
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        self._nodes.append(
            helper.make_node(kind, inputs, [output], name=output, **attributes)
        )
        return output

    def model(self, input_shape: Shape, num_classes: int, about: str) -> bytes:
        """Return the serialised model: uint8 images in, float logits out.

        Raises ExportError if onnx.checker rejects it, which is a bug in nas.
        """
        import onnx
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self._nodes,
            "nas",
            [
                helper.make_tensor_value_info(
                    INPUT, TensorProto.UINT8, ["batch", *input_shape]
                )
            ],
            [
                helper.make_tensor_value_info(
                    OUTPUT, TensorProto.FLOAT, ["batch", num_classes]
                )
            ],
            list(self._constants.values()),
            doc_string=about,
        )
        model = helper.make_model(
            graph,
            producer_name="nas",
            producer_version=__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as e:
            raise ExportError(f"the ONNX model is not valid, a bug in nas: {e}") from e
        return bytes(model.SerializeToString())
