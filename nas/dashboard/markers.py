"""Nets shown beside the candidates: the retrained winners and hand-made references.

Their accuracies are on the test set, while those of candidates are on the validation
split. The page draws them differently so that they cannot be confused.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.architecture.boards import Board
from nas.architecture.cost import cost
from nas.dashboard.columns import board_of, device_sizes
from nas.errors import ArchitectureError
from nas.references.bundled import available, find_reference
from nas.study.settings import Settings
from nas.study.winners import read_reports

_SIZES = ("num_params", "macs", "peak_memory")


def markers(folder: Path, settings: Settings) -> list[dict[str, Any]]:
    """Return the nets to mark in the study's plot, references before the winners.

    Each has ``kind``, ``name``, the sizes of columns.py, ``test_accuracy``, its standard
    deviation ``spread`` over ``seeds`` trainings, and ``trial`` if it came from one.
    References are those on the study's data set of at most twice its cap. Their
    accuracy is the published one; ``what`` names its epoch.
    """
    near = 2 * settings.param_budget
    board = board_of(settings)
    references = _references(settings.dataset, board)
    near_ones = [net for net in references if net["num_params"] <= near]
    return near_ones + _winners(folder, board)


@cache
def _references(dataset: str, board: Board) -> list[dict[str, Any]]:
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
                **{size: getattr(costs, size) for size in _SIZES},
                **device_sizes(reference.architecture, board),
                "test_accuracy": accuracy,
                "spread": 0.0,
                "seeds": 1,
                "epochs": published.epochs,
            }
        )
    return found


def _winners(folder: Path, board: Board) -> list[dict[str, Any]]:
    """Return the nets that `nas best` wrote into folders below the study's."""
    return read_reports(folder, lambda report, place: _winner(report, place, board))


def _winner(report: dict[str, Any], folder: Path, board: Board) -> dict[str, Any]:
    sizes = {name: float(report[name]) for name in _SIZES}
    where = "" if folder.name == "best" else f" in {folder.name}/"
    resized = " resized" if report.get("resized") else ""
    return {
        "kind": "winner",
        "name": f"retrained winner{where} (trial {int(report['trial'])}{resized})",
        "trial": int(report["trial"]),
        **sizes,
        **_winner_on(board, folder / "architecture.json"),
        "test_accuracy": float(report["test_accuracy_mean"]),
        "spread": float(report.get("test_accuracy_std") or 0),
        "seeds": int(report.get("seeds", 1)),
        "epochs": float(report.get("epochs", 0)),
    }


def _winner_on(board: Board, path: Path) -> dict[str, float]:
    """Return the winner's sizes on a device; empty if its description is missing."""
    try:
        architecture = Architecture.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ArchitectureError):
        return {}
    return device_sizes(architecture, board)
