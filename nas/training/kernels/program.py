"""A list of operations in a GPU's memory, which one launch of the kernel goes through.

The structures and the numbers of the operations are those of ``gpu.cu``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

LANES = 32
"""So many images lie side by side, one in each thread of a warp."""

OPERATIONS = (
    *("conv", "conv_1", "conv_3", "conv_5"),
    *("depthwise", "depthwise_3", "depthwise_5"),
    *("conv_weight", "conv_weight_1", "conv_weight_3", "conv_weight_5"),
    *("depthwise_weight", "depthwise_weight_3", "depthwise_weight_5"),
    *("add_bias", "add_bias_back", "pool", "pool_back", "global_mean"),
    *("global_mean_back", "activate", "activate_back", "add", "copy", "join"),
    *("scale", "scale_back", "statistics", "norm", "norm_back_sums", "norm_back"),
    *("norm_eval", "dropout", "cross_entropy", "gather", "update"),
)
CODES = {name: code for code, name in enumerate(OPERATIONS)}
"""By which ``execute`` in gpu.cu knows them."""


class Operation(ctypes.Structure):
    """The struct ``Op``."""

    _fields_ = (
        ("code", ctypes.c_int),
        ("blocks_x", ctypes.c_int),
        ("blocks_y", ctypes.c_int),
        ("unused", ctypes.c_int),
        ("pointers", ctypes.c_void_p * 12),
        ("integers", ctypes.c_int * 18),
        ("floats", ctypes.c_float * 4),
    )


class Part(ctypes.Structure):
    """The struct ``Part``."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("splits", ctypes.c_int),
        ("next", ctypes.c_int),
    )


class Parameter(ctypes.Structure):
    """The struct ``Parameter``."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("start", ctypes.c_int),
        ("count", ctypes.c_int),
        ("part", ctypes.c_int),
        ("decay", ctypes.c_float),
    )


class Launcher(Protocol):
    """What runs programs on a device."""

    device: torch.device

    def launch(self, operations: Tensor, count: int, times: int) -> None:
        """Start going through the operations so many times."""

    def check(self) -> None:
        """Wait for what was launched last; RuntimeError where it did not end well."""


class Program:
    """Operations in the device's memory, with the memory that they work on."""

    def __init__(
        self,
        launcher: Launcher,
        operations: Sequence[Operation],
        held: Sequence[Tensor],
    ) -> None:
        """Take the operations in their order; ``held`` is what they have addresses of."""
        self._launcher, self._held = launcher, held
        self._operations = uploaded(operations, launcher.device)
        self._count = len(operations)

    def run(self, times: int = 1) -> None:
        """Start going through the operations so many times."""
        self._launcher.launch(self._operations, self._count, times)

    def check(self) -> None:
        """Wait for the end; RuntimeError where that was not reached."""
        self._launcher.check()


def uploaded(structures: Sequence[ctypes.Structure], device: torch.device) -> Tensor:
    """Return the bytes of the structures, one after the other, on the device."""
    raw = b"".join(bytes(one) for one in structures) or bytes(8)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).to(device)
