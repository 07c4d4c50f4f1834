"""Every hand-made net by its own rules, and what a search found beside it.

    python benchmarks/references.py train     # `nas train` for each row, some hours
    python benchmarks/references.py results   # -> studies/references/results.csv,
                                              #    docs/references.md and .svg

``train`` keeps each report in studies/references/reports/ and makes none twice. The
nets beside the hand-made ones are members of the front of studies/first/mnist-10000, or one
of them widened by `nas resize`; none was chosen on the test set, which `nas train`
reads once a seed, after the last epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import put_between, write
from harness import table as markdown

from nas.references.bundled import find_reference

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "studies/references"


@dataclass(frozen=True)
class Found:
    """A candidate (STUDY:TRIAL) and how long and how often it is trained.

    With ``budget`` it is widened or narrowed to that first.
    """

    candidate: str
    epochs: int
    seeds: int
    budget: int | None = None

    @property
    def name(self) -> str:
        """The name of its report."""
        return (
            f"{self.resized.stem if self.budget else self._plain}-{self.epochs}-epochs"
        )

    @property
    def resized(self) -> Path:
        """Where its resized form is."""
        return FOLDER / f"resized/{self._plain}-{self.budget}.toml"

    @property
    def in_words(self) -> str:
        """What it is, for the table."""
        at = f" at {self.budget}" if self.budget else ""
        return f"{self.candidate}{at}"

    @property
    def _plain(self) -> str:
        return self.candidate.replace(":", "-")


# Name, seeds of the reproduction (0: not made again), the net beside it.
ROWS: dict[str, tuple[int, Found]] = {
    "s2c": (3, Found("mnist-10000:172", 10, 3)),
    "s2b": (3, Found("mnist-10000:195", 10, 3)),
    "s2a": (3, Found("mnist-10000:192", 10, 3)),
    "s0": (1, Found("mnist-10000:192", 15, 5, budget=9994)),
    "s1": (1, Found("mnist-10000:192", 15, 5, budget=9994)),
    "s3a": (1, Found("mnist-10000:192", 15, 5, budget=9994)),
    "s3b": (1, Found("mnist-10000:192", 15, 5, budget=9994)),
    "s4": (1, Found("mnist-10000:192", 20, 3, budget=18962)),
    "public-1936": (0, Found("mnist-10000:188", 30, 3)),
    "public-3762": (0, Found("mnist-10000:195", 15, 5, budget=3762)),
    "public-7496": (0, Found("mnist-10000:192", 15, 3)),
    "public-9994": (0, Found("mnist-10000:192", 15, 5, budget=9994)),
}
# No reference stands at these sizes; docs/references.md tells them.
FURTHER = [
    Found("mnist-10000:190", 15, 5),
    Found("mnist-10000:191", 15, 5),
    Found("mnist-10000:192", 20, 3),
    Found("mnist-10000:195", 15, 3),
]
COLUMNS = [
    *("reference", "published_params", "published_accuracy", "published_epochs"),
    *("reproduced_accuracy_mean", "reproduced_accuracy_std", "reproduced_seeds"),
    "reproduced_best_epoch_mean",
    *("found_trial", "found_params", "found_epochs"),
    *("found_accuracy_mean", "found_accuracy_std", "found_seeds"),
]


def _nets() -> dict[str, Found]:
    """Return every net of ours that is trained, each once."""
    return {net.name: net for net in [*(net for _, net in ROWS.values()), *FURTHER]}


def commands() -> dict[str, list[str]]:
    """Return the arguments of `nas train` for each report, each once."""
    wanted = {
        net.name: [
            str(net.resized) if net.budget else net.candidate,
            f"--epochs={net.epochs}",
            f"--seeds={net.seeds}",
        ]
        for net in _nets().values()
    }
    for name, (seeds, _) in ROWS.items():
        if seeds:
            wanted[name] = [name, "--like-published", f"--seeds={seeds}"]
    return wanted


def train(processes: int) -> None:
    """Make the reports that are missing, so many at a time, each on one core."""
    reports = FOLDER / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    nas = os.environ.get("NAS", "nas").split()
    studies = f"--studies={ROOT / 'studies/first'}"
    for net in _nets().values():
        if net.budget and not net.resized.exists():
            subprocess.run(  # noqa: S603 - nas itself
                [
                    *(*nas, "resize", net.candidate, studies),
                    *(f"--budget={net.budget}", f"--output={net.resized}"),
                ],
                check=True,
                stdout=sys.stderr,
            )

    def run(name: str, arguments: list[str]) -> None:
        target = reports / f"{name}.json"
        if target.exists():
            return
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(  # noqa: S603 - nas itself
                [
                    *(*nas, "train", *arguments, "--workers=1"),
                    *(f"--output={folder}", studies),
                ],
                check=True,
                stdout=sys.stderr,
            )
            target.write_text((Path(folder) / "report.json").read_text())

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, *zip(*commands().items(), strict=True)))


def results() -> None:
    """Put the reports together: one row a reference, a table and a picture."""
    rows = [_row(name, net) for name, (_, net) in ROWS.items()]
    write(FOLDER / "results.csv", rows)
    text = f"\n{table(rows)}\n"
    put_between(ROOT / "docs/references.md", _MARKS, text)
    picture = "\n".join(svg(rows)) + "\n"
    (ROOT / "docs/references.svg").write_text(picture, encoding="utf-8")
    sys.stdout.write(text)


_MARKS = ("<!-- results -->", "<!-- end of results -->")


def _row(name: str, net: Found) -> dict[str, Any]:
    published = find_reference(name).published
    assert published is not None
    ours = _report(name) if ROWS[name][0] else {}
    theirs = _report(net.name)
    return {
        "reference": name,
        "published_params": published.num_params,
        "published_accuracy": published.best[0],
        "published_epochs": published.epochs,
        "reproduced_accuracy_mean": _round(ours.get("test_accuracy_mean")),
        "reproduced_accuracy_std": _round(ours.get("test_accuracy_std")),
        "reproduced_seeds": ours.get("seeds", 0),
        "reproduced_best_epoch_mean": _round(ours.get("test_accuracy_best_epoch_mean")),
        "found_trial": net.in_words,
        "found_params": theirs["num_params"],
        "found_epochs": theirs["epochs"],
        "found_accuracy_mean": _round(theirs["test_accuracy_mean"]),
        "found_accuracy_std": _round(theirs["test_accuracy_std"]),
        "found_seeds": theirs["seeds"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of docs/references.md."""
    titles = ["hand-made", "params", "epochs", "published", "its own rules: last"]
    titles += ["best on test", "found: params", "epochs", "last", "against published"]
    lines = []
    for row in rows:
        best = row["reproduced_best_epoch_mean"]
        gained = 100 * (row["found_accuracy_mean"] - row["published_accuracy"])
        lines.append(
            (
                row["reference"],
                f"{row['published_params']:,}",
                row["published_epochs"],
                f"{100 * row['published_accuracy']:.2f}",
                _spread(row, "reproduced"),
                "" if best is None else f"{100 * best:.2f}",
                f"{row['found_params']:,}",
                row["found_epochs"],
                f"**{_spread(row, 'found')}**",
                f"{gained:+.2f}",
            )
        )
    return markdown(titles, lines)


def _spread(row: dict[str, Any], what: str) -> str:
    mean, std = row[f"{what}_accuracy_mean"], row[f"{what}_accuracy_std"]
    seeds = row[f"{what}_seeds"]
    if mean is None:
        return "not made again"
    spread = f" ± {100 * std:.2f}" if std is not None else ""
    return f"{100 * mean:.2f}{spread} (n={seeds})"


def svg(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a picture: error against parameters, both logarithmic."""
    sizes, errors = (600, 25_000), (0.03, 0.0024)
    box = (70, 30, 740, 400)

    def place(size: float, accuracy: float) -> tuple[float, float]:
        across = math.log(size / sizes[0]) / math.log(sizes[1] / sizes[0])
        up = math.log((1 - accuracy) / errors[1]) / math.log(errors[0] / errors[1])
        return (
            round(box[0] + across * (box[2] - box[0]), 1),
            round(box[1] + up * (box[3] - box[1]), 1),
        )

    yield (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 470" role="img" '
        'aria-label="Test accuracy against parameters: hand-made nets and ours">'
    )
    yield (
        "<style>svg{font:13px system-ui,sans-serif;color-scheme:light dark}"
        "text{fill:#565c66}.g{stroke:#80869038}.h{fill:none;stroke:#0072b2;"
        "stroke-width:1.8}.f{fill:#d55e00}.e{stroke:#d55e00;stroke-width:2}"
        ".n{font-size:11px;fill:#0072b2}@media(prefers-color-scheme:dark){"
        "text{fill:#b4bac4}.n{fill:#56b4e9}.h{stroke:#56b4e9}}</style>"
    )
    for size in (1_000, 2_000, 5_000, 10_000, 20_000):
        x, _ = place(size, 0.99)
        yield f'<path class="g" d="M{x} {box[1]}V{box[3]}"/>'
        yield f'<text x="{x}" y="{box[3] + 18}" text-anchor="middle">{size:,}</text>'
    for accuracy in (0.975, 0.98, 0.985, 0.99, 0.993, 0.995, 0.996, 0.997):
        _, y = place(1_000, accuracy)
        yield f'<path class="g" d="M{box[0]} {y}H{box[2]}"/>'
        label = f"{100 * accuracy:.1f} %"
        yield f'<text x="{box[0] - 6}" y="{y + 4}" text-anchor="end">{label}</text>'
    for row in rows:
        x, y = place(row["published_params"], row["published_accuracy"])
        yield f'<path class="h" d="M{x - 4.5} {y - 4.5}h9v9h-9z"/>'
        name = row["reference"]
        # Above, where one of ours would be in the way.
        below = -7 if name in {"public-3762", "public-9994"} else 13
        yield f'<text class="n" x="{x + 8}" y="{y + below}">{name}</text>'
    seen = set()
    for report in (_report(net.name) for net in _nets().values()):
        if (report["num_params"], report["epochs"]) in seen:
            continue
        seen.add((report["num_params"], report["epochs"]))
        mean = report["test_accuracy_mean"]
        spread = report["test_accuracy_std"] or 0.0
        x, y = place(report["num_params"], mean)
        _, low = place(report["num_params"], mean - spread)
        _, high = place(report["num_params"], mean + spread)
        yield f'<path class="e" d="M{x} {low}V{high}"/>'
        yield f'<circle class="f" cx="{x}" cy="{y}" r="5"/>'
    middle = (box[0] + box[2]) / 2
    yield f'<text x="{middle}" y="{box[3] + 38}" text-anchor="middle">parameters</text>'
    yield f'<text x="{box[0]}" y="18">MNIST test accuracy</text>'
    yield f'<path class="h" d="M{box[0] + 4} {box[3] + 50}h9v9h-9z"/>'
    y = box[3] + 60
    yield f'<text x="{box[0] + 20}" y="{y}">hand-made, as published</text>'
    yield f'<circle class="f" cx="{box[0] + 208}" cy="{y - 5}" r="5"/>'
    yield (
        f'<text x="{box[0] + 220}" y="{y}">found by nas: mean of last epochs, '
        "± standard deviation of seeds</text>"
    )
    yield "</svg>"


def _report(name: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        (FOLDER / "reports" / f"{name}.json").read_text(encoding="utf-8")
    )
    return report


def _round(value: object) -> object:
    return round(value, 6) if isinstance(value, float) else value


def main() -> None:
    """Train, or put the results together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "results"])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.what == "train":
        train(arguments.processes)
    else:
        results()


if __name__ == "__main__":
    main()
