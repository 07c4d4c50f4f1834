"""What a worker does with a job, whichever engine started it."""

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
    """What a worker needs to know once, at its start."""

    split_seed: int
    val_size: int
    device: str
    processes: int = 1
    """How many workers train on the device at the same time."""
    warns: bool = True
    """Whether it says where a GPU's kernel is missing: one worker of many is enough."""


class Worker:
    """Trains one job after the other; the data stays on its device in between."""

    def __init__(self, dataset: Dataset, config: WorkerConfig) -> None:
        """Take the data; it is put on the device when it is first needed."""
        # The kernels use one core, and torch's own get slower with more on such networks.
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
        """Train and yield a report at each rung, at last how it ended.

        Whoever drives it ends the training by asking for no more.
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
            # The error is gone, and with it the model: what torch keeps of their memory
            # goes to the other workers. Without a GPU this does nothing.
            torch.cuda.empty_cache()
        yield end

    def _training(self, job: Job) -> Iterator[Event]:
        """Train to the end, and yield all that happens up to there."""
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
        """Return what the job trains on and measures on."""
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
        """Read the test set: how often each class got each answer."""
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
