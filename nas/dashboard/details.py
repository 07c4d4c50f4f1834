"""The details of one candidate, which the page shows when its point is clicked."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from nas.architecture.cost import Layer, layers
from nas.architecture.notation import describe, describe_block, describe_head
from nas.candidates.candidate import Candidate
from nas.study.settings import Settings
from nas.training.report import RungReport

_PEERS = 12
"""The number of curves that remain distinguishable behind the candidate's own."""


class Peers:
    """Finds candidates of similar size quickly, even among many."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._sorted = sorted(
            (c for c in candidates if c.curve), key=lambda c: (c.num_params, c.trial)
        )
        self._sizes = [c.num_params for c in self._sorted]

    def of(self, candidate: Candidate) -> list[Candidate]:
        """Return up to twelve others that have a curve, the nearest in size."""
        place = bisect_left(self._sizes, candidate.num_params)
        near = self._sorted[max(0, place - _PEERS) : place + _PEERS + 1]
        others = [c for c in near if c.trial != candidate.trial]
        others.sort(key=lambda c: abs(math.log(c.num_params / candidate.num_params)))
        return others[:_PEERS]


def details(
    candidate: Candidate, settings: Settings, peers: Sequence[Candidate]
) -> dict[str, Any]:
    """Return plain data: costs, blocks with shapes, curve, peers, recipe, commands.

    A curve is a list of (epochs, val_accuracy, train_loss, seconds), one per rung.
    """
    architecture = candidate.architecture
    return {
        "trial": candidate.trial,
        "state": candidate.state,
        "reason": candidate.reason,
        "ended": _end(candidate, settings.rungs),
        "num_params": candidate.num_params,
        "macs": candidate.macs,
        "peak_memory": candidate.peak_memory,
        "val_accuracy": candidate.val_accuracy,
        "accuracy": settings.accuracy_name,
        "key": candidate.key,
        "summary": describe(architecture),
        "input_shape": architecture.input_shape,
        "blocks": _blocks(candidate),
        "curve": _curve(candidate.curve),
        "peers": [peer.trial for peer in peers],
        "settings": _settings(candidate, settings),
        "commands": commands(candidate, settings.name),
        "architecture": architecture.to_dict(),
    }


def peer_curves(peers: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return trial, size, state and curve of each."""
    return [
        {
            "trial": peer.trial,
            "num_params": peer.num_params,
            "state": peer.state,
            "curve": _curve(peer.curve),
        }
        for peer in peers
    ]


def commands(candidate: Candidate, study: str) -> list[list[str]]:
    """Return pairs of a description and a command, ready to copy."""
    net = f"{study}:{candidate.trial}"
    folder = f"{study}-{candidate.trial}"
    return [
        ["print its layers", f"nas show {candidate.trial} {study}"],
        ["retrain it and read the test set", f"nas train {net} --seeds 3"],
        ["export it: weights, model.py, report", f"nas train {net} --output {folder}"],
        ["start a search from it", f"nas search --study {folder} --start-from {net}"],
    ]


def _end(candidate: Candidate, rungs: Sequence[float]) -> str:
    if not candidate.curve:
        return "no report yet" if candidate.state == "running" else "before a report"
    if any(training.curve for training in candidate.trainings):
        count = candidate.seeds
        mean = f", mean of {count} trainings" if count > 1 else ""
        return f"{candidate.epochs:g} epochs{mean}, after {rungs[-1]:g} of screening"
    last = candidate.curve[-1]
    return (
        f"rung {last.rung + 1} of {len(rungs)}, after {last.epochs:g} of "
        f"{rungs[-1]:g} epochs"
    )


def _curve(reports: Sequence[RungReport]) -> list[list[float]]:
    return [
        [
            report.epochs,
            round(report.val_accuracy, 6),
            round(report.train_loss, 4),
            round(report.seconds, 2),
        ]
        for report in reports
    ]


def _blocks(candidate: Candidate) -> list[dict[str, Any]]:
    architecture = candidate.architecture
    notations = [describe_block(block) for block in architecture.blocks]
    notations.append(describe_head(architecture.head))
    parts = groupby(layers(architecture), key=lambda layer: layer.name)
    rows = {name: [_layer(layer) for layer in some] for name, some in parts}
    names = [*(f"block {n}" for n in range(1, len(notations))), "head"]
    if architecture.resolution:
        names.insert(0, "input")
        notations.insert(0, f"{architecture.resolution}px")
    # A head may have no layers.
    return [
        {"name": name, "notation": notation, "layers": rows.get(name, [])}
        for name, notation in zip(names, notations, strict=True)
    ]


def _layer(layer: Layer) -> list[Any]:
    return [
        layer.description,
        kernel_of(layer),
        layer.output_shape,
        layer.num_params,
        layer.macs,
    ]


def kernel_of(layer: Layer) -> dict[str, int] | None:
    """Return what the picture shows of a convolution's kernel, the largest of several."""
    convolution = layer.convolution
    if convolution is None:
        return None
    height, width = convolution.kernel
    return {
        "height": height,
        "width": width,
        "dilation": convolution.dilation,
        "groups": convolution.in_channels // convolution.inputs,
    }


def _settings(candidate: Candidate, settings: Settings) -> dict[str, Any]:
    return {
        "data set": settings.dataset,
        "seed": candidate.seed,
        "space": settings.space,
        "sampler": settings.sampler,
        "metric": settings.metric.replace("-", " "),
        "rungs (epochs)": ", ".join(f"{rung:g}" for rung in settings.rungs),
        **{name.replace("_", " "): v for name, v in asdict(settings.recipe).items()},
    }
