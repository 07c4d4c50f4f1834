"""The int8 net: the ONNX model, the whole-number reference and the float net agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from exporting import fits_int8, numpy_weights, random_images, random_model
from hypothesis import given, settings
from strategies import architectures, examples
from test_export_onnx import session

from nas.architecture import Architecture
from nas.data import load_dataset
from nas.export import integer
from nas.export.chain import stages
from nas.export.deliver import calibration_images
from nas.export.onnx_float import onnx_float
from nas.export.onnx_int8 import onnx_int8
from nas.export.quantise import quantise
from nas.export.trained import read_trained

BEST = Path(__file__).parents[1] / "benchmarks" / "nets" / "4719"
MEAN, STD = [0.13, 0.4, 0.55], [0.31, 0.2, 0.25]


@settings(max_examples=examples(30), deadline=None)
@given(architecture=architectures().filter(fits_int8))
def test_three_nets_agree(architecture: Architecture) -> None:
    """Whole numbers stay near float, and ONNX's int8 near the whole numbers."""
    channels = architecture.input_shape[0]
    mean, std = MEAN[:channels], STD[:channels]
    chain = stages(architecture, numpy_weights(random_model(architecture)))
    images = random_images(architecture, 64)
    table = quantise(chain, images, mean=mean, std=std)
    exact = logits_of(
        onnx_float(chain, mean=mean, std=std, num_classes=architecture.num_classes),
        images,
    )
    rounded = logits_of(onnx_int8(table), images)
    whole = integer.run(table, images) * 2.0 ** -table[-1].logit_bits
    spread = float(exact.std()) + 1e-3
    assert distance(whole, rounded) < 0.02 * spread
    assert distance(whole, exact) < 0.3 * spread


def distance(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the root of the mean squared difference."""
    return float(np.sqrt(((one - other) ** 2).mean()))


def logits_of(model: bytes, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Return what onnxruntime makes of the images."""
    logits: npt.NDArray[Any] = session(model).run(["logits"], {"image": images})[0]
    return logits


def test_a_winner_keeps_its_classes() -> None:
    """On real images whole numbers and ONNX's int8 agree, and float nearly always."""
    dataset = load_dataset("mnist")
    net = read_trained(BEST)
    chain = stages(net.architecture, net.weights)
    table = quantise(
        chain, calibration_images(net.architecture, dataset), mean=net.mean, std=net.std
    )
    images = dataset.test_images.numpy()[:1000]
    classes = integer.classify(table, images)
    rounded = logits_of(onnx_int8(table), images).argmax(axis=1)
    exact = logits_of(
        onnx_float(chain, mean=net.mean, std=net.std, num_classes=10), images
    ).argmax(axis=1)
    assert (classes == rounded).mean() >= 0.999
    assert (classes == exact).mean() >= 0.995
