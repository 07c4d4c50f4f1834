"""Short searches against a net that anyone would draw: 20 trials on small data.

    python benchmarks/short_searches.py run digits --budget 2000 [--seeds 0-9]
    python benchmarks/short_searches.py run words.npz --budget 2345
    python benchmarks/short_searches.py table

For each seed: `nas search --trials 20`, then `nas best --seeds 3`, all with defaults. Beside
it stands a plain net of the winner's size, trained by the same recipe with three seeds:
three 3x3 convolutions with widths 1:2:4, pooling after the first two, global pooling.
Rows go to short_searches.csv as they come. words.npz is made by spoken_words.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness import append, conditions, read, seeds, table

import nas
from nas.architecture import Architecture, Block, Head
from nas.space import Caps, resize

ROWS = Path(__file__).with_suffix(".csv")
TRIALS, TRAININGS = 20, 3


def plain(like: Architecture, num_params: int) -> Architecture:
    """Return the plain net for the same images, as wide as so many parameters allow."""
    blocks = (
        Block(out_channels=1, pool="max"),
        Block(out_channels=2, pool="max"),
        Block(out_channels=4),
    )
    drawn = Architecture(
        input_shape=like.input_shape,
        num_classes=like.num_classes,
        blocks=blocks,
        head=Head(kind="gap"),
    )
    return resize(drawn, Caps(num_params=num_params))


def run(name: str, budget: int, seed: int) -> None:
    """Search, train the winner and the plain net, and write their row."""
    quiet = {"workers": 1, "device": "cpu", "progress": False}
    with tempfile.TemporaryDirectory() as studies:
        study = nas.search(
            name, budget=budget, trials=TRIALS, seed=seed, studies=studies, **quiet
        )
        winner = study.best(seeds=TRAININGS, **quiet)
        drawn = plain(winner.architecture, winner.report["num_params"])
        trained = nas.train(
            drawn,
            name,
            epochs=winner.report["epochs"],
            seeds=TRAININGS,
            **quiet,
        )
    row: dict[str, object] = {
        "data": Path(name).stem,
        "budget": budget,
        "seed": seed,
        "trials": TRIALS,
        "trainings": TRAININGS,
    }
    for which, net in (("winner", winner), ("plain", trained)):
        row[f"{which}_params"] = net.report["num_params"]
        row[f"{which}_macs"] = net.report["macs"]
        row[f"{which}_test"] = round(net.report["test_accuracy_mean"], 5)
        row[f"{which}_std"] = round(net.report["test_accuracy_std"], 5)
    append(ROWS, row)


def result() -> str:
    """Return a row for each data set."""
    rows = read(ROWS)
    lines = []
    for name in dict.fromkeys(row["data"] for row in rows):
        some = [row for row in rows if row["data"] == name]
        ours, theirs = (
            [100 * float(row[f"{which}_test"]) for row in some]
            for which in ("winner", "plain")
        )
        good = sum(a >= b for a, b in zip(ours, theirs, strict=True))
        share = statistics.fmean(
            int(row["winner_params"]) / int(row["budget"]) for row in some
        )
        lines.append(
            [
                f"{name}, {int(some[0]['budget']):,}",
                f"{statistics.fmean(ours):.2f} % ({min(ours):.2f} to {max(ours):.2f})",
                f"{statistics.fmean(theirs):.2f} % ({min(theirs):.2f} to {max(theirs):.2f})",
                f"{good} of {len(some)}",
                f"{share:.0%}",
            ]
        )
    return table(
        [
            "data, cap",
            "winner of 20 trials, test",
            "plain net of its size, test",
            "winner as good or better",
            "winner's size, of the cap",
        ],
        lines,
    )


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--budget", type=int, default=2000)
    parser.add_argument("--seeds", type=seeds, default=range(10))
    options = parser.parse_args()
    if options.what == "run":
        name = Path(options.data).stem
        known = {(row["data"], int(row["seed"])) for row in read(ROWS)}
        for seed in options.seeds:
            if (name, seed) not in known:
                run(options.data, options.budget, seed)
    print(result())
    print(conditions())


if __name__ == "__main__":
    main()
