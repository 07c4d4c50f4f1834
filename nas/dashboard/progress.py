"""How a search goes: hypervolume, speed, epochs saved, sizes; pure arithmetic."""

from __future__ import annotations

import bisect
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nas.candidates.candidate import Candidate
from nas.candidates.pareto import Point, hypervolume
from nas.study.settings import Settings

Times = Sequence[tuple[datetime | None, datetime | None]]

_FINISHED = {"complete", "pruned"}
_SPEED_BINS = 60
_SIZE_BINS_PER_DECADE = 12
_NEIGHBOURS = 25


def reference_point(all_settings: Iterable[Settings]) -> Point:
    """Return the point that bounds the hypervolume: the largest cap, and chance.

    One past the cap, so that a net exactly at it counts.
    """
    known = list(all_settings)
    return (
        max(settings.param_budget for settings in known) + 1.0,
        1 / min(settings.num_classes for settings in known),
    )


def active_seconds(candidates: Sequence[Candidate], times: Times) -> dict[int, float]:
    """Return for each ended trial the time of its end, without pauses of the search.

    Only time in which some candidate was in training counts; how long that took its
    last report tells. In seconds since the search first began.
    """
    spans = []
    for candidate, (begun, ended) in zip(candidates, times, strict=False):
        if ended is None or begun is None or candidate.state == "running":
            continue
        end = ended.timestamp()
        longest = max(end - begun.timestamp(), 0.0)
        taken = candidate.curve[-1].seconds if candidate.curve else longest
        spans.append((end, min(longest, taken), candidate.trial))
    active, until = 0.0, -math.inf
    found = {}
    for end, taken, trial in sorted(spans):
        active += end - max(until, end - taken)
        until = end
        found[trial] = active
    return found


def hypervolumes(
    candidates: Iterable[Candidate], bound: Point
) -> list[tuple[int, float]]:
    """Return (how many had finished, hypervolume) wherever it grew, and at the end.

    The candidates come in the order in which they finished. Each costs a search in
    the front so far; the area is computed only where the front changed.
    """
    sizes: list[float] = []
    accuracies: list[float] = []
    found: list[tuple[int, float]] = []
    area, count = 0.0, 0
    for count, candidate in enumerate(candidates, start=1):
        if not candidate.fully_trained or candidate.val_accuracy is None:
            continue
        if candidate.state != "complete":
            continue
        size, accuracy = float(candidate.num_params), candidate.val_accuracy
        place = bisect.bisect_right(sizes, size)
        if place and accuracies[place - 1] >= accuracy:
            continue
        first = bisect.bisect_left(sizes, size)
        last = first
        while last < len(sizes) and accuracies[last] <= accuracy:
            last += 1
        sizes[first:last], accuracies[first:last] = [size], [accuracy]
        area = hypervolume(list(zip(sizes, accuracies, strict=True)), bound)
        found.append((count, area))
    if count and (not found or found[-1][0] != count):
        found.append((count, area))
    return found


def progress(
    candidates: Sequence[Candidate], times: Times, settings: Settings, bound: Point
) -> dict[str, Any]:
    """Return the numbers of the page "how the search goes"."""
    ends = active_seconds(candidates, times)
    finished = sorted(
        (c for c in candidates if c.state in _FINISHED),
        key=lambda c: (ends.get(c.trial, math.inf), c.trial),
    )
    moments = [ends.get(c.trial, 0.0) for c in finished]
    series = [
        [count, round(moments[count - 1] / 60, 3), round(area, 6)]
        for count, area in hypervolumes(finished, bound)
    ]
    return {
        "hypervolume": series,
        "reference_point": bound,
        "minutes": round(moments[-1] / 60, 3) if moments else 0,
        "finished": len(finished),
        "speed": _speed(moments),
        "epochs": _epochs(finished, settings.rungs[-1]),
        "sizes": _sizes(candidates),
    }


def timing(folder: Path) -> dict[str, float]:
    """Return where the time of the study's searches went, as shares of 0 to 1.

    From timing.json; empty where there is none yet. Training is the share of the
    workers' time, the others shares of the coordinator's.
    """
    try:
        runs = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
        total = sum(run["seconds"]["total"] for run in runs)
        worker_seconds = sum(run["seconds"]["total"] * run["workers"] for run in runs)
        spent: Counter[str] = Counter()
        for run in runs:
            spent.update(run["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if total <= 0:
        return {}
    shares = {
        name: spent[name] / total for name in ("sampling", "storage", "reporting")
    }
    return {"training": min(spent["training"] / worker_seconds, 1.0)} | shares


def losses_at_size(candidates: Iterable[Candidate]) -> dict[int, float]:
    """Return how much worse each complete candidate is than those of its size.

    The difference of the logarithm of its error to the median of its 25 neighbours
    in size on either side: what the size itself explains is taken out.
    """
    complete = sorted(
        (c for c in candidates if c.state == "complete" and c.val_accuracy is not None),
        key=lambda c: c.num_params,
    )
    errors = [math.log(max(1 - (c.val_accuracy or 0.0), 1e-4)) for c in complete]
    losses = {}
    for place, candidate in enumerate(complete):
        near = sorted(errors[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1])
        losses[candidate.trial] = errors[place] - near[len(near) // 2]
    return losses


def _speed(moments: Sequence[float]) -> dict[str, Any]:
    """Return trials a minute in bins of equal time; moments are seconds."""
    if not moments or moments[-1] <= 0:
        return {"minutes": [], "per_minute": []}
    bins = max(1, min(_SPEED_BINS, len(moments) // 6))
    width = moments[-1] / bins
    counts = Counter(min(int(moment / width), bins - 1) for moment in moments)
    return {
        "minutes": [round((i + 0.5) * width / 60, 3) for i in range(bins)],
        "per_minute": [round(counts[i] / width * 60, 2) for i in range(bins)],
    }


def _epochs(finished: Sequence[Candidate], full: float) -> dict[str, float]:
    trained = sum(c.curve[-1].epochs for c in finished if c.curve)
    promoted = sum(t.epochs for c in finished for t in c.trainings)
    return {
        "trained": round(trained + promoted, 2),
        "promoted": promoted,
        "without_pruning": full * len(finished) + promoted,
    }


def _sizes(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return counts in bins of equal width on a logarithmic scale."""
    counts = Counter(
        math.floor(math.log10(c.num_params) * _SIZE_BINS_PER_DECADE) for c in candidates
    )
    if not counts:
        return {"edges": [], "counts": []}
    places = range(min(counts), max(counts) + 1)
    edges = [10 ** (i / _SIZE_BINS_PER_DECADE) for i in (*places, places[-1] + 1)]
    return {
        "edges": [round(edge, 1) for edge in edges],
        "counts": [counts[i] for i in places],
    }
