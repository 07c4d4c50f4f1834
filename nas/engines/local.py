"""Workers as processes on this machine: started once, kept warm, replaced if they die.

A worker that runs out of memory is removed, unless it is the last on its device.

The coordinator loads the data set and shares it with the workers without a copy.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType

import torch
import torch.multiprocessing as mp

from nas.data import Dataset
from nas.engines import Event, Job, Reported, WorkerLost
from nas.engines.mps import MultiProcessService, available, processes_on_gpu
from nas.engines.out_of_memory import (
    OutOfMemory,
    out_of_memory_event,
    warn_fewer_workers,
)
from nas.engines.worker import Worker, WorkerConfig
from nas.errors import DeviceError, EngineError
from nas.training import kernels

# After this many workers that died before they were ready, give up.
_MAX_FAILED_STARTS = 3
# A worker that is not ready after this time hangs. Loading torch takes some seconds, or
# some minutes on a slow disk that many workers share.
_START_SECONDS = 600.0
# The errors of a system limit that keeps further processes from starting.
_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}


@dataclass(slots=True, eq=False)
class _WorkerHandle:
    process: BaseProcess
    pipe: Connection
    device: str
    began: float
    ready: bool = False
    hangs: bool = False
    job: Job | None = None
    alone: bool = False
    """Whether no other worker shared its device when the job began."""


class LocalEngine:
    """Worker processes on this machine; an `Engine`."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        split_seed: int,
        val_size: int,
        workers: int,
        devices: Sequence[str],
    ) -> None:
        """Start the workers, spread over the devices in turn."""
        _share(dataset)
        self._dataset, self._split_seed, self._val_size = dataset, split_seed, val_size
        self._failed_starts = 0
        if "cpu" in devices:
            kernels.warn_if_missing(torch.device("cpu"))
        shared = workers > len(devices) and any(d.startswith("cuda") for d in devices)
        self._mps = MultiProcessService() if shared else None
        self._wanted, self._devices = workers, len(devices)
        self._workers: list[_WorkerHandle] = []
        try:
            for number in range(workers):
                self._workers.append(self._start_worker(devices[number % len(devices)]))
        except BaseException:  # Ctrl-C in a notebook does not end the process
            self.close()
            raise

    @property
    def idle(self) -> int:
        """The number of workers that are ready and have no job."""
        return sum(worker.ready and worker.job is None for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [w.process.pid for w in self._workers if w.process.pid is not None]

    def start(self, job: Job) -> None:
        """Hand a job to an idle worker."""
        worker = next(w for w in self._workers if w.ready and w.job is None)
        worker.job = job
        worker.alone = self._workers_on(worker.device) == 1
        # The next wait detects a dead worker.
        with contextlib.suppress(OSError):
            worker.pipe.send(job)

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return the events so far; wait up to ``timeout`` seconds for the first.

        Also returns, without events, when a worker becomes ready. Raises EngineError
        if no worker can start.
        """
        pipes = [worker.pipe for worker in self._workers]
        happened = wait(pipes, timeout)
        events: list[Event] = []
        for worker in tuple(self._workers):
            if worker.pipe not in happened:
                self._end_if_it_hangs(worker)
                continue
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                events += self._replace(worker)
                continue
            if message is None:
                worker.ready = True
                self._failed_starts = 0
                continue
            if not isinstance(message, Reported):
                worker.job = None
            if isinstance(message, OutOfMemory):
                message = self._drop_worker(worker, message.job)
            events.append(message)
        return events

    def decide(self, job: int, *, proceed: bool) -> None:
        """Tell the worker that reported whether to continue training."""
        for worker in self._workers:
            if worker.job is not None and worker.job.number == job:
                if not proceed:
                    worker.job = None
                with contextlib.suppress(OSError):
                    worker.pipe.send(proceed)

    def abandon(self, job: int) -> None:
        """Kill the worker of a job that takes too long; WorkerLost follows."""
        for worker in self._workers:
            if worker.job is not None and worker.job.number == job:
                # Unlike other signals, SIGKILL also ends a stopped process.
                worker.process.kill()

    def close(self) -> None:
        """Stop all workers at once, whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _stop_worker(worker)
        if self._mps is not None:
            self._mps.close()

    def _start_worker(self, device: str) -> _WorkerHandle:
        with self._explain_limits():
            ours, theirs = mp.Pipe()
        # Without the service the workers take turns, each with the whole GPU.
        together = self._mps is not None and self._mps.running
        own = -(-self._wanted // self._devices) if together else 1
        config = WorkerConfig(
            self._split_seed,
            self._val_size,
            device,
            processes=processes_on_gpu(own) if device.startswith("cuda") else 1,
            warns=not self._workers,
        )
        process = mp.get_context("spawn").Process(
            target=_train_jobs, args=(theirs, self._dataset, config), daemon=True
        )
        environment = self._mps.environment if self._mps is not None else {}
        with (
            self._explain_limits(),
            _without_interrupts(),
            _without_main(),
            _environment(environment),
        ):
            process.start()
        # Closing our copy of the worker's end makes our end read "end of file" as soon
        # as the worker dies, for whatever reason.
        theirs.close()
        return _WorkerHandle(process, ours, device, time.monotonic())

    @contextlib.contextmanager
    def _explain_limits(self) -> Iterator[None]:
        """Turn a system limit that stops a worker from starting into EngineError."""
        try:
            yield
        except OSError as error:
            if error.errno not in _LIMITS:
                raise
            raise EngineError(
                f"no more than {len(self._workers)} workers can be started here "
                f"({error.strerror}): give fewer --workers, or raise the limits of open "
                "files and processes (ulimit -n, ulimit -u)"
            ) from error

    def _end_if_it_hangs(self, worker: _WorkerHandle) -> None:
        """Kill a worker that takes too long to start; the next wait replaces it."""
        if not worker.ready and time.monotonic() - worker.began > _START_SECONDS:
            worker.hangs = True
            worker.process.kill()

    def _replace(self, dead: _WorkerHandle) -> list[Event]:
        """Replace a dead worker; return WorkerLost if it had a job."""
        _stop_worker(dead)
        if not dead.ready:
            self._failed_starts += 1
            code = dead.process.exitcode
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise EngineError(_why_it_died(code, hangs=dead.hangs))
        new = self._start_worker(dead.device)
        self._workers[self._workers.index(dead)] = new
        return [] if dead.job is None else [WorkerLost(dead.job.number)]

    def _drop_worker(self, worker: _WorkerHandle, job: int) -> Event:
        """Remove a worker that ran out of memory unless it is its device's last."""
        device = worker.device
        others = self._workers_on(device) - 1
        if others:
            self._workers.remove(worker)
            worker.process.kill()
            _stop_worker(worker)
            warn_fewer_workers(device, others)
        return out_of_memory_event(job, device, alone=worker.alone and not others)

    def _workers_on(self, device: str) -> int:
        return sum(worker.device == device for worker in self._workers)


def _why_it_died(code: int | None, *, hangs: bool) -> str:
    """Return why workers fail to start, from an exit code, and the remedy."""
    if hangs:
        return (
            f"the workers did not start within {_START_SECONDS:g} s: is the disk or the "
            "GPU busy? Try fewer --workers, or --device cpu"
        )
    if code == -signal.SIGKILL:
        return (
            "the system killed the workers while they were starting, probably because "
            "memory ran out: try fewer --workers"
        )
    if code is not None and code < 0:
        return (
            f"signal {-code} ({signal.strsignal(-code)}) ended the workers while they were "
            "starting: see the messages above"
        )
    return (
        f"the workers ended with exit code {code} while they were starting: see the "
        "messages above"
    )


def _stop_worker(worker: _WorkerHandle) -> None:
    """Clean up after a worker that is dead or about to be."""
    worker.pipe.close()
    worker.process.join(timeout=5)


def devices_for(device: str, workers: int | None) -> tuple[list[str], int]:
    """Return the devices and the number of workers for ``--device`` and ``--workers``.

    ``device`` is "auto" (GPUs if there are any), "cpu", "cuda" or "cuda:N". The default
    is one worker per core on a CPU, and 16 per GPU but at most one per core, as a tiny
    network leaves most of a GPU idle. Without the Multi-Process Service, where workers
    take turns on the GPU, it is two per GPU.
    Raises DeviceError if the device does not exist.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = len(os.sched_getaffinity(0))
    if device == "cpu" or (device == "auto" and not gpus):
        return ["cpu"], workers or cores
    if device in {"auto", "cuda"} and gpus:
        devices = [f"cuda:{number}" for number in range(gpus)]
    elif (
        device.startswith("cuda:") and device[5:].isdecimal() and int(device[5:]) < gpus
    ):
        devices = [device]
    else:
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(gpus))])
        raise DeviceError(f"no device {device!r} on this machine: there is {there}")
    each = 16 if available() else 2
    return devices, workers or max(1, min(cores, each * len(devices)))


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Add these variables to the environment of processes started in this context."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep processes started in this context from running the user's script again.

    A spawned process first imports the file of ``__main__``. A worker does not need it,
    and a script without ``if __name__ == "__main__"`` would start another search.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from processes started in this context.

    The terminal sends it to all its processes, but only the coordinator handles it. A
    new process inherits the blocked signal and so has it blocked from the start.
    """
    # Start it here, as its first start would unblock the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _train_jobs(pipe: Connection, dataset: Dataset, config: WorkerConfig) -> None:
    """Run a worker process: take jobs from the pipe until the coordinator is gone."""
    threading.Thread(
        target=_exit_with_parent, args=(os.getppid(),), daemon=True
    ).start()
    worker = Worker(dataset, config)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            for event in worker.events(pipe.recv()):
                pipe.send(event)
                if isinstance(event, Reported) and not pipe.recv():
                    break


def _exit_with_parent(parent: int) -> None:
    """End this process once the coordinator is dead, even within an epoch."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _share(dataset: Dataset) -> None:
    """Move the arrays to shared memory; EngineError if there is no room."""
    tensors = (
        dataset.images,
        dataset.labels,
        dataset.test_images,
        dataset.test_labels,
    )
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:
        size = math.ceil(sum(tensor.nbytes for tensor in tensors) / 1e6)
        raise EngineError(
            f"no room for the data set's {size} MB in shared memory (/dev/shm): give it "
            "more (in a container, by the size of its /dev/shm)"
        ) from error
