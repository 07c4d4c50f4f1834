"""References: hand-made architectures as data.

search_spaces/references/ has those included in nas. A user's own file has the same
format without `[published]`. Reading one runs no code.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from nas.architecture import Architecture, Block, Head, Shape
from nas.architecture.cost import count_params
from nas.errors import ArchitectureError, NasError
from nas.files import shipped
from nas.training.recipe import Recipe, read_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The published results of a network and its training recipe.

    ``accuracy`` (0 to 1) is the best epoch's on the test set, ``last_accuracy`` the
    last epoch's; at least one is set. ``dataset`` is the data set of the test set.
    """

    num_params: int
    epochs: int
    accuracy: float | None = None
    last_accuracy: float | None = None
    dataset: str = "mnist"
    recipe: Recipe = Recipe()

    @property
    def best(self) -> tuple[float, str]:
        """The highest published accuracy and which of the two it is."""
        if self.accuracy is not None:
            return self.accuracy, "published, best epoch on the test set"
        assert self.last_accuracy is not None
        return self.last_accuracy, "published, last epoch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The result of `nas train` or `nas best` on the test set, after the last epoch.

    ``accuracy`` is 0 to 1, a mean if there were several ``seeds``.
    """

    accuracy: float
    seeds: int
    dataset: str
    data_fingerprint: str | None = None
    """None in reports of an older nas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One architecture with its name and, if there is one, its published result.

    ``measured`` is nas's own result if the reference was read from a folder that nas
    wrote; reference files do not contain it.
    """

    name: str
    architecture: Architecture
    description: str = ""
    source: str = ""
    published: Published | None = None
    measured: Measured | None = None

    @property
    def num_params(self) -> int:
        """Trainable parameters."""
        return count_params(self.architecture)


def available() -> list[str]:
    """Return the names of the references included in nas."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def find_reference(name_or_file: str) -> Reference:
    """Return the reference of that name or in that file.

    A file ends in ``.toml``, or in ``.json`` if it is an architecture.json that
    `nas best` or `nas train` wrote. The folder of the latter works as well; then its
    report.json is read, too. Raises ArchitectureError if it is missing or damaged.
    """
    path = Path(name_or_file)
    if name_or_file not in available() and (path / "architecture.json").is_file():
        found = find_reference(str(path / "architecture.json"))
        return replace(found, name=path.resolve().name, measured=_measured(path))
    if path.suffix not in {".toml", ".json"}:
        if name_or_file not in available():
            near = difflib.get_close_matches(name_or_file, available(), n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            known = ", ".join(available()) or "none"
            raise ArchitectureError(
                f"unknown reference {name_or_file!r}{hint}: the references are {known}; "
                "or give the path of a .toml file, a folder that `nas train` wrote, or "
                "STUDY:TRIAL"
            )
        path = _folder() / f"{name_or_file}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArchitectureError(
            f"no architecture at {path}: give an existing file"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ArchitectureError(
            f"cannot read the architecture {path}: {error}"
        ) from error
    if path.suffix == ".json":
        try:
            return Reference(name=path.stem, architecture=Architecture.from_json(text))
        except ArchitectureError as error:
            raise ArchitectureError(f"{path}: {error}") from error
    return read_reference(text, path.stem, str(path))


def _measured(folder: Path) -> Measured | None:
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return Measured(
            accuracy=float(report["test_accuracy_mean"]),
            seeds=int(report["seeds"]),
            dataset=str(report["dataset"]),
            data_fingerprint=report.get("data_fingerprint"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        # The reference is usable without a result.
        return None


def read_reference(text: str, name: str, source: str | None = None) -> Reference:
    """Return the reference that this TOML describes.

    ``source`` names the file in messages. Raises ArchitectureError in one line.
    """
    where = source or f"{name}.toml"
    try:
        # ValueError is also raised for integers with thousands of digits.
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchitectureError(f"{where}: malformed TOML: {error}") from error
    try:
        _only(data, ("description", "source", "published", "architecture"), "")
        return Reference(
            name=name,
            description=_text(data, "description"),
            source=_text(data, "source"),
            published=_published(data),
            architecture=_architecture(data),
        )
    except (_Wrong, NasError) as error:
        line = " ".join(str(error).split())
        raise ArchitectureError(f"{where}: {line}") from error


def write_reference(reference: Reference) -> str:
    """Return TOML that read_reference can read; defaults are omitted."""
    architecture = reference.architecture
    data: dict[str, Any] = {
        key: value
        for key in ("description", "source")
        if (value := getattr(reference, key))
    }
    if reference.published:
        published = asdict(reference.published)
        published["recipe"] = _changed(reference.published.recipe)
        published["recipe"].pop("epochs", None)
        data["published"] = {k: v for k, v in published.items() if v is not None}
    data["architecture"] = {
        "input_shape": list(architecture.input_shape),
        "num_classes": architecture.num_classes,
        "blocks": [
            {"kind": block.kind} | _changed(block) for block in architecture.blocks
        ],
        "head": {"kind": architecture.head.kind} | _changed(architecture.head),
    }
    if architecture.resolution:
        data["architecture"]["resolution"] = architecture.resolution
    return tomli_w.dumps(data, multiline_strings=True)


def check_fits(
    reference: Reference, input_shape: Shape, num_classes: int, dataset: str
) -> None:
    """Raise ArchitectureError if it does not fit the data's images and classes."""
    architecture = reference.architecture
    if (architecture.input_shape, architecture.num_classes) != (
        input_shape,
        num_classes,
    ):
        ours = _images(architecture.input_shape, architecture.num_classes)
        raise ArchitectureError(
            f"{reference.name} is for {ours}, but {dataset} has "
            f"{_images(input_shape, num_classes)}: give another data set or architecture"
        )


def _images(shape: Shape, num_classes: int) -> str:
    return f"{'x'.join(map(str, shape))} images of {num_classes} classes"


class _Wrong(Exception):  # noqa: N818  # becomes an ArchitectureError with the file
    """A fault in a reference."""


def _folder() -> Path:
    return shipped("search_spaces") / "references"


def _changed(part: Block | Head | Recipe) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    return {
        field.name: getattr(part, field.name)
        for field in fields(part)
        if getattr(part, field.name) != field.default
    }


def _only(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise _Wrong(f"{where}{key} is unknown ({hint})")


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key, "")
    if not isinstance(value, str):
        raise _Wrong(f"{key} is {value!r}: put it in quotes")
    return value


def _table(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    if key not in data:
        raise _Wrong(f"[{where}] is missing")
    if not isinstance(data[key], dict):
        raise _Wrong(f"{where} is a table: write it as [{where}]")
    return dict(data[key])


def _architecture(data: Mapping[str, Any]) -> Architecture:
    table = _table(data, "architecture", "architecture")
    _only(table, tuple(f.name for f in fields(Architecture)), "architecture.")
    blocks = table.get("blocks", [])
    if not isinstance(blocks, list) or not all(isinstance(b, dict) for b in blocks):
        raise _Wrong("architecture.blocks: write each block as [[architecture.blocks]]")
    known = tuple(f.name for f in fields(Block))
    for number, block in enumerate(blocks, start=1):
        _only(block, known, f"block {number}: ")
    head = _table(table, "head", "architecture.head")
    _only(head, tuple(f.name for f in fields(Head)), "head: ")
    shape = table.get("input_shape")
    if not isinstance(shape, list):
        raise _Wrong(
            "architecture.input_shape: give [channels, height, width] of the images"
        )
    try:
        return Architecture.from_dict(table | {"blocks": blocks, "head": head})
    except OverflowError as error:
        raise _Wrong(f"a number is too large ({error})") from error


def _published(data: Mapping[str, Any]) -> Published | None:
    if "published" not in data:
        return None
    table = _table(data, "published", "published")
    _only(table, tuple(f.name for f in fields(Published)), "published.")
    for name in ("num_params", "epochs"):
        value = table.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _Wrong(
                f"published.{name} is {value!r}, give a whole number of at least 1"
            )
    accuracies = {n: table.get(n) for n in ("accuracy", "last_accuracy")}
    for name, value in accuracies.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (
            number and math.isfinite(value) and 0 <= value <= 1
        ):
            raise _Wrong(f"published.{name} is {value!r}, give a number from 0 to 1")
    if not any(value is not None for value in accuracies.values()):
        raise _Wrong("published: give accuracy (best epoch) or last_accuracy, or both")
    dataset = table.get("dataset", "mnist")
    if not isinstance(dataset, str):
        raise _Wrong(f"published.dataset is {dataset!r}, give its name in quotes")
    recipe = _table(table, "recipe", "published.recipe") if "recipe" in table else {}
    if "epochs" in recipe:
        raise _Wrong("published.recipe.epochs: [published] has the epochs already")
    try:
        return Published(
            num_params=table["num_params"],
            epochs=table["epochs"],
            accuracy=accuracies["accuracy"],
            last_accuracy=accuracies["last_accuracy"],
            dataset=dataset,
            recipe=read_recipe(recipe | {"epochs": table["epochs"]}),
        )
    except (ValueError, OverflowError) as error:
        raise _Wrong(f"published.{error}") from error
