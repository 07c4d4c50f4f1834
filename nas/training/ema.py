"""The moving average of the weights and of batch norm's statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.training.recipe import Recipe


class EMA:
    """A model's average, which the recipe switches on for the end of the training."""

    def __init__(self, model: nn.Module, total_steps: int, recipe: Recipe) -> None:
        self._model = model
        self._steps = max(1, round(total_steps * recipe.average))
        self.start = total_steps - self._steps
        """The first step that counts."""
        self._averages: list[Tensor] | None = None

    def _values(self) -> list[Tensor]:
        # Anew each time: a change of the memory format replaces what they hold.
        tensors = [*self._model.parameters(), *self._model.buffers()]
        return [t.detach() for t in tensors if t.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after this step into the average, once it is on."""
        if step < self.start:
            return
        if self._averages is None:
            self._averages = [value.clone() for value in self._values()]
            return
        # The plain mean at first, then with a memory of a fifth of all its steps.
        weight = max(1 / (step - self.start + 1), 1 / max(1.0, self._steps / 5))
        torch._foreach_lerp_(self._averages, self._values(), weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and their average, once it is on."""
        if self._averages is None:
            return
        for average, value in zip(self._averages, self._values(), strict=True):
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)
