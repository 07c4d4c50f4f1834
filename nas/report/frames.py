"""Candidates as pandas frames, and frames as text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import pandas as pd

from nas.architecture.boards import Board
from nas.architecture.cost import Cost, cost, layers, total
from nas.architecture.notation import describe
from nas.candidates.candidate import Candidate, front
from nas.errors import UsageError
from nas.training.report import Metric

TextFormat = Literal["csv", "json", "md"]

_TYPES = {
    "trial": "int64",
    "state": "str",
    "num_params": "int64",
    "val_accuracy": "float64",
    "macs": "int64",
    "peak_memory": "int64",
    "key": "str",
    "epochs": "float64",
    "seeds": "int64",
    "val_loss": "float64",
    "origin": "str",
    "parent": "Int64",
    "depth": "int64",
    "seed": "int64",
    "reason": "str",
    "summary": "str",
    "architecture": "str",
}
"""The columns of candidates_frame, so that an empty frame has them, too."""


def candidates_frame(candidates: Iterable[Candidate]) -> pd.DataFrame:
    """Return one row per candidate, in the given order.

    ``val_accuracy`` (0 to 1) and ``val_loss`` are of the longest training; they,
    ``parent`` and ``reason`` may be missing. ``macs`` are of one image, ``peak_memory``
    is bytes of int8 activations. ``epochs`` is the length of the longest training,
    ``seeds`` the number of trainings of that length. ``origin`` is how the architecture
    was proposed, ``parent`` the trial that it derives from. ``depth`` is the number of
    blocks, ``summary`` the notation of nas.architecture.notation and ``architecture``
    the JSON for Architecture.from_json.
    """
    rows = [_row(candidate) for candidate in candidates]
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def trials_frame(
    candidates: Sequence[Candidate],
    decisions: Mapping[int, Mapping[str, float]],
    metric: Metric,
) -> pd.DataFrame:
    """Return candidates_frame with more columns on each trial.

    ``metric`` is the metric of val_accuracy, ``seconds`` the time of all trainings and
    ``decisions`` JSON with the name and value of each of the sampler's draws.
    """
    frame = candidates_frame(candidates)
    frame["metric"] = pd.Series([metric] * len(frame), dtype="str")
    frame["seconds"] = pd.Series(map(_seconds, candidates), dtype="float64")
    drawn = [json.dumps(decisions.get(c.trial, {})) for c in candidates]
    frame["decisions"] = pd.Series(drawn, dtype="str")
    return frame


def _seconds(candidate: Candidate) -> float:
    curves = [candidate.curve, *(t.curve for t in candidate.trainings)]
    return round(sum(curve[-1].seconds for curve in curves if curve), 3)


def parquet(frame: pd.DataFrame) -> bytes:
    """Return the frame as a parquet file; UsageError without a library for it."""
    file = io.BytesIO()
    try:
        frame.to_parquet(file, index=False)
    except ImportError:
        raise UsageError(
            "--format parquet needs a package that writes it: pip install pyarrow, or "
            "give --format csv"
        ) from None
    return file.getvalue()


def candidate_record(
    candidate: Candidate, metric: Metric, board: Board | None = None
) -> dict[str, Any]:
    """Return all data on a candidate, as plain data for JSON.

    It has the columns of candidates_frame, ``metric``, ``seconds``, ``layers`` with
    their costs, ``curve`` of the first, short training and ``trainings``, the longer
    ones. With a board it has ``flash`` (bytes) and ``latency_ms``, also for each layer.
    """
    costs = cost(candidate.architecture, board)
    rows = layers(candidate.architecture)
    return {
        **_row(candidate),
        **_on_board(costs, board),
        "metric": metric,
        "seconds": _seconds(candidate),
        "layers": [
            {
                "name": layer.name,
                "layer": layer.description,
                "output_shape": list(layer.output_shape),
                "num_params": layer.num_params,
                "macs": layer.macs,
                "memory": layer.memory,
                **_on_board(total([layer], board), board),
            }
            for layer in rows
        ],
        "curve": [asdict(report) for report in candidate.curve],
        "trainings": [asdict(training) for training in candidate.trainings],
        "architecture": candidate.architecture.to_dict(),
    }


def _on_board(costs: Cost, board: Board | None) -> dict[str, float]:
    if board is None:
        return {}
    return {"flash": costs.flash, "latency_ms": costs.latency / 1e6}


def front_frame(
    candidates: Iterable[Candidate], board: Board | None = None
) -> pd.DataFrame:
    """Return the Pareto front, smallest first: candidates_frame without state, reason.

    Every row is a complete candidate. The first columns are trial, num_params,
    val_accuracy, macs, peak_memory and key. With a board, flash (bytes) and latency_ms
    (estimated, in milliseconds) precede the key.
    """
    members = front(candidates)
    frame = candidates_frame(members).drop(columns=["state", "reason"])
    if board is not None:
        costs = [cost(member.architecture, board) for member in members]
        place = frame.columns.get_loc("key")
        frame.insert(place, "flash", [found.flash for found in costs])
        frame.insert(place + 1, "latency_ms", [c.latency / 1e6 for c in costs])
    return frame


def format_frame(frame: pd.DataFrame, text_format: TextFormat) -> str:
    """Return the frame as text that ends with a newline: CSV, JSON or Markdown.

    JSON is a list of objects with null for missing values. Numbers have full precision
    in all three, as rounding an accuracy could change its rank. Markdown is for people
    and omits the columns "architecture" and "decisions".
    Raises ValueError for any other format.
    """
    match text_format:
        case "csv":
            return str(frame.to_csv(index=False, lineterminator="\n"))
        case "json":
            return json.dumps(_records(frame), indent=2, ensure_ascii=False) + "\n"
        case "md":
            return _markdown(
                frame.drop(columns=["architecture", "decisions"], errors="ignore")
            )
    raise ValueError(
        f"no text format {text_format!r}: use one of {get_args(TextFormat)}"
    )


def _row(candidate: Candidate) -> dict[str, Any]:
    described = {
        "depth": len(candidate.architecture.blocks),
        "summary": describe(candidate.architecture),
        "architecture": candidate.architecture.to_json(),
    }
    return {
        name: described[name] if name in described else getattr(candidate, name)
        for name in _TYPES
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _markdown(frame: pd.DataFrame) -> str:
    rows = [[_cell(value) for value in row.values()] for row in _records(frame)]
    names = [_cell(name) for name in frame.columns]
    rules = ["---:" if dtype.kind in "if" else "---" for dtype in frame.dtypes]
    lines = ["| " + " | ".join(row) + " |" for row in [names, rules, *rows]]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
