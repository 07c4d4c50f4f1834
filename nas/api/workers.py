"""The workers that a search, `best` or `train` starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nas.data import Dataset
from nas.engines import Engine
from nas.engines.local import LocalEngine, devices_for
from nas.errors import UsageError
from nas.study.study import Study

EngineName = Literal["local", "ray"]

Start = Callable[[Dataset, Study], tuple[Engine, list[str], int]]
"""Starts the workers of a search; returns the engine, its devices and the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersWanted:
    """The wanted workers: number, devices, on this machine or on a Ray cluster."""

    device: str = "auto"
    workers: int | None = None
    engine: EngineName = "local"
    address: str | None = None
    gpus_per_worker: float | None = None


def starter(wanted: WorkersWanted) -> Start:
    """Check the options that need no data; return a function to start the workers."""
    if wanted.engine == "ray":
        return _on_ray(wanted)
    if wanted.address is not None or wanted.gpus_per_worker is not None:
        raise UsageError("--address and --gpus-per-worker need --engine ray")
    devices, count = devices_for(wanted.device, wanted.workers)

    def start(dataset: Dataset, study: Study) -> tuple[Engine, list[str], int]:
        engine = LocalEngine(
            dataset,
            split_seed=study.settings.seed,
            val_size=study.settings.val_size,
            workers=count,
            devices=devices,
        )
        return engine, devices, count

    return start


def _on_ray(wanted: WorkersWanted) -> Start:
    from nas.engines.ray import RayEngine  # here, as Ray may not be installed

    def start(dataset: Dataset, study: Study) -> tuple[Engine, list[str], int]:
        engine = RayEngine(
            dataset,
            split_seed=study.settings.seed,
            val_size=study.settings.val_size,
            workers=wanted.workers,
            device=wanted.device,
            gpus_per_worker=wanted.gpus_per_worker,
            address=wanted.address,
        )
        return engine, [engine.device], engine.num_workers

    return start
