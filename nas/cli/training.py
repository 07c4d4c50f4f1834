"""`nas best`: what trains to the end and reads the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from nas.cli.options import (
    DataDir,
    Device,
    Storage,
    Studies,
    StudyName,
    Workers,
    console,
    read,
    start_engine,
)


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
        int, Option(min=1, help="Members of the front that are trained longer.")
    ] = 3,
    epochs: Annotated[
        int | None,
        Option(min=1, max=100_000, help="Epochs [default: 15, more for small data]."),
    ] = None,
    seeds: Annotated[
        int, Option(min=1, help="How often the winner is trained, each time anew.")
    ] = 1,
    output: Annotated[
        Path | None,
        Option(help="Folder for the winner [default: best/ in the study's folder]."),
    ] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Retrain the winner, read the test set once, write it out ready for use."""
    import torch

    from nas.data import load_dataset
    from nas.display import RetrainDisplay
    from nas.engines.local import devices_for
    from nas.environment import hardware
    from nas.export import write_best
    from nas.recipe import full_epochs
    from nas.retrain import Wish, retrain
    from nas.study import check_data

    devices, count = devices_for(device, workers)
    opened = read(study, studies, storage)
    settings = opened.settings
    dataset = load_dataset(settings.dataset, data_dir)
    check_data(settings, dataset.fingerprint)
    wish = Wish(
        max_params=max_params or settings.param_budget,
        min_accuracy=min_accuracy,
        finalists=finalists,
        epochs=epochs or full_epochs(settings.recipe),
        seeds=seeds,
    )
    engine = start_engine(dataset, opened, devices, count)
    try:
        winner = retrain(
            opened.candidates(),
            settings,
            engine,
            wish,
            hardware=hardware(devices),
            show=RetrainDisplay(console()).show,
        )
    finally:
        engine.close()
    folder = output or opened.folder / "best"
    summary = _winner_in_words(winner.report)
    write_best(
        folder,
        winner.candidate.architecture,
        {name: torch.from_numpy(array) for name, array in winner.weights.items()},
        winner.report,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        notes=[f"Data set {settings.dataset}, {summary}."],
    )
    typer.echo(summary)
    typer.echo(f"written to {folder}: weights.safetensors, model.py, report.json")


def _winner_in_words(report: dict[str, Any]) -> str:
    from nas.display import percent

    text = (
        f"trial {report['trial']}, {report['num_params']:,} parameters: test accuracy "
        f"{percent(report['test_accuracy_mean'])} after the last of {report['epochs']} "
        "epochs"
    )
    if report["seeds"] > 1:
        tests = ", ".join(percent(value) for value in report["test_accuracy"])
        spread = percent(report["test_accuracy_std"])
        text += (
            f" (mean of {report['seeds']} seeds, standard deviation {spread}: {tests})"
        )
    return text
