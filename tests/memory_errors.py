"""A training that runs out of memory, for workers in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch


def _of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _of_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas`")


def _of_python() -> None:
    raise MemoryError


def _of_torch_on_a_cpu() -> None:
    torch.empty(2**50)


MEMORY_ERRORS: dict[str, Callable[[], None]] = {
    "gpu": _of_a_gpu,
    "cublas": _of_cublas,
    "python": _of_python,
    "cpu": _of_torch_on_a_cpu,
}


@dataclass(frozen=True)
class RungsOutOfMemory:
    """Rungs of a training that runs out of memory the first times that it begins.

    The times are counted by the files in a folder: each may be in another process.
    """

    rungs: tuple[float, ...]
    of: str
    times: int
    folder: Path

    def __iter__(self) -> Iterator[float]:
        """Run out of memory, or else be like other rungs."""
        count = sum(1 for _ in self.folder.iterdir())
        if count < self.times:
            (self.folder / str(count)).touch()
            MEMORY_ERRORS[self.of]()
        return iter(self.rungs)
