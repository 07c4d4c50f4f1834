"""Training and evaluating one model: one loop, one cycle, one report a rung."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.augmentation import random_matrices, warp
from nas.candidate import RungReport
from nas.errors import TrainingError
from nas.recipe import Recipe
from nas.training import kernels


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


def train(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    rungs: Sequence[float],
) -> Iterator[RungReport]:
    """Train the model in place and yield a report at each rung.

    ``rungs`` are positions in epochs, increasing, the last being ``recipe.epochs``;
    whoever drives the generator ends the training by asking for no more. The model
    has to be on the device of the data. The same model, data, seed, rungs, device and
    number of threads give the same curve.

    Raises TrainingError when the loss is no longer a number or memory runs out, and
    ValueError for rungs that do not fit the recipe.
    """
    if [0, *rungs] != sorted({0, *rungs}) or max(rungs, default=0) != recipe.epochs:
        message = f"rungs {list(rungs)} do not rise from 0 to {recipe.epochs} epochs"
        raise ValueError(message)
    started = time.perf_counter()
    device = data.train_images.device
    batch_size = min(recipe.batch_size, len(data.train_labels))
    steps_per_epoch = len(data.train_labels) // batch_size
    total_steps = steps_per_epoch * recipe.epochs
    batches = _batches(data, recipe, batch_size, seed)
    if device.type == "cpu":
        _keep_freed_memory()
    predict = _predictor(model, batch_size)
    optimizer = _optimizer(model, recipe)
    parameters = list(model.parameters())
    average = _Average(model, total_steps, recipe) if recipe.average > 0 else None
    step = 0
    for rung, epochs in enumerate(rungs):
        stop = max(step + 1, round(epochs * steps_per_epoch))
        # The reported loss is that of late: the first steps of a training tell more
        # of the initial weights than of the network.
        recent = stop - max(1, (stop - step) // 3)
        losses = torch.zeros((), device=device)
        with _memory_errors(device), _seeded(seed + rung, device):
            model.train()
            if predict is model and device.type == "cpu":
                # Takes up to a half off the time of a step.
                model.to(memory_format=torch.channels_last)
            first = step
            for step in range(first, stop):
                images, labels = next(batches)  # [B, C, H, W], [B]
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, total_steps, recipe)
                loss = functional.cross_entropy(
                    predict(images), labels, label_smoothing=recipe.label_smoothing
                )
                optimizer.zero_grad()
                loss.backward()
                if recipe.clip_norm > 0:
                    nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
                optimizer.step()
                if average is not None:
                    average.update(step)
                if step >= recent:
                    losses += loss.detach()
            step = stop
            train_loss = float(losses) / (stop - recent)
            if not math.isfinite(train_loss):
                message = "loss became NaN"
                raise TrainingError(message)
            if average is not None:
                average.swap()
            val_accuracy = evaluate(
                model, data.val_images, data.val_labels, data.mean, data.std
            )
            model.to(memory_format=torch.contiguous_format)
        yield RungReport(
            rung=rung,
            epochs=epochs,
            val_accuracy=val_accuracy,
            train_loss=train_loss,
            seconds=time.perf_counter() - started,
        )
        if average is not None:
            average.swap()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    batch_size: int = 512,
) -> float:
    """Return the share of the images that the model gets right, nan without images.

    ``images`` is uint8 ``[N, C, H, W]``, ``labels`` int64 ``[N]``. The model's mode
    (training or not) is left as it was found.
    """
    if not len(labels):
        return math.nan
    scale, offset = _normalisation(mean, std, images.device)
    predict = _predictor(model)
    was_training = model.training
    model.eval()
    try:
        correct = torch.zeros((), dtype=torch.int64, device=images.device)
        for some, answers in zip(
            images.split(batch_size), labels.split(batch_size), strict=True
        ):
            logits = predict(some * scale + offset)  # [B, num_classes]
            correct += (logits.argmax(1) == answers).sum()
    finally:
        model.train(was_training)
    return int(correct) / len(labels)


def learning_rate(step: int, total_steps: int, recipe: Recipe) -> float:
    """Return the rate of a step, counted from 0, by the recipe's schedule."""
    if recipe.schedule == "one_cycle":
        position = (step + 0.5) / total_steps  # the middle of the step, never 0 or 1
        if position < recipe.warmup:
            return recipe.max_lr * position / recipe.warmup
        fall = (position - recipe.warmup) / (1 - recipe.warmup)
        return recipe.max_lr * (1 + math.cos(math.pi * fall)) / 2
    epoch = step * recipe.epochs // total_steps
    if recipe.schedule == "inverse_time":
        return recipe.max_lr / (1 + recipe.decay * epoch)
    if recipe.schedule == "step":
        return float(
            recipe.max_lr * recipe.step_factor ** (epoch // recipe.step_epochs)
        )
    return recipe.max_lr


class _Average:
    """The moving average of the weights and of batch norm's statistics."""

    def __init__(self, model: nn.Module, total_steps: int, recipe: Recipe) -> None:
        self._model = model
        self._steps = max(1, round(total_steps * recipe.average))
        self._start = total_steps - self._steps
        self._averages: list[Tensor] | None = None

    def _values(self) -> list[Tensor]:
        # Anew each time: a change of the memory format replaces what they hold.
        tensors = [*self._model.parameters(), *self._model.buffers()]
        return [t.detach() for t in tensors if t.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after this step into the average, once it is on."""
        if step < self._start:
            return
        if self._averages is None:
            self._averages = [value.clone() for value in self._values()]
            return
        # The plain mean at first, then with a memory of a fifth of all its steps.
        weight = max(1 / (step - self._start + 1), 1 / max(1.0, self._steps / 5))
        for average, value in zip(self._averages, self._values(), strict=True):
            average.lerp_(value, weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and their average, once it is on."""
        if self._averages is None:
            return
        for average, value in zip(self._averages, self._values(), strict=True):
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)


def _predictor(model: nn.Module, batch_size: int = 16) -> Callable[[Tensor], Tensor]:
    """Return the model or what computes the same faster."""
    if kernels.supports(model, batch_size):
        return functools.partial(kernels.forward, model)
    return model


def _batches(
    data: TrainingData, recipe: Recipe, batch_size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled, freshly augmented, normalised batches without end.

    The last batch of an epoch, when it is not full, is left out: every epoch leaves
    out other images.
    """
    device = data.train_images.device
    generator = torch.Generator(device).manual_seed(seed)
    scale, offset = _normalisation(data.mean, data.std, device)
    warped = kernels.warp if device.type == "cpu" and kernels.available() else warp
    count = len(data.train_labels)
    while True:
        order = torch.randperm(count, generator=generator, device=device)
        for indices in order[: count - count % batch_size].split(batch_size):
            images = data.train_images[indices].float()  # [B, C, H, W]
            if recipe.augment > 0:
                matrices = random_matrices(batch_size, recipe, generator, device)
                images = warped(images, matrices)
            yield images * scale + offset, data.train_labels[indices]


def _normalisation(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return scale and offset ``[1, C, 1, 1]`` that take pixels of 0 to 255."""
    std_tensor = torch.tensor(std, device=device).view(1, -1, 1, 1)
    mean_tensor = torch.tensor(mean, device=device).view(1, -1, 1, 1)
    return 1 / (255 * std_tensor), -mean_tensor / std_tensor


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; biases and batch norm do not decay."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            lr=recipe.max_lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.max_lr, weight_decay=recipe.weight_decay, fused=True)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Give dropout its own random numbers; the global ones stay as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc keep what this process frees instead of returning it to the system.

    Every step frees and takes the same few buffers of some megabytes, and fresh pages
    are dear: up to a third of the step with large feature maps. Other C libraries are
    left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # Numbers from malloc.h: never mmap, never trim, grow by 64 MiB at a time.
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 2**26)


@contextmanager
def _memory_errors(device: torch.device) -> Iterator[None]:
    """Raise TrainingError where torch runs out of memory."""
    message = f"out of memory on {device}"
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingError(message) from error
    except RuntimeError as error:
        # The CPU's allocator has no exception of its own.
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise TrainingError(message) from error
        raise
