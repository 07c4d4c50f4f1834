"""`nas search`."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from nas.cli.handler import Interrupted
from nas.cli.options import (
    DataDir,
    Device,
    ImageSize,
    MaxFlash,
    MaxLatency,
    MaxMacs,
    MaxMemory,
    Storage,
    Studies,
    Workers,
    console,
    read_image_size,
    start_engine,
    tell,
)
from nas.errors import NasError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nas.data import Dataset
    from nas.engines import Engine
    from nas.search.loop import Outcome, Progress
    from nas.study.study import Study

    # Starts the workers; returns them, their devices and how many there are.
    _Start = Callable[[Dataset, Study], tuple[Engine, list[str], int]]

# The time between two writings of front.html, which take some 30 ms each; in studies of
# many thousand trials over a second, and then no more than this share of the time.
_SECONDS_BETWEEN_FRONTS = 20.0
_SHARE_OF_FRONTS = 0.02


def search(  # one parameter an option
    *,
    budget: Annotated[
        int | None, Option(min=1, help="Hard cap: most trainable parameters of a net.")
    ] = None,
    trials: Annotated[
        int,
        Option(min=1, help="Candidates that the study is to have in all."),
    ] = 200,
    dataset: Annotated[
        str | None,
        Option(
            help="mnist, fashion-mnist, kmnist, cifar10, svhn, digits, or the path of "
            "an .npz file, a folder of images or a .csv that lists them [default: mnist]."
        ),
    ] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    space: Annotated[
        str | None,
        Option(help="Search space: a name or a .toml file [default: mixed]."),
    ] = None,
    max_macs: MaxMacs = None,
    max_memory: MaxMemory = None,
    max_flash: MaxFlash = None,
    max_latency: MaxLatency = None,
    epochs: Annotated[
        int | None,
        Option(
            min=1,
            max=10_000,
            help="Epochs of a full training; candidates begin with a fifteenth of them "
            "[default: 15, more for small data].",
        ),
    ] = None,
    start_from: Annotated[
        list[str] | None,
        Option(
            metavar="NAME|FILE|STUDY:TRIAL",
            help="Architecture of a first trial, as for nas train; may be repeated.",
        ),
    ] = None,
    sampler: Annotated[
        Literal["evolution", "random"] | None,
        Option(help="How candidates are drawn [default: evolution]."),
    ] = None,
    pruning: Annotated[
        bool | None,
        Option("--pruning/--no-pruning", help="Stop hopeless trainings early or not."),
    ] = None,
    seed: Annotated[
        int | None,
        Option(min=0, help="Decides split, draws and trainings [default: 0]."),
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    engine: Annotated[
        Literal["local", "ray"],
        Option(help="Where the workers are: on this machine, or on a Ray cluster."),
    ] = "local",
    address: Annotated[
        str | None,
        Option(help="HOST:PORT of the Ray cluster [default: start Ray here]."),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        Option(min=0.0, help="GPUs of a worker on Ray [default: 0.25, if there are]."),
    ] = None,
    time_limit: Annotated[
        str | None,
        Option(help="Stop cleanly after this time, such as 90s, 30m, 2h or 1h30m."),
    ] = None,
    trial_time_limit: Annotated[
        str | None,
        Option(
            help="Replace a worker that takes longer for one candidate [default: 10m, "
            "or ten times the longest training; 1h before there is one]."
        ),
    ] = None,
    study: Annotated[
        str | None,
        Option(help="Name of the study [default: from data set and cap]."),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Search for nets, or go on with a search that was stopped.

    The same command again finishes what is left: --trials is the study's total.
    """
    limit = _seconds(time_limit, "--time-limit")
    trial_limit = _seconds(trial_time_limit, "--trial-time-limit")
    size = read_image_size(image_size)
    if engine != "ray" and (address is not None or gpus_per_worker is not None):
        raise typer.BadParameter("--address and --gpus-per-worker need --engine ray")

    from nas.files import check_writable
    from nas.search.start import Request, launch

    start = _local(device, workers)
    if engine == "ray":
        start = _on_ray(device, workers, gpus_per_worker, address)
    opened, data = launch(
        Request(
            studies=studies,
            study=study,
            dataset=dataset,
            data_dir=data_dir,
            image_size=size,
            param_budget=budget,
            max_macs=max_macs,
            max_memory=max_memory,
            max_flash=max_flash,
            max_latency=max_latency,
            space=space,
            epochs=epochs,
            sampler=sampler,
            seed=seed,
            pruning=pruning,
            storage=storage,
            start_from=tuple(start_from or ()),
        )
    )
    tell(data)
    with opened, _word_on_how_to_go_on(opened, trials):
        check_writable(opened.folder, ("front.csv", "front.html", "timing.json"))
        pool, devices, count = start(data, opened)
        try:
            outcome = _run_search(opened, pool, trials, limit, trial_limit)
        except BaseException:
            # The error that led here is the one to tell.
            with contextlib.suppress(NasError):
                _write_front(opened)
            raise
        finally:
            pool.close()
        _write_front(opened)
        _write_timing(opened, outcome, devices, count)
    _say_outcome(opened, outcome, data)


def _local(device: str, workers: int | None) -> _Start:
    """Check the device; return what starts workers on this machine."""
    from nas.engines.local import devices_for

    devices, count = devices_for(device, workers)
    return lambda data, study: (
        start_engine(data, study, devices, count),
        devices,
        count,
    )


def _on_ray(
    device: str, workers: int | None, gpus_per_worker: float | None, address: str | None
) -> _Start:
    """Return what starts workers on Ray, which must be installed."""
    from nas.engines.ray import RayEngine

    def start(data: Dataset, study: Study) -> tuple[Engine, list[str], int]:
        engine = RayEngine(
            data,
            split_seed=study.settings.seed,
            val_size=study.settings.val_size,
            workers=workers,
            device=device,
            gpus_per_worker=gpus_per_worker,
            address=address,
        )
        return engine, [engine.device], engine.num_workers

    return start


def _seconds(text: str | None, option: str) -> float | None:
    """Return the seconds of a time such as 90s, 30m, 2h or 1h30m."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    if (
        not match
        or not any(match.groups())
        or not any(map(int, filter(None, match.groups())))
    ):
        raise typer.BadParameter(
            f"{text!r} is no time: write 90s, 30m, 2h or 1h30m",
            param_hint=option,
        )
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def _run_search(
    study: Study,
    engine: Engine,
    trials: int,
    limit: float | None,
    trial_limit: float | None,
) -> Outcome:
    import time

    from nas.cli.display import SearchDisplay
    from nas.search.loop import search as run

    due = 0.0

    def show(progress: Progress) -> None:
        nonlocal due
        display.show(progress)
        ended = progress.changed is not None and progress.changed.state != "running"
        began = time.monotonic()
        if ended and began >= due:
            _write_front(study)
            spent = time.monotonic() - began
            due = began + max(_SECONDS_BETWEEN_FRONTS, spent / _SHARE_OF_FRONTS)

    with SearchDisplay(console()) as display:
        return run(
            study,
            engine,
            trials=trials,
            time_limit=limit,
            trial_time_limit=trial_limit,
            show=show,
        )


@contextlib.contextmanager
def _word_on_how_to_go_on(study: Study, trials: int) -> Iterator[None]:
    """Tell who stops the search, while its workers are starting too, what it has."""
    try:
        yield
    except KeyboardInterrupt:
        finished = sum(c.state in {"complete", "pruned"} for c in study.candidates())
        raise Interrupted(
            f"stopped with {finished} of {trials} trials finished; go on with the "
            "same command"
        ) from None


def _write_front(study: Study) -> None:
    from nas.report import write_front

    settings = study.settings
    write_front(
        study.folder,
        study.candidates(),
        title=f"{settings.name}: {settings.data_title}, at most "
        f"{settings.param_budget:,} parameters",
        param_budget=settings.param_budget,
    )


def _write_timing(
    study: Study, outcome: Outcome, devices: list[str], workers: int
) -> None:
    from dataclasses import asdict

    from nas.environment import hardware, versions
    from nas.files import append_json

    append_json(
        study.folder / "timing.json",
        {
            "ended": outcome.reason,
            "workers": workers,
            "seconds": {k: round(v, 2) for k, v in asdict(outcome.timing).items()},
            "c_kernels": outcome.kernels,
            "hardware": hardware(devices),
            "versions": versions(),
        },
    )


def _exhausted(study: Study) -> str:
    """Return why no candidate is left to train, and what would bring others."""
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
    from nas.candidates.candidate import front as front_of
    from nas.cli.display import duration, front_table

    settings = study.settings
    members = front_of(study.candidates())
    if members:
        title = f"{settings.name}: accuracy on the validation split"
        console().print(front_table(members, title))
    finished = sum(c.state in {"complete", "pruned"} for c in study.candidates())
    spent = duration(outcome.timing.total)
    typer.echo(f"{finished} trials finished; this run took {spent}")
    if outcome.reason == "time limit":
        typer.echo("the time is up; go on with the same command")
    elif outcome.reason == "exhausted":
        typer.echo(_exhausted(study))
    best = max((member.val_accuracy or 0.0 for member in members), default=None)
    if best is not None:
        _warn_of_majority(study, best, data)
    if members:
        typer.echo(f"next: `nas best {settings.name}` retrains the winner")


def _warn_of_majority(study: Study, best: float, data: Dataset) -> None:
    """Say so where no net beats the answer that is always the largest class."""
    from nas.cli.display import percent
    from nas.search.balance import no_better_than_majority

    settings = study.settings
    _, held_out = data.split(settings.seed, settings.val_size)
    counts = data.labels[held_out].bincount(minlength=data.num_classes)
    share = int(counts.max()) / len(held_out)
    if no_better_than_majority(best, share, len(held_out)):
        typer.echo(
            f"warning: no net is better than always answering "
            f"{data.class_names[int(counts.argmax())]!r}, which is right for "
            f"{percent(share)} of the validation images: give the other classes more "
            "images, or search longer"
        )
