"""Workers as Ray actors: placed by Ray on the nodes of a cluster, kept warm, replaced.

A worker that dies, alone or with its node, is replaced. Ray places the new one where
there is room; if there is none, it waits until a node joins. The data set is put into
Ray's object store once. Each node fetches one copy, which its workers share.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

# Before anything that imports ray: this one raises the error if Ray is not installed.
from nas.engines.ray_connection import connect, last_line  # isort: skip

import ray

from nas import __version__
from nas.data import Dataset
from nas.engines import Event, Failed, Job, Reported, WorkerLost
from nas.engines.out_of_memory import (
    OutOfMemory,
    out_of_memory_event,
    warn_fewer_workers,
)
from nas.engines.worker import Worker, WorkerConfig
from nas.errors import EngineError

# After this many failed starts in a row, per worker wanted, give up. It is per worker
# as a node that dies takes several starting workers with it.
_MAX_FAILED_STARTS = 3
# After this many seconds without any worker, tell the user what the search waits for.
_WARN_AFTER = 20.0
_GPUS_PER_WORKER = 0.25

_logger = logging.getLogger("nas")


@dataclass(frozen=True, slots=True)
class _Place:
    """The place and the versions of a worker."""

    pid: int
    node: str
    gpus: list[str]
    versions: tuple[str, str]


class _Actor:
    """A worker in a process that Ray started; each call returns one event."""

    def __init__(self, arrays: dict[str, Any], config: WorkerConfig) -> None:
        """Take the data, which is in memory that all workers of a node share."""
        self._worker = Worker(_from_arrays(arrays), config)
        self._events: Iterator[Event | OutOfMemory] = iter(())

    def hello(self) -> _Place:
        """Return the worker's place, which also signals that it is ready."""
        here = ray.get_runtime_context()
        gpus = here.get_accelerator_ids().get("GPU", [])
        return _Place(os.getpid(), here.get_node_id(), gpus, _versions())

    def begin(self, job: Job) -> Event | OutOfMemory:
        """Start a job, dropping an unfinished one; return its first event."""
        self._events = self._worker.events(job)
        return next(self._events)

    def proceed(self) -> Event | OutOfMemory:
        """Train up to the next event."""
        return next(self._events)


@dataclass(slots=True, eq=False)
class _WorkerHandle:
    actor: Any
    call: Any
    """The pending Ray call: starting up, or training to the next event."""
    place: _Place | None = None
    job: Job | None = None
    alone: bool = False
    """Whether no other worker shared its node and GPUs when the job began."""


class RayEngine:
    """Workers on a Ray cluster; an `Engine`."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        split_seed: int,
        val_size: int,
        workers: int | None = None,
        device: str = "auto",
        gpus_per_worker: float | None = None,
        address: str | None = None,
    ) -> None:
        """Connect to the cluster at the address, or start one on this machine.

        Each worker takes one CPU and ``gpus_per_worker`` GPUs, by default a quarter of
        one if the cluster has any. ``workers`` is by default as many as fit.
        Raises EngineError if the cluster cannot be reached or no worker fits.
        """
        connect(address)
        try:
            resources = ray.cluster_resources()
            gpus = _gpus(device, gpus_per_worker, resources)
            room = _room(gpus, resources)
            # Nodes may still join a cluster that is given by its address.
            self.num_workers = workers or room if room or address else 0
            _check_room(self.num_workers, gpus, resources)
            self.device = "cuda" if gpus else "cpu"
            self._takes = _requirement(gpus)
            self._config = WorkerConfig(split_seed, val_size, self.device)
            self._arrays = ray.put(_to_arrays(dataset))
            self._actor = ray.remote(_Actor).options(
                num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0
            )
            self._failed_starts = 0
            self._without_any: float | None = time.monotonic()
            self._lost: list[Event] = []
            self._workers = [self._start_worker() for _ in range(self.num_workers)]
        except BaseException:
            ray.shutdown()
            raise

    @property
    def idle(self) -> int:
        """The number of workers that are ready and have no job."""
        return sum(w.place is not None and w.job is None for w in self._workers)

    @property
    def pids(self) -> list[int]:
        """The process ids of the ready workers, each valid on its own node."""
        return [w.place.pid for w in self._workers if w.place is not None]

    def start(self, job: Job) -> None:
        """Hand a job to an idle worker."""
        worker = next(w for w in self._workers if w.place is not None and w.job is None)
        worker.job = job
        worker.alone = self._others_beside(worker) == 0
        worker.call = worker.actor.begin.remote(job)

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return the events so far; wait up to ``timeout`` seconds for the first.

        Also returns, without events, when a worker becomes ready.
        """
        if self._lost:
            timeout = 0.0
        self._warn_if_without_workers()
        calls = [w.call for w in self._workers if w.call is not None]
        if calls:
            done, rest = ray.wait(calls, timeout=timeout)
            if rest and done:
                done += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        else:
            time.sleep(timeout)
            done = []
        events, self._lost = self._lost, []
        for worker in tuple(self._workers):
            if worker.call in done:
                events += self._collect(worker)
        return events

    def decide(self, job: int, *, proceed: bool) -> None:
        """Tell the worker that reported whether to continue training."""
        for worker in self._workers:
            if worker.job is not None and worker.job.number == job:
                if proceed:
                    worker.call = worker.actor.proceed.remote()
                else:
                    worker.job = None

    def abandon(self, job: int) -> None:
        """Kill the worker of a job that takes too long; WorkerLost follows."""
        for worker in tuple(self._workers):
            if worker.job is not None and worker.job.number == job:
                self._lost += self._replace(worker)

    def close(self) -> None:
        """Stop all workers at once; also stop Ray if this process started it."""
        for worker in self._workers:
            _kill(worker)
        self._workers = []
        ray.shutdown()

    def _start_worker(self) -> _WorkerHandle:
        actor = self._actor.remote(self._arrays, self._config)
        return _WorkerHandle(actor, actor.hello.remote())

    def _collect(self, worker: _WorkerHandle) -> list[Event]:
        """Return the events that result from a worker's finished call."""
        call, worker.call = worker.call, None
        try:
            result = ray.get(call)
        except (ray.exceptions.RayTaskError, ray.exceptions.RayActorError) as error:
            if worker.place is None:
                self._count_failed_start(error)
            elif worker.job is not None and not _is_death(error):
                number, worker.job = worker.job.number, None
                return [Failed(number, f"{type(error).__name__}: {last_line(error)}")]
            return self._replace(worker)
        except ray.exceptions.RayError:
            # The result was lost with the node that stored it.
            return self._replace(worker)
        if isinstance(result, _Place):
            self._on_ready(worker, result)
            return []
        if not isinstance(result, Reported):
            worker.job = None
        if isinstance(result, OutOfMemory):
            result = self._drop_worker(worker, result.job)
        return [result]

    def _on_ready(self, worker: _WorkerHandle, place: _Place) -> None:
        if place.versions != _versions():
            raise EngineError(
                f"a node of the cluster has nas {place.versions[0]} with torch "
                f"{place.versions[1]}, the search nas {_versions()[0]} with torch "
                f"{_versions()[1]}: install the same on all nodes"
            )
        worker.place = place
        self._failed_starts = 0
        self._without_any = None

    def _replace(self, dead: _WorkerHandle) -> list[Event]:
        """Replace a worker; return WorkerLost if it had a job."""
        _kill(dead)
        self._workers[self._workers.index(dead)] = self._start_worker()
        if self._without_any is None and not self.pids:
            self._without_any = time.monotonic()
        return [] if dead.job is None else [WorkerLost(dead.job.number)]

    def _drop_worker(self, worker: _WorkerHandle, job: int) -> Event:
        """Remove a worker that ran out of memory unless it is the last there."""
        others = self._others_beside(worker)
        if others:
            self._workers.remove(worker)
            _kill(worker)
            warn_fewer_workers(f"{self.device} of a Ray node", others)
        return out_of_memory_event(job, self.device, alone=worker.alone and not others)

    def _others_beside(self, worker: _WorkerHandle) -> int:
        """Return how many others share the worker's node and GPUs, so its memory."""
        places = [(w.place.node, w.place.gpus) for w in self._workers if w.place]
        here = worker.place
        return places.count((here.node, here.gpus)) - 1 if here else 0

    def _count_failed_start(self, error: Exception) -> None:
        self._failed_starts += 1
        # An error in the worker's own start hits every worker; a node's death does not.
        own = getattr(error, "actor_init_failed", False)
        limit = _MAX_FAILED_STARTS * (1 if own else self.num_workers + 1)
        if self._failed_starts >= limit:
            raise EngineError(
                f"the workers fail to start ({last_line(error)}): is the same nas "
                "installed on every node, and is there memory enough for --workers?"
            )

    def _warn_if_without_workers(self) -> None:
        began = self._without_any
        if began is None or time.monotonic() - began < _WARN_AFTER:
            return
        self._without_any = float("inf")
        _logger.warning(
            "no worker has started for %g s: each takes %s, and the cluster has %s; "
            "waiting for a node to join",
            _WARN_AFTER,
            self._takes,
            _have(ray.cluster_resources()),
        )


def _gpus(device: str, asked: float | None, resources: dict[str, float]) -> float:
    if device == "cpu":
        return 0.0
    if asked is not None:
        return asked
    return _GPUS_PER_WORKER if device != "auto" or resources.get("GPU") else 0.0


def _room(gpus: float, resources: dict[str, float]) -> int:
    """Return how many workers fit."""
    room = int(resources.get("CPU", 0))
    return min(room, int(resources.get("GPU", 0) / gpus + 1e-6)) if gpus else room


def _check_room(workers: int, gpus: float, resources: dict[str, float]) -> None:
    if not workers:
        raise EngineError(
            f"no room for a worker: each takes {_requirement(gpus)}, and the cluster has "
            f"{_have(resources)}; give other --gpus-per-worker, --device or --workers"
        )


def _requirement(gpus: float) -> str:
    return f"1 CPU and {gpus:g} GPU" if gpus else "1 CPU"


def _have(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"


def _versions() -> tuple[str, str]:
    return __version__, torch.__version__


def _is_death(error: Exception) -> bool:
    return isinstance(error, ray.exceptions.RayActorError)


def _kill(worker: _WorkerHandle) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        ray.kill(worker.actor)


def _to_arrays(dataset: Dataset) -> dict[str, Any]:
    """Return the data set with tensors as arrays, which Ray shares without a copy."""
    parts = {field.name: getattr(dataset, field.name) for field in fields(dataset)}
    return {
        name: part.numpy() if isinstance(part, torch.Tensor) else part
        for name, part in parts.items()
    }


def _from_arrays(arrays: dict[str, Any]) -> Dataset:
    with warnings.catch_warnings():
        # The shared memory is read-only, and no code writes to it.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        parts: dict[str, Any] = {
            name: torch.from_numpy(part) if isinstance(part, np.ndarray) else part
            for name, part in arrays.items()
        }
    return Dataset(**parts)
