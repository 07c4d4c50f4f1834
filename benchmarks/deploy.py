"""What a winner is on a device: accuracy in each format, flash, RAM, time on the host.

Exports trained nets to ONNX, int8 ONNX and C, runs all three on the 10,000 test images of
MNIST, builds the C code for a Cortex-M4 and runs it in an emulator. Writes deploy.csv and
prints the table of docs/deploy.md. With --independent the float and the int8 ONNX model
also go through another project's C generator (pip install emx-onnx-cgen, version 1.4.0
here), and what its code gives is compared. ::

    python benchmarks/deploy.py
    python benchmarks/deploy.py best/ other/ --independent emx-onnx-cgen
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import numpy.typing as npt
import onnxruntime
from harness import table as markdown
from harness import write

from nas.architecture.boards import find_board
from nas.architecture.cost import STACK, cost
from nas.data import Dataset, load_dataset
from nas.export.c import c_files, target
from nas.export.chain import stages
from nas.export.deliver import calibration_images
from nas.export.onnx_float import onnx_float
from nas.export.onnx_int8 import onnx_int8
from nas.export.quantise import quantise
from nas.export.trained import read_trained

HERE = Path(__file__).parent
NETS = [HERE / "nets" / size for size in ("972", "2442", "4719", "9816")]
TIMED = 2000
_HEADINGS = (
    *("parameters", "MACs", "float", "int8 ONNX", "C", "change, points"),
    *("flash (predicted)", "RAM (predicted)", "instructions", "host"),
)


def main() -> None:
    """Measure each net and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", type=Path, default=NETS)
    parser.add_argument("--independent", help="The program of emx-onnx-cgen.")
    parser.add_argument("--output", type=Path, default=HERE / "deploy.csv")
    arguments = parser.parse_args()
    dataset = load_dataset("mnist")
    rows = [measure(net, dataset, arguments.independent) for net in arguments.nets]
    write(arguments.output, rows)
    print(table(rows))
    print(f"written to {arguments.output}; {platform.machine()}, cc -O2, one thread")


def measure(folder: Path, dataset: Dataset, independent: str | None) -> dict[str, Any]:
    """Return the row of one net."""
    net = read_trained(folder)
    chain = stages(net.architecture, net.weights)
    calibration = calibration_images(net.architecture, dataset)
    whole = quantise(chain, calibration, mean=net.mean, std=net.std)
    images, labels = dataset.test_images.numpy(), dataset.test_labels.numpy()
    models = {
        "float": onnx_float(
            chain, mean=net.mean, std=net.std, num_classes=dataset.num_classes
        ),
        "int8": onnx_int8(whole),
    }
    logits = {name: by_onnxruntime(model, images) for name, model in models.items()}
    files = c_files(whole, class_names=net.class_names, summary="")
    classes, microseconds = by_c(files, images)
    right = {name: found.argmax(axis=1) == labels for name, found in logits.items()}
    right["c"] = classes == labels
    change = right["c"].astype(float) - right["float"]
    costs = cost(net.architecture, find_board("nrf52840"))
    size = target.footprint(files)
    run = target.emulate(files, calibration[:20])
    if size is None or run is None:
        raise SystemExit("install gcc-arm-none-eabi and qemu-system-arm")
    row = {
        "num_params": costs.num_params,
        "macs": costs.macs,
        "float_accuracy": right["float"].mean(),
        "int8_onnx_accuracy": right["int8"].mean(),
        "c_accuracy": right["c"].mean(),
        "c_change": change.mean(),
        "c_change_standard_error": round(change.std() / len(change) ** 0.5, 6),
        "c_as_int8_onnx": (logits["int8"].argmax(axis=1) == classes).mean(),
        "flash": size.flash,
        "flash_predicted": costs.flash,
        "ram": size.ram + run.stack,
        "ram_predicted": costs.peak_memory + STACK,
        "instructions": run.instructions,
        "host_microseconds": round(microseconds, 1),
        "nrf52840_estimated_ms": round(costs.latency / 1e6, 2),
        "independent_float_difference": "",
        "independent_int8_same_class": "",
    }
    if independent:
        other = {
            name: by_other(independent, model, images[:1000], dataset.num_classes)
            for name, model in models.items()
        }
        difference = abs(other["float"] - logits["float"][:1000]).max()
        same = other["int8"].argmax(axis=1) == logits["int8"][:1000].argmax(axis=1)
        row["independent_float_difference"] = f"{difference:.1e}"
        row["independent_int8_same_class"] = same.mean()
    return row


def by_onnxruntime(
    model: bytes, images: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return the logits of all images."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [
            session.run(["logits"], {"image": images[i : i + 500]})[0]
            for i in range(0, len(images), 500)
        ]
    )


def by_c(
    files: dict[str, str], images: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.int64], float]:
    """Return the classes of all images, and microseconds an image: the best of three."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        subprocess.run(["make", "-s", "-C", folder], check=True)  # noqa: S603, S607
        program = Path(folder) / "classify"
        times = []
        for _ in range(3):
            began = time.perf_counter()
            run(program, images[:TIMED])
            times.append((time.perf_counter() - began) / TIMED * 1e6)
        return np.array(run(program, images).split(), dtype=np.int64), min(times)


def run(program: Path, images: npt.NDArray[np.uint8]) -> bytes:
    """Return what the program prints for the images."""
    done = subprocess.run(  # noqa: S603
        [program], input=images.tobytes(), capture_output=True, check=True
    )
    return done.stdout


def by_other(
    program: str, model: bytes, images: npt.NDArray[np.uint8], num_classes: int
) -> npt.NDArray[np.float32]:
    """Return the logits that another generator's C code gives, image by image."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "other.onnx").write_bytes(model)
        for command in (
            [
                program,
                "compile",
                "other.onnx",
                "other.c",
                "--input-dim",
                "batch=1",
                "--model-name",
                "other",
            ],
            ["cc", "-O2", "-shared", "-fPIC", "-o", "other.so", "other.c", "-lm"],
        ):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603
        function = ctypes.CDLL(str(folder / "other.so")).other
        logits = np.zeros((len(images), num_classes), dtype=np.float32)
        for image, row in zip(images, logits, strict=True):
            single = np.ascontiguousarray(image)
            function(
                ctypes.c_void_p(single.ctypes.data), ctypes.c_void_p(row.ctypes.data)
            )
        return logits


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as the Markdown table of docs/deploy.md."""
    lines = []
    for row in rows:
        change = f"{100 * row['c_change']:+.2f}"
        lines.append(
            (
                f"{row['num_params']:,}",
                f"{row['macs']:,}",
                *(
                    f"{100 * row[f'{n}_accuracy']:.2f} %"
                    for n in ("float", "int8_onnx", "c")
                ),
                f"{change} ± {100 * row['c_change_standard_error']:.2f}",
                f"{row['flash']:,} ({row['flash_predicted']:,})",
                f"{row['ram']:,} ({row['ram_predicted']:,})",
                f"{row['instructions'] / 1e6:.1f} M",
                f"{row['host_microseconds']:.0f} µs",
            )
        )
    return markdown(_HEADINGS, lines)


if __name__ == "__main__":
    main()
