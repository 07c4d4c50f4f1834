"""`nas export`: writes the winner in formats for devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from nas.cli.options import DataDir, Studies

if TYPE_CHECKING:
    from nas.data import Dataset


def export(
    trained: Annotated[
        str,
        Argument(
            metavar="STUDY|FOLDER",
            help="A study with a winner, or a folder written by nas best or nas train.",
        ),
    ],
    *,
    to: Annotated[
        Literal["onnx", "onnx-int8", "c"],
        Option(
            help="Format: ONNX in float or int8, or C99 in int8 for a microcontroller."
        ),
    ],
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="Folder for the files [default: the format's name in the winner's "
            "folder].",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        Option(
            metavar="NAME|PATH",
            help="Data set that it was trained on [default: from its report].",
        ),
    ] = None,
    data_dir: DataDir = None,
    studies: Studies = Path("studies"),
) -> None:
    """Export a trained network to ONNX or C.

    Its test accuracy is measured again: the test set is read once. int8 is calibrated on
    training images.
    """
    from nas.data import load_dataset
    from nas.errors import ExportError
    from nas.export.deliver import check_format
    from nas.export.trained import find_trained

    check_format(to)
    net = find_trained(trained, studies)
    name = dataset or net.dataset
    if name is None:
        raise ExportError(
            f"{net.folder / 'report.json'} does not say which data set: give --dataset"
        )
    data = load_dataset(name, data_dir, image_size=net.architecture.input_shape[1:])
    write_export(net.folder, to, output, data)


def write_export(folder: Path, to: str, output: Path | None, dataset: Dataset) -> None:
    """Export the net in the folder and print the result and its location."""
    from nas.export.deliver import export as deliver
    from nas.export.trained import read_trained
    from nas.study.folders import export_folder

    target = output or export_folder(folder, to)
    report = deliver(read_trained(folder), to, target, dataset)
    typer.echo(_in_words(report))
    typer.echo(f"written to {target}")


def _in_words(report: dict[str, Any]) -> str:
    from nas.api.progress import percent

    text = (
        f"{report['format']}: test accuracy {percent(report['test_accuracy'])} on "
        f"{report['test_images']:,} images, float {percent(report['test_accuracy_float'])}"
        f" (change {100 * report['accuracy_change']:+.2f} points, standard error "
        f"{100 * report['accuracy_change_standard_error']:.2f})"
    )
    if "arena_bytes" in report:
        flash = report.get("flash_measured", report["flash_predicted"])
        ram = report.get("ram_measured", report["ram_predicted"])
        kind = "measured" if "ram_measured" in report else "predicted"
        text += f", {flash:,} bytes of flash and {ram:,} of RAM on a Cortex-M ({kind})"
    return text
