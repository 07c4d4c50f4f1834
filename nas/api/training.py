"""The common part of `nas best` and `nas train` and their Python functions.

Finished trainings are kept until the result is written, so that a stopped command can
resume. This module prints nothing; a display gets every event.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nas.api.progress import Display, TrainingEvent
from nas.api.words import Say, say_notes
from nas.api.workers import WorkersWanted
from nas.candidates.candidate import Candidate
from nas.data import Dataset, load_dataset
from nas.engines.local import LocalEngine, devices_for
from nas.environment import hardware, versions
from nas.errors import UsageError
from nas.export.source import WRITTEN
from nas.files import check_writable
from nas.references.bundled import check_fits
from nas.search.best import (
    SelectionCriteria,
    Winner,
    allowed,
    retrain,
)
from nas.search.kept_trainings import KeptTrainings
from nas.search.recipes import (
    NO_CHANGE,
    RecipeChange,
    augmentation_line,
    changed_recipe,
    pixels_of,
)
from nas.search.resolve import Resolved
from nas.search.retraining import ProgressEvent
from nas.search.start import load_again
from nas.search.train_one import Plan, Trained, choose_recipe, train_single
from nas.study.folders import check_data
from nas.study.settings import Settings
from nas.training.report import Metric

UNFINISHED = "unfinished"
"""The subfolder of the result's folder for a stopped command's finished trainings."""


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
    """Choose and train a winner for each limit; return the winners and the data set.

    A limit is the maximum number of parameters of its winner.

    Without ``data`` the study's own data set is loaded by its name, or by
    ``data_name``, its present path. ``recipe`` and ``metric`` replace the study's.
    ``folders`` are for the winners; each of ``exports`` gets a folder in them. With
    ``folders``, all are first checked to be writable, and finished trainings are kept
    in the first until `discard_kept`, so that the same call resumes after a stop.
    Raises the errors of load_again, check_data and nas.search.best.retrain.
    """
    devices, count = devices_for(workers.device, workers.workers)
    recipe.check()
    dataset = data or load_again(settings, data_dir, data_name)
    say_notes(dataset, say)
    check_data(settings, dataset.fingerprint, dataset.name)
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
        allowed(candidates, one, settings)  # check before a worker is started
    say(augmentation_line(chosen))
    with _mention_kept_trainings(kept), tempfile.TemporaryDirectory() as shared:
        # Without folders the winners of this call still share what they train.
        # Not `kept or ...`: an empty KeptTrainings is false.
        trainings = KeptTrainings(Path(shared), {}) if kept is None else kept
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
    made for. ``folder`` is as for `run_best`. Raises the errors of choose_recipe and
    train_single, and ArchitectureError for an architecture for other images.
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
        check_data(settings, dataset.fingerprint, dataset.name)
    say_notes(dataset, say)
    check_fits(reference, dataset.input_shape, dataset.num_classes, dataset.name)
    plan = Plan(
        dataset=dataset.name,
        data_fingerprint=dataset.fingerprint,
        recipe=choose_recipe(
            reference,
            len(dataset.labels),
            pixels=pixels_of(dataset),
            studied=replace(settings.recipe, epochs=settings.full_epochs)
            if settings
            else None,
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
    with _mention_kept_trainings(kept):
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


def _kept(
    folder: Path,
    data: Dataset,
    split_seed: int,
    val_size: int,
    devices: list[str],
    say: Say,
) -> KeptTrainings:
    """Check that the folder can be written; return an earlier run's trainings."""
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
    """Remove the kept trainings once the result is written."""
    KeptTrainings(folder / UNFINISHED, {}).discard()


@contextlib.contextmanager
def _mention_kept_trainings(kept: KeptTrainings | None) -> Iterator[None]:
    """Add the number of kept trainings and their folder to a KeyboardInterrupt."""
    try:
        yield
    except KeyboardInterrupt:
        if kept is None:
            raise
        raise KeyboardInterrupt(
            f"stopped; {len(kept)} finished trainings are kept in {kept.folder}: "
            "resume with the same command"
        ) from None
