"""A list of kernel calls on memory that stays where it is: a model's two passes.

What PyTorch does around each layer (a node of autograd's graph, new memory for its output
and its gradient) takes as long as a tiny layer itself. A tape is recorded once for a model
and a number of images (recording.py), and then run for every batch: C functions with their
arguments, forwards and backwards. To autograd the whole tape is one function.

Features are ``[G, C, H, W, V]``, contiguous: V images in the lanes of a vector register.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import OutOfMemoryError

Call = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function with its arguments. What it returns is true where it found no memory."""


class Gradients:
    """Memory for the gradients of parameters, one after the other."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        """Take the parameters, each of them once."""
        self._parameters = parameters
        self._sizes = [p.numel() for p in parameters]
        self._values = torch.zeros(sum(self._sizes))
        starts = itertools.accumulate(self._sizes, initial=0)
        first, bytes_each = self._values.data_ptr(), self._values.element_size()
        self._places = {
            id(p): first + bytes_each * start
            for p, start in zip(parameters, starts, strict=False)
        }

    def place(self, parameter: Tensor | None) -> int | None:
        """Return the address for a parameter's gradient; None where there is none."""
        return self._places.get(id(parameter))

    def clear(self) -> None:
        """Begin anew with 0: gradients are added to what is there."""
        self._values.zero_()

    def taken(self) -> list[Tensor]:
        """Return a copy of each, which may be kept."""
        parts = self._values.clone().split(self._sizes)
        return [
            part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)
        ]


class Tape:
    """What was recorded: calls, and the memory that they work on."""

    def __init__(
        self,
        *,
        images: Tensor,
        output: Tensor,
        gradient: Tensor | None,
        forward: Sequence[Call],
        backward: Sequence[Call],
        gradients: Gradients,
        parameters: Sequence[nn.Parameter],
        buffers: Sequence[Tensor],
        batch_counts: Sequence[Tensor],
        held: Sequence[Tensor],
    ) -> None:
        """Take all of it; ``held`` is what the calls have the addresses of."""
        self.images, self.output = images, output
        self.gradient = gradient
        """Of the output; None in evaluation."""
        self.parameters = parameters
        self.runs = 0
        self._forward, self._backward = forward, backward
        self._gradients, self._batch_counts = gradients, list(batch_counts)
        self._buffers, self._held = buffers, held
        self._addresses = self._addresses_now()

    def is_current(self) -> bool:
        """Return whether weights and statistics still lie where they lay."""
        return self._addresses == self._addresses_now()

    def _addresses_now(self) -> list[int]:
        return [tensor.data_ptr() for tensor in (*self.parameters, *self._buffers)]

    def run(self) -> None:
        """Compute the output of ``images``; OutOfMemoryError where there is no memory."""
        self.runs += 1
        _make(self._forward)
        if self._batch_counts:
            torch._foreach_add_(self._batch_counts, 1)

    def run_back(self) -> list[Tensor]:
        """Return the parameters' gradients by ``gradient``; errors as in run."""
        self._gradients.clear()
        _make(self._backward)
        return self._gradients.taken()


def _make(calls: Sequence[Call]) -> None:
    for function, arguments in calls:
        if function(*arguments):
            raise OutOfMemoryError("out of memory on cpu")


class Pool:
    """Memory for tensors, used again once it was given back."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: list[Tensor] = []
        self._whole: dict[int, Tensor] = {}  # by address: all of the memory there

    def take(self, shape: Sequence[int]) -> Tensor:
        """Return a tensor of that shape, in the smallest free memory that holds it."""
        size = math.prod(shape)
        fitting = [flat for flat in self._free if flat.numel() >= size]
        if fitting:
            whole = min(fitting, key=Tensor.numel)
            self._free = [flat for flat in self._free if flat is not whole]
        else:
            whole = torch.empty(size, device=self._device)
            self._whole[whole.data_ptr()] = whole
        return whole[:size].view(*shape)

    def give(self, tensor: Tensor) -> None:
        """Take back memory that nothing recorded later reads."""
        self._free.append(self._whole.get(tensor.data_ptr(), tensor.view(-1)))
