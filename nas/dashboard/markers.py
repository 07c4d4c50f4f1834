"""Nets beside the candidates: the retrained winner and the hand-made references.

Their accuracies are on the test set, a different kind of number than a candidate's
on the validation split; the page draws them so that nobody can mix them up.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from nas.architecture.cost import cost
from nas.references.bundled import available, find_reference
from nas.study.settings import Settings

_WINNER = ("num_params", "macs", "peak_memory", "test_accuracy_mean")


def markers(folder: Path, settings: Settings) -> list[dict[str, Any]]:
    """Return the nets to mark in the study's plot, references before the winner.

    Each has ``kind``, ``name``, the three sizes, ``test_accuracy``, its standard
    deviation ``spread`` over ``seeds`` trainings, and ``trial`` where it came from one.
    References are those on the study's data set of at most twice its budget; their
    accuracy is the published one, and ``what`` says of which epoch.
    """
    near = 2 * settings.param_budget
    references = _references(settings.dataset)
    return [net for net in references if net["num_params"] <= near] + _winner(folder)


@cache
def _references(dataset: str) -> list[dict[str, Any]]:
    found = []
    for name in available():
        reference = find_reference(name)
        published = reference.published
        if published is None or published.dataset != dataset:
            continue
        accuracy, what = published.best
        costs = cost(reference.architecture)
        found.append(
            {
                "kind": "reference",
                "name": name,
                "what": what,
                "num_params": costs.num_params,
                "macs": costs.macs,
                "peak_memory": costs.peak_memory,
                "test_accuracy": accuracy,
                "spread": 0.0,
                "seeds": 1,
                "epochs": published.epochs,
            }
        )
    return found


def _winner(folder: Path) -> list[dict[str, Any]]:
    try:
        text = (folder / "best" / "report.json").read_text(encoding="utf-8")
        report = json.loads(text)
        sizes = {name: float(report[name]) for name in _WINNER}
        return [
            {
                "kind": "winner",
                "name": f"retrained winner (trial {int(report['trial'])})",
                "trial": int(report["trial"]),
                "num_params": sizes["num_params"],
                "macs": sizes["macs"],
                "peak_memory": sizes["peak_memory"],
                "test_accuracy": sizes["test_accuracy_mean"],
                "spread": float(report.get("test_accuracy_std") or 0),
                "seeds": int(report.get("seeds", 1)),
                "epochs": float(report.get("epochs", 0)),
            }
        ]
    except (OSError, ValueError, KeyError, TypeError):
        # Not retrained yet, or being written by another version: the plot goes on.
        return []
