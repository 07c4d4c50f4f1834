"""Memory that runs out: one trainer fewer, and its candidate goes to another.

What a training lacks the other trainers on its device may hold. So an engine that hears
of a shortage keeps one trainer fewer there, and only a training that had the device to
itself has failed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from nas.engines import Failed, Lost

_logger = logging.getLogger("nas")


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A trainer found no memory for its job. The engine answers it, not the asker."""

    job: int


def verdict(job: int, device: str, *, alone: bool) -> Lost | Failed:
    """Return what the asker is told; ``alone`` if no other trainer shared the device."""
    if not alone:
        return Lost(job, blameless=True)
    return Failed(
        job,
        f"out of memory on {device} with one trainer at a time: smaller --max-memory or "
        "--budget of a new study, images, or batch_size of a --recipe take less",
    )


def tell_fewer(where: str, trainers: int) -> None:
    """Tell the user how many trainers are left there."""
    _logger.warning(
        "out of memory on %s: from now on %d trainer%s at a time there, one fewer",
        where,
        trainers,
        "" if trainers == 1 else "s",
    )
