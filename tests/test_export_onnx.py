"""The float ONNX model: the torch model's logits from raw images, for any net."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from exporting import normalised, numpy_weights, random_images, random_model
from hypothesis import given, settings
from strategies import architectures, examples

from nas.architecture import Architecture
from nas.export.chain import stages
from nas.export.onnx_float import onnx_float

MEAN, STD = [0.13, 0.4, 0.55], [0.31, 0.2, 0.25]


def session(model: bytes) -> onnxruntime.InferenceSession:
    """Return the model in onnxruntime, on the CPU, with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


@settings(max_examples=examples(60), deadline=None)
@given(architecture=architectures())
def test_onnx_gives_the_logits_of_torch(architecture: Architecture) -> None:
    """For any architecture, with batch norms of either sign, from uint8 images."""
    model = random_model(architecture)
    channels = architecture.input_shape[0]
    mean, std = MEAN[:channels], STD[:channels]
    chain = stages(architecture, numpy_weights(model))
    exported = onnx_float(
        chain, mean=mean, std=std, num_classes=architecture.num_classes
    )
    images = random_images(architecture, 3)
    with torch.no_grad():
        expected = model(normalised(images, mean, std)).numpy()
    logits = session(exported).run(["logits"], {"image": images})[0]
    np.testing.assert_allclose(
        logits, expected, rtol=1e-4, atol=1e-4 * max(1, abs(expected).max())
    )
