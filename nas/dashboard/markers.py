"""Nets beside the candidates: the retrained winner, and later the references.

Their accuracies are on the test set, a different kind of number than a candidate's
on the validation split; the page draws them so that nobody can mix them up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_WINNER = ("num_params", "macs", "peak_memory", "test_accuracy_mean")


def markers(folder: Path) -> list[dict[str, Any]]:
    """Return the nets to mark in the study's plot; references are to join here.

    Each has ``kind``, ``name``, the three sizes, ``test_accuracy``, its standard
    deviation ``spread`` over ``seeds`` trainings, and ``trial`` where it came from one.
    """
    return _winner(folder)


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
