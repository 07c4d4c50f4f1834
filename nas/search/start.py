"""Begins the requested study, or resumes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.architecture.boards import read_limit
from nas.architecture.cost import cost
from nas.candidates.pruning import PruningRule
from nas.data import DATASETS, Dataset, load_dataset
from nas.errors import ArchitectureError, DataError, StudyError
from nas.references.bundled import Reference, check_fits
from nas.search.balance import effective_size
from nas.search.recipes import (
    NO_CHANGE,
    RecipeChange,
    changed_recipe,
    default_recipe,
    pixels_of,
    search_training,
)
from nas.search.resolve import resolve
from nas.space import Caps, SearchSpace, encode, find_space, include
from nas.space.limits import milliseconds
from nas.study.folders import (
    check_data,
    check_same,
    create,
    load_settings,
    open_study,
    remember_data,
)
from nas.study.settings import Sampler, Settings, check_name
from nas.study.study import Study
from nas.training.report import Metric

DEFAULT_SPACE = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The user's request. None means the study's value, or else the default."""

    studies: Path
    study: str | None = None
    dataset: str | None = None
    data_dir: Path | None = None
    image_size: tuple[int, int] | None = None
    """Height and width to which images in files are stretched."""
    param_budget: int | None = None
    max_macs: int | None = None
    max_memory: int | None = None
    max_flash: int | None = None
    max_latency: str | None = None
    """BOARD=MS, as nas.architecture.boards reads it."""
    space: str | None = None
    recipe: RecipeChange = NO_CHANGE
    epochs: int | None = None
    sampler: Sampler | None = None
    seed: int | None = None
    pruning: bool | None = None
    metric: Metric | None = None
    storage: str | None = None
    start_from: tuple[str | Reference, ...] = ()
    """References, files or candidates (STUDY:TRIAL) for the first trials."""


def launch(
    request: Request,
    given: Dataset | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Study, Dataset]:
    """Return the study, open for searching, and its data set.

    A data set that is ``given`` takes the place of the one that the request names; the
    study's own is known again by its content, whatever it is called. ``say`` gets a
    line for whatever was added to the space of a new study.

    Raises StudyError when an existing study was created with other settings, and what
    load_dataset, find_space, create and open_study raise.
    """
    if given is not None:
        request = replace(request, dataset=given.name)
    request.recipe.check()
    name = check_name(request.study or _default_name(request))
    folder = request.studies / name
    if not (folder / "study.toml").exists():
        return _begin(request, name, folder, given, say)
    stored = load_settings(folder)
    name = request.dataset or stored.dataset
    if name in DATASETS and name != stored.dataset:
        # Before it is loaded, which may mean a download.
        check_same(stored, replace(stored, **_given(request, stored, None)))
    dataset = given or load_again(stored, request.data_dir, request.dataset)
    if dataset.fingerprint == stored.data_fingerprint:
        # The same data, even if it moved or its path is spelt differently.
        request = replace(request, dataset=None)
    asked = replace(stored, **_given(request, stored, dataset))
    check_same(stored, asked)
    check_data(stored, dataset.fingerprint, dataset.name)
    if stored.dataset not in DATASETS and not Path(stored.dataset).exists():
        remember_data(folder, stored, dataset.name)
    return open_study(folder, request.storage), dataset


def load_again(
    settings: Settings, data_dir: Path | None, name: str | None = None
) -> Dataset:
    """Return the data set that the study was begun with, not yet known to be the same.

    ``name`` is its new path, if it moved. Without ``data_dir`` a named data set is looked
    for in the folder where it was then.

    Raises DataError where there is none of that name any more, or there never was: it
    was given in memory.
    """
    remembered = settings.data_dir
    if data_dir is None and remembered and name in {None, settings.dataset}:
        # Moved or unmounted since, the usual places may have the data.
        data_dir = Path(remembered) if Path(remembered).is_dir() else None
    name = name or settings.dataset
    if name not in DATASETS and not Path(name).expanduser().exists():
        raise DataError(
            f"the study {settings.name!r} uses the data set {name!r}, which is neither a "
            "known name nor a file or folder here: give its new path with --dataset or, if "
            "it was in memory, pass it in Python with data="
        )
    return load_dataset(name, data_dir, image_size=settings.input_shape[1:])


def _begin(
    request: Request,
    name: str,
    folder: Path,
    given: Dataset | None,
    say: Callable[[str], None],
) -> tuple[Study, Dataset]:
    if request.param_budget is None:
        raise StudyError(
            f"there is no study {name!r} yet: give --budget, the largest number of "
            "parameters, to begin one"
        )
    space = find_space(request.space or DEFAULT_SPACE)
    dataset = given or load_dataset(
        request.dataset or "mnist", request.data_dir, image_size=request.image_size
    )
    if request.image_size not in {None, dataset.input_shape[1:]}:
        raise DataError(
            f"--image-size is for images in files: those of {dataset.name} are "
            f"{dataset.input_shape[1]}x{dataset.input_shape[2]}, so leave it out"
        )
    val_size = dataset.val_size
    # The workers make the split; this checks that it is possible.
    _, held_out = dataset.split(request.seed or 0, val_size)
    counts = dataset.labels[held_out].bincount().tolist()
    train_size = len(dataset.labels) - val_size
    pixels = pixels_of(dataset)
    recipe = default_recipe(train_size, request.epochs, pixels)
    recipe = changed_recipe(recipe, request.recipe, pixels, dataset.num_classes)
    settings = Settings(
        name=name,
        dataset=dataset.name,
        data_fingerprint=dataset.fingerprint,
        data_dir=_found_in(request, dataset),
        input_shape=dataset.input_shape,
        num_classes=dataset.num_classes,
        val_size=val_size,
        param_budget=request.param_budget,
        max_macs=request.max_macs,
        max_memory=request.max_memory,
        max_flash=request.max_flash,
        **_latency(request),
        space=space.name,
        space_toml=space.text,
        **search_training(request.epochs or recipe.epochs, train_size, recipe),
        sampler=request.sampler or "evolution",
        seed=request.seed or 0,
        pruning=None if request.pruning is False else PruningRule(),
        **_by_metric(request.metric or "accuracy", counts),
    )
    if request.start_from:
        starts = _starts(request, settings)
        text, notes = _space_with(space, starts, settings.caps)
        settings = replace(
            settings,
            start_from=tuple(reference.architecture for reference in starts),
            space_toml=text,
        )
        for note in notes:
            say(note)
    return create(folder, settings, request.storage), dataset


def _found_in(request: Request, dataset: Dataset) -> str | None:
    """Return the folder that a named data set was read from, if the user named one."""
    if request.data_dir is None or dataset.name not in DATASETS:
        return None
    return str(request.data_dir.expanduser().resolve())


def _given(
    request: Request, stored: Settings, dataset: Dataset | None
) -> dict[str, Any]:
    """Return the settings that the user named, as the study would have them.

    The recipe and the rungs follow from the data, where they are loaded.
    """
    given: dict[str, Any] = {
        field: getattr(request, field)
        for field in (
            "dataset",
            "param_budget",
            "max_macs",
            "max_memory",
            "max_flash",
            "sampler",
            "seed",
            "metric",
        )
        if getattr(request, field) is not None
    }
    if request.image_size is not None:
        given["input_shape"] = (stored.input_shape[0], *request.image_size)
    given |= _latency(request)
    if request.start_from:
        starts = _starts(request, replace(stored, **given))
        given["start_from"] = tuple(reference.architecture for reference in starts)
    if request.space is not None:
        space = find_space(request.space)
        # The study has a space of its own where it starts from what the named one lacks.
        begun = [Reference(name="", architecture=a) for a in stored.start_from]
        text, _ = _space_with(space, begun, stored.caps)
        own = text if stored.space_toml == text else space.text
        given |= {"space": space.name, "space_toml": own}
    if dataset is not None and (request.recipe or request.epochs is not None):
        recipe = changed_recipe(
            replace(stored.recipe, epochs=stored.full_epochs),
            request.recipe,
            pixels_of(dataset),
            dataset.num_classes,
        )
        train_size = len(dataset.labels) - stored.val_size
        given |= search_training(request.epochs or recipe.epochs, train_size, recipe)
    elif request.epochs is not None:
        # Without the data only the full epochs are known.
        given["fidelities"] = (*stored.levels[:-1], request.epochs)
    if request.pruning is not None and request.pruning != (stored.pruning is not None):
        given["pruning"] = PruningRule() if request.pruning else None
    return given


def _by_metric(metric: Metric, counts: list[int]) -> dict[str, Any]:
    """Return the settings that follow from the metric; ``counts`` are validation images per class."""
    size = None
    chance = max(counts) / sum(counts)
    if metric == "balanced-accuracy":
        size, chance = effective_size(counts), 1 / sum(count > 0 for count in counts)
    return {
        "metric": metric,
        "majority_accuracy": chance,
        "effective_val_size": size,
    }


def _latency(request: Request) -> dict[str, Any]:
    """Return the settings for --max-latency; empty if it was not given."""
    if request.max_latency is None:
        return {}
    board, milliseconds = read_limit(request.max_latency)
    return {"board": board, "max_latency": milliseconds}


def _space_with(
    space: SearchSpace, starts: Iterable[Reference], caps: Caps
) -> tuple[str, list[str]]:
    """Return the space's text extended for the starts, and what to report about it."""
    notes: list[str] = []
    for start in starts:
        wider, added = include(space, start.architecture, caps)
        if added:
            notes.append(
                f"{start.name} has what the space {space.name} lacks; added for this "
                f"study: {', '.join(added)}"
            )
        if encode(wider, start.architecture, caps) is None:
            notes.append(
                f"{start.name} has what no space can draw: it is trained as it is, and "
                "what is made of it has only what the space has"
            )
        space = wider
    return space.text, notes


def _starts(request: Request, settings: Settings) -> list[Reference]:
    """Return the architectures to start from, each network once.

    Raises ArchitectureError for one that is over a cap or for other images.
    """
    starts: dict[str, Reference] = {}
    for start in request.start_from:
        reference = (
            start
            if isinstance(start, Reference)
            else resolve(start, request.studies, request.storage).reference
        )
        check_fits(
            reference, settings.input_shape, settings.num_classes, settings.dataset
        )
        _check_caps(reference, settings.caps)
        starts.setdefault(reference.architecture.key, reference)
    return list(starts.values())


def _check_caps(reference: Reference, caps: Caps) -> None:
    costs = cost(reference.architecture, caps.board)
    for value, cap, option, unit in (
        (costs.num_params, caps.num_params, "--budget", "parameters"),
        (costs.macs, caps.macs, "--max-macs", "multiply-accumulates an image"),
        (costs.peak_memory, caps.peak_memory, "--max-memory", "bytes of activations"),
        (costs.flash, caps.flash, "--max-flash", "bytes of flash"),
    ):
        if cap is not None and value > cap:
            raise ArchitectureError(
                f"{reference.name} has {value} {unit}, over {option} {cap}: give at "
                f"least {option} {value}, or narrow it with `nas resize`"
            )
    if caps.latency is not None and costs.latency > caps.latency:
        name = caps.board.name if caps.board else ""
        raise ArchitectureError(
            f"{reference.name} takes {milliseconds(costs.latency)} ms on {name}, over "
            f"--max-latency {name}={milliseconds(caps.latency)}: give a larger one, or "
            "narrow it with `nas resize`"
        )


def _default_name(request: Request) -> str:
    """Name a study after its data set and cap."""
    dataset = Path(request.dataset or "mnist").stem
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset).strip("-._") or "data"
    if request.param_budget is None:
        raise StudyError(
            "give --budget, the cap on parameters, to begin a study, or --study to "
            "resume one"
        )
    return f"{plain}-{request.param_budget}"
