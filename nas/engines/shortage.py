"""Memory that runs out: one worker fewer, and its candidate goes to another.

What a training lacks the other workers on its device may hold. So an engine that hears
of a shortage keeps one worker fewer there, and only a training that had the device to
itself has failed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from nas.engines import Failed, WorkerLost

_logger = logging.getLogger("nas")


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A worker found no memory for its job. The engine answers it, not the coordinator."""

    job: int


def verdict(job: int, device: str, *, alone: bool) -> WorkerLost | Failed:
    """Return what the coordinator is told; ``alone`` if no other worker shared the device."""
    if not alone:
        return WorkerLost(job, out_of_memory=True)
    return Failed(
        job,
        f"out of memory on {device} with one worker at a time: smaller --max-memory or "
        "--budget of a new study, images, or batch_size of a --recipe take less",
    )


def out_of_memory_event(where: str, workers: int) -> None:
    """Tell the user how many workers are left there."""
    _logger.warning(
        "out of memory on %s: from now on %d worker%s at a time there, one fewer",
        where,
        workers,
        "" if workers == 1 else "s",
    )
