"""`nas best` and `nas train`: train fully and measure on the test set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from nas.cli.exporting import write_export
from nas.cli.handler import Interrupted
from nas.cli.options import (
    ArchitectureName,
    Augment,
    DataDir,
    Device,
    Recipe,
    Storage,
    Studies,
    StudyName,
    Workers,
    console,
    read,
)

if TYPE_CHECKING:
    from nas.data import Dataset


def best(  # one parameter per option
    study: StudyName = None,
    *,
    max_params: Annotated[
        int | None,
        Option(
            min=1, help="Cap on the winner's parameters [default: the study's cap]."
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1.0,
            help="Take the smallest network with this validation accuracy (0 to 1) "
            "instead of the most accurate one.",
        ),
    ] = None,
    metric: Annotated[
        Literal["accuracy", "balanced-accuracy"] | None,
        Option(help="Selection metric [default: the study's]."),
    ] = None,
    finalists: Annotated[
        int,
        Option(
            min=1,
            help="Number of contenders that are fully trained before the choice; six "
            "times as many are screened.",
        ),
    ] = 4,
    epochs: Annotated[
        int | None,
        Option(min=1, max=100_000, help="Epochs [default: as in the study]."),
    ] = None,
    recipe: Recipe = None,
    augment: Augment = None,
    seeds: Annotated[
        int,
        Option(
            min=1, help="How many times the winner is trained, each with another seed."
        ),
    ] = 1,
    front: Annotated[
        bool,
        Option(
            "--front",
            help="Train a winner for each of several caps: the study's cap, half of "
            "it, a quarter, and so on.",
        ),
    ] = False,
    sizes: Annotated[
        str | None,
        Option(metavar="CAPS", help="Like --front, for these caps: 10000,5000,2500."),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="Folder for the winner; with --front or --sizes also FOLDER-CAP for "
            "the smaller caps [default: best/ in the study's folder].",
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        Option(metavar="onnx|onnx-int8|c", help="Also export it; may be repeated."),
    ] = None,
    dataset: Annotated[
        str | None,
        Option(
            metavar="PATH",
            help="New path of the study's data set, if it moved [default: as in the "
            "study].",
        ),
    ] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Train the winner, test it and save it.

    The most promising candidates are trained fully, and the best of them by validation
    once more on all training images. The test set is read once for each seed.
    """
    from nas.api.progress import LineDisplay, ends_retraining, retraining_line
    from nas.api.trained import Trained
    from nas.api.training import discard_kept, run_best
    from nas.api.workers import WorkersWanted
    from nas.cli.display import winners_table
    from nas.export.source import WRITTEN
    from nas.files import check_writable, write_atomically
    from nas.search.ladder import caps, check_alone, csv_of, sizes_from, winner_folders
    from nas.search.recipes import RecipeChange
    from nas.study.folders import winner_folder

    if export:
        from nas.export.deliver import check_format

        for name in export:  # check before hours of training
            check_format(name)
    opened = read(study, studies, storage)
    folder = output or winner_folder(opened.folder)
    several = front or sizes is not None
    limits = [max_params or opened.settings.param_budget]
    table = Path(f"{folder}.csv")
    if several:
        check_alone(max_params, min_accuracy)
        asked = sizes_from(sizes) if sizes is not None else None
        limits = caps(opened.candidates(), opened.settings, asked)
        check_writable(table.parent, [table.name])
    folders = winner_folders(folder, limits)
    try:
        winners, data = run_best(
            opened.settings,
            opened.candidates(),
            None,
            WorkersWanted(device=device, workers=workers),
            LineDisplay(console(), retraining_line, ends_retraining),
            data_dir=data_dir,
            data_name=dataset,
            folders=folders,
            exports=export or (),
            say=typer.echo,
            limits=limits,
            min_accuracy=min_accuracy,
            finalists=finalists,
            metric=metric,
            recipe=RecipeChange(file=recipe, augment=augment),
            epochs=epochs,
            seeds=seeds,
        )
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop)) from None
    trained = [
        Trained(found.contender.architecture, found.weights, found.report, data)
        for found in winners
    ]
    for place, winner in zip(folders, trained, strict=True):
        winner.save(place)
    if several:
        write_atomically(table, csv_of(limits, winners).encode())
    discard_kept(folder)
    for place, winner in zip(folders, trained, strict=True):
        _say_classes(winner.report, data)
        typer.echo(winner.summary)
        typer.echo(f"written to {place}: {', '.join(WRITTEN)}")
        for name in export or []:
            write_export(place, name, None, data)
    if several:
        console().print(winners_table(limits, [winner.report for winner in trained]))
        typer.echo(f"the table is in {table}")


def train(  # one parameter per option
    architecture: ArchitectureName,
    *,
    epochs: Annotated[
        int | None,
        Option(
            min=1,
            max=100_000,
            help="Epochs [default: the recipe's or the study's; else 15, more for "
            "small data].",
        ),
    ] = None,
    seeds: Annotated[
        int, Option(min=1, help="How many times it is trained, each with another seed.")
    ] = 1,
    recipe: Recipe = None,
    augment: Augment = None,
    like_published: Annotated[
        bool,
        Option(
            "--like-published",
            help="Use the recipe that the reference was published with; also report "
            "the best epoch on the test set.",
        ),
    ] = False,
    dataset: Annotated[
        str | None,
        Option(
            metavar="NAME|PATH",
            help="Data set, as for nas search [default: the architecture's, or mnist].",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="Folder for weights, model.py and report.json [default: none].",
        ),
    ] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Train one architecture and measure its test accuracy."""
    from nas.api.progress import LineDisplay, ends_training, training_line
    from nas.api.trained import Trained, best_epoch_in_words
    from nas.api.training import discard_kept, run_train
    from nas.api.workers import WorkersWanted
    from nas.export.source import WRITTEN
    from nas.search.recipes import RecipeChange
    from nas.search.resolve import resolve

    found = resolve(architecture, studies, storage)
    try:
        ended, data = run_train(
            found,
            dataset,
            WorkersWanted(device=device, workers=workers),
            LineDisplay(console(), training_line, ends_training),
            data_dir=data_dir,
            folder=output,
            say=typer.echo,
            recipe=RecipeChange(file=recipe, augment=augment),
            epochs=epochs,
            seeds=seeds,
            like_published=like_published,
        )
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop)) from None
    trained = Trained(found.reference.architecture, ended.weights, ended.report, data)
    if output is not None:
        trained.save(output)
        discard_kept(output)
    _say_classes(trained.report, data)
    typer.echo(trained.summary)
    if like_published:
        typer.echo(best_epoch_in_words(trained.report))
    if output is not None:
        typer.echo(f"written to {output}: {', '.join(WRITTEN)}")


def _say_classes(report: dict[str, Any], dataset: Dataset) -> None:
    """Print the accuracy of each class, if the report has it."""
    from nas.api.progress import percent
    from nas.cli.display import confusion_table
    from nas.search.balance import no_better_than_majority

    if "test_confusion" not in report:
        return
    console().print(confusion_table(report, dataset.class_names))
    share = report["majority_share"]
    largest = dataset.class_names[report["majority_class"]]
    typer.echo(
        f"balanced accuracy {percent(report['test_balanced_accuracy'])}; always "
        f"answering {largest!r} would be right for {percent(share)}"
    )
    images = len(dataset.test_labels)
    if no_better_than_majority(report["test_accuracy_mean"], share, images):
        typer.echo(
            f"warning: this net is no better than always answering {largest!r}: train it "
            "longer, try a lower max_lr in a --recipe, or give the other classes more images"
        )
