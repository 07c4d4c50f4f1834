"""A search's progress: hypervolume, speed, epochs saved, sizes; pure arithmetic."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from nas.candidates.candidate import Candidate, with_training
from nas.candidates.pareto import Point, hypervolume, pareto_front
from nas.study.settings import Settings

Times = Sequence[tuple[datetime | None, datetime | None]]

_FINISHED = {"complete", "pruned"}
_SPEED_BINS = 60
_SIZE_BINS_PER_DECADE = 12
_NEIGHBOURS = 25


def reference_point(all_settings: Iterable[Settings]) -> Point:
    """Return the reference point of the hypervolume: the largest cap and chance level.

    It is one past the cap, so that a net exactly at the cap counts.
    """
    known = list(all_settings)
    return (
        max(settings.param_budget for settings in known) + 1.0,
        1 / min(settings.num_classes for settings in known),
    )


@dataclass(frozen=True, slots=True)
class Moment:
    """The end of a training, with the candidate's state at that time.

    ``end`` is in seconds since 1970, ``taken`` is the duration in seconds. ``epochs``
    is the number of trained epochs, fewer than planned for a pruned candidate.
    """

    end: float
    taken: float
    epochs: float
    candidate: Candidate


def moments(
    candidates: Sequence[Candidate], times: Times, settings: Settings
) -> list[Moment]:
    """Return the ends of all trainings, short and longer ones, in order of time.

    Older studies did not record when a longer training ended; their longer trainings
    count as part of the candidate's first.
    """
    found = []
    for candidate, (begun, ended) in zip(candidates, times, strict=False):
        if ended is None or begun is None or candidate.state == "running":
            continue
        timed = [t for t in candidate.trainings if t.ended is not None]
        then = _screened(candidate, settings) if timed else candidate
        end = ended.timestamp()
        longest = max(end - begun.timestamp(), 0.0)
        taken = candidate.curve[-1].seconds if candidate.curve else longest
        epochs = candidate.curve[-1].epochs if candidate.curve else 0.0
        if not timed:
            epochs += sum(t.epochs for t in candidate.trainings)
        found.append(Moment(end, min(longest, taken), epochs, then))
        for training in timed:
            then = with_training(then, training, settings.full_epochs)
            taken = training.curve[-1].seconds if training.curve else 0.0
            trained = float(training.epochs if training.curve else 0)
            found.append(Moment(training.ended or 0.0, taken, trained, then))
    return sorted(found, key=lambda m: (m.end, m.candidate.trial))


def _screened(candidate: Candidate, settings: Settings) -> Candidate:
    """Return the candidate as it was after its first training."""
    last = candidate.curve[-1] if candidate.curve else None
    return replace(
        candidate,
        trainings=(),
        val_accuracy=last.val_accuracy if last else None,
        val_loss=last.val_loss if last else None,
        fully_trained=len(settings.levels) == 1,
    )


def active_seconds(ended: Sequence[Moment]) -> list[float]:
    """Return for each moment the active seconds since the search first began.

    Only time in which a training ran counts, not pauses of the search. A training's
    last report has its duration.
    """
    active, until = 0.0, -math.inf
    found = []
    for moment in ended:
        active += moment.end - max(until, moment.end - moment.taken)
        until = moment.end
        found.append(active)
    return found


def hypervolumes(
    candidates: Iterable[Candidate], bound: Point
) -> list[tuple[int, float]]:
    """Return (candidates so far, hypervolume) at each change, and at the end.

    ``candidates`` are in the order in which their trainings ended; a repeated one
    replaces its earlier entry. The area is computed only when the front changes.
    """
    front: list[Point] = []
    latest: dict[int, Point] = {}
    found: list[tuple[int, float]] = []
    area, count = 0.0, 0
    for count, candidate in enumerate(candidates, start=1):
        if not candidate.fully_trained or candidate.val_accuracy is None:
            continue
        if candidate.state != "complete":
            continue
        again = candidate.trial in latest
        point = (float(candidate.num_params), candidate.val_accuracy)
        latest[candidate.trial] = point
        # Another seed may have lowered the mean: then any candidate may be a member.
        known = list(latest.values()) if again else [*front, point]
        members = [known[i] for i in pareto_front(known)]
        if members == front and not again:
            continue
        front = members
        area = hypervolume(front, bound)
        found.append((count, area))
    if count and (not found or found[-1][0] != count):
        found.append((count, area))
    return found


def progress(
    candidates: Sequence[Candidate], times: Times, settings: Settings, bound: Point
) -> dict[str, Any]:
    """Return the numbers of the page "how the search goes".

    Each row of the hypervolume is [epochs trained so far, minutes, hypervolume].
    """
    ended = moments(candidates, times, settings)
    minutes = [seconds / 60 for seconds in active_seconds(ended)]
    epochs = list(itertools.accumulate(moment.epochs for moment in ended))
    series = [
        [round(epochs[n - 1], 2), round(minutes[n - 1], 3), round(area, 6)]
        for n, area in hypervolumes((m.candidate for m in ended), bound)
    ]
    finished = [c for c in candidates if c.state in _FINISHED]
    return {
        "hypervolume": series,
        "reference_point": bound,
        "minutes": round(minutes[-1], 3) if minutes else 0,
        "finished": len(finished),
        "speed": _speed(list(zip(minutes, epochs, strict=True))),
        "epochs": _epochs(finished, settings.rungs[-1]),
        "sizes": _sizes(candidates),
    }


def timing(folder: Path) -> dict[str, float]:
    """Return how the study's searches spent their time, as shares from 0 to 1.

    They come from timing.json; empty if there is none yet. Training is a share of the
    workers' time, the others are shares of the coordinator's.
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
    """Return how much worse each complete candidate is than others of its size.

    A loss is the log error minus the median log error of the 25 neighbours in size on
    either side, which removes the effect of the size itself.
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


def _speed(trained: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return epochs per minute in bins of equal time, from (minute, epochs so far)."""
    if not trained or trained[-1][0] <= 0:
        return {"minutes": [], "per_minute": []}
    bins = max(1, min(_SPEED_BINS, len(trained) // 6))
    width = trained[-1][0] / bins
    found = [0.0] * bins
    before = 0.0
    for minute, epochs in trained:
        found[min(int(minute / width), bins - 1)] += epochs - before
        before = epochs
    return {
        "minutes": [round((i + 0.5) * width, 3) for i in range(bins)],
        "per_minute": [round(epochs / width, 2) for epochs in found],
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
