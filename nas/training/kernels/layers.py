"""A model that `nas.training.model.build` built, computed by the kernels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.training.batches import Batches
from nas.training.kernels import cuda, gpu
from nas.training.kernels.cpu import record
from nas.training.kernels.gpu_recording import can_record
from nas.training.kernels.library import call, count_lanes, load, why_missing
from nas.training.kernels.program import LANES
from nas.training.kernels.recording import LAYERS
from nas.training.kernels.tape import Tape
from nas.training.model import Residual, Shared, SqueezeExcitation
from nas.training.recipe import Recipe

_logger = logging.getLogger("nas")


def available() -> bool:
    """Return whether the kernels work here; the first call may compile them.

    ``NAS_KERNELS=0`` in the environment turns them off.
    """
    return load() is not None


def warn_if_missing(device: torch.device) -> None:
    """Tell the user in one line where there are no kernels though none are unwanted."""
    if device.type == "cpu":
        slower, which, reason = "two to five times", "C", why_missing()
    else:
        slower, which = "about twice", "GPU"
        reason = cuda.why_missing(device)
    if reason is not None:
        _logger.warning(
            "training %s slower, without %s kernels: %s", slower, which, reason
        )


def share_gpu(device: torch.device, processes: int) -> None:
    """Leave room on a GPU for the other processes that train there at the same time."""
    found = cuda.launcher(device)
    if found is not None:
        found.share(processes)


def supports(model: nn.Module, batch_size: int) -> bool:
    """Return whether the kernels can stand in for the model in training.

    They can for what ``nas.training.model.build`` builds, in batches that fill the
    vector registers of a CPU (multiples of 16 always do) or the warps of a GPU
    (multiples of 32).
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(model, "head"):
        return False
    devices = {p.device for p in model.parameters()}
    if len(devices) != 1 or any(p.dtype != torch.float32 for p in model.parameters()):
        return False
    (device,) = devices
    if device.type == "cuda":
        layers = [*with_bodies(all_layers(model))]
        return (
            batch_size % LANES == 0
            and all(can_record(layer) for layer in layers)
            and cuda.launcher(device) is not None
        )
    return (
        device.type == "cpu"
        and all(isinstance(layer, LAYERS) for layer in with_bodies(_layers(model)))
        and available()
        and batch_size % count_lanes() == 0
    )


def predictor(model: nn.Module, batch_size: int) -> Callable[[Tensor], Tensor]:
    """Return the model, or what computes the same faster.

    On a GPU that is in evaluation alone: `gpu_training` trains there.
    """
    if not supports(model, batch_size):
        return model
    device = next(model.parameters()).device
    return Evaluated(model) if device.type == "cuda" else Compiled(model)


def gpu_training(
    model: nn.Module, recipe: Recipe, batches: Batches
) -> gpu.Training | None:
    """Return the model's training by the GPU's kernel; None where it cannot do it."""
    device = next(model.parameters()).device
    if device.type != "cuda" or not supports(model, batches.size):
        return None
    launcher = cuda.launcher(device)
    assert launcher is not None  # supports() has looked
    return gpu.Training(launcher, all_layers(model), recipe, batches)


class Evaluated:
    """A model on a GPU as a function that does the same in evaluation, but faster."""

    def __init__(self, model: nn.Module) -> None:
        """Take the model, which `supports` takes."""
        self._resize = getattr(model, "resize", nn.Identity())
        self._layers = all_layers(model)
        self._recorded: dict[torch.Size, gpu.Evaluation] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits ``[N, num_classes]`` of float images ``[N, C, H, W]``."""
        images = self._resize(images)
        if images.shape not in self._recorded:
            launcher = cuda.launcher(images.device)
            assert launcher is not None  # supports() has looked
            evaluation = gpu.Evaluation(launcher, self._layers, images.shape)
            self._recorded[images.shape] = evaluation
        return self._recorded[images.shape](images)


class Compiled:
    """A model on the CPU, as a function that does the same, but faster.

    It takes float images ``[N, C, H, W]`` and returns logits ``[N, num_classes]``.
    Gradients, batch norm's running statistics and the difference between training and
    evaluation are those of the model; evaluation has no gradients. A backward pass has
    to come before the next forward one.
    """

    def __init__(self, model: nn.Module) -> None:
        """Take the model, whose parameters remain its own."""
        self._model = model
        # Images are made smaller before they are put into lanes.
        self._resize = getattr(model, "resize", nn.Identity())
        head = model.get_submodule("head")
        rest = [*head.children()] if isinstance(head, nn.Sequential) else [head]
        self._layers = _layers(model)
        while rest and isinstance(rest[0], _OF_MAPS):
            self._layers.append(rest.pop(0))
        self._rest = nn.Sequential(*rest)
        self._tapes: dict[tuple[int, ...], Tape] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``model(images)``."""
        images = self._resize(images)
        count, lanes = len(images), count_lanes()
        missing = -count % lanes  # only in evaluation, where images don't mix
        if missing:
            images = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
        # [N, C, H, W] -> [G, C, H, W, V]: image g * V + v stands in lane v of group g.
        grouped = images.view(-1, lanes, *images.shape[1:]).permute(0, 2, 3, 4, 1)
        tape = self._tape(grouped.shape)
        if self._model.training:
            features: Tensor = _Run.apply(tape, grouped, *tape.parameters)
        else:
            features = _run(tape, grouped)
        ungrouped = features.permute(0, 4, 1, 2, 3).reshape(-1, *features.shape[1:4])
        logits: Tensor = self._rest(ungrouped)
        return logits[:count]

    def _tape(self, shape: torch.Size) -> Tape:
        """Return the tape for images of that shape, recorded anew where weights moved."""
        training = self._model.training
        tape = self._tapes.get((*shape, training))
        if tape is None or not tape.is_current():
            with torch.inference_mode(mode=False):
                tape = record(self._layers, shape, training=training)
            self._tapes[(*shape, training)] = tape
        return tape


_OF_MAPS = (nn.Dropout, nn.Conv2d, nn.AdaptiveAvgPool2d)
"""What a head does with feature maps, before they are flattened."""


class _Run(torch.autograd.Function):
    """A tape in training."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, images: Tensor, *parameters: Tensor) -> Tensor:
        del parameters
        output = _run(tape, images)
        ctx.tape, ctx.run = tape, tape.runs
        return output

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        tape = ctx.tape
        if ctx.run != tape.runs:
            raise RuntimeError("the model has seen other images since")
        tape.gradient.copy_(g)
        return None, None, *tape.run_back()


@torch.no_grad()
def _run(tape: Tape, images: Tensor) -> Tensor:
    tape.images.copy_(images)
    tape.run()
    return tape.output.clone()


def warp(images: Tensor, matrices: Tensor, *, repeat: bool = False) -> Tensor:
    """Return what nas.training.augmentation.warp does, for images on the CPU."""
    images = images.contiguous()
    result = torch.empty_like(images)
    call("warp", images, matrices.contiguous(), result, *images.shape, repeat)
    return result


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of the blocks in the order in which they are applied."""
    layers: list[nn.Module] = []
    for block in model.get_submodule("blocks").children():
        if isinstance(block, Shared):
            for following in block.applications:
                layers += [*block.convolutions, *following.children()]
        else:
            layers += block.children()
    return layers


def all_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of the blocks and the head in the order of their application."""
    head = model.get_submodule("head")
    rest = [*head.children()] if isinstance(head, nn.Sequential) else [head]
    return [*_layers(model), *rest]


def with_bodies(layers: list[nn.Module]) -> Iterator[nn.Module]:
    """Yield the layers and those within them that are applied one by one."""
    for layer in layers:
        yield layer
        if isinstance(layer, Residual):
            yield from with_bodies([*layer.body, *layer.shortcut])
        if isinstance(layer, SqueezeExcitation):
            yield from (layer.activation, layer.gate)
