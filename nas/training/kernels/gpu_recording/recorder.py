"""Goes through a model's layers and records them as operations of the GPU's kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from nas.training.kernels.gpu_recording import (
    convolutions,
    norm,
    optimizer,
    plain,
)
from nas.training.kernels.gpu_recording.operations import Operations
from nas.training.kernels.program import LANES, Launcher, Program
from nas.training.kernels.recording import (
    CURVES,
    LAYERS,
    Back,
    NormInside,
    Recorder,
    conv_shape,
    is_grouped,
    is_halving,
)
from nas.training.kernels.tape import Pool
from nas.training.model import PadChannels
from nas.training.recipe import Recipe

_RECORD: dict[str, Callable[..., None]] = {
    "conv": convolutions.conv,
    "conv_weight": convolutions.conv_weight,
    "depthwise": convolutions.depthwise,
    "depthwise_weight": convolutions.depthwise_weight,
    "add_bias": convolutions.add_bias,
    "add_bias_back": convolutions.add_bias_back,
    "norm_eval": norm.norm_eval,
    **plain.RECORD,
}
"""What records the work of each C function in kernels.c, by that function's name."""


def can_record(layer: nn.Module) -> bool:
    """Return whether a program can hold the layer."""
    if isinstance(layer, nn.Conv2d):
        high, wide = layer.kernel_size
        return high * wide <= convolutions.MAX_TAPS and not is_grouped(layer)
    if type(layer) in CURVES:
        return CURVES[type(layer)] in plain.CURVES
    if isinstance(layer, PadChannels):
        return False
    if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
        return is_halving(layer)
    return isinstance(layer, (*LAYERS, nn.Flatten, nn.Linear))


class GpuRecorder(Recorder):
    """Records layers to ``operations``, to which callers may add their own."""

    def __init__(
        self,
        launcher: Launcher,
        layers: Sequence[nn.Module],
        *,
        training: bool,
        seeds: Tensor | None = None,
        place: Tensor | None = None,
    ) -> None:
        """Take the layers in the order in which they are applied.

        In training, ``seeds`` are those of each step's dropout, and ``place`` is the
        number of the step that is being done.
        """
        super().__init__(layers, training=training, device=launcher.device)
        self.operations = Operations(self._parameters, launcher.device)
        self._launcher, self._place_of_step = launcher, place
        self._draws = norm.Draws(seeds, place)

    def chain(self, images: Tensor) -> tuple[Tensor, Back]:
        """Record all layers; return their output and what records the way back."""
        return self._chain([*self._layers], images, first=True)

    def begin_anew(self) -> None:
        """Use none of the memory again that was used so far."""
        self._pool = Pool(self._device)

    def change_weights(self, recipe: Recipe, rates: Tensor) -> None:
        """Record the change of the weights; ``rates`` are those of all steps."""
        optimizer.change_weights(
            self.operations, self._parameters, recipe, rates, self._place_of_step
        )

    def program(self, *held: Tensor) -> Program:
        """Return what was recorded, which works on ``held``, too."""
        buffers = [b for layer in self._layers for b in layer.buffers()]
        all_held = *self.operations.held, *held, *self._parameters, *buffers
        return Program(self._launcher, self.operations.all, all_held)

    def _emit(self, name: str, *arguments: Any) -> None:
        """Record what the C function of that name would do."""
        _RECORD[name](self.operations, *arguments)

    def _place(self, parameter: Tensor | None) -> int | None:
        return self.operations.place(parameter)

    def _norm(
        self, x: Tensor, bias: Tensor | None, fused: NormInside
    ) -> tuple[Tensor, Back]:
        return norm.norm(self.operations, self._draws, x, bias, fused)

    def _dropout(self, x: Tensor, probability: float) -> tuple[Tensor, Back]:
        y = self._pool.take(x.shape)
        return y, norm.dropout(self.operations, self._draws, x, y, probability)

    def _layer(self, x: Tensor, layer: nn.Module) -> tuple[Tensor, Back]:
        if isinstance(layer, nn.Flatten):
            return _flatten(x)
        if isinstance(layer, nn.Linear):
            return self._linear(x, layer)
        return super()._layer(x, layer)

    def _linear(self, x: Tensor, layer: nn.Linear) -> tuple[Tensor, Back]:
        """Record a convolution of a single place."""
        y = self._pool.take((x.shape[0], layer.out_features, 1, 1, LANES))
        sizes = (1, 1), 1, (0, 0), 1
        self._emit("conv", x, layer.weight, y, conv_shape(x, y, *sizes), 0)
        add_back: Back | None = None
        if layer.bias is not None:
            _, add_back = self._bias(y, layer.bias)

        def back(g: Tensor) -> Tensor:
            if add_back is not None:
                add_back(g)
            number = self._place(layer.weight)
            self._emit("conv_weight", x, g, number, conv_shape(x, y, *sizes))
            gx = self._pool.take(x.shape)
            self._emit("conv", g, layer.weight, gx, conv_shape(g, gx, *sizes), 1)
            self._pool.give(g)
            return gx

        return y, back


def _flatten(x: Tensor) -> tuple[Tensor, Back]:
    """Record nothing: the values lie as they have to."""
    flat = x.view(x.shape[0], -1, 1, 1, LANES)
    return flat, lambda g: g.view(x.shape)
