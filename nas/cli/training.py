"""`nas best` and `nas train`: what trains to the end and reads the test set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from nas.cli.handler import Interrupted
from nas.cli.options import (
    ArchitectureName,
    DataDir,
    Device,
    Storage,
    Studies,
    StudyName,
    Workers,
    console,
    read,
    start_engine,
    tell,
)

if TYPE_CHECKING:
    from nas.architecture import Architecture
    from nas.data import Dataset
    from nas.search.best import Winner
    from nas.search.kept_trainings import KeptTrainings
    from nas.search.train_one import Trained


def best(  # one parameter an option
    study: StudyName = None,
    *,
    max_params: Annotated[
        int | None,
        Option(min=1, help="Most parameters of the winner [default: the study's cap]."),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1.0,
            help="Take the smallest net that reaches this validation accuracy (0 to 1) "
            "instead of the most accurate one.",
        ),
    ] = None,
    finalists: Annotated[
        int, Option(min=1, help="Contenders that are fully trained before the choice.")
    ] = 4,
    epochs: Annotated[
        int | None,
        Option(min=1, max=100_000, help="Epochs [default: 15, more for small data]."),
    ] = None,
    seeds: Annotated[
        int, Option(min=1, help="How often the winner is trained, each time anew.")
    ] = 1,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="Folder for the winner [default: best/ in the study's folder].",
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        Option(help="Also export it: onnx, onnx-int8 or c; may be given repeatedly."),
    ] = None,
    dataset: Annotated[
        str | None,
        Option(help="Where the study's data set lies by now [default: as it began]."),
    ] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Retrain the winner, read the test set once, write it out ready for use."""
    from nas.cli.display import RetrainDisplay
    from nas.cli.exporting import write_export
    from nas.data import load_dataset
    from nas.engines.local import devices_for
    from nas.environment import hardware
    from nas.files import check_writable
    from nas.search.best import SelectionCriteria, retrain
    from nas.study.folders import check_data

    if export:
        from nas.export.deliver import check_format

        for name in export:  # before hours of training
            check_format(name)
    devices, count = devices_for(device, workers)
    opened = read(study, studies, storage)
    settings = opened.settings
    data = load_dataset(
        dataset or settings.dataset, data_dir, image_size=settings.input_shape[1:]
    )
    tell(data)
    check_data(settings, data.fingerprint)
    criteria = SelectionCriteria(
        max_params=max_params or settings.param_budget,
        min_accuracy=min_accuracy,
        finalists=finalists,
        epochs=epochs or settings.full_epochs,
        seeds=seeds,
    )
    folder = output or opened.folder / "best"
    kept = _prepare(folder, data, settings.seed, settings.val_size, devices)
    for name in export or []:
        check_writable(folder / name)
    with _word_on_how_to_go_on(kept):
        engine = start_engine(data, opened, devices, count)
        try:
            winner = retrain(
                opened.candidates(),
                settings,
                engine,
                criteria,
                hardware=hardware(devices),
                show=RetrainDisplay(console()).show,
                kept=kept,
                data_name=data.name,
            )
        finally:
            engine.close()
    summary = _winner_in_words(winner.report)
    _write(folder, winner.candidate.architecture, data, winner, summary)
    kept.discard()
    _say_classes(winner.report, data)
    typer.echo(summary)
    typer.echo(f"written to {folder}: weights.safetensors, model.py, report.json")
    for name in export or []:
        write_export(folder, name, None, data)


def train(  # one parameter an option
    architecture: ArchitectureName,
    *,
    epochs: Annotated[
        int | None,
        Option(
            min=1,
            max=100_000,
            help="Epochs [default: the recipe's, or 15, more for small data].",
        ),
    ] = None,
    seeds: Annotated[
        int, Option(min=1, help="How often it is trained, each time anew.")
    ] = 1,
    recipe: Annotated[
        Path | None,
        Option(help="TOML file with the recipe [default: that of nas best]."),
    ] = None,
    like_published: Annotated[
        bool,
        Option(
            "--like-published",
            help="Train by the recipe of the reference's source and tell, beside the "
            "honest number, the best epoch on the test set, as its log does.",
        ),
    ] = False,
    dataset: Annotated[
        str | None,
        Option(help="Data set as for nas search [default: the source's, or mnist]."),
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
    """Train one architecture to the end and read the test set once."""
    if like_published and recipe is not None:
        raise typer.BadParameter(
            "--like-published takes the recipe of the source", param_hint="--recipe"
        )
    from nas.cli.display import SingleDisplay
    from nas.data import load_dataset
    from nas.engines.local import LocalEngine, devices_for
    from nas.environment import hardware
    from nas.references.bundled import check_fits
    from nas.search.resolve import resolve
    from nas.search.train_one import Plan, choose_recipe, train_single
    from nas.study.folders import check_data

    found = resolve(architecture, studies, storage)
    reference, settings = found.reference, found.settings
    devices, count = devices_for(device, workers)
    data = load_dataset(
        dataset or found.dataset,
        data_dir,
        image_size=reference.architecture.input_shape[1:],
    )
    tell(data)
    if settings is not None and dataset is None:
        check_data(settings, data.fingerprint)
    check_fits(reference, data.input_shape, data.num_classes, data.name)
    plan = Plan(
        dataset=data.name,
        recipe=choose_recipe(
            reference,
            len(data.labels),
            file=recipe,
            epochs=epochs,
            like_published=like_published,
        ),
        seeds=seeds,
        seed=settings.seed if settings else 0,
        like_published=like_published,
    )
    kept = None
    if output is not None:
        kept = _prepare(output, data, plan.seed, data.val_size, devices)
    with _word_on_how_to_go_on(kept):
        engine = LocalEngine(
            data,
            devices=devices,
            workers=min(count, seeds),
            split_seed=plan.seed,
            val_size=data.val_size,
        )
        try:
            trained = train_single(
                reference,
                engine,
                plan,
                hardware=hardware(devices),
                show=SingleDisplay(console()).show,
                kept=kept,
            )
        finally:
            engine.close()
    summary = _single_in_words(trained.report)
    if output is not None:
        _write(output, reference.architecture, data, trained, summary)
    if kept is not None:
        kept.discard()
    _say_classes(trained.report, data)
    typer.echo(summary)
    if like_published:
        typer.echo(_best_epoch_in_words(trained.report))
    if output is not None:
        typer.echo(f"written to {output}: weights.safetensors, model.py, report.json")


def _prepare(
    folder: Path, data: Dataset, split_seed: int, val_size: int, devices: list[str]
) -> KeptTrainings:
    """Refuse a folder that cannot be written; return what an earlier run has trained."""
    from nas.environment import hardware, versions
    from nas.export.source import WRITTEN
    from nas.files import check_writable
    from nas.search.kept_trainings import KeptTrainings

    check_writable(folder, WRITTEN)
    here = hardware(devices)
    kept = KeptTrainings(
        folder / "unfinished",
        {
            "data": data.fingerprint,
            "split_seed": split_seed,
            "val_size": val_size,
            "processor": here["processor"],
            "devices": here["devices"],
            "versions": versions(),
        },
    )
    check_writable(kept.folder)
    if kept:
        typer.echo(
            f"{len(kept)} trained before in {kept.folder}: what this command needs of "
            "them is not trained again"
        )
    return kept


@contextlib.contextmanager
def _word_on_how_to_go_on(kept: KeptTrainings | None) -> Iterator[None]:
    """Tell who stops a training what of it is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if kept is None:
            raise
        raise Interrupted(
            f"stopped; {len(kept)} finished trainings are kept in {kept.folder}: go on "
            "with the same command"
        ) from None


def _write(
    folder: Path,
    architecture: Architecture,
    dataset: Dataset,
    result: Winner | Trained,
    summary: str,
) -> None:
    import torch

    from nas.export import write_best

    write_best(
        folder,
        architecture,
        {name: torch.from_numpy(array) for name, array in result.weights.items()},
        result.report,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        value_range=dataset.value_range,
        signal_length=dataset.signal_length,
        notes=[f"Data set {Path(result.report['dataset']).name}, {summary}."],
    )


def _say_classes(report: dict[str, Any], dataset: Dataset) -> None:
    """Print what the accuracy is worth, class by class, where that was counted."""
    from nas.cli.display import confusion_table, percent
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
            f"warning: this net is no better than always answering {largest!r}: give the "
            "other classes more images"
        )


def _winner_in_words(report: dict[str, Any]) -> str:
    return f"trial {report['trial']}, {_tested_in_words(report)}"


def _single_in_words(report: dict[str, Any]) -> str:
    return f"{report['architecture']}, {_tested_in_words(report)}"


def _tested_in_words(report: dict[str, Any]) -> str:
    from nas.cli.display import percent

    text = (
        f"{report['num_params']:,} parameters: test accuracy "
        f"{percent(report['test_accuracy_mean'])} after the last of {report['epochs']} "
        "epochs"
    )
    return text + _spread_in_words(report, "test_accuracy")


def _best_epoch_in_words(report: dict[str, Any]) -> str:
    """Return what stands beside the honest number, with what it is."""
    from nas.cli.display import percent

    text = (
        "best epoch, selected on the test set: "
        f"{percent(report['test_accuracy_best_epoch_mean'])}"
    )
    text += _spread_in_words(report, "test_accuracy_best_epoch")
    said = report["published"]
    accuracies = [
        f"{percent(said[key])} {words}"
        for key, words in (("accuracy", "best epoch"), ("last_accuracy", "last epoch"))
        if said[key] is not None
    ]
    return (
        f"{text}; published: {', '.join(accuracies)}, of {said['epochs']} epochs with "
        f"{said['num_params']:,} parameters"
    )


def _spread_in_words(report: dict[str, Any], name: str) -> str:
    from nas.cli.display import percent

    if report["seeds"] == 1:
        return ""
    values = ", ".join(percent(value) for value in report[name])
    spread = percent(report[f"{name}_std"])
    return f" (mean of {report['seeds']} seeds, standard deviation {spread}: {values})"
