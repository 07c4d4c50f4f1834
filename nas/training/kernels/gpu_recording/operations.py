"""The list of recorded operations, and how the work of one is cut into blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.training.kernels.program import CODES, LANES, OPERATIONS, Operation

WARPS = 8
"""In a block."""
_THREADS = LANES * WARPS

VIRTUAL_BLOCKS = 64
"""Work is cut into about so many.

Were it as many blocks as really run, sums would be rounded otherwise wherever several
candidates share a GPU.
"""


class Operations:
    """Operations in their order, the memory they work on, and parts of gradients."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], device: torch.device
    ) -> None:
        """Start empty; the parameters are those of all layers, each of them once."""
        self.device = device
        self.all: list[Operation] = []
        self.held: list[Tensor] = []
        """What the operations have addresses of."""
        self.parts: list[list[tuple[Tensor, int]]] = [[] for _ in parameters]
        """Where the parts of each parameter's gradient lie, and how many there are."""
        self._parameters = parameters
        self._numbers = {id(p): n for n, p in enumerate(parameters)}

    def add(
        self,
        name: str,
        blocks: tuple[int, int],
        *pointers: Tensor | None,
        integers: Sequence[int] = (),
        floats: Sequence[float] = (),
    ) -> None:
        """Record an operation of so many virtual blocks."""
        operation = Operation(CODES[name], *blocks)
        operation.integers[: len(integers)] = [int(number) for number in integers]
        operation.floats[: len(floats)] = floats
        self.all.append(operation)
        self.point(operation, 0, *pointers)

    def point(self, operation: Operation, first: int, *pointers: Tensor | None) -> None:
        """Set the operation's pointers from that number on."""
        for number, tensor in enumerate(pointers, first):
            if tensor is not None:
                operation.pointers[number] = tensor.data_ptr()
                self.held.append(tensor)

    def convolution_to(self, y: Tensor) -> Operation | None:
        """Return the last operation if it is a convolution with that output."""
        last = self.all[-1]
        name = OPERATIONS[last.code]
        convolves = name.startswith(("conv", "depthwise"))
        return last if convolves and last.pointers[2] == y.data_ptr() else None

    def place(self, parameter: Tensor | None) -> int | None:
        """Return the parameter's number; None where there is none."""
        return self._numbers.get(id(parameter))

    def part(self, number: int | None, splits: int) -> Tensor | None:
        """Return memory for parts of a parameter's gradient, ``[splits, *shape]``."""
        if number is None:
            return None
        shape = (splits, *self._parameters[number].shape)
        values = torch.zeros(shape, device=self.device)
        self.parts[number].append((values, splits))
        return values


def share_evenly(items: int) -> tuple[int, int]:
    """Return how many virtual blocks share work of so many threads' items."""
    return max(1, min(2 * VIRTUAL_BLOCKS, -(-items // _THREADS))), 1


def share_planes(planes: int, area: int) -> tuple[int, int]:
    """Return the virtual blocks for so many planes, in fours of values."""
    wanted = -(-VIRTUAL_BLOCKS // planes)
    most = -(-area * LANES // (4 * _THREADS))
    return max(1, min(wanted, most)), planes
