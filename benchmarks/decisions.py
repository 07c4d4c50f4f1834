"""Tells which decisions of the default space pay, from the trials of published studies.

    python benchmarks/decisions.py          # writes its table into docs/spaces.md; seconds

A candidate's residual tells how much worse (+) or better (-) it is than others of its size
(nas/candidates/ranking.py). For each option of each decision the table has the median
residual of the candidates that took it, and the residual that the best tenth of them
reach. Evolution makes candidates alike, so they are not independent of one another.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import put_between, table

from nas.architecture import Architecture
from nas.candidates.ranking import evidence_of, rank
from nas.study.folders import read_study

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "studies" / "published"
MARKS = ("<!-- decisions -->", "<!-- end of decisions -->")
# Smaller nets have hardly a choice.
LEAST_PARAMS = 300
LEAST_CANDIDATES = 10

DECISIONS: dict[str, Callable[[Architecture], object]] = {
    "head": lambda a: a.head.kind,
    "kinds of blocks": lambda a: ", ".join(sorted({b.kind for b in a.blocks})),
    "largest kernel": lambda a: max(max(b.kernel) for b in a.blocks),
    "most repeats of a block": lambda a: max(b.repeats for b in a.blocks),
    "downsamplings": lambda a: sum(b.stride > 1 or b.pool != "none" for b in a.blocks),
    "a block without padding": lambda a: (
        "yes" if any(b.padding == "valid" for b in a.blocks) else "no"
    ),
    "activation of the first block": lambda a: a.blocks[0].activation,
    "dropout": lambda a: "yes" if any(b.dropout for b in a.blocks) else "no",
}


def measured() -> Iterator[tuple[Architecture, float]]:
    """Yield the architectures of all studies on MNIST with their residuals."""
    for folder in sorted(PUBLISHED.glob("mnist-*")):
        study = read_study(folder)
        settings = study.settings
        some = [c for c in study.candidates() if c.state == "complete"]
        evidence = [
            evidence_of(c, settings.noise_size, settings.levels[0]) for c in some
        ]
        residuals = rank(evidence, settings.levels).residuals.tolist()
        for candidate, residual in zip(some, residuals, strict=True):
            if candidate.num_params >= LEAST_PARAMS:
                yield candidate.architecture, residual


def main() -> None:
    """Print the table and put it into the page."""
    found = list(measured())
    rows = []
    for decision, option_of in DECISIONS.items():
        options: defaultdict[object, list[float]] = defaultdict(list)
        for architecture, residual in found:
            options[option_of(architecture)].append(residual)
        medians = {}
        for option, some in options.items():
            if len(some) >= LEAST_CANDIDATES:
                medians[option] = statistics.median(some)
        for option in sorted(medians, key=medians.__getitem__):
            some = options[option]
            best = f"{statistics.quantiles(some, n=10)[0]:+.2f}"
            rows.append([decision, option, len(some), f"{medians[option]:+.2f}", best])
            decision = ""  # noqa: PLW2901 - named in its first row alone
    headings = ["decision", "option", "candidates", "median residual", "best tenth"]
    text = table(headings, rows) + "\n"
    print(text)
    put_between(ROOT / "docs" / "spaces.md", MARKS, text)


if __name__ == "__main__":
    main()
