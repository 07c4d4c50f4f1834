"""Handles a worker that runs out of memory: drop it, give its candidate to another.

The other workers on the device may hold the missing memory. So the engine keeps one
worker fewer there. A training has failed only if it had the device to itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from nas.engines import Failed, WorkerLost

_logger = logging.getLogger("nas")


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A worker ran out of memory on its job. Only the engine sees this."""

    job: int


def out_of_memory_event(job: int, device: str, *, alone: bool) -> WorkerLost | Failed:
    """Return the event; ``alone`` if no other worker shared the device."""
    if not alone:
        return WorkerLost(job, out_of_memory=True)
    return Failed(
        job,
        f"out of memory on {device} with one worker at a time: smaller --max-memory or "
        "--budget of a new study, images, or batch_size of a --recipe take less",
    )


def warn_fewer_workers(where: str, workers: int) -> None:
    """Warn the user how many workers are left on ``where``."""
    _logger.warning(
        "out of memory on %s: from now on %d worker%s at a time there, one fewer",
        where,
        workers,
        "" if workers == 1 else "s",
    )
