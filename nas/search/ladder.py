"""Winners for several caps at once: the caps, and the table of results."""

from __future__ import annotations

import csv
import io
import operator
from collections.abc import Sequence
from pathlib import Path

from nas.candidates.candidate import Candidate
from nas.errors import UsageError
from nas.search.best import SelectionCriteria, Winner, allowed
from nas.study.settings import Settings

COLUMNS = (
    "max_params",
    "trial",
    "resized",
    "num_params",
    "macs",
    "peak_memory",
    "val_accuracy",
    "test_accuracy_mean",
    "test_accuracy_std",
    "seeds",
    "epochs",
)


def check_alone(max_params: int | None, min_accuracy: float | None) -> None:
    """Raise UsageError where one winner is asked for together with several."""
    for name, value in (("max-params", max_params), ("min-accuracy", min_accuracy)):
        if value is not None:
            raise UsageError(
                f"--{name} asks for one winner, --front and --sizes for one a cap: "
                f"leave one of them out, or give the caps as --sizes"
            )


def sizes_from(text: str) -> list[int]:
    """Parse caps such as "10000,5000"; raise UsageError for invalid text."""
    parts = text.replace("_", "").split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(
            f"--sizes {text!r}: give whole numbers with commas between, such as "
            "10000,5000,2500"
        )
    return [int(part) for part in parts]


def caps(
    candidates: Sequence[Candidate],
    settings: Settings,
    sizes: Sequence[int] | None = None,
) -> list[int]:
    """Return the winners' caps, largest first, without duplicates.

    By default they are the study's cap and its halves, as far down as a fully trained
    candidate has so few parameters. Raises UsageError for sizes that are no whole
    numbers of at least 1 or are over the study's cap, and StudyError where nothing is
    fully trained, or nothing so small.
    """
    whole = SelectionCriteria(max_params=settings.param_budget)
    trained = allowed(candidates, whole, settings)
    if sizes is None:
        least = min(candidate.num_params for candidate in trained)
        found = [settings.param_budget]
        while found[-1] // 2 >= least:
            found.append(found[-1] // 2)
        return found
    try:
        found = sorted({operator.index(size) for size in sizes}, reverse=True)
    except TypeError:
        found = []
    if not found or found[0] > settings.param_budget or found[-1] < 1:
        raise UsageError(
            f"--sizes {list(sizes)}: give whole numbers 1 to {settings.param_budget}, "
            "the study's cap"
        )
    allowed(candidates, SelectionCriteria(max_params=found[-1]), settings)
    return found


def winner_folders(first: Path, limits: Sequence[int]) -> list[Path]:
    """Return the output folder for each cap; the cap is appended to its name."""
    return [first, *(Path(f"{first}-{limit}") for limit in limits[1:])]


def csv_of(limits: Sequence[int], winners: Sequence[Winner]) -> str:
    """Return the winners as CSV, one row per cap; accuracies are 0 to 1."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for limit, winner in zip(limits, winners, strict=True):
        writer.writerow({"max_params": limit, **winner.report})
    return text.getvalue()
