"""One training step: forward, backward, clip, change the weights.

The images are prepared some batches ahead. On a GPU one launch of a kernel of our own then
does all these steps (kernels/gpu.py). Where that kernel cannot be had, the step works on
memory that stays where it is and asks the device for no answer, so that a GPU can record
it once for a candidate and replay it for every batch (cuda_graph.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.training import kernels
from nas.training.augmentation import augmented, warp
from nas.training.optimizer import Optimizer
from nas.training.recipe import Recipe

# A GPU starts a kernel in about the time that it takes for one batch of tiny images. So
# the some thirty kernels that prepare images are started once for so many batches. On a
# CPU the images of one batch stay in the cache.
AHEAD_ON_CPU, AHEAD_ON_GPU = 1, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """The training and the validation split, on the device that trains.

    Images are uint8 ``[N, C, H, W]``, labels int64 ``[N]``; the validation split may
    be empty. ``mean`` and ``std`` hold one number a channel, for pixels of 0 to 1.
    """

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Step:
    """A step with what goes into it and what comes out.

    `load` takes the images and learning rates of the next steps; each `run` then trains
    on the next batch of them and adds its loss to ``losses``. Random changes of the
    images come from ``generator``, dropout from torch's global one.
    """

    def __init__(
        self, model: nn.Module, data: TrainingData, recipe: Recipe, batch_size: int
    ) -> None:
        device = data.train_images.device
        cpu = device.type == "cpu"
        self.batch_size = batch_size
        self.ahead = AHEAD_ON_CPU if cpu else AHEAD_ON_GPU
        """For how many steps images are prepared at once."""
        self.generator = torch.Generator(device)
        self.model = model
        self._data, self._recipe = data, recipe
        self._scale, self._offset = normalisation(data.mean, data.std, device)
        self._weights = class_weights(recipe, data.train_labels)
        self._warp = kernels.warp if cpu and kernels.available() else warp
        self._resize = getattr(model, "resize", nn.Identity())
        self._program = kernels.gpu_training(
            model,
            recipe,
            shape=self._resize(data.train_images[:1].float()).shape[1:],
            batch_size=batch_size,
            ahead=self.ahead,
            class_weights=self._weights,
        )
        if self._program is not None:
            self.losses = self._program.losses
            return
        # What a recording reads has to stay where it is.
        shape = (self.ahead, batch_size, *data.train_images.shape[1:])
        self._images = torch.zeros(shape, device=device)
        self._labels = torch.zeros(shape[:2], dtype=torch.int64, device=device)
        # torch's fused optimizers read it in single precision on a GPU alone.
        kind = torch.float64 if cpu else torch.float32
        self._rates = torch.zeros(self.ahead, dtype=kind, device=device)
        self._rate = torch.zeros((), dtype=kind, device=device)
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self.losses = torch.zeros((), device=device)
        self.predict = kernels.predictor(model, batch_size)
        self._parameters = list(model.parameters())
        self.optimizer = Optimizer(self._parameters, recipe, self._rate)

    @property
    def uses_torch(self) -> bool:
        """Whether torch's own layers do the training, and no kernels of ours."""
        return self._program is None and self.predict is self.model

    def load(self, indices: Tensor, rates: Sequence[float]) -> None:
        """Prepare the images int64 ``[steps, B]`` and the rates of at most ``ahead`` steps."""
        steps = len(indices)
        # Float [steps * B, C, H, W], 0 to 255.
        images = self._data.train_images[indices.flatten()].float()
        images = augmented(images, self._recipe, self.generator, self._warp)
        images = images * self._scale + self._offset
        labels = self._data.train_labels[indices]
        if self._program is not None:
            self._program.load(self._resize(images), labels, torch.tensor(rates))
            return
        self._images[:steps] = images.view(self._images[:steps].shape)
        self._labels[:steps] = labels
        self._rates[:steps] = torch.tensor(rates, dtype=self._rates.dtype)
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first of the batches that were loaded."""
        self._place.zero_()

    def run(self, steps: int = 1) -> None:
        """Train on so many of the next batches."""
        if self._program is not None:
            self._program.run(steps)
            return
        for _ in range(steps):
            self._run()

    def mean_loss(self, steps: int) -> float:
        """Return the mean of ``losses`` over so many steps; wait for the last of them."""
        if self._program is not None:
            self._program.check()
        return float(self.losses) / steps

    def _run(self) -> None:
        images = self._images.index_select(0, self._place)[0]  # [B, C, H, W]
        labels = self._labels.index_select(0, self._place)[0]  # [B]
        self._rate.copy_(self._rates.index_select(0, self._place)[0])
        self._place += 1
        loss = functional.cross_entropy(
            self.predict(images),
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


def class_weights(recipe: Recipe, labels: Tensor) -> Tensor | None:
    """Return what each class counts in the loss, float ``[K]``; None where all are alike.

    ``labels`` are those of the training images, int64 ``[N]``, each class among them.
    """
    if recipe.class_weights == "none":
        return None
    if recipe.class_weights == "balanced":
        counts = labels.bincount()
        return len(labels) / (len(counts) * counts.float())
    return torch.tensor(recipe.class_weights, device=labels.device)


def normalisation(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return scale and offset ``[1, C, 1, 1]`` that take pixels of 0 to 255."""
    std_tensor = torch.tensor(std, device=device).view(1, -1, 1, 1)
    mean_tensor = torch.tensor(mean, device=device).view(1, -1, 1, 1)
    return 1 / (255 * std_tensor), -mean_tensor / std_tensor
