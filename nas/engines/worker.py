"""Runs jobs in a worker process; all engines use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from nas.data import Dataset
from nas.engines import Event, Failed, Finished, Job, Reported
from nas.engines.out_of_memory import OutOfMemory
from nas.errors import OutOfMemoryError, TrainingError
from nas.training import kernels
from nas.training.loop import confusion, images_per_step, train
from nas.training.memory import memory_errors
from nas.training.model import build
from nas.training.step import TrainingData


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings of a worker for its whole life."""

    split_seed: int
    val_size: int
    device: str
    processes: int = 1
    """The number of workers that train on the device at the same time."""
    warns: bool = True
    """Whether to warn if a GPU's kernel is missing; one worker of many is enough."""


class Worker:
    """Trains one job after another; the data stays on the device in between."""

    def __init__(self, dataset: Dataset, config: WorkerConfig) -> None:
        """Keep the data; move it to the device when it is first needed."""
        # Our kernels use one core; torch's get slower with more on tiny networks.
        torch.set_num_threads(1)
        self.device = torch.device(config.device)
        if self.device.type == "cuda":
            if config.warns:
                kernels.warn_if_missing(self.device)
            kernels.share_gpu(self.device, config.processes)
        self._dataset = dataset
        self._indices = dataset.split(config.split_seed, config.val_size)
        self._search: TrainingData | None = None

    def events(self, job: Job) -> Iterator[Event | OutOfMemory]:
        """Train; yield a report at each rung, then an event for the outcome.

        The caller stops the training by not asking for the next event.
        """
        end: Failed | OutOfMemory
        try:
            with memory_errors(self.device):
                yield from self._training(job)
        except OutOfMemoryError:
            end = OutOfMemory(job.number)
        except TrainingError as error:
            end = Failed(job.number, str(error))
        except Exception as error:  # noqa: BLE001  # one candidate must not end the search
            lines = str(error).splitlines() or [""]
            end = Failed(job.number, f"{type(error).__name__}: {lines[0]}")
        else:
            return
        if isinstance(end, OutOfMemory):
            # The exception and the model are gone by now. Return the memory that torch
            # has cached to the other workers; without a GPU this does nothing.
            torch.cuda.empty_cache()
        yield end

    def _training(self, job: Job) -> Iterator[Event]:
        """Train to the end and yield the events."""
        model = build(job.architecture, seed=job.seed).to(self.device)
        data = self._data(job)
        ran = kernels.supports(model, images_per_step(job.recipe, data))
        reports = train(
            model,
            data,
            job.recipe,
            seed=job.seed,
            rungs=job.rungs,
            metric=job.metric,
        )
        for report in reports:
            yield Reported(job.number, report)
        if job.mode == "search":
            yield Finished(job.number, kernels=ran)
            return
        weights = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in model.state_dict().items()
        }
        counts = self._test_confusion(model)
        accuracy = int(counts.diagonal().sum()) / len(self._dataset.test_labels)
        yield Finished(job.number, accuracy, weights, counts.tolist(), ran)

    def _data(self, job: Job) -> TrainingData:
        """Return the job's training and validation data, on the device."""
        if job.mode != "search":
            nothing = torch.empty(0, dtype=torch.int64)
            everything = torch.arange(len(self._dataset.labels))
            data = self._on_device(everything, nothing)
            if job.mode == "final":
                return data
            return replace(
                data,
                val_images=self._dataset.test_images.to(self.device),
                val_labels=self._dataset.test_labels.to(self.device),
            )
        if self._search is None:
            self._search = self._on_device(*self._indices)
        return self._search

    def _test_confusion(self, model: torch.nn.Module) -> torch.Tensor:
        """Measure on the test set: return counts by class (row) and prediction."""
        dataset = self._dataset
        return confusion(
            model,
            dataset.test_images.to(self.device),
            dataset.test_labels.to(self.device),
            dataset.mean,
            dataset.std,
            dataset.num_classes,
        )

    def _on_device(self, train_on: torch.Tensor, val_on: torch.Tensor) -> TrainingData:
        dataset = self._dataset
        return TrainingData(
            train_images=dataset.images[train_on].to(self.device),
            train_labels=dataset.labels[train_on].to(self.device),
            val_images=dataset.images[val_on].to(self.device),
            val_labels=dataset.labels[val_on].to(self.device),
            mean=dataset.mean,
            std=dataset.std,
        )
