"""Tells what pays in the default space, and at other sizes, from the published studies.

    python benchmarks/decisions.py   # its tables go into docs/spaces.md and docs/search.md

It takes seconds. A candidate's residual tells how much worse (+) or better (-) it is than
others of its size (nas/candidates/ranking.py). For each option of each decision the first
table has the median residual of the candidates that took it, and the residual that the
best tenth of them reach. The second tells how much of a residual is kept by networks of the
same structure at another size. Evolution makes candidates alike, so they are not
independent of one another.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import put_between, table

from nas.architecture import Architecture
from nas.candidates.ranking import Evidence, evidence_of, rank
from nas.study.folders import read_study

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "studies" / "published"
MARKS = ("<!-- decisions -->", "<!-- end of decisions -->")
KEPT_MARKS = ("<!-- kept -->", "<!-- end of kept -->")
# Up to these ratios of the two sizes, pairs of networks go into one row.
RATIOS = (1.3, 2.0, 4.5, math.inf)
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


def measured() -> list[list[tuple[Architecture, Evidence, float]]]:
    """Return the candidates of each study on MNIST, with evidence and residual."""
    studies = []
    for folder in sorted(PUBLISHED.glob("mnist-*")):
        study = read_study(folder)
        settings = study.settings
        some = [c for c in study.candidates() if c.state == "complete"]
        evidence = [
            evidence_of(c, settings.noise_size, settings.levels[0]) for c in some
        ]
        residuals = rank(evidence, settings.levels).residuals.tolist()
        studies.append(
            [
                (candidate.architecture, known, residual)
                for candidate, known, residual in zip(
                    some, evidence, residuals, strict=True
                )
                if candidate.num_params >= LEAST_PARAMS
            ]
        )
    return studies


def decisions_table(found: Sequence[tuple[Architecture, Evidence, float]]) -> str:
    """Return the median residual and that of the best tenth, for each option."""
    rows = []
    for decision, option_of in DECISIONS.items():
        options: defaultdict[object, list[float]] = defaultdict(list)
        for architecture, _, residual in found:
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
    return table(headings, rows) + "\n"


def kept_table(
    studies: Sequence[Sequence[tuple[Architecture, Evidence, float]]],
) -> str:
    """Return which part of the residual pairs of one structure have in common, by sizes.

    It is the slope of one's residual on the other's, with either of them as the first.
    """
    pairs: defaultdict[float, list[tuple[float, float]]] = defaultdict(list)
    for found in studies:
        for (_, one, first), (_, other, second) in combinations(found, 2):
            if one.family == other.family:
                sizes = sorted((one.num_params, other.num_params))
                row = next(most for most in RATIOS if sizes[1] <= most * sizes[0])
                pairs[row].append((first, second))
    rows = []
    for least, most in zip((1.0, *RATIOS), RATIOS, strict=False):
        some = pairs[most]
        if len(some) >= LEAST_CANDIDATES:
            common = sum(a * b for a, b in some)
            kept = common / (sum(a * a + b * b for a, b in some) / 2)
            upper = "" if math.isinf(most) else f", to {most:g}"
            rows.append([f"over {least:g}{upper}", len(some), f"{kept:.2f}"])
    return table(["ratio of the two sizes", "pairs", "kept"], rows) + "\n"


def main() -> None:
    """Print the tables and put them into their pages."""
    studies = measured()
    for page, marks, text in (
        (
            "spaces.md",
            MARKS,
            decisions_table([one for some in studies for one in some]),
        ),
        ("search.md", KEPT_MARKS, kept_table(studies)),
    ):
        print(text)
        put_between(ROOT / "docs" / page, marks, text)


if __name__ == "__main__":
    main()
