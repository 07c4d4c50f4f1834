"""Records a model's layers as operations of the GPU's kernel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.training.kernels.program import (
    CODES,
    LANES,
    OPERATIONS,
    Launcher,
    Operation,
    Parameter,
    Part,
    Program,
    uploaded,
)
from nas.training.kernels.recording import (
    LAYERS,
    Back,
    NormInside,
    Recorder,
    area_of,
    conv_shape,
    is_grouped,
    kept_scale,
    threshold_of,
)
from nas.training.kernels.tape import Pool
from nas.training.optimizer import BETAS, EPSILON
from nas.training.recipe import Recipe

_WARPS, _COLUMNS = 8, 7
_THREADS = LANES * _WARPS
# So many floats have the threads of a block in common: a convolution's weights.
_ROOM = 4096
_MAX_TAPS = 512
# Work is cut into about so many virtual blocks. Were it as many as really run, sums
# would be rounded otherwise wherever several candidates share a GPU.
_VIRTUAL = 64


# Output and input channels of a virtual block of conv_weight, by the kernel's side.
_WEIGHT_TILES = {0: (4, 4), 1: (8, 8), 3: (4, 1), 5: (2, 1)}
_SILU, _SIGMOID = 4, 5
_OPTIMIZERS = {"sgd": 0, "adam": 1, "adamw": 2}


def can_record(layer: nn.Module) -> bool:
    """Return whether a program can hold the layer."""
    if isinstance(layer, nn.Conv2d):
        high, wide = layer.kernel_size
        return high * wide <= _MAX_TAPS and not is_grouped(layer)
    return isinstance(layer, (*LAYERS, nn.Flatten, nn.Linear))


class GpuRecorder(Recorder):
    """Records operations."""

    def __init__(
        self,
        launcher: Launcher,
        layers: Sequence[nn.Module],
        *,
        training: bool,
        seeds: Tensor | None = None,
        place: Tensor | None = None,
    ) -> None:
        super().__init__(layers, training=training, device=launcher.device)
        self._launcher = launcher
        self._seeds, self._place_of_step = seeds, place
        self._operations: list[Operation] = []
        self._held: list[Tensor] = []
        self._dropouts = 0
        # Where the parts of each parameter's gradient lie, and how many there are.
        self._parts: list[list[tuple[Tensor, int]]] = [[] for _ in self._parameters]
        self._numbers = {id(p): n for n, p in enumerate(self._parameters)}

    # ---- what is recorded -----------------------------------------------------

    def chain(self, images: Tensor) -> tuple[Tensor, Back]:
        """Record all layers; return their output and what records the way back."""
        return self._chain([*self._layers], images, first=True)

    def begin_anew(self) -> None:
        """Use none of the memory again that was used so far."""
        self._pool = Pool(self._device)

    def program(self, *held: Tensor) -> Program:
        """Return what was recorded."""
        weights = [*self._parameters, *self._buffers()]
        return Program(self._launcher, self._operations, (*self._held, *held, *weights))

    def change_weights(self, recipe: Recipe, rates: Tensor) -> None:
        """Record the change of the weights."""
        sizes = [p.numel() for p in self._parameters]
        starts = [*itertools.accumulate(sizes, initial=0)]
        total = starts.pop()
        parts: list[Part] = []
        parameters = []
        for parameter, start, own in zip(
            self._parameters, starts, self._parts, strict=True
        ):
            first = len(parts) if own else -1
            for number, (values, splits) in enumerate(own, start=1):
                following = len(parts) + 1 if number < len(own) else -1
                parts.append(Part(values.data_ptr(), splits, following))
                self._held.append(values)
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            parameters.append(
                Parameter(parameter.data_ptr(), start, parameter.numel(), first, decay)
            )
        described = uploaded(parameters, self._device)
        blocks = self.even(total)
        gradient, squares, step, *moments = (
            torch.zeros(size, device=self._device)
            for size in (total, blocks[0], 1, total, total)
        )
        counts = len(parameters), total
        self.operation(
            "gather", blocks, described, uploaded(parts, self._device), gradient,
            squares, self._place_of_step, step, integers=counts,
        )  # fmt: skip
        sgd = recipe.optimizer == "sgd"
        first_beta = recipe.momentum if sgd else BETAS[0]
        self.operation(
            "update", blocks, described, gradient, squares, self._place_of_step, step,
            rates, *moments,
            integers=(
                *counts, blocks[0], _OPTIMIZERS[recipe.optimizer], recipe.nesterov,
            ),
            floats=(recipe.clip_norm, first_beta, BETAS[1], EPSILON),
        )  # fmt: skip

    # ---- how it is recorded ---------------------------------------------------

    def operation(
        self,
        name: str,
        blocks: tuple[int, int],
        *pointers: Tensor | None,
        integers: Sequence[int] = (),
        floats: Sequence[float] = (),
    ) -> Operation:
        """Record an operation of so many virtual blocks."""
        operation = Operation(CODES[name], *blocks)
        for number, tensor in enumerate(pointers):
            if tensor is not None:
                operation.pointers[number] = tensor.data_ptr()
                self._held.append(tensor)
        operation.integers[: len(integers)] = [int(number) for number in integers]
        operation.floats[: len(floats)] = floats
        self._operations.append(operation)
        return operation

    def even(self, items: int) -> tuple[int, int]:
        """Return how many virtual blocks share work of so many threads' items."""
        return max(1, min(2 * _VIRTUAL, -(-items // _THREADS))), 1

    def _each(self, planes: int, area: int) -> tuple[int, int]:
        """Return the virtual blocks for so many planes, in fours of values."""
        wanted = -(-_VIRTUAL // planes)
        most = -(-area * LANES // (4 * _THREADS))
        return max(1, min(wanted, most)), planes

    def _emit(self, name: str, *arguments: Any) -> None:
        """Record what the C function of that name would do."""
        getattr(self, f"_emit_{name}")(*arguments)

    def _place(self, parameter: Tensor | None) -> int | None:
        return self._numbers.get(id(parameter))

    def _part(self, number: int | None, splits: int) -> Tensor | None:
        """Return memory for parts of a parameter's gradient, ``[splits, *shape]``."""
        if number is None:
            return None
        shape = (splits, *self._parameters[number].shape)
        values = torch.zeros(shape, device=self._device)
        self._parts[number].append((values, splits))
        return values

    def _buffers(self) -> list[Tensor]:
        return [b for layer in self._layers for b in layer.buffers()]

    # ---- convolutions ---------------------------------------------------------

    def _emit_conv(
        self, x: Tensor, w: Tensor, y: Tensor, shape: Any, transposed: int
    ) -> None:
        name = _specialised("conv", shape)
        rows = 8 if name == "conv_1" else 4
        if name == "conv_1" and shape[10:12] == [0, 0]:
            shape = _in_one_row(shape)
        _, _, _, _, channels, _, _, high, wide, *_ = shape
        room = _ROOM // (rows * high * wide)
        together = min(_WARPS, _power(-(-channels // rows)), _power(room + 1) // 2)
        self._convolve(name, rows, together, (x, w, y), shape, transposed)

    def _emit_depthwise(
        self, x: Tensor, w: Tensor, y: Tensor, shape: Any, transposed: int
    ) -> None:
        name = _specialised("depthwise", shape)
        self._convolve(name, 1, 1, (x, w, y), shape, transposed)

    def _convolve(
        self,
        name: str,
        rows: int,
        together: int,
        tensors: tuple[Tensor, Tensor, Tensor],
        shape: Any,
        transposed: int,
    ) -> None:
        groups, _, _, _, out_channels, height, width, *_ = shape
        items = groups * height * -(-width // _COLUMNS)
        blocks = (
            -(-items // (_WARPS // together)),
            -(-out_channels // (rows * together)),
        )
        integers = *shape, transposed, 0, together
        self.operation(name, blocks, *tensors, integers=integers)

    def _emit_conv_weight(
        self, x: Tensor, g: Tensor, number: int | None, shape: Any
    ) -> None:
        name = _specialised("conv_weight", shape)
        rows, columns = _WEIGHT_TILES[_side(name)]
        items = -(-shape[4] // rows) * -(-shape[1] // columns)
        self._weigh(name, items, (x, g), number, shape)

    def _emit_depthwise_weight(
        self, x: Tensor, g: Tensor, number: int | None, shape: Any
    ) -> None:
        name = _specialised("depthwise_weight", shape)
        self._weigh(name, shape[4], (x, g), number, shape)

    def _weigh(
        self,
        name: str,
        items: int,
        tensors: tuple[Tensor, Tensor],
        number: int | None,
        shape: Any,
    ) -> None:
        if not _side(name):
            items *= shape[7] * shape[8]
        rows = shape[0] * shape[5]
        together = min(_WARPS, _power(items))
        blocks = -(-items // together)
        splits = max(1, min(-(-_VIRTUAL // blocks), rows * together // _WARPS))
        part = self._part(number, splits * _WARPS // together)
        if part is not None:
            integers = *shape, together, items
            self.operation(name, (splits, blocks), *tensors, part, integers=integers)

    def _emit_add_bias(
        self, x: Tensor, bias: Tensor, planes: int, channels: int, area: int
    ) -> None:
        sizes = planes, channels, area
        self.operation("add_bias", self._each(planes, area), x, bias, integers=sizes)

    def _emit_add_bias_back(
        self, g: Tensor, number: int | None, planes: int, channels: int, area: int
    ) -> None:
        part = self._part(number, planes // channels)
        sizes = planes, channels, area
        self.operation("add_bias_back", (1, planes), g, part, integers=sizes)

    def _layer(self, x: Tensor, layer: nn.Module) -> tuple[Tensor, Back]:
        if isinstance(layer, nn.Flatten):
            return self._flatten(x)
        if isinstance(layer, nn.Linear):
            return self._linear(x, layer)
        return super()._layer(x, layer)

    def _flatten(self, x: Tensor) -> tuple[Tensor, Back]:
        """Record nothing: the values lie as they have to."""
        flat = x.view(x.shape[0], -1, 1, 1, LANES)
        return flat, lambda g: g.view(x.shape)

    def _linear(self, x: Tensor, layer: nn.Linear) -> tuple[Tensor, Back]:
        """Record a convolution of a single place."""
        y = self._pool.take((x.shape[0], layer.out_features, 1, 1, LANES))
        sizes = (1, 1), 1, (0, 0), 1
        self._emit_conv(x, layer.weight, y, conv_shape(x, y, *sizes), 0)
        add_back: Back | None = None
        if layer.bias is not None:
            _, add_back = self._bias(y, layer.bias)

        def back(g: Tensor) -> Tensor:
            if add_back is not None:
                add_back(g)
            number = self._place(layer.weight)
            self._emit_conv_weight(x, g, number, conv_shape(x, y, *sizes))
            gx = self._pool.take(x.shape)
            self._emit_conv(g, layer.weight, gx, conv_shape(g, gx, *sizes), 1)
            self._pool.give(g)
            return gx

        return y, back

    # ---- batch norm and dropout -----------------------------------------------

    def _drop(self, probability: float) -> tuple[int, int, float]:
        """Return the number of a dropout, its threshold and the scale of what is kept."""
        self._dropouts += 1
        threshold = threshold_of(probability)
        return self._dropouts, threshold, kept_scale(threshold)

    def _norm(
        self, x: Tensor, bias: Tensor | None, fused: NormInside
    ) -> tuple[Tensor, Back]:
        layer, before, after, dropout = fused
        y = torch.empty_like(x)
        groups, channels, area = *x.shape[:2], area_of(x)
        *draw, scale = self._drop(dropout)
        saved, middle = (
            torch.empty(rows * channels, device=self._device) for rows in (4, 1)
        )
        assert layer.running_mean is not None  # build() makes no other
        sums, count = self._statistics(
            x, bias, layer.running_mean, middle, before=before
        )
        sizes = groups, channels, area, before, after
        blocks = self._each(groups * channels, area)
        self.operation(
            "norm", blocks, x, y, sums, middle, bias, layer.weight, layer.bias,
            layer.running_mean, layer.running_var, saved, self._seeds,
            self._place_of_step,
            integers=(*sizes, count, *draw),
            floats=(layer.momentum or 0.0, layer.eps, scale),
        )  # fmt: skip

        def back(g: Tensor) -> Tensor:
            splits, _ = self._each(channels, groups * area)
            sums = torch.empty(splits * channels * 2, device=self._device)
            same = bias, saved, self._seeds, self._place_of_step
            integers = *sizes, splits, *draw
            self.operation(
                "norm_back_sums", (splits, channels), g, x, sums, *same,
                integers=integers, floats=(scale,),
            )  # fmt: skip
            weight, shift = (
                self._part(self._place(p), 1) for p in (layer.weight, layer.bias)
            )
            biases = self._part(self._place(bias), groups * blocks[0])
            self.operation(
                "norm_back", blocks, g, x, sums, *same, g, weight, shift, biases,
                integers=integers, floats=(scale,),
            )  # fmt: skip
            return g

        return y, back

    def _statistics(
        self,
        x: Tensor,
        bias: Tensor | None,
        running_mean: Tensor,
        middle: Tensor,
        *,
        before: bool,
    ) -> tuple[Tensor, int]:
        """Return sums over x, and how many of them; a convolution makes its own."""
        channels = x.shape[1]
        last = self._operations[-1]
        if OPERATIONS[last.code].startswith(("conv", "depthwise")) and (
            last.pointers[2] == x.data_ptr()
        ):
            count = last.blocks_x
            sums = torch.empty(count * channels * 2, device=self._device)
            for number, tensor in enumerate((sums, running_mean, middle, bias), 3):
                if tensor is not None:
                    last.pointers[number] = tensor.data_ptr()
            last.integers[15] = before
            self._held += [sums, middle]
            return sums, count
        count, _ = self._each(channels, x.shape[0] * area_of(x))
        sums = torch.empty(count * channels * 2, device=self._device)
        self.operation(
            "statistics", (count, channels), x, sums, running_mean, middle, bias,
            integers=(*x.shape[:2], area_of(x), before),
        )  # fmt: skip
        return sums, count

    def _emit_norm_eval(
        self, x: Tensor, y: Tensor, groups: int, channels: int, area: int, *rest: Any
    ) -> None:
        *tensors, eps, _ = rest
        blocks = self._each(groups * channels, area)
        self.operation(
            "norm_eval",
            blocks,
            x,
            y,
            *tensors,
            integers=(channels, area),
            floats=(eps,),
        )

    def _dropout(self, x: Tensor, probability: float) -> tuple[Tensor, Back]:
        y = self._pool.take(x.shape)
        *draw, scale = self._drop(probability)

        def drop(to: Tensor, what: Tensor) -> None:
            self.operation(
                "dropout", self.even(x.numel()), what, to, self._seeds,
                self._place_of_step, integers=(x.numel(), *draw), floats=(scale,),
            )  # fmt: skip

        drop(y, x)

        def back(g: Tensor) -> Tensor:
            drop(g, g)
            return g

        return y, back

    # ---- everything else ------------------------------------------------------

    def _emit_max_pool(
        self, x: Tensor, y: Tensor, winners: Tensor, _: int, height: int, width: int
    ) -> None:
        sizes = y.numel(), height, width, 1
        self.operation("pool", self.even(y.numel() // 4), x, y, winners, integers=sizes)

    def _emit_avg_pool(
        self, x: Tensor, y: Tensor, _: int, height: int, width: int
    ) -> None:
        sizes = y.numel(), height, width, 0
        self.operation("pool", self.even(y.numel() // 4), x, y, integers=sizes)

    def _emit_max_pool_back(
        self, g: Tensor, winners: Tensor, gx: Tensor, _: int, height: int, width: int
    ) -> None:
        self._pool_back(g, winners, gx, height, width)

    def _emit_avg_pool_back(
        self, g: Tensor, gx: Tensor, _: int, height: int, width: int
    ) -> None:
        self._pool_back(g, None, gx, height, width)

    def _pool_back(
        self, g: Tensor, winners: Tensor | None, gx: Tensor, height: int, width: int
    ) -> None:
        planes = gx.numel() // (height * width)
        count = planes * ((height + 1) // 2) * ((width + 1) // 2)
        self.operation(
            "pool_back", self.even(count // 4), g, winners, gx,
            integers=(count, height, width, winners is not None),
        )  # fmt: skip

    def _emit_global_mean(self, x: Tensor, y: Tensor, planes: int, area: int) -> None:
        self.operation("global_mean", (1, planes), x, y, integers=(area,))

    def _emit_global_mean_back(
        self, g: Tensor, gx: Tensor, planes: int, area: int, add: int
    ) -> None:
        count = planes * area * LANES
        sizes = count, area, add
        self.operation("global_mean_back", self.even(count), g, gx, integers=sizes)

    def _emit_activate(
        self, x: Tensor, y: Tensor, count: int, slope: float, kind: int
    ) -> None:
        count *= LANES
        self.operation(
            "activate", self.even(count), x, y, integers=(count, kind), floats=(slope,)
        )

    def _emit_activate_back(
        self, g: Tensor, x: Tensor, gx: Tensor, count: int, slope: float, kind: int
    ) -> None:
        count *= LANES
        self.operation(
            "activate_back", self.even(count), g, x, gx,
            integers=(count, kind), floats=(slope,),
        )  # fmt: skip

    def _emit_silu(self, x: Tensor, y: Tensor) -> None:
        self._emit_activate(x, y, x.numel() // LANES, 0.0, _SILU)

    def _emit_silu_back(self, g: Tensor, x: Tensor) -> None:
        self._emit_activate_back(g, x, g, x.numel() // LANES, 0.0, _SILU)

    def _emit_sigmoid(self, x: Tensor) -> None:
        self._emit_activate(x, x, x.numel() // LANES, 0.0, _SIGMOID)

    def _emit_sigmoid_back(self, g: Tensor, y: Tensor) -> None:
        self._emit_activate_back(g, y, g, y.numel() // LANES, 0.0, _SIGMOID)

    def _emit_add(self, x: Tensor, y: Tensor, count: int) -> None:
        blocks = self.even(count * LANES // 4)
        self.operation("add", blocks, x, y, integers=(count * LANES,))

    def _emit_copy(self, to: Tensor, what: Tensor) -> None:
        count = to.numel()
        self.operation("copy", self.even(count // 4), to, what, integers=(count,))

    def _emit_join(self, part: Tensor, whole: Tensor, groups: int, *sizes: int) -> None:
        count = part.numel()
        assert groups == part.shape[0]
        self.operation("join", self.even(count), part, whole, integers=(count, *sizes))

    def _emit_scale(
        self, x: Tensor, by: Tensor, y: Tensor, planes: int, area: int
    ) -> None:
        count = planes * area * LANES
        self.operation("scale", self.even(count), x, by, y, integers=(count, area))

    def _emit_scale_back(
        self,
        g: Tensor,
        x: Tensor,
        by: Tensor,
        gx: Tensor,
        g_by: Tensor,
        planes: int,
        area: int,
    ) -> None:
        blocks = 1, planes
        self.operation("scale_back", blocks, g, x, by, gx, g_by, integers=(area,))


def _side(name: str) -> int:
    """Return the kernel's side that an operation is made for, 0 for any."""
    return int(name[-1]) if name[-1].isdigit() else 0


def _power(number: int) -> int:
    """Return the least power of two that is not below the number."""
    return 1 << max(0, number - 1).bit_length()


def _in_one_row(shape: Any) -> list[int]:
    """Return the shape of a 1x1 convolution over all places as if in one row."""
    groups, inputs, height, width, outputs, _, _, *rest = shape
    return [groups, inputs, 1, height * width, outputs, 1, height * width, *rest]


def _specialised(name: str, shape: Any) -> str:
    """Return the operation for a convolution, one of its own for the usual kernels."""
    *_, high, wide, stride, _, _, dilation, apart = shape
    special = f"{name}_{high}"
    usual = high == wide and (stride, dilation, apart) == (1, 1, 1)
    return special if usual and special in CODES else name
