"""`nas search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from nas.cli.handler import Interrupted
from nas.cli.options import (
    Augment,
    DataDir,
    Device,
    ImageSize,
    MaxFlash,
    MaxLatency,
    MaxMacs,
    MaxMemory,
    Recipe,
    Storage,
    Studies,
    Workers,
    console,
    read_image_size,
)

if TYPE_CHECKING:
    from nas.data import Dataset
    from nas.search.progress import Outcome
    from nas.study.study import Study


def search(  # one parameter per option
    *,
    budget: Annotated[
        int | None,
        Option(
            min=1,
            help="Hard cap: trainable parameters of a network [required for a new "
            "study].",
        ),
    ] = None,
    trials: Annotated[
        int,
        Option(min=1, help="Total number of candidates of the study."),
    ] = 200,
    dataset: Annotated[
        str | None,
        Option(
            metavar="NAME|PATH",
            help="mnist, fashion-mnist, kmnist, cifar10, svhn, digits, or the path of "
            "an .npz file, a folder of images or a .csv that lists them "
            "[default: mnist].",
        ),
    ] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    space: Annotated[
        str | None,
        Option(
            metavar="NAME|FILE",
            help="Search space: a name or a .toml file [default: mixed].",
        ),
    ] = None,
    recipe: Recipe = None,
    augment: Augment = None,
    max_macs: MaxMacs = None,
    max_memory: MaxMemory = None,
    max_flash: MaxFlash = None,
    max_latency: MaxLatency = None,
    epochs: Annotated[
        int | None,
        Option(
            min=1,
            max=10_000,
            help="Epochs of a full training; candidates are screened with a fifteenth "
            "of them [default: 15, more for small data].",
        ),
    ] = None,
    start_from: Annotated[
        list[str] | None,
        Option(
            metavar="NAME|FILE|STUDY:TRIAL",
            help="Architecture to start from, as for nas train; may be repeated.",
        ),
    ] = None,
    sampler: Annotated[
        Literal["evolution", "random"] | None,
        Option(help="How candidates are proposed [default: evolution]."),
    ] = None,
    metric: Annotated[
        Literal["accuracy", "balanced-accuracy"] | None,
        Option(
            help="What networks are ranked by; balanced accuracy is the mean over "
            "the classes [default: accuracy]."
        ),
    ] = None,
    pruning: Annotated[
        bool | None,
        Option(
            "--pruning/--no-pruning",
            help="Stop unpromising trainings early [default: pruning].",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        Option(
            min=0,
            help="Seed of the validation split, the proposals and the trainings "
            "[default: 0].",
        ),
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    engine: Annotated[
        Literal["local", "ray"],
        Option(
            help="Where the workers run: on this machine, or on a Ray cluster (by "
            "default as many as fit)."
        ),
    ] = "local",
    address: Annotated[
        str | None,
        Option(
            metavar="HOST:PORT",
            help="Address of the Ray cluster [default: start Ray on this machine].",
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        Option(
            min=0.0,
            help="GPUs per worker on Ray [default: 0.25 if the cluster has GPUs].",
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        Option(
            metavar="TIME",
            help="Stop cleanly after this time: 90s, 30m, 2h, 1h30m.",
        ),
    ] = None,
    trial_time_limit: Annotated[
        str | None,
        Option(
            metavar="TIME",
            help="Replace a worker that takes longer for one training [default: ten "
            "times the longest so far, at least 10m; 1h for the first].",
        ),
    ] = None,
    target_accuracy: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1.0,
            help="Stop when a fully trained network reaches this validation accuracy "
            "(0 to 1).",
        ),
    ] = None,
    study: Annotated[
        str | None,
        Option(
            help="Name of the study [default: data set and cap, such as mnist-10000]."
        ),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Search for networks, or resume a search.

    The same command resumes it: the search goes on until the study has --trials candidates.
    """
    from nas.api.progress import SearchDisplay
    from nas.api.searching import run_search
    from nas.api.workers import WorkersWanted
    from nas.search.recipes import RecipeChange
    from nas.search.start import Request

    request = Request(
        studies=studies,
        study=study,
        dataset=dataset,
        data_dir=data_dir,
        image_size=read_image_size(image_size),
        param_budget=budget,
        max_macs=max_macs,
        max_memory=max_memory,
        max_flash=max_flash,
        max_latency=max_latency,
        space=space,
        recipe=RecipeChange(file=recipe, augment=augment),
        epochs=epochs,
        sampler=sampler,
        seed=seed,
        pruning=pruning,
        metric=metric,
        storage=storage,
        start_from=tuple(start_from or ()),
    )
    wanted = WorkersWanted(
        device=device,
        workers=workers,
        engine=engine,
        address=address,
        gpus_per_worker=gpus_per_worker,
    )
    try:
        searched, outcome, data = run_search(
            request,
            wanted,
            SearchDisplay(console()),
            trials=trials,
            time_limit=time_limit,
            trial_time_limit=trial_time_limit,
            target_accuracy=target_accuracy,
            say=typer.echo,
        )
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop)) from None
    _say_outcome(searched, outcome, data)


def _exhausted(study: Study) -> str:
    """Return why no candidate is left to train, and the remedy."""
    remedy = "larger caps or another --space, in a new study, have more"
    if study.space_size is not None:
        count = study.space_size
        nets = "the only net" if count == 1 else f"all {count} nets"
        return f"the study has {nets} of its space under its caps: {remedy}"
    return (
        "the space holds too many nets to be counted, and no draw of many in a row was one "
        f"that the study does not have: {remedy}"
    )


def _say_outcome(study: Study, outcome: Outcome, data: Dataset) -> None:
    from nas.api.progress import duration, percent
    from nas.candidates.candidate import front as front_of
    from nas.cli.display import front_table

    settings = study.settings
    members = front_of(study.candidates())
    if members:
        title = f"{settings.name}: {settings.accuracy_name}"
        console().print(front_table(members, title))
    finished = sum(c.state in {"complete", "pruned"} for c in study.candidates())
    spent = duration(outcome.timing.total)
    typer.echo(
        f"{finished} {'trial' if finished == 1 else 'trials'} finished; this run took {spent}"
    )
    if outcome.reason == "time limit":
        typer.echo("the time is up; resume with the same command")
    elif outcome.reason == "target accuracy":
        found = members[-1]
        typer.echo(
            f"the target is reached: trial {found.trial} with {found.num_params:,} "
            f"parameters has {percent(found.val_accuracy)} {settings.accuracy_name}"
        )
    elif outcome.reason == "exhausted":
        typer.echo(_exhausted(study))
    complete = (c for c in study.candidates() if c.state == "complete")
    best = max((c.val_accuracy or 0.0 for c in members or complete), default=None)
    if best is not None:
        _warn_of_majority(study, best, data)
    if members:
        typer.echo(f"next: `nas best {settings.name}` retrains the winner")


def _warn_of_majority(study: Study, best: float, data: Dataset) -> None:
    """Warn if no net is better than always predicting the largest class."""
    from nas.api.progress import percent
    from nas.search.balance import no_better_than_majority

    settings = study.settings
    _, held_out = data.split(settings.seed, settings.val_size)
    counts = data.labels[held_out].bincount(minlength=data.num_classes)
    share = int(counts.max()) / len(held_out)
    remedy = "give the other classes more images, or search longer"
    if settings.metric == "balanced-accuracy":
        share = 1 / int((counts > 0).sum())  # 1 for that class, 0 for the rest
    else:
        remedy += (
            ', or try --metric balanced-accuracy with class_weights = "balanced" in a '
            "--recipe"
        )
    if no_better_than_majority(best, share, settings.noise_size):
        typer.echo(
            f"warning: no net is better than always answering "
            f"{data.class_names[int(counts.argmax())]!r}, whose {settings.accuracy_name} "
            f"is {percent(share)}: {remedy}"
        )
