"""The settings that a study is created with and keeps: study.toml."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, Literal, TypeVar, get_args

import tomli_w

from nas.architecture import Architecture
from nas.architecture.boards import Board
from nas.candidates.candidate import chance_level
from nas.candidates.promotion import PromotionRule
from nas.candidates.pruning import PruningRule
from nas.errors import ArchitectureError, StudyError
from nas.sampling.evolution import EvolutionRule
from nas.space import Caps
from nas.training.recipe import Recipe, read_recipe, recipe_table
from nas.training.report import Metric

_T = TypeVar("_T")
Sampler = Literal["evolution", "random"]

FORMAT = 2
"""The version of study.toml and of the trials' attributes that this nas writes.

1: no number; one training a candidate, reports as bare lists; samplers of Optuna's.
"""

_FIRST_RUNG_STEPS = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that determines a search's result; frozen when the study is created.

    And ``data_dir``, the folder where a named data set was found, None for the usual places.

    ``space`` is the name of the search space and ``space_toml`` a copy of its text.
    ``data_fingerprint`` is that of the loaded data set. ``rungs`` are the points of
    the training, in epochs, at which a candidate reports; the last is its end.
    ``pruning`` None means that every candidate is trained to the end.
    ``max_latency`` is in milliseconds on ``board``, whose rates are copied here.
    ``external_storage`` tells that the trials are not in the folder's journal.
    ``start_from`` are the architectures of the first trials, which are not drawn.
    ``recipe`` is that of the first, short training of every candidate, and
    ``fidelities`` are the epochs of all trainings that the study knows: that one, those
    that promising candidates are promoted to, and at last the full training. Each has
    the recipe but for its epochs. Empty means that there is no promotion.
    ``metric`` is what nets are ranked by. ``effective_val_size`` is how many images a
    plain accuracy as noisy as the metric would be measured on; None is ``val_size``.
    ``majority_accuracy`` is what always answering the largest class has on the
    validation split, by the metric; None in studies that did not ask.
    """

    name: str
    dataset: str
    data_fingerprint: str
    data_dir: str | None = None
    input_shape: tuple[int, int, int]
    num_classes: int
    val_size: int
    param_budget: int
    max_macs: int | None = None
    max_memory: int | None = None
    max_flash: int | None = None
    max_latency: float | None = None
    board: Board | None = None
    space: str
    space_toml: str
    recipe: Recipe
    rungs: tuple[float, ...]
    sampler: Sampler = "evolution"
    seed: int = 0
    pruning: PruningRule | None = PruningRule()
    external_storage: bool = False
    start_from: tuple[Architecture, ...] = ()
    fidelities: tuple[int, ...] = ()
    evolution: EvolutionRule = EvolutionRule()
    promotion: PromotionRule = PromotionRule()
    metric: Metric = "accuracy"
    effective_val_size: int | None = None
    majority_accuracy: float | None = None
    format: int = FORMAT

    @property
    def noise_size(self) -> int:
        """The number of images that determines the noise of a validation accuracy."""
        return self.effective_val_size or self.val_size

    @property
    def chance_level(self) -> float:
        """The accuracy that is no better than answering one class; 0 if it is unknown."""
        share = self.majority_accuracy
        return 0.0 if share is None else chance_level(share, self.noise_size)

    @property
    def accuracy_name(self) -> str:
        """What the accuracies of the study's candidates are, in words."""
        balanced = "balanced " if self.metric == "balanced-accuracy" else ""
        return f"{balanced}validation accuracy"

    @property
    def data_title(self) -> str:
        """The data set's name for titles: of a path the last part."""
        return PurePath(self.dataset).name or self.dataset

    @property
    def levels(self) -> tuple[int, ...]:
        """The epochs of the study's trainings, from the shortest to the full one."""
        return self.fidelities or (self.recipe.epochs,)

    @property
    def full_epochs(self) -> int:
        """The epochs of a full training; five times the search's in the first studies."""
        return self.levels[-1] if self.format > 1 else 5 * self.recipe.epochs

    @property
    def caps(self) -> Caps:
        """The hard limits of the study."""
        latency = None if self.max_latency is None else int(self.max_latency * 1e6)
        return Caps(
            self.param_budget,
            self.max_macs,
            self.max_memory,
            self.max_flash,
            latency,
            self.board,
        )


def derived_seed(seed: int, *parts: int | str) -> int:
    """Return a seed that follows from the study's seed and what it is for."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def check_name(name: str) -> str:
    """Return the name if a study can have it; it becomes the name of a folder."""
    if not _NAME.fullmatch(name):
        raise StudyError(
            f"a study cannot be named {name!r}: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, at most 100; give another with --study"
        )
    return name


def default_rungs(epochs: int, steps_per_epoch: int) -> tuple[float, ...]:
    """Return the rungs for a training of so many epochs, in epochs.

    The first comes after a quarter of an epoch, but not before 100 steps: earlier,
    batch norm's running statistics make every measurement a lottery. Then each about
    doubles, up to the end.
    """
    rungs = []
    rung = 0.25
    while rung * steps_per_epoch < _FIRST_RUNG_STEPS:
        rung *= 2
    while rung < epochs:
        rungs.append(rung)
        rung *= 2
    return (*rungs, float(epochs))


def to_toml(settings: Settings) -> str:
    """Return the text of study.toml for these settings."""
    data = {k: v for k, v in asdict(settings).items() if v not in (None, ())}
    data["recipe"] = recipe_table(settings.recipe)
    if settings.metric == "accuracy":  # as in studies before this setting existed
        del data["metric"]
    data = {"format": data.pop("format")} | data
    data["pruning"] = data.get("pruning", False)
    return tomli_w.dumps(data, multiline_strings=True)


def from_toml(text: str, source: str) -> Settings:
    """Return the settings that to_toml wrote; raise StudyError on anything else."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
        version = data.setdefault("format", 1)
        if not isinstance(version, int) or not 1 <= version <= FORMAT:
            raise StudyError(
                f"{source} has format {version!r}, and this nas knows 1 to {FORMAT}: "
                "update nas to read it"
            )
        pruning = data.pop("pruning")
        _check_keys(data)
        if version == 1:  # format 1 had neither
            data["evolution"] = asdict(EvolutionRule())
            data["promotion"] = asdict(PromotionRule())
        # What the first studies of format 2 did not have.
        data["evolution"].setdefault("regular", 0.0)
        data["promotion"].setdefault("size", 0.0)
        settings = Settings(
            **data
            | {
                "recipe": read_recipe(data["recipe"], complete=True),
                "rungs": tuple(data["rungs"]),
                "input_shape": tuple(data["input_shape"]),
                "start_from": tuple(
                    Architecture.from_dict(start)
                    for start in data.get("start_from", ())
                ),
                "pruning": _whole(PruningRule, pruning) if pruning else None,
                "board": _whole(Board, data["board"]) if "board" in data else None,
                "fidelities": tuple(data.get("fidelities", ())),
                "evolution": _whole(EvolutionRule, data["evolution"]),
                "promotion": _whole(PromotionRule, data["promotion"]),
            }
        )
        _check_types(settings)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArchitectureError,
    ) as error:
        raise StudyError(
            f"{source} is damaged ({error}): restore it from a copy, or remove the "
            "study's folder and start a new search"
        ) from error
    # The first studies' sampler is gone; they can still be read.
    if version > 1 and settings.sampler not in get_args(Sampler):
        raise StudyError(f"{source}: unknown sampler {settings.sampler!r}")
    if settings.metric not in get_args(Metric):
        raise StudyError(f"{source}: unknown metric {settings.metric!r}")
    check_name(settings.name)
    return settings


def _check_keys(data: dict[str, Any]) -> None:
    """Raise ValueError for a key that is missing or unknown."""
    needed = {field.name for field in fields(Settings) if field.default is MISSING}
    if unknown := sorted(set(data) - {field.name for field in fields(Settings)}):
        raise ValueError(f"unknown key {unknown[0]}")
    if missing := sorted(needed - set(data)):
        raise ValueError(f"without {missing[0]}")
    if data["format"] == 1 and "promotion" in data:
        raise ValueError("without format")


def _whole(kind: type[_T], data: dict[str, Any]) -> _T:
    """Return the dataclass; a missing key is an error, not a default."""
    missing = {field.name for field in fields(kind)} - set(data)  # type: ignore[arg-type]
    if missing:
        raise KeyError(f"{kind.__name__} without {', '.join(sorted(missing))}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return kind(**values)


def _check_types(settings: Settings) -> None:
    for kind, words, names in (
        (int, "a whole number", ("num_classes", "val_size", "param_budget", "seed")),
        (
            int | None,
            "a whole number",
            ("max_macs", "max_memory", "max_flash", "effective_val_size"),
        ),
        (float | None, "a number", ("majority_accuracy",)),
        (str, "text", ("name", "dataset", "data_fingerprint", "space", "space_toml")),
        (str | None, "text", ("data_dir",)),
    ):
        for name in names:
            if not isinstance(value := getattr(settings, name), kind):
                raise TypeError(f"{name} = {value!r} is not {words}")
    if (settings.max_latency is None) != (settings.board is None):
        raise TypeError("max_latency and board come together")


def differences(stored: Settings, asked: Settings) -> list[str]:
    """Return one phrase for each setting that differs: its name, stored, asked for."""
    phrases = []
    other_epochs = stored.fidelities != asked.fidelities
    for field in fields(Settings):
        ours, theirs = getattr(stored, field.name), getattr(asked, field.name)
        if ours == theirs or field.name == "data_dir":
            continue
        if field.name == "fidelities":
            phrases.append(f"epochs {stored.full_epochs} -> {asked.full_epochs}")
        elif field.name == "recipe":
            phrases += [
                f"recipe.{part.name} {getattr(ours, part.name)} -> "
                f"{getattr(theirs, part.name)}"
                for part in fields(Recipe)
                if getattr(ours, part.name) != getattr(theirs, part.name)
                # They follow from the full epochs, which are compared.
                and not (part.name == "epochs" and other_epochs)
            ]
        elif field.name == "rungs" and other_epochs:
            continue  # as above
        elif field.name == "start_from":
            phrases.append("the architectures that it starts from")
        elif field.name == "space_toml" and stored.space != asked.space:
            continue  # of course
        elif field.name == "space_toml":
            phrases.append("the text of its search space")
        else:
            name = "budget" if field.name == "param_budget" else field.name
            phrases.append(f"{name} {ours} -> {theirs}")
    return phrases
