"""What the benchmarks share: seeds, pairing, conditions, csv files, tables, made-up studies.

A script tells what it measures and how; rows go to a csv file beside it, as they come
where they take long, and a table is made from the file. No script's own numbers are here.
Scripts find this file, also where Python leaves a script's folder out (-P), by ::

    sys.path.insert(0, str(Path(__file__).parent))
    from harness import ...
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.study.settings import Settings

CURVES = Path(__file__).with_name("curves.csv")

# What is heavy is imported where it is needed: the workers of scaling.py need none of it.


def seeds(text: str) -> range:
    """Return the seeds of an option such as 3 or 0-19."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def numbers(text: str) -> list[int]:
    """Return the numbers of an option such as 1,4,16."""
    return [int(part) for part in text.split(",")]


def conditions(device: str = "cpu") -> str:
    """Return the versions and the hardware that stand beside every number."""
    from nas.environment import hardware, versions

    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{found}; {hardware([device])}"


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a csv file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all rows; each has the columns of the first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a file that a stopped run goes on with."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    head, *rest = (f"| {' | '.join(map(str, line))} |" for line in (headings, *rows))
    return "\n".join([head, "|---" + "|--:" * (len(headings) - 1) + "|", *rest])


def put_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Replace what stands in a page between two marks, each a line of its own."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"{marks[0]}\n")
    _, end, after = rest.partition(f"{marks[1]}\n")
    if not end:
        raise SystemExit(f"{page} has no {marks[0]} ... {marks[1]}")
    page.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return mean and standard deviation, as they stand in a table."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


@dataclass(frozen=True)
class Paired:
    """How much higher one method came out than another with the same seeds."""

    differences: list[float]

    @classmethod
    def of(cls, ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
        """Compare the seeds that both have."""
        return cls([ours[seed] - theirs[seed] for seed in theirs if seed in ours])

    def cells(self) -> list[str]:
        """Return the median, how often ours was better, and Wilcoxon's p, two-sided."""
        if len(self.differences) < 2:
            return ["", "", ""]
        from scipy.stats import wilcoxon

        better = sum(difference > 0 for difference in self.differences)
        return [
            f"{statistics.median(self.differences):+.3f}",
            f"{better} of {len(self.differences)}",
            f"{wilcoxon(self.differences).pvalue:.2g}",
        ]


def recorded_curves() -> dict[int, list[dict[str, str]]]:
    """Return the rows of curves.csv by trial, a row a rung; pruning.py records them."""
    found: dict[int, list[dict[str, str]]] = {}
    for row in read(CURVES):
        found.setdefault(int(row["trial"]), []).append(row)
    return found


def made_up_settings(**changes: Any) -> Settings:
    """Return the settings of a study of 8x8 images under 2,000 parameters, changed."""
    from nas.space import find_space
    from nas.study.settings import Settings
    from nas.training.recipe import Recipe

    space = find_space("mixed")
    plain: dict[str, Any] = {
        "name": "made-up",
        "dataset": "digits",
        "data_fingerprint": "0" * 16,
        "input_shape": (1, 8, 8),
        "num_classes": 10,
        "val_size": 240,
        "param_budget": 2000,
        "space": space.name,
        "space_toml": space.text,
        "recipe": Recipe(epochs=4),
        "rungs": (1.0, 2.0, 4.0),
        "sampler": "random",
    }
    return Settings(**plain | changes)
