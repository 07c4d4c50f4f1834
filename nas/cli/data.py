"""`nas data`: lists the known data sets, or shows how nas reads one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from nas.cli.options import DataDir, ImageSize, console, read_image_size

if TYPE_CHECKING:
    from nas.data import Dataset


def data(
    dataset: Annotated[
        str | None,
        Argument(help="A data set, as for nas search [default: list the known ones]."),
    ] = None,
    *,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    sheet: Annotated[
        Path | None,
        Option(
            metavar="FILE.png",
            help="Draw a row of images of each class into this file.",
        ),
    ] = None,
) -> None:
    """List the known data sets, or show how nas reads one."""
    size = read_image_size(image_size)
    if dataset is None:
        if sheet is not None:
            raise typer.BadParameter("give a data set to draw", param_hint="--sheet")
        console().print(_known())
        return
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise typer.BadParameter(
            f"{sheet} is no .png file: the images are drawn as PNG",
            param_hint="--sheet",
        )
    from nas.api.words import say_notes
    from nas.data import load_dataset
    from nas.data.summary import contact_sheet
    from nas.files import write_atomically

    found = load_dataset(dataset, data_dir, image_size=size)
    if size not in {None, found.input_shape[1:]}:
        raise typer.BadParameter(
            "only images in files are resized", param_hint="--image-size"
        )
    console().print(_classes(found))
    for line in _facts(found):
        typer.echo(line)
    say_notes(found, typer.echo)
    if sheet is not None:
        write_atomically(sheet, contact_sheet(found))
        typer.echo(f"written to {sheet}")


def _known() -> Any:
    from rich.table import Table

    from nas.data import DATASETS
    from nas.data.summary import SIZES, whereabouts

    table = Table()
    for heading in ("name", "images (training + test)", "where"):
        table.add_column(heading, overflow="fold")
    for name in DATASETS:
        table.add_row(name, SIZES[name], whereabouts(name))
    return table


def _classes(dataset: Dataset) -> Any:
    from rich.table import Table
    from rich.text import Text

    from nas.data.summary import class_counts

    table = Table()
    table.add_column("class", overflow="fold")
    for heading in ("training", "validation", "test"):
        table.add_column(heading, justify="right")
    rows = class_counts(dataset)
    for name, counts in zip(dataset.class_names, rows, strict=True):
        table.add_row(Text(name), *(f"{count:,}" for count in counts))
    table.add_section()
    sums = map(sum, zip(*rows, strict=True))
    table.add_row("all", *(f"{count:,}" for count in sums))
    return table


def _facts(dataset: Dataset) -> list[str]:
    channels, height, width = dataset.input_shape
    low, high = dataset.value_range
    kind = {1: "1 channel", 3: "3 channels"}.get(channels, f"{channels} channels")
    means = ", ".join(f"{value:.3f}" for value in dataset.mean)
    spreads = ", ".join(f"{value:.3f}" for value in dataset.std)
    own = "comes with the data" if dataset.num_val else "is drawn from the training set"
    values = (
        f"values as bytes: {int(dataset.images.min())} to {int(dataset.images.max())}, "
        f"where 0 is {low:g} and 255 is {high:g} in your data; divided by 255, their mean "
        f"is {means}, their standard deviation {spreads}"
    )
    return [
        f"images of {height}x{width} (height x width), {kind}",
        values,
        f"the validation split {own}",
    ]
