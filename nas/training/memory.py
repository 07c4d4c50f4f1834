"""One error for memory that runs out, whoever was asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.errors import OutOfMemoryError

# What torch says where it has no exception of its own for it: its allocator on a CPU,
# the CUDA runtime, cuBLAS and cuDNN.
_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether this is what Python or torch raise when memory runs out."""
    if isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS):
        return True
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Raise OutOfMemoryError where memory runs out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        message = f"out of memory on {device}"
        raise OutOfMemoryError(message) from error
