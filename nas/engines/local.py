"""Trainers as processes on this machine: started once, kept warm, replaced if they die.

Where memory runs out there is one fewer on that device.

The data set is loaded by the asker and shared with the trainers, not copied.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
import torch.multiprocessing as mp

from nas.data import Dataset
from nas.engines import Event, Job, Lost, Reported
from nas.engines.mps import MultiProcessService, available
from nas.engines.shortage import OutOfMemory, tell_fewer, verdict
from nas.engines.trainer import Orders, Trainer
from nas.errors import DeviceError, EngineError

# A trainer that dies this often before it was ever ready cannot be helped.
_STARTS_IN_VAIN = 3


@dataclass(slots=True, eq=False)
class _Trainer:
    process: BaseProcess
    pipe: Connection
    device: str
    ready: bool = False
    abandoned: bool = False
    job: Job | None = None
    alone: bool = False
    """Whether no other shared its device when the job began."""


class LocalEngine:
    """Trainer processes on this machine; an `Engine`."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        split_seed: int,
        val_size: int,
        workers: int,
        devices: Sequence[str],
    ) -> None:
        """Start ``workers`` trainers, spread over the devices in turn."""
        for tensor in (
            dataset.images,
            dataset.labels,
            dataset.test_images,
            dataset.test_labels,
        ):
            tensor.share_memory_()
        self._dataset, self._split_seed, self._val_size = dataset, split_seed, val_size
        self._starts_in_vain = 0
        shared = workers > len(devices) and any(d.startswith("cuda") for d in devices)
        self._mps = MultiProcessService() if shared else None
        self._trainers = [
            self._hire(devices[number % len(devices)]) for number in range(workers)
        ]

    @property
    def idle(self) -> int:
        """How many trainers have nothing to do."""
        return sum(trainer.job is None for trainer in self._trainers)

    @property
    def pids(self) -> list[int]:
        """The process ids of the trainers."""
        return [t.process.pid for t in self._trainers if t.process.pid is not None]

    def start(self, job: Job) -> None:
        """Hand a job to an idle trainer, one that has started up if there is one."""
        trainer = max(
            (t for t in self._trainers if t.job is None), key=lambda t: t.ready
        )
        self._hand(trainer, job)

    def wait(self, timeout: float) -> Sequence[Event]:
        """Return what has happened; wait up to timeout seconds for the first event."""
        pipes = [trainer.pipe for trainer in self._trainers]
        happened = wait(pipes, timeout)
        events: list[Event] = []
        for trainer in tuple(self._trainers):
            if trainer.pipe not in happened:
                continue
            try:
                message = trainer.pipe.recv()
            except (EOFError, OSError):
                events += self._replace(trainer)
                continue
            if message is None:
                trainer.ready = True
                self._starts_in_vain = 0
                continue
            if not isinstance(message, Reported):
                trainer.job = None
            if isinstance(message, OutOfMemory):
                message = self._make_room(trainer, message.job)
            events.append(message)
        return events

    def answer(self, job: int, *, go_on: bool) -> None:
        """Tell the trainer that reported whether to train on."""
        for trainer in self._trainers:
            if trainer.job is not None and trainer.job.number == job:
                if not go_on:
                    trainer.job = None
                with contextlib.suppress(OSError):
                    trainer.pipe.send(go_on)

    def abandon(self, job: int) -> None:
        """Kill the trainer of a job that takes too long; Lost follows."""
        for trainer in self._trainers:
            if trainer.job is not None and trainer.job.number == job:
                trainer.abandoned = True
                # Unlike any other signal it reaches a stopped process, too.
                trainer.process.kill()

    def close(self) -> None:
        """Stop all trainers at once, whatever they are doing."""
        for trainer in self._trainers:
            trainer.process.kill()
        for trainer in self._trainers:
            _bury(trainer)
        if self._mps is not None:
            self._mps.close()

    def _hire(self, device: str) -> _Trainer:
        ours, theirs = mp.Pipe()
        orders = Orders(self._split_seed, self._val_size, device)
        process = mp.get_context("spawn").Process(
            target=_train_jobs, args=(theirs, self._dataset, orders), daemon=True
        )
        environment = self._mps.environment if self._mps is not None else {}
        with _without_interrupts(), _environment(environment):
            process.start()
        # With the only other copy of this end closed, our end reads "end of file" the
        # moment the trainer dies, however it dies.
        theirs.close()
        return _Trainer(process, ours, device)

    def _replace(self, dead: _Trainer) -> list[Event]:
        """Replace a dead trainer; return the loss of its job, if it had one.

        A job that it had not begun yet is no loss: it waits for the new one.
        """
        _bury(dead)
        if not dead.ready:
            self._starts_in_vain += 1
            if self._starts_in_vain >= _STARTS_IN_VAIN:
                raise EngineError(
                    f"the trainers die at their start (exit code "
                    f"{dead.process.exitcode}): try fewer --workers, or look at the "
                    "messages above"
                )
        new = self._hire(dead.device)
        self._trainers[self._trainers.index(dead)] = new
        if dead.job is None:
            return []
        if dead.ready or dead.abandoned:
            return [Lost(dead.job.number)]
        self._hand(new, dead.job)
        return []

    def _make_room(self, trainer: _Trainer, job: int) -> Event:
        """Let a trainer that ran out of memory go, unless it is its device's last."""
        device = trainer.device
        others = self._trainers_on(device) - 1
        if others:
            self._trainers.remove(trainer)
            trainer.process.kill()
            _bury(trainer)
            tell_fewer(device, others)
        return verdict(job, device, alone=trainer.alone and not others)

    def _trainers_on(self, device: str) -> int:
        return sum(trainer.device == device for trainer in self._trainers)

    def _hand(self, trainer: _Trainer, job: Job) -> None:
        trainer.job = job
        trainer.alone = self._trainers_on(trainer.device) == 1
        # A dead trainer is found by the next wait.
        with contextlib.suppress(OSError):
            trainer.pipe.send(job)


def _bury(trainer: _Trainer) -> None:
    """Clean up after a trainer that is dead or about to be."""
    trainer.pipe.close()
    trainer.process.join(timeout=5)


def devices_for(device: str, workers: int | None) -> tuple[list[str], int]:
    """Return the devices to use and how many trainers, for ``--device`` and ``--workers``.

    ``device`` is "auto" (GPUs where there are any), "cpu", "cuda" or "cuda:N". By
    default one trainer a core on a CPU and, on GPUs, 16 a GPU but no more than cores: a
    tiny network leaves most of a GPU idle. Where they would have to take turns on the
    GPU (no Multi-Process Service) two are enough.
    Raises DeviceError if the device is not there.
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
    """Give a process that is started here these variables, too."""
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
def _without_interrupts() -> Iterator[None]:
    """Let a process that is started here never hear Ctrl-C.

    That goes to the whole terminal; the asker decides what becomes of it. A signal
    that is blocked stays so in the new process, from its first moment.
    """
    # Starting it, which happens but once, would unblock the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _train_jobs(pipe: Connection, dataset: Dataset, orders: Orders) -> None:
    """Be a trainer: take jobs from the pipe until the asker is gone."""
    threading.Thread(
        target=_leave_with_parent, args=(os.getppid(),), daemon=True
    ).start()
    trainer = Trainer(dataset, orders)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            for event in trainer.events(pipe.recv()):
                pipe.send(event)
                if isinstance(event, Reported) and not pipe.recv():
                    break


def _leave_with_parent(parent: int) -> None:
    """End this process once the asker is dead, in the midst of an epoch too."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
