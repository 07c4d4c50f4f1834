"""Training and evaluating one model: one loop, one report a rung."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import TrainingError
from nas.training import kernels
from nas.training.cuda_graph import runner
from nas.training.ema import EMA
from nas.training.memory import memory_errors
from nas.training.recipe import Recipe
from nas.training.report import Metric, RungReport
from nas.training.step import Step, TrainingData, normalisation


def train(
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    seed: int,
    rungs: Sequence[float],
    metric: Metric = "accuracy",
) -> Iterator[RungReport]:
    """Train the model in place and yield a report at each rung, by the metric.

    ``rungs`` are positions in epochs, increasing, the last being ``recipe.epochs``;
    whoever drives the generator ends the training by asking for no more. The model
    has to be on the device of the data. The same model, data, seed, rungs, device and
    number of threads give the same curve.

    Raises TrainingError when the loss is no longer a number, OutOfMemoryError when
    memory runs out, and ValueError for rungs that do not fit the recipe.
    """
    if [0, *rungs] != sorted({0, *rungs}) or max(rungs, default=0) != recipe.epochs:
        message = f"rungs {list(rungs)} do not rise from 0 to {recipe.epochs} epochs"
        raise ValueError(message)
    started = time.perf_counter()
    device = data.train_images.device
    images = images_per_step(recipe, data)
    steps_per_epoch = len(data.train_labels) // images
    total_steps = steps_per_epoch * recipe.epochs
    if device.type == "cpu":
        _keep_freed_memory()
    average = EMA(model, total_steps, recipe) if recipe.average > 0 else None
    with memory_errors(device), _seeded(seed, device), uncounted(model, device):
        model.train()
        step = Step(model, data, recipe, images)
        run = runner(step.training)
    step.generator.manual_seed(seed)
    orders = _orders(step, data)
    done = 0
    for rung, epochs in enumerate(rungs):
        stop = max(done + 1, round(epochs * steps_per_epoch))
        # The reported loss is that of late: the first steps of a training tell more
        # of the initial weights than of the network.
        recent = stop - max(1, (stop - done) // 3)
        with (
            memory_errors(device),
            _seeded(seed + rung, device),
            uncounted(model, device, stop - done),
        ):
            model.train()
            if device.type == "cpu" and step.training.uses_torch:
                # Takes up to a half off the time of a step.
                model.to(memory_format=torch.channels_last)
            number = done
            while number < stop:
                if (number - done) % step.ahead == 0:
                    some = range(number, min(number + step.ahead, stop))
                    step.load(
                        torch.stack([next(orders) for _ in some]),
                        [learning_rate(n, total_steps, recipe) for n in some],
                    )
                if number == recent:
                    step.losses.zero_()
                following = some.stop
                if number < recent:
                    following = min(following, recent)
                if average is not None and following > average.start:
                    following = max(number + 1, average.start)
                run(following - number)
                if average is not None:
                    average.update(following - 1)
                number = following
            done = stop
            train_loss = step.mean_loss(stop - recent)
            if not math.isfinite(train_loss):
                message = "loss became NaN"
                raise TrainingError(message)
            if average is not None:
                average.swap()
            validation = measure(
                model,
                *(data.val_images, data.val_labels, data.mean, data.std),
                metric=metric,
            )
            if device.type == "cpu":  # elsewhere the step knows where its weights lie
                model.to(memory_format=torch.contiguous_format)
        yield RungReport(
            rung=rung,
            epochs=epochs,
            val_accuracy=validation.accuracy,
            val_loss=validation.loss,
            train_loss=train_loss,
            seconds=time.perf_counter() - started,
        )
        if average is not None and done < total_steps:
            average.swap()


def images_per_step(recipe: Recipe, data: TrainingData) -> int:
    """Return how many images a step takes: the recipe's, or all that there are."""
    return min(recipe.batch_size, len(data.train_labels))


class Measurement(NamedTuple):
    """The accuracy (0 to 1) and mean cross entropy on a set of images; nan without any."""

    accuracy: float
    loss: float


@torch.inference_mode()
def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    metric: Metric = "accuracy",
) -> Measurement:
    """Return the model's accuracy and loss on the images, by the metric.

    With "balanced-accuracy" both are means over the classes that have images here.

    ``images`` is uint8 ``[N, C, H, W]``, ``labels`` int64 ``[N]``. The model's mode
    (training or not) is left as it was found. Batches on a CPU are so small that a
    worker needs little more memory for them than for training.
    """
    if not len(labels):
        return Measurement(math.nan, math.nan)
    if metric == "balanced-accuracy":
        return _balanced(_answers(model, images, labels, mean, std), labels)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    for logits, answers in _answers(model, images, labels, mean, std):
        correct += (logits.argmax(1) == answers).sum()
        loss += functional.cross_entropy(logits, answers, reduction="sum")
    return Measurement(int(correct) / len(labels), float(loss) / len(labels))


def _balanced(batches: Iterable[tuple[Tensor, Tensor]], labels: Tensor) -> Measurement:
    """Return the means over classes of the share that is right and of the loss."""
    sizes = labels.bincount()  # [K]
    correct, loss = (
        torch.zeros_like(sizes),
        torch.zeros_like(sizes, dtype=torch.float64),
    )
    for logits, answers in batches:
        right = logits.argmax(1) == answers
        correct += answers[right].bincount(minlength=len(sizes))
        losses = functional.cross_entropy(logits, answers, reduction="none")
        loss.index_add_(0, answers, losses.double())
    known = sizes > 0
    accuracies = correct[known] / sizes[known].double()
    return Measurement(float(accuracies.mean()), float((loss / sizes)[known].mean()))


@torch.inference_mode()
def confusion(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
) -> Tensor:
    """Return how often each class (row) got each answer (column), int64 ``[K, K]``.

    Images and labels are as for `measure`; the result is on the CPU.
    """
    counts = torch.zeros(num_classes**2, dtype=torch.int64, device=images.device)
    for logits, answers in _answers(model, images, labels, mean, std):
        pairs = answers * num_classes + logits.argmax(1)
        counts += pairs.bincount(minlength=num_classes**2)
    return counts.view(num_classes, num_classes).cpu()


def _answers(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits ``[B, num_classes]`` and labels ``[B]``, batch after batch."""
    batch_size = 128 if images.device.type == "cpu" else 2048
    scale, offset = normalisation(mean, std, images.device)
    predict = kernels.predictor(model, 32)
    was_training = model.training
    model.eval()
    try:
        for some, answers in zip(
            images.split(batch_size), labels.split(batch_size), strict=True
        ):
            yield predict(some * scale + offset), answers
    finally:
        model.train(was_training)


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


def _orders(step: Step, data: TrainingData) -> Iterator[Tensor]:
    """Yield the images of one batch after the other without end, int64 ``[B]``.

    The last batch of an epoch, when it is not full, is left out: every epoch leaves
    out other images.
    """
    count, batch_size = len(data.train_labels), step.batch_size
    while True:
        order = torch.randperm(
            count, generator=step.generator, device=step.generator.device
        )
        yield from order[: count - count % batch_size].split(batch_size)


@contextmanager
def uncounted(model: nn.Module, device: torch.device, steps: int = 0) -> Iterator[None]:
    """Add up batch norm's count of batches after the steps instead of in each.

    Nothing reads it, and on a GPU each addition takes as long as a convolution.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if device.type == "cpu":
        norms = []
    counts = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, count in zip(norms, counts, strict=True):
            norm.num_batches_tracked = None if count is None else count + steps


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Give dropout its own random numbers; the global ones stay as they were.

    On a GPU convolutions, too, give the same result each time, in full precision:
    networks this small would gain nothing by less.
    """
    cuda = [device] if device.type == "cuda" else []
    repeatable = (
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        if cuda
        else nullcontext()
    )
    with torch.random.fork_rng(devices=cuda), repeatable:
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
        # Numbers from malloc.h: never mmap, never trim, grow by 1 MiB at a time.
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 2**20)
