"""The training steps: augmented batches, prepared some steps ahead, and what trains on them.

On a GPU one launch of a kernel of our own trains on all prepared batches (kernels/gpu.py).
Elsewhere, and where that kernel does not support the model, it is torch's autograd
(autograd.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nas.training import kernels
from nas.training.augmentation import augmented, warp
from nas.training.autograd import AutogradTraining
from nas.training.batches import Batches
from nas.training.kernels import gpu
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

    `load` prepares the images and learning rates of the next steps; each `run` then trains
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
        self._data, self._recipe = data, recipe
        self._scale, self._offset = normalisation(data.mean, data.std, device)
        self._warp = kernels.warp if cpu and kernels.available() else warp
        batches = Batches(
            shape=data.train_images.shape[1:],
            size=batch_size,
            ahead=self.ahead,
            class_weights=class_weights(recipe, data.train_labels),
        )
        # The GPU's kernel does not resize images: that is done before.
        self._resize = getattr(model, "resize", nn.Identity())
        shape = self._resize(data.train_images[:1].float()).shape[1:]
        on_gpu = kernels.gpu_training(model, recipe, replace(batches, shape=shape))
        self.training: gpu.Training | AutogradTraining
        if on_gpu is not None:
            self.training = on_gpu
            return
        self._resize = nn.Identity()
        self.training = AutogradTraining(model, recipe, batches)

    @property
    def losses(self) -> Tensor:
        """The sum of the losses since the caller last set it to zero, float ``[]``."""
        return self.training.losses

    def load(self, indices: Tensor, rates: Sequence[float]) -> None:
        """Prepare the images int64 ``[steps, B]`` and the rates of at most ``ahead`` steps."""
        # Float [steps * B, C, H, W], 0 to 255.
        images = self._data.train_images[indices.flatten()].float()
        images = augmented(images, self._recipe, self.generator, self._warp)
        images = self._resize(images * self._scale + self._offset)
        self.training.load(images, self._data.train_labels[indices], rates)

    def mean_loss(self, steps: int) -> float:
        """Return the mean of ``losses`` over so many steps; wait for the last of them."""
        self.training.check()
        return float(self.losses) / steps


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
