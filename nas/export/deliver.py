"""Exports a trained net to one format, checks it against the original and measures it.

No choice depends on these measurements: calibration uses training images only, and
the test set is read once for the float net and once for the exported one.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from nas.architecture import Architecture
from nas.architecture.cost import STACK, cost, layers
from nas.architecture.notation import describe
from nas.data import Dataset
from nas.environment import versions
from nas.errors import ExportError
from nas.export import integer
from nas.export.c import arena_size, c_files, target
from nas.export.chain import stages
from nas.export.contract import contract, origin
from nas.export.integer_stages import IntegerStage
from nas.export.onnx_float import onnx_float
from nas.export.onnx_int8 import onnx_int8
from nas.export.quantise import quantise
from nas.export.stages import Stage
from nas.export.trained import TrainedNet
from nas.files import check_writable, write_together
from nas.training.model import build

Format = Literal["onnx", "onnx-int8", "c"]
FORMATS: tuple[Format, ...] = get_args(Format)

CALIBRATION_IMAGES = 1000
"""The number of calibration images, always the same ones from the training set."""
_MOST_VALUES = 50_000_000

_TOLERANCE = 1e-4  # of ONNX's float logits, as a share of the largest where above 1
_BATCH = 100
_LOGITS = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """The files by name, not yet written, and the report as plain data for JSON."""

    files: dict[str, bytes | str]
    report: dict[str, Any]


def export(net: TrainedNet, to: str, output: Path, dataset: Dataset) -> dict[str, Any]:
    """Write the net in the format ``to`` and export.json; return the latter's content.

    Raises ExportError for an unknown format, a net that the format cannot represent, a
    missing library or a data set other than the net's, and StudyError if the folder
    cannot be written. Nothing is written in these cases.
    """
    check_writable(output, ["export.json"])  # before the test set is read
    exported = exported_net(net, to, dataset)
    text = json.dumps(exported.report, indent=2, ensure_ascii=False) + "\n"
    files = exported.files | {"export.json": text}
    write_together({output / name: data for name, data in files.items()})
    return exported.report


def exported_net(net: TrainedNet, to: str, dataset: Dataset) -> Exported:
    """Return the files and the report that ``export`` would write."""
    check_format(to)
    _check_dataset(net, dataset)
    chain = stages(net.architecture, net.weights)
    costs = cost(net.architecture)
    images = dataset.test_images.numpy()
    labels = dataset.test_labels.numpy()
    reference = _logits(_torch_net(net), images)
    right = reference.argmax(axis=1) == labels
    report: dict[str, Any] = {
        "format": to,
        "input": (
            f"{contract(net.architecture.input_shape)} {origin(net.value_range, 0)}"
        ).strip(),
        "num_params": costs.num_params,
        "macs": costs.macs,
        "peak_memory": costs.peak_memory,
        "dataset": dataset.name,
        "test_images": len(labels),
        "test_accuracy_float": float(right.mean()),
    }
    if to == "onnx":
        files, results = _to_onnx(net, chain, images, reference)
    else:
        calibration = calibration_images(net.architecture, dataset)
        table = quantise(chain, calibration, mean=net.mean, std=net.std)
        if to == "onnx-int8":
            files, results = _to_onnx_int8(table, images)
        else:
            files, results = _to_c(net, table, images, calibration)
        report |= {"calibration": f"{len(calibration)} training images"}
    report |= _compared(results.pop("classes") == labels, right) | results
    report["versions"] = versions("onnx", "onnxruntime")
    return Exported(files, report)


def check_format(to: str) -> None:
    """Raise ExportError if the format is unknown or its library is missing."""
    if to not in FORMATS:
        raise ExportError(f"unknown format {to!r}: give one of {', '.join(FORMATS)}")
    missing = [
        name
        for name in ("onnx", "onnxruntime")
        if to != "c" and importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ExportError(
            f"{missing[0]} is not installed, which --to {to} needs: "
            "pip install 'nas-under-cap[export]'"
        )


def calibration_images(
    architecture: Architecture, dataset: Dataset
) -> npt.NDArray[np.uint8]:
    """Return the training images for measuring the ranges of activations.

    They are fewer than a thousand if a thousand copies of the largest feature map would
    take more than about 200 MB.
    """
    largest = max(math.prod(layer.output_shape) for layer in layers(architecture))
    count = max(1, min(CALIBRATION_IMAGES, _MOST_VALUES // largest))
    order = np.random.default_rng(0).permutation(len(dataset.images))
    images: npt.NDArray[np.uint8] = dataset.images.numpy()[order[:count]]
    return images


def _check_dataset(net: TrainedNet, dataset: Dataset) -> None:
    shape, classes = net.architecture.input_shape, net.architecture.num_classes
    if (
        dataset.input_shape != shape
        or dataset.num_classes != classes
        or not np.allclose(dataset.mean, net.mean, atol=1e-6)
        or not np.allclose(dataset.std, net.std, atol=1e-6)
    ):
        raise ExportError(
            f"{net.folder} was not trained on {dataset.name}: its images or their mean "
            "are others; give the right one with --dataset"
        )


def _torch_net(net: TrainedNet) -> _LOGITS:
    """Return the trained torch model as a function of raw images."""
    model = build(net.architecture)
    state = {name: torch.from_numpy(value) for name, value in net.weights.items()}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ExportError(
            f"{net.folder}: the weights are not of this architecture: {error}"
        ) from error
    model.eval()
    mean = torch.tensor(net.mean).view(1, -1, 1, 1)
    std = torch.tensor(net.std).view(1, -1, 1, 1)

    @torch.no_grad()
    def logits(images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = model(
            (torch.from_numpy(images).float() / 255 - mean) / std
        ).numpy()
        return found

    return logits


def _session(model: bytes) -> _LOGITS:
    """Return an ONNX model in onnxruntime on the CPU as a function of raw images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def logits(images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = session.run(["logits"], {"image": images})[0]
        return found

    return logits


def _logits(net: _LOGITS, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return np.concatenate(
        [net(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    )


def _to_onnx(
    net: TrainedNet,
    chain: list[Stage],
    images: npt.NDArray[np.uint8],
    reference: npt.NDArray[Any],
) -> tuple[dict[str, bytes | str], dict[str, Any]]:
    model = onnx_float(
        chain, mean=net.mean, std=net.std, num_classes=net.architecture.num_classes
    )
    logits = _logits(_session(model), images)
    difference = float(abs(logits - reference).max())
    if not difference <= _TOLERANCE * max(1.0, float(abs(reference).max())):
        raise ExportError(
            f"the ONNX model's logits differ from torch's by {difference:g}, a bug in nas"
        )
    return {"model.onnx": model}, {
        "classes": logits.argmax(axis=1),
        "largest_logit_difference": difference,
        "bytes": len(model),
    }


def _to_onnx_int8(
    table: list[IntegerStage], images: npt.NDArray[np.uint8]
) -> tuple[dict[str, bytes | str], dict[str, Any]]:
    model = onnx_int8(table)
    classes = _logits(_session(model), images).argmax(axis=1)
    return {"model-int8.onnx": model}, {"classes": classes, "bytes": len(model)}


def _to_c(
    net: TrainedNet,
    table: list[IntegerStage],
    images: npt.NDArray[np.uint8],
    calibration: npt.NDArray[np.uint8],
) -> tuple[dict[str, bytes | str], dict[str, Any]]:
    costs = cost(net.architecture)
    files = c_files(
        table,
        class_names=net.class_names,
        summary=f"{describe(net.architecture)}: {costs.num_params:,} parameters, "
        f"{costs.macs:,} MACs an image. {origin(net.value_range, 0)}".strip(" ."),
    )
    weights = {c.weight.tobytes() for stage in table for c in stage.convolutions}
    results: dict[str, Any] = {
        "arena_bytes": arena_size(table),
        "weight_bytes": sum(map(len, weights)),
        "flash_predicted": costs.flash,
        "ram_predicted": costs.peak_memory + STACK,
    } | _on_target(files, calibration)
    classes = _by_compiler(files, images)
    if classes is None:
        results["classes"] = integer.classify(table, images)
        results["measured_by"] = "nas's numpy reference of the same arithmetic: no cc"
    else:
        some = slice(0, 1000)
        if (classes[some] != integer.classify(table, images[some])).any():
            raise ExportError("the C code differs from its reference, a bug in nas")
        results["classes"] = classes
        results["measured_by"] = "the C code, compiled by cc -O2"
    return dict(files), results


def _on_target(
    files: dict[str, str], calibration: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """Return flash and RAM on a Cortex-M4, as far as its tools are installed."""
    found: dict[str, Any] = {}
    if (taken := target.footprint(files)) is not None:
        found["flash_measured"] = taken.flash
        found["measured_for"] = "Cortex-M4, arm-none-eabi-gcc -O2"
        if (run := target.emulate(files, calibration[:2])) is not None:
            found["ram_measured"] = taken.ram + run.stack
            found["instructions_per_image"] = run.instructions
    return found


def _by_compiler(
    files: dict[str, str], images: npt.NDArray[np.uint8]
) -> npt.NDArray[Any] | None:
    """Return the C program's predictions; None without make and a compiler."""
    make = shutil.which("make")
    if make is None or shutil.which("cc") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        for command, given in (
            ([make, "-s", "-C", folder, "CC=cc", "CFLAGS=-O2"], b""),
            ([str(Path(folder) / "classify")], images.tobytes()),
        ):
            done = subprocess.run(  # noqa: S603  # our own Makefile, our own program
                command, input=given, capture_output=True, check=False
            )
            if done.returncode != 0:
                raise ExportError(
                    "the C code does not build or run here: "
                    + " ".join(done.stderr.decode(errors="replace").split())[-500:]
                )
    return np.array(done.stdout.split(), dtype=np.int64)


def _compared(
    right: npt.NDArray[np.bool_], float_right: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the accuracy and its difference from float, image by image."""
    difference = right.astype(float) - float_right.astype(float)
    return {
        "test_accuracy": float(right.mean()),
        "accuracy_change": float(difference.mean()),
        "accuracy_change_standard_error": float(
            difference.std() / math.sqrt(len(difference))
        ),
    }
