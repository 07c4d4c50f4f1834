"""Trains and evaluates a model by one kernel on a GPU, which does many steps a launch.

A program is recorded once for a model and a number of images. Feature maps are
``[G, C, H, W, 32]``: the 32 images of a group lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.training.batches import Batches
from nas.training.kernels.gpu_recording import GpuRecorder, share_evenly
from nas.training.kernels.program import LANES, Launcher
from nas.training.recipe import Recipe


class Evaluation:
    """A model in evaluation, for one number of images at a time."""

    def __init__(
        self, launcher: Launcher, layers: Sequence[nn.Module], shape: Sequence[int]
    ) -> None:
        """Take the layers and the shape ``[N, C, H, W]`` of the images; N is any."""
        self._count = shape[0]
        groups = -(-shape[0] // LANES)
        self._images = torch.zeros((groups, *shape[1:], LANES), device=launcher.device)
        recorder = GpuRecorder(launcher, layers, training=False)
        self._logits, _ = recorder.chain(self._images)
        self._program = recorder.program(self._images, self._logits)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits ``[N, K]`` of the images."""
        missing = -len(images) % LANES
        if missing:
            images = nn.functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
        self._images.copy_(grouped(images))
        self._program.run()
        self._program.check()
        logits = self._logits.flatten(1, 3)  # [G, K, 32]
        return logits.transpose(1, 2).flatten(0, 1)[: self._count].clone()


class Training:
    """A model in training: `load` takes batches, `run` trains on the next of them."""

    uses_torch = False

    def __init__(
        self,
        launcher: Launcher,
        layers: Sequence[nn.Module],
        recipe: Recipe,
        batches: Batches,
    ) -> None:
        """Take the layers; the size of the batches is a multiple of 32."""
        device = launcher.device
        ahead, class_weights = batches.ahead, batches.class_weights
        groups = batches.size // LANES
        self._images = torch.zeros(
            (ahead, groups, *batches.shape, LANES), device=device
        )
        self._labels = torch.zeros(
            (ahead, batches.size), dtype=torch.int64, device=device
        )
        self._rates = torch.zeros(ahead, device=device)
        self._seeds = torch.zeros((ahead, 2), dtype=torch.int32, device=device)
        self._place = torch.zeros(1, dtype=torch.int32, device=device)
        self.losses = torch.zeros((), device=device)
        recorder = GpuRecorder(
            launcher, layers, training=True, seeds=self._seeds, place=self._place
        )
        batch = torch.zeros(self._images.shape[1:], device=device)
        operations = recorder.operations
        operations.add(
            "copy", share_evenly(batch.numel() // 4), batch, self._images, self._place,
            integers=(batch.numel(),),
        )  # fmt: skip
        logits, back = recorder.chain(batch)
        gradient = torch.zeros_like(logits)
        operations.add(
            "cross_entropy", (1, 1), logits, gradient, self._labels, self._place,
            class_weights, self.losses,
            integers=(groups, logits.shape[1]),
            floats=(recipe.label_smoothing,),
        )  # fmt: skip
        # What the forward pass has written is needed until the gradients are there.
        recorder.begin_anew()
        back(gradient)
        recorder.change_weights(recipe, self._rates)
        self._program = recorder.program(batch, gradient, *_given(class_weights))

    def load(self, images: Tensor, labels: Tensor, rates: Sequence[float]) -> None:
        """Take images ``[steps * B, C, H, W]``, labels ``[steps, B]`` and learning rates.

        What dropout drops in these steps follows from torch's global random numbers.
        """
        steps = len(labels)
        place = self._images[:steps]
        place.copy_(grouped(images).view(place.shape))
        self._labels[:steps] = labels
        self._rates[:steps] = torch.tensor(rates)
        self._seeds.random_(-(2**31), 2**31)
        self.rewind()

    def rewind(self) -> None:
        """Begin again with the first of the batches that were loaded."""
        self._place.zero_()

    def run(self, steps: int) -> None:
        """Start training on so many of the next batches."""
        self._program.run(steps)

    def check(self) -> None:
        """Wait for the last step; RuntimeError where it did not end well."""
        self._program.check()


def grouped(images: Tensor) -> Tensor:
    """Return ``[N, C, H, W]`` as ``[N / 32, C, H, W, 32]``."""
    return images.view(-1, LANES, *images.shape[1:]).permute(0, 2, 3, 4, 1)


def _given(tensor: Tensor | None) -> list[Tensor]:
    return [] if tensor is None else [tensor]
