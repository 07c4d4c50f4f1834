"""Finds nets of a study that are more accurate, or smaller, than hand-made nets.

There are three kinds of accuracy: published (on the test set, mostly of the best
epoch), of the search (validation split) and of trained nets (test set, last epoch).
Every row says which two it compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nas.architecture.cost import cost
from nas.candidates.candidate import Candidate, front
from nas.errors import ArchitectureError
from nas.references.bundled import Reference, available, check_fits, find_reference
from nas.study.settings import Settings
from nas.study.winners import read_reports

VALIDATION = "validation, search"
TEST = "test, retrained"
UNKNOWN = "not measured yet"


@dataclass(frozen=True, slots=True)
class Point:
    """A trained candidate; ``accuracy`` is 0 to 1, a mean over ``seeds`` trainings.

    ``macs`` are of one image, ``peak_memory`` is bytes of int8 activations; None if a
    report lacks them.
    """

    trial: int
    num_params: int
    accuracy: float
    seeds: int = 1
    macs: int | None = None
    peak_memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One reference compared with nets that were all measured in the same way.

    ``accuracy_is`` names the kind of the reference's accuracy, ``found_accuracy_is``
    that of the other nets. ``accuracy`` is None if it is unknown. ``best`` is the most
    accurate net of at most the reference's size, even if less accurate. ``smallest`` is
    the smallest net that is at least as accurate, None if the accuracy is unknown.
    Neither is the reference itself.
    """

    reference: str
    num_params: int
    macs: int
    peak_memory: int
    accuracy: float | None
    accuracy_is: str
    found_accuracy_is: str
    best: Point | None
    smallest: Point | None

    @property
    def accuracy_gained(self) -> float | None:
        """Accuracy of ``best`` minus the reference's (0 to 1); negative if lower."""
        if self.best is None or self.accuracy is None:
            return None
        return self.best.accuracy - self.accuracy

    @property
    def params_saved(self) -> int | None:
        """Parameters of the reference minus those of ``smallest``."""
        if self.smallest is None:
            return None
        return self.num_params - self.smallest.num_params

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, one for each column of a table."""
        row = asdict(self)
        for name in ("best", "smallest"):
            point = row.pop(name)
            for field in fields(Point):
                row[f"{name}_{field.name}"] = point and point[field.name]
        return row | {
            "accuracy_gained": self.accuracy_gained,
            "params_saved": self.params_saved,
        }


def references_for(settings: Settings) -> list[Reference]:
    """Return the references included in nas that are for the study's data set."""
    found = [find_reference(name) for name in available()]
    return [
        reference
        for reference in found
        if reference.architecture.input_shape == settings.input_shape
        and reference.architecture.num_classes == settings.num_classes
        and _published(reference, settings) is not None
    ]


def compare(
    references: Iterable[Reference],
    candidates: Sequence[Candidate],
    winners: Sequence[Point],
    settings: Settings,
) -> list[Comparison]:
    """Compare each reference with the study's front and with its winners.

    A reference that is also a candidate is compared by its validation accuracy, any
    other by the accuracy that `nas train` measured or that was published. If a
    reference has none of these, its row only has the most accurate net of at most its
    size. Raises ArchitectureError for a reference for other images, or one whose
    candidate is not fully trained while others are.
    """
    own = {c.key: c for c in candidates if c.state == "complete"}
    # Compare short trainings only if there are no full ones.
    fully = any(c.fully_trained for c in own.values())
    rows: list[Comparison] = []
    for reference in references:
        check_fits(
            reference, settings.input_shape, settings.num_classes, settings.dataset
        )
        candidate = own.get(reference.architecture.key)
        if candidate is not None and not candidate.fully_trained and fully:
            raise ArchitectureError(
                f"trial {candidate.trial}, {reference.name}, has not been trained to the "
                f"end yet: resume with `nas search --study {settings.name}`"
            )
        found = [
            Point(
                c.trial,
                c.num_params,
                c.val_accuracy or 0.0,
                macs=c.macs,
                peak_memory=c.peak_memory,
            )
            for c in front(c for c in own.values() if c is not candidate)
        ]
        known = _measured(reference, settings) or _published(reference, settings)
        others = [w for w in winners if candidate is None or w.trial != candidate.trial]
        if candidate is not None:
            words = f"validation, trial {candidate.trial}"
            by = (candidate.val_accuracy or 0.0, words)
            rows.append(_row(reference, by, found, VALIDATION))
        elif found:
            rows.append(_row(reference, known or (None, UNKNOWN), found, VALIDATION))
        if known is not None and others:
            rows.append(_row(reference, known, others, TEST))
    return rows


def read_winners(folder: Path) -> list[Point]:
    """Return the winners that `nas best` wrote into folders below the study's."""
    return read_reports(folder, _point)


def _point(report: dict[str, Any], _: Path) -> Point:
    return Point(
        int(report["trial"]),
        int(report["num_params"]),
        float(report["test_accuracy_mean"]),
        int(report["seeds"]),
        report.get("macs"),
        report.get("peak_memory"),
    )


def _published(reference: Reference, settings: Settings) -> tuple[float, str] | None:
    published = reference.published
    if published is None or not _is_on(published.dataset, settings):
        return None
    return published.best


def _measured(reference: Reference, settings: Settings) -> tuple[float, str] | None:
    measured = reference.measured
    if measured is None:
        return None
    if measured.data_fingerprint is None:
        same = _is_on(measured.dataset, settings)
    else:  # whatever the data set is called today
        same = measured.data_fingerprint == settings.data_fingerprint
    if not same:
        return None
    seeds = "" if measured.seeds == 1 else f", mean of {measured.seeds}"
    return measured.accuracy, f"test, as trained{seeds}"


def _is_on(dataset: str, settings: Settings) -> bool:
    # For a path, a reference may only have its last part.
    return dataset in {settings.dataset, settings.data_title}


def _row(
    reference: Reference,
    known: tuple[float | None, str],
    found: list[Point],
    found_is: str,
) -> Comparison:
    accuracy, words = known
    costs = cost(reference.architecture)
    small = [p for p in found if p.num_params <= costs.num_params]
    good = [p for p in found if accuracy is not None and p.accuracy >= accuracy]
    return Comparison(
        reference=reference.name,
        num_params=costs.num_params,
        macs=costs.macs,
        peak_memory=costs.peak_memory,
        accuracy=accuracy,
        accuracy_is=words,
        found_accuracy_is=found_is,
        best=max(small, key=lambda p: (p.accuracy, -p.num_params), default=None),
        smallest=min(good, key=lambda p: (p.num_params, -p.accuracy), default=None),
    )
