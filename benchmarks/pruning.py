"""What the pruning rule saves and what it costs, on recorded, unpruned curves.

    nas search --study curves --budget 3000 --trials 120 --epochs 45 --sampler random --no-pruning
    python benchmarks/pruning.py record studies/curves    # -> benchmarks/curves.csv
    python benchmarks/pruning.py replay                   # -> benchmarks/pruning.csv

``replay`` sends the recorded candidates through the rule in many random orders, two in
training at a time, and counts the epochs saved and the members of the front (of the
unpruned end results) that the rule would have pruned. An accuracy-only rule, which
prunes what is below the median of all peers whatever their size, stands beside it.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import CURVES, recorded_curves, write

from nas.candidates.candidate import Candidate
from nas.candidates.pareto import pareto_front
from nas.candidates.pruning import PruningRule, RungResult, should_prune
from nas.study.folders import read_study

HERE = Path(__file__).parent
ORDERS = 200
IN_TRAINING = 2
VAL_SIZE = 5000

Rule = Callable[[RungResult, Sequence[RungResult]], bool]


@dataclass(frozen=True)
class Curve:
    """One recorded candidate: the rungs in epochs and where it stood at each."""

    trial: int
    epochs: tuple[float, ...]
    results: tuple[RungResult, ...]


def record(folder: Path) -> None:
    """Write the curves of all complete candidates of a study."""
    candidates: list[Candidate] = [
        c for c in read_study(folder).candidates() if c.state == "complete"
    ]
    write(
        CURVES,
        [
            {
                "trial": c.trial,
                "key": c.key,
                "num_params": c.num_params,
                "macs": c.macs,
                "epochs": report.epochs,
                "val_accuracy": report.val_accuracy,
                "train_loss": round(report.train_loss, 5),
                "seconds": round(report.seconds, 2),
            }
            for c in candidates
            for report in c.curve
        ],
    )


def read_curves() -> list[Curve]:
    """Return the recorded curves."""
    return [
        Curve(
            trial,
            tuple(float(r["epochs"]) for r in reports),
            tuple(
                RungResult(
                    int(r["num_params"]),
                    float(r["val_accuracy"]),
                    float(r["train_loss"]),
                )
                for r in reports
            ),
        )
        for trial, reports in recorded_curves().items()
    ]


def size_aware(rule: PruningRule) -> Rule:
    """Return our rule as a function of a point and its peers."""
    return lambda own, peers: should_prune(own, peers, rule=rule, val_size=VAL_SIZE)


def accuracy_alone(rule: PruningRule) -> Rule:
    """Return our rule without its second witness, the training loss."""
    rule_of_both = size_aware(rule)

    def without_loss(own: RungResult, peers: Sequence[RungResult]) -> bool:
        blind = [peer._replace(train_loss=0.0) for peer in peers]
        return rule_of_both(own._replace(train_loss=1.0), blind)

    return without_loss


def below_median(own: RungResult, peers: Sequence[RungResult]) -> bool:
    """Prune what is less accurate than half of all peers, as a median pruner does."""
    accuracies = [peer.val_accuracy for peer in peers]
    return len(peers) >= 5 and own.val_accuracy < statistics.median(accuracies)


def replay(curves: Sequence[Curve], rule: Rule) -> tuple[float, set[int]]:
    """Return the epochs trained in this order, and the trials that were pruned."""
    rungs = len(curves[0].epochs)
    seen: list[list[RungResult]] = [[] for _ in range(rungs)]
    waiting, training = list(curves), list[tuple[float, int, Curve]]()
    now, spent, pruned = 0.0, 0.0, set[int]()
    while waiting or training:
        while waiting and len(training) < IN_TRAINING:
            curve = waiting.pop(0)
            training.append((now + curve.epochs[0], 0, curve))
        # The next report is that of whoever reaches its rung first.
        training.sort(key=lambda item: item[0])
        now, rung, curve = training.pop(0)
        result = curve.results[rung]
        last = rung == rungs - 1
        stop = not last and rule(result, seen[rung])
        seen[rung].append(result)
        if stop:
            pruned.add(curve.trial)
        if stop or last:
            spent += curve.epochs[rung]
        else:
            step = curve.epochs[rung + 1] - curve.epochs[rung]
            training.append((now + step, rung + 1, curve))
    return spent, pruned


def measure(curves: Sequence[Curve], rule: Rule) -> dict[str, float]:
    """Return the mean share of epochs saved and of front members lost."""
    points = [c.results[-1][:2] for c in curves]
    members = {curves[i].trial for i in pareto_front(points)}
    full = sum(c.epochs[-1] for c in curves)
    saved, lost = [], []
    for order in range(ORDERS):
        shuffled = list(curves)
        random.Random(order).shuffle(shuffled)
        spent, pruned = replay(shuffled, rule)
        saved.append(1 - spent / full)
        lost.append(len(pruned & members) / len(members))
    return {
        "candidates": len(curves),
        "front_members": len(members),
        "epochs_saved": round(statistics.fmean(saved), 4),
        "epochs_saved_std": round(statistics.stdev(saved), 4),
        "front_lost": round(statistics.fmean(lost), 4),
        "orders_with_a_loss": round(sum(share > 0 for share in lost) / ORDERS, 4),
    }


def main() -> None:
    """Record or replay."""
    if sys.argv[1:2] == ["record"] and len(sys.argv) == 3:
        record(Path(sys.argv[2]))
        return
    if sys.argv[1:] != ["replay"]:
        sys.exit(__doc__)
    curves = read_curves()
    # The defaults, and from them one number changed at a time.
    changes: list[dict[str, float]] = [
        {},
        *({"lead": lead} for lead in (0.1, 0.2, 0.25, 0.35, 0.4)),
        *({"rivals": rivals} for rivals in (2, 3)),
        *({"noise": noise} for noise in (0.0, 2.0)),
        *({"min_peers": peers} for peers in (2, 10)),
    ]
    rules: list[tuple[str, PruningRule | None, Rule]] = []
    for change in changes:
        ours = PruningRule(**change)  # type: ignore[arg-type]
        rules.append(("both", ours, size_aware(ours)))
    for rivals in (1, 2):
        ours = PruningRule(rivals=rivals)
        rules.append(("accuracy alone", ours, accuracy_alone(ours)))
    rules.append(("median", None, below_median))
    # Halves show whether numbers chosen on some candidates hold on others.
    halves = curves[: len(curves) // 2], curves[len(curves) // 2 :]
    rows = []
    for kind, ours, rule in rules:
        row: dict[str, object] = {"rule": kind} | {
            name: str(getattr(ours, name, ""))
            for name in ("rivals", "lead", "noise", "min_peers")
        }
        row |= measure(curves, rule)
        for name, half in zip(("first", "second"), halves, strict=True):
            found = measure(half, rule)
            row |= {
                f"{key}_{name}_half": found[key]
                for key in ("epochs_saved", "front_lost")
            }
        rows.append(row)
        print(row)
    write(HERE / "pruning.csv", rows)


if __name__ == "__main__":
    main()
