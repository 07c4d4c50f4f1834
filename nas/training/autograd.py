"""A model in training by torch's autograd: forward, backward, clip, change the weights.

The forward and backward pass are those of the CPU kernels where they know the model. All
memory stays where it is and no step asks the device for an answer, so that a GPU can
record the step once and replay it for every batch (cuda_graph.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.training import kernels
from nas.training.batches import Batches
from nas.training.optimizer import Optimizer
from nas.training.recipe import Recipe


class AutogradTraining:
    """A model in training: `load` takes batches, `run` trains on the next of them."""

    def __init__(self, model: nn.Module, recipe: Recipe, batches: Batches) -> None:
        """Take the model, on the device that trains."""
        device = next(model.parameters()).device
        ahead, size = batches.ahead, batches.size
        self.model = model
        self._recipe, self._weights = recipe, batches.class_weights
        self._images = torch.zeros((ahead, size, *batches.shape), device=device)
        self._labels = torch.zeros((ahead, size), dtype=torch.int64, device=device)
        # On a GPU torch's fused optimizers read the rate in single precision only.
        precision = torch.float64 if device.type == "cpu" else torch.float32
        self._rates = torch.zeros(ahead, dtype=precision, device=device)
        self._rate = torch.zeros((), dtype=precision, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self.losses = torch.zeros((), device=device)
        """The sum of the losses of all steps since it was last set to zero."""
        self._predict = kernels.predictor(model, size)
        self._parameters = list(model.parameters())
        self.optimizer = Optimizer(self._parameters, recipe, self._rate)

    @property
    def uses_torch(self) -> bool:
        """Whether torch's own layers compute the model, not the CPU kernels."""
        return self._predict is self.model

    def load(self, images: Tensor, labels: Tensor, rates: Sequence[float]) -> None:
        """Take images ``[steps * B, C, H, W]``, labels ``[steps, B]`` and learning rates."""
        steps = len(labels)
        self._images[:steps] = images.view(self._images[:steps].shape)
        self._labels[:steps] = labels
        self._rates[:steps] = torch.tensor(rates, dtype=self._rates.dtype)
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first of the batches that were loaded."""
        self._place.zero_()

    def run(self, steps: int) -> None:
        """Train on so many of the next batches."""
        for _ in range(steps):
            self._step()

    def check(self) -> None:
        """Return: an error of a step is raised by the step."""

    def _step(self) -> None:
        images = self._images.index_select(0, self._place)[0]  # [B, C, H, W]
        labels = self._labels.index_select(0, self._place)[0]  # [B]
        self._rate.copy_(self._rates.index_select(0, self._place)[0])
        self._place += 1
        loss = functional.cross_entropy(
            self._predict(images),
            labels,
            weight=self._weights,
            label_smoothing=self._recipe.label_smoothing,
        )
        self.optimizer.zero_grad()
        loss.backward()
        if self._recipe.clip_norm > 0:
            nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip_norm)
        self.optimizer.step()
        self.losses += loss.detach()
