"""What `nas search`, `best` and `train` do, and the functions of `import nas` alike.

Each takes what was asked for, trains, and returns what was found; a search also writes
the files of its study's folder. Nothing is printed: a display is shown every event.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from nas.api.progress import Display, TrainingEvent
from nas.candidates.candidate import Candidate
from nas.data import Dataset, load_dataset
from nas.engines import Engine
from nas.engines.local import LocalEngine, devices_for
from nas.environment import hardware, versions
from nas.errors import NasError, UsageError
from nas.export.source import WRITTEN
from nas.files import append_json, check_writable
from nas.references.bundled import check_fits
from nas.search.best import (
    ProgressEvent,
    SelectionCriteria,
    Winner,
    allowed,
    retrain,
)
from nas.search.kept_trainings import (
    KeptTrainings,
    RememberedTrainings,
    Trainings,
)
from nas.search.loop import Outcome, Progress
from nas.search.loop import search as run
from nas.search.recipes import (
    NO_CHANGE,
    RecipeChange,
    augmentation_line,
    changed_recipe,
    pixels_of,
)
from nas.search.resolve import Resolved
from nas.search.start import Request, launch, load_again
from nas.search.train_one import Plan, Trained, choose_recipe, train_single
from nas.study.folders import check_data
from nas.study.settings import Settings
from nas.study.study import Study
from nas.training.report import Metric

EngineName = Literal["local", "ray"]

UNFINISHED = "unfinished"
"""The folder, in the one for the result, of what a stopped command has trained."""

Say = Callable[[str], None]

# The time between two writings of front.html, which take some 30 ms each; in studies of
# many thousand trials over a second, and then no more than this share of the time.
_SECONDS_BETWEEN_FRONTS = 20.0
_SHARE_OF_FRONTS = 0.02

# Starts the workers; returns them, their devices and how many there are.
_Start = Callable[[Dataset, Study], tuple[Engine, list[str], int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersWanted:
    """Who trains: how many, on which devices, on this machine or on a Ray cluster."""

    device: str = "auto"
    workers: int | None = None
    engine: EngineName = "local"
    address: str | None = None
    gpus_per_worker: float | None = None


def run_search(
    request: Request,
    workers: WorkersWanted,
    display: Display[Progress],
    *,
    trials: int,
    time_limit: str | float | None = None,
    trial_time_limit: str | float | None = None,
    target_accuracy: float | None = None,
    data: Dataset | None = None,
    say: Say = lambda _: None,
) -> tuple[Study, Outcome, Dataset]:
    """Begin the study, or go on with it; return it closed, how it ended, and its data.

    ``say`` gets a line for whatever is to be told before training, here and below.
    Raises UsageError before anything is loaded, what launch and nas.search.loop.search
    raise, and KeyboardInterrupt with a line on how to go on; the study is closed then.
    """
    # What draws the front, loaded now: Ctrl-C in the midst of an import can be lost.
    import nas.report  # noqa: F401 - pandas and plotly, which only searches need

    limit = seconds(time_limit, "--time-limit")
    trial_limit = seconds(trial_time_limit, "--trial-time-limit")
    start = _starter(workers)
    study, dataset = launch(request, data, say)
    say_notes(dataset, say)
    say(augmentation_line(study.settings.recipe))
    with study, _word_on_how_to_go_on(study, trials):
        check_writable(study.folder, ("front.csv", "front.html", "timing.json"))
        engine, devices, count = start(dataset, study)
        try:
            outcome = search_and_draw(
                study, engine, trials, limit, trial_limit, target_accuracy, display
            )
        except BaseException:
            # The error that led here is the one to tell.
            with contextlib.suppress(NasError):
                draw(study)
            raise
        finally:
            engine.close()
        draw(study)
        _write_timing(study, outcome, devices, count)
    return study, outcome, dataset


def run_best(
    settings: Settings,
    candidates: list[Candidate],
    data: Dataset | None,
    workers: WorkersWanted,
    display: Display[ProgressEvent],
    *,
    data_dir: Path | None = None,
    data_name: str | None = None,
    folders: Sequence[Path] = (),
    exports: Sequence[str] = (),
    say: Say = lambda _: None,
    limits: Sequence[int],
    min_accuracy: float | None = None,
    finalists: int = 4,
    metric: Metric | None = None,
    recipe: RecipeChange = NO_CHANGE,
    epochs: int | None = None,
    seeds: int = 1,
) -> tuple[list[Winner], Dataset]:
    """Choose a winner for each limit and train it; return them, and the data set.

    A limit is the most parameters of its winner.

    Without ``data`` it is the study's own, by its name, or by ``data_name``, where it
    lies by now. ``recipe`` and ``metric`` are what is wanted instead of the study's.
    With ``folders`` for the winners, in which ``exports`` will have folders
    of their own, it is known beforehand that they can be written, and what is trained is
    kept in the first until `discard_kept`, so that the same call goes on after a stop.
    Raises what load_again, check_data and nas.search.best.retrain do.
    """
    devices, count = devices_for(workers.device, workers.workers)
    recipe.check()
    dataset = data or load_again(settings, data_dir, data_name)
    say_notes(dataset, say)
    check_data(settings, dataset.fingerprint)
    chosen = changed_recipe(
        replace(settings.recipe, epochs=settings.full_epochs),
        recipe,
        pixels_of(dataset),
        dataset.num_classes,
    )
    for folder in folders:
        check_writable(folder, WRITTEN)
        for name in exports:
            check_writable(folder / name)
    kept = None
    if folders:
        kept = _kept(
            folders[0], dataset, settings.seed, settings.val_size, devices, say
        )
    # Not "kept or": one that has nothing yet is empty, and so false.
    trainings: Trainings = RememberedTrainings() if kept is None else kept
    criteria = [
        SelectionCriteria(
            max_params=limit,
            min_accuracy=min_accuracy,
            finalists=finalists,
            epochs=epochs or chosen.epochs,
            seeds=seeds,
            recipe=chosen,
            metric=metric,
        )
        for limit in limits
    ]
    for one in criteria:
        allowed(candidates, one, settings)  # before a worker is started
    say(augmentation_line(chosen))
    with _word_on_what_is_kept(kept):
        engine = LocalEngine(
            dataset,
            split_seed=settings.seed,
            val_size=settings.val_size,
            workers=count,
            devices=devices,
        )
        try:
            with display:
                winners = [
                    retrain(
                        candidates,
                        settings,
                        engine,
                        one,
                        hardware=hardware(devices),
                        show=display.show,
                        kept=trainings,
                        data_name=dataset.name,
                    )
                    for one in criteria
                ]
        finally:
            engine.close()
    return winners, dataset


def run_train(
    found: Resolved,
    data: Dataset | str | None,
    workers: WorkersWanted,
    display: Display[TrainingEvent],
    *,
    data_dir: Path | None = None,
    folder: Path | None = None,
    say: Say = lambda _: None,
    recipe: RecipeChange = NO_CHANGE,
    epochs: int | None = None,
    seeds: int = 1,
    like_published: bool = False,
) -> tuple[Trained, Dataset]:
    """Train one architecture; return its weights and report, and the data set.

    ``data`` is a data set or its name, by default the one that the architecture was
    made for. ``folder`` is as for `run_best`. Raises what choose_recipe and train_single do, ArchitectureError where it
    is for other images.
    """
    if like_published and recipe:
        raise UsageError(
            "--like-published takes the recipe of the source: no --recipe, no --augment"
        )
    recipe.check()
    reference, settings = found.reference, found.settings
    devices, count = devices_for(workers.device, workers.workers)
    if isinstance(data, Dataset):
        dataset = data
    elif data is not None or settings is None:
        dataset = load_dataset(
            data or found.dataset,
            data_dir,
            image_size=reference.architecture.input_shape[1:],
        )
    else:
        dataset = load_again(settings, data_dir)
        check_data(settings, dataset.fingerprint)
    say_notes(dataset, say)
    check_fits(reference, dataset.input_shape, dataset.num_classes, dataset.name)
    plan = Plan(
        dataset=dataset.name,
        recipe=choose_recipe(
            reference,
            len(dataset.labels),
            pixels=pixels_of(dataset),
            studied=None if settings is None else settings.recipe,
            change=recipe,
            epochs=epochs,
            like_published=like_published,
        ),
        seeds=seeds,
        seed=settings.seed if settings else 0,
        like_published=like_published,
    )
    say(augmentation_line(plan.recipe))
    kept = None
    if folder is not None:
        kept = _kept(folder, dataset, plan.seed, dataset.val_size, devices, say)
    with _word_on_what_is_kept(kept):
        engine = LocalEngine(
            dataset,
            devices=devices,
            workers=min(count, seeds),
            split_seed=plan.seed,
            val_size=dataset.val_size,
        )
        try:
            with display:
                trained = train_single(
                    reference,
                    engine,
                    plan,
                    hardware=hardware(devices),
                    show=lambda job, event: display.show((job, event)),
                    kept=kept,
                )
        finally:
            engine.close()
    return trained, dataset


def say_notes(dataset: Dataset, say: Say) -> None:
    """Tell what was done to the data and what is odd in them, a line each."""
    for note in dataset.notes:
        say(f"data: {note}")


def _kept(
    folder: Path,
    data: Dataset,
    split_seed: int,
    val_size: int,
    devices: list[str],
    say: Say,
) -> KeptTrainings:
    """Refuse a folder that cannot be written; return what an earlier run has trained."""
    check_writable(folder, WRITTEN)
    here = hardware(devices)
    kept = KeptTrainings(
        folder / UNFINISHED,
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
        say(
            f"{len(kept)} trained before in {kept.folder}: what this command needs of "
            "them is not trained again"
        )
    return kept


def discard_kept(folder: Path) -> None:
    """Remove what was kept for a stop, once the result of it all is written."""
    KeptTrainings(folder / UNFINISHED, {}).discard()


@contextlib.contextmanager
def _word_on_what_is_kept(kept: KeptTrainings | None) -> Iterator[None]:
    """Tell who stops a training what of it is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if kept is None:
            raise
        raise KeyboardInterrupt(
            f"stopped; {len(kept)} finished trainings are kept in {kept.folder}: go on "
            "with the same command"
        ) from None


def seconds(given: str | float | None, option: str) -> float | None:
    """Return the seconds of a time such as 90s, 30m, 2h or 1h30m; numbers are seconds.

    Raises UsageError for anything else.
    """
    if given is None:
        return None
    total = 0.0
    if isinstance(given, str):
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", given.strip())
        if match:
            hours, minutes, rest = (int(group or 0) for group in match.groups())
            total = float(3600 * hours + 60 * minutes + rest)
    elif isinstance(given, int | float) and not isinstance(given, bool):
        total = float(given)
    if not 0 < total < float("inf"):
        raise UsageError(f"{option} {given!r} is no time: write 90s, 30m, 2h or 1h30m")
    return total


def search_and_draw(
    study: Study,
    engine: Engine,
    trials: int,
    limit: float | None,
    trial_limit: float | None,
    target: float | None,
    display: Display[Progress],
) -> Outcome:
    """Search, and write the study's front now and then."""
    due = 0.0

    def show(progress: Progress) -> None:
        nonlocal due
        display.show(progress)
        ended = progress.changed is not None and progress.changed.state != "running"
        began = time.monotonic()
        if ended and began >= due:
            draw(study)
            spent = time.monotonic() - began
            due = began + max(_SECONDS_BETWEEN_FRONTS, spent / _SHARE_OF_FRONTS)

    with display:
        return run(
            study,
            engine,
            trials=trials,
            time_limit=limit,
            trial_time_limit=trial_limit,
            target_accuracy=target,
            show=show,
        )


def draw(study: Study) -> None:
    """Write front.csv and front.html of the study."""
    from nas.report import write_front  # run_search says why it is not loaded above

    settings = study.settings
    write_front(
        study.folder,
        study.candidates(),
        title=title_of(settings),
        param_budget=settings.param_budget,
        accuracy=settings.accuracy_name,
    )


def title_of(settings: Settings) -> str:
    """Return what stands above the picture of a study's front."""
    return (
        f"{settings.name}: {settings.data_title}, at most "
        f"{settings.param_budget:,} parameters"
    )


def _starter(wanted: WorkersWanted) -> _Start:
    """Check what can be checked beforehand; return what starts the workers."""
    if wanted.engine == "ray":
        return _on_ray(wanted)
    if wanted.address is not None or wanted.gpus_per_worker is not None:
        raise UsageError("--address and --gpus-per-worker need --engine ray")
    devices, count = devices_for(wanted.device, wanted.workers)

    def start(dataset: Dataset, study: Study) -> tuple[Engine, list[str], int]:
        engine = LocalEngine(
            dataset,
            split_seed=study.settings.seed,
            val_size=study.settings.val_size,
            workers=count,
            devices=devices,
        )
        return engine, devices, count

    return start


def _on_ray(wanted: WorkersWanted) -> _Start:
    from nas.engines.ray import RayEngine  # Ray must be installed

    def start(dataset: Dataset, study: Study) -> tuple[Engine, list[str], int]:
        engine = RayEngine(
            dataset,
            split_seed=study.settings.seed,
            val_size=study.settings.val_size,
            workers=wanted.workers,
            device=wanted.device,
            gpus_per_worker=wanted.gpus_per_worker,
            address=wanted.address,
        )
        return engine, [engine.device], engine.num_workers

    return start


@contextlib.contextmanager
def _word_on_how_to_go_on(study: Study, trials: int) -> Iterator[None]:
    """Tell who stops the search, while its workers are starting too, what it has."""
    try:
        yield
    except KeyboardInterrupt:
        finished = sum(c.state in {"complete", "pruned"} for c in study.candidates())
        raise KeyboardInterrupt(
            f"stopped with {finished} of {trials} trials finished; go on with the "
            "same command"
        ) from None


def _write_timing(
    study: Study, outcome: Outcome, devices: list[str], workers: int
) -> None:
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
