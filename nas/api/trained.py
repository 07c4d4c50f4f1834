"""A fully trained network: its model, its report, its files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas.api.data import Data, dataset_of, name_of
from nas.api.progress import percent
from nas.api.settings import studies_folder
from nas.api.words import in_python
from nas.architecture import Architecture
from nas.architecture.notation import describe
from nas.data import Dataset, load_dataset
from nas.errors import DataError, ExportError, UsageError, first_line
from nas.export import write_best
from nas.export.deliver import export
from nas.export.source import source
from nas.export.trained import TrainedNet, find_trained
from nas.training.model import build


class Trained:
    """A trained network, as `Study.best`, `nas.train` and `nas.load` return it.

    Attributes:
        architecture: the frozen description of the network.
        report: what was measured and how, as plain data for JSON: `test_accuracy` (0 to 1,
            one number per seed), `test_accuracy_mean`, `test_accuracy_std`, `num_params`,
            `macs` (per image), `peak_memory` (bytes of int8 activations), `recipe`,
            `versions`, `hardware`.
        weights: the state dict of `model` as numpy arrays, of the first seed.
        class_names: names of the classes, in the order of the logits.
        mean: mean of the training images, one number per channel, for pixels from 0 to 1.
        std: their standard deviation, likewise.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: dict[str, npt.NDArray[np.generic]],
        report: dict[str, Any],
        data: Dataset | TrainedNet,
        folder: Path | None = None,
    ) -> None:
        """Combine the results of a training; ``folder`` is the default of save."""
        self.architecture, self.weights, self.report = architecture, weights, report
        self.class_names, self.mean, self.std = data.class_names, data.mean, data.std
        self._read_as, self._folder = data, folder

    def __repr__(self) -> str:
        return f"<Trained {self.summary}>"

    @property
    def summary(self) -> str:
        """The result in one line: parameters, test accuracy, seeds."""
        report = self.report
        name = _trial_in_words(report) if "trial" in report else report["architecture"]
        return f"{name}, {_tested_in_words(report)}"

    @cached_property
    def model(self) -> nn.Module:
        """The network with the first seed's weights, on the CPU, in eval mode.

        It takes float images [N, C, H, W], as `normalise` returns them, and returns logits [N,
        classes].
        """
        model = build(self.architecture)
        model.load_state_dict(
            {name: torch.from_numpy(array) for name, array in self.weights.items()}
        )
        return model.eval()

    @cached_property
    def _script(self) -> ModuleType:
        """The module that `save` writes, the only definition of how images are read."""
        script = ModuleType("model")
        exec(compile(self._source(), "model.py", "exec"), vars(script))  # noqa: S102  # our own
        return script

    def _source(self, *notes: str) -> str:
        return source(
            self.architecture,
            mean=self.mean,
            std=self.std,
            class_names=self.class_names,
            value_range=self._read_as.value_range,
            signal_length=self._read_as.signal_length,
            notes=notes,
        )

    @in_python
    def normalise(self, images: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return images as `model` takes them, float [N, C, H, W].

        Images are raw uint8 pixels, or have the layout and values of the training images when
        nas read them, as for model.py. Raises DataError for others.
        """
        try:
            ready: Tensor = self._script.normalise(torch.as_tensor(images))
        except (TypeError, ValueError) as error:
            raise DataError(str(error)) from error
        return ready

    def predict(self, images: Tensor | npt.NDArray[Any]) -> Tensor:
        """Return the classes of images, int64 [N], as indices of `class_names`.

        Puts `model` into eval mode. Takes and refuses the same images as `normalise`.
        """
        pixels = self.normalise(images)
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            logits: Tensor = self.model.eval()(pixels.to(device))
        return logits.argmax(dim=1).cpu()

    @in_python
    def save(self, folder: str | Path | None = None) -> Path:
        """Write weights.safetensors, architecture.json, model.py and report.json.

        model.py is plain PyTorch and runs without nas. By default, a study's winner is written
        to best/ in the study's folder. Returns the folder. Raises UsageError if there is no
        default folder, StudyError if it cannot be written.
        """
        target = self._target(folder)
        write_best(
            target,
            self.architecture,
            self._source(
                f"Data set {Path(self.report['dataset']).name}, {self.summary}."
            ),
            {name: torch.from_numpy(array) for name, array in self.weights.items()},
            self.report,
        )
        self._folder = target
        return target

    @in_python
    def export(
        self,
        to: str,
        folder: str | Path | None = None,
        *,
        data: Data | str | Path | None = None,
    ) -> dict[str, Any]:
        """Write the network as "onnx", "onnx-int8" or "c" and measure its test accuracy.

        The default folder is one named like the format, in the folder where `save` writes.
        Returns the report, as in export.json. int8 is calibrated on training images; the test
        set is read once. `data` is the data set of the training; for a loaded network, by default
        the one that its report names. Raises ExportError for an unknown format, a network that
        the format cannot hold, or a missing library.
        """
        target = self._target(None) / to if folder is None else Path(folder)
        net = TrainedNet(
            folder=target,
            architecture=self.architecture,
            weights=self.weights,
            mean=self.mean,
            std=self.std,
            class_names=self.class_names,
            report=self.report,
            value_range=self._read_as.value_range,
            signal_length=self._read_as.signal_length,
        )
        return export(net, to, target, self._dataset(data))

    def _dataset(self, data: Data | str | Path | None) -> Dataset:
        """Return the given data set, or the one that the net was trained on."""
        given, name = dataset_of(data, None), name_of(data)
        if given is None and name is None and isinstance(self._read_as, Dataset):
            return self._read_as
        size = self.architecture.input_shape[1:]
        return given or load_dataset(
            name or str(self.report["dataset"]), image_size=size
        )

    def _target(self, folder: str | Path | None) -> Path:
        if folder is not None:
            return Path(folder)
        if self._folder is None:
            raise UsageError(f"{describe(self.architecture)} has no folder: give one")
        return self._folder


# The keys that every report of nas has and a summary needs.
_TOLD = {
    *("num_params", "epochs", "seeds", "dataset"),
    *("test_accuracy", "test_accuracy_mean", "test_accuracy_std"),
    "architecture",  # or the trial's number
}


def _named(report: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": report["trial"]} | report if "trial" in report else report


@in_python
def load(folder: str | Path, *, studies: str | Path | None = None) -> Trained:
    """Load a trained network and its report from a folder.

    `folder` was written by `Trained.save`, `nas best` or `nas train --output`, or is the name of
    a study in `studies` (as for `nas.search`), whose winner is then loaded. No code in the
    folder is run. Raises ExportError if there is no such network, or its files are damaged
    or do not belong together.
    """
    net = find_trained(str(folder), studies_folder(studies))
    trained = Trained(net.architecture, net.weights, net.report, net, net.folder)
    if missing := sorted(_TOLD - _named(net.report).keys()):
        raise ExportError(
            f"{net.folder / 'report.json'} has no {missing[0]}, as nas wrote it: restore "
            "the file or train the net again"
        )
    try:
        _ = trained.model  # build it now, so that damaged weights are reported here
    except RuntimeError as error:
        line = first_line(error).rstrip(": ")
        raise ExportError(
            f"{net.folder / 'weights.safetensors'} is not of the net beside it ({line}): "
            "restore the file or train the net again"
        ) from error
    return trained


def best_epoch_in_words(report: dict[str, Any]) -> str:
    """Return the best epoch's test accuracy of `like_published`, labelled as such."""
    text = (
        "best epoch, selected on the test set: "
        f"{percent(report['test_accuracy_best_epoch_mean'])}"
    )
    text += _spread_in_words(report, "test_accuracy_best_epoch")
    said = report["published"]
    accuracies = [
        f"{percent(said[key])} {words}"
        for key, words in (("accuracy", "best epoch"), ("last_accuracy", "last epoch"))
        if said[key] is not None
    ]
    return (
        f"{text}; published: {', '.join(accuracies)}, of {said['epochs']} epochs with "
        f"{said['num_params']:,} parameters"
    )


def _trial_in_words(report: dict[str, Any]) -> str:
    return f"trial {report['trial']}" + (
        " resized" if report.get("resized") else ""  # older reports lack this
    )


def _tested_in_words(report: dict[str, Any]) -> str:
    text = (
        f"{report['num_params']:,} parameters: test accuracy "
        f"{percent(report['test_accuracy_mean'])} after the last of {report['epochs']} "
        "epochs"
    )
    return text + _spread_in_words(report, "test_accuracy")


def _spread_in_words(report: dict[str, Any], name: str) -> str:
    if report["seeds"] == 1:
        return ""
    values = ", ".join(percent(value) for value in report[name])
    spread = percent(report[f"{name}_std"])
    return f" (mean of {report['seeds']} seeds, standard deviation {spread}: {values})"
