"""A trained network as a chain of stages: what every export is written from.

A stage is one convolution (or several side by side) and what follows it. Batch norm is
folded into the convolution wherever that is exact, also across a pooling; where it is
not, what is left of it stands in ``after`` as an Affine. Linear layers are convolutions
whose kernel covers their whole input.

To export a new kind of block, say here which stages it is: _block_stages. A part that
is unknown here is refused by name, and so are weights that no part has asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from nas.architecture import Architecture, Block, Head, Shape, conv_size
from nas.errors import ExportError

Array = npt.NDArray[np.float64]

_EPSILON = 1e-5  # torch's default in BatchNorm2d
LEAKY_SLOPE = 0.01
"""Torch's default in LeakyReLU."""

_KNOWN_BLOCK = {
    *("kind", "out_channels", "kernel_size", "stride", "padding", "norm", "activation"),
    *("pool", "dropout", "bias", "order", "repeats"),
}
_KNOWN_HEAD = {"kind", "kernel_size", "hidden", "dropout"}
_ACTIVATIONS = {"none", "relu", "leaky_relu", "hardswish", "silu"}
_ORDERS = {
    "early_pool": ("pool", "norm", "activation"),
    "late_pool": ("norm", "activation", "pool"),
    "activation_first": ("activation", "norm", "pool"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """``weight`` [O, I, kh, kw] (I is 1 if depthwise), ``bias`` [O]; zeros around it."""

    weight: Array
    bias: Array
    padding: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """Maximum or mean over windows of that height and width, rounding down."""

    kind: Literal["max", "avg"]
    window: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """``x * scale + shift`` with one number each a channel."""

    scale: Array
    shift: Array


@dataclass(frozen=True, slots=True)
class Activation:
    """One of relu, leaky_relu, hardswish and silu, value by value."""

    name: str


After = Pool | Affine | Activation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """Convolutions side by side, their outputs joined, and what follows.

    The applications of a repeated block have stages of the same names.
    ``input_shape``, ``conv_shape`` (after the convolutions) and ``output_shape`` (after
    all) are channels, height and width. Without convolutions it only pools.
    """

    name: str
    convolutions: tuple[Convolution, ...]
    input_shape: Shape
    conv_shape: Shape
    output_shape: Shape
    after: tuple[After, ...] = ()
    stride: int = 1
    depthwise: bool = False


def stages(
    architecture: Architecture, weights: Mapping[str, npt.NDArray[np.generic]]
) -> list[Stage]:
    """Return the network's stages; ``weights`` is the state dict as numpy arrays.

    Raises ExportError for a part that cannot be exported, and for weights that are not
    those of this architecture.
    """
    source = _Weights(weights)
    chain: list[Stage] = []
    shape = architecture.input_shape
    for number, block in enumerate(architecture.blocks):
        name = f"block {number + 1}"
        _check_known(block, _KNOWN_BLOCK, name)
        for stage in _block_stages(block, shape, name, source, f"blocks.{number}"):
            chain.append(_folded(stage, repeated=block.repeats > 1))
            shape = stage.output_shape
    _check_known(architecture.head, _KNOWN_HEAD, "head")
    chain += _head_stages(architecture.head, shape, architecture.num_classes, source)
    source.check_all_taken()
    return chain


class _Weights:
    """The state dict; knows which of it has been asked for."""

    def __init__(self, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._weights = weights
        self._taken: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        if name not in self._weights:
            raise ExportError(
                f"the weights have no {name}: they are not of this architecture"
            )
        array = self._weights[name]
        if array.shape != shape:
            raise ExportError(
                f"the weights' {name} is of shape {array.shape}, not {shape}: they are "
                "not of this architecture"
            )
        self._taken.add(name)
        values = array.astype(np.float64)
        if not np.isfinite(values).all():
            raise ExportError(f"the weights' {name} holds a NaN or infinity")
        return values

    def check_all_taken(self) -> None:
        left = sorted(
            name
            for name in self._weights
            if name not in self._taken and not name.endswith("num_batches_tracked")
        )
        if left:
            raise ExportError(
                f"the weights hold {left[0]}, which no part of this architecture that "
                "can be exported has"
            )


def _check_known(part: Block | Head, known: set[str], where: str) -> None:
    """Refuse what a block or a head has that nothing here looks at."""
    for field in fields(part):
        value = getattr(part, field.name)
        usual = None if field.default is MISSING else field.default
        if field.name not in known and value != usual:
            raise ExportError(
                f"{where}: {field.name} = {value!r} cannot be exported yet"
            )


def _block_stages(
    block: Block, shape: Shape, name: str, weights: _Weights, prefix: str
) -> Iterator[Stage]:
    """Yield the stages of one block; the place to add a new kind."""
    if block.activation not in _ACTIVATIONS:
        raise ExportError(f"{name}: activation {block.activation!r} cannot be exported")
    if block.order not in _ORDERS:
        raise ExportError(f"{name}: order {block.order!r} cannot be exported")
    shared = block.repeats > 1
    for application in range(block.repeats):
        *first, last = _convolution_stages(
            block, shape, name, weights, f"{prefix}.convolutions" if shared else prefix
        )
        yield from first
        yield _followed(
            last,
            block,
            block.pool if application == block.repeats - 1 else "none",
            weights,
            f"{prefix}.applications.{application}" if shared else prefix,
        )
        shape = last.output_shape


def _convolution_stages(
    block: Block, shape: Shape, name: str, weights: _Weights, prefix: str
) -> Iterator[Stage]:
    """Yield the stages of one application, without what follows the convolutions."""
    channels = shape[0]
    height, width = (
        conv_size(side, block.kernel_size, block.stride, block.padding)
        for side in shape[1:]
    )

    def convolution(part: str, outputs: int, inputs: int, kernel: int) -> Convolution:
        biased = block.has_bias and part != "depthwise"
        return Convolution(
            weights.take(f"{prefix}.{part}.weight", (outputs, inputs, kernel, kernel)),
            weights.take(f"{prefix}.{part}.bias", (outputs,))
            if biased
            else np.zeros(outputs),
            kernel // 2 if block.padding == "same" and part != "pointwise" else 0,
        )

    joined = (block.out_channels, height, width)
    if block.kind == "separable":
        between = (channels, height, width)
        yield Stage(
            name=f"{name} depthwise",
            convolutions=(convolution("depthwise", channels, 1, block.kernel_size),),
            input_shape=shape,
            conv_shape=between,
            output_shape=between,
            stride=block.stride,
            depthwise=True,
        )
        yield Stage(
            name=f"{name} pointwise",
            convolutions=(convolution("pointwise", block.out_channels, channels, 1),),
            input_shape=between,
            conv_shape=joined,
            output_shape=joined,
        )
        return
    if block.kind == "conv":
        side_by_side = [("conv", block.kernel_size, block.out_channels)]
    elif block.kind == "inception":
        side_by_side = [
            (f"inception.branches.{place}", kernel, outputs)
            for place, (kernel, outputs) in enumerate(block.branches)
        ]
    else:
        raise ExportError(f"{name}: a {block.kind} block cannot be exported yet")
    yield Stage(
        name=name,
        convolutions=tuple(
            convolution(part, outputs, channels, kernel)
            for part, kernel, outputs in side_by_side
        ),
        input_shape=shape,
        conv_shape=joined,
        output_shape=joined,
        stride=block.stride,
    )


def _followed(
    stage: Stage, block: Block, pool: str, weights: _Weights, prefix: str
) -> Stage:
    """Return the stage with the block's norm, activation and pooling, in its order."""
    channels, height, width = stage.conv_shape
    layers: dict[str, After] = {}
    if pool != "none":
        if pool not in {"max", "avg"}:
            raise ExportError(f"{stage.name}: pool {pool!r} cannot be exported yet")
        layers["pool"] = Pool("max" if pool == "max" else "avg", (2, 2))
        height, width = height // 2, width // 2
    if block.norm == "batch":
        layers["norm"] = _norm(weights, f"{prefix}.norm", channels)
    elif block.norm != "none":
        raise ExportError(f"{stage.name}: norm {block.norm!r} cannot be exported yet")
    if block.activation != "none":
        layers["activation"] = Activation(block.activation)
    return replace(
        stage,
        after=tuple(layers[key] for key in _ORDERS[block.order] if key in layers),
        output_shape=(channels, height, width),
    )


def _norm(weights: _Weights, prefix: str, channels: int) -> Affine:
    """Return batch norm as it works after training: by its running statistics."""
    gain, shift, mean, variance = (
        weights.take(f"{prefix}.{part}", (channels,))
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + _EPSILON)
    return Affine(scale, shift - mean * scale)


def _head_stages(
    head: Head, shape: Shape, num_classes: int, weights: _Weights
) -> Iterator[Stage]:
    channels, height, width = shape
    logits = (num_classes, 1, 1)
    everything = Pool("avg", (height, width))
    if head.kind == "conv":
        kernel = head.kernel_size
        sides = (height - kernel + 1, width - kernel + 1)
        yield Stage(
            name="head",
            convolutions=(
                _classifier(weights, "classifier", (num_classes, channels, kernel)),
            ),
            after=(Pool("avg", sides),) if sides != (1, 1) else (),
            input_shape=shape,
            conv_shape=(num_classes, *sides),
            output_shape=logits,
        )
        return
    if head.kind not in {"gap", "pool", "flatten"}:
        raise ExportError(f"a {head.kind} head cannot be exported yet")
    if head.kind in {"gap", "pool"} and (height * width > 1 or head.kind == "pool"):
        pooled = (channels, 1, 1)
        yield Stage(
            name="head pool",
            convolutions=(),
            after=(everything,),
            input_shape=shape,
            conv_shape=shape,
            output_shape=pooled,
        )
        shape = pooled
    if head.kind == "pool":
        return
    if head.hidden:
        hidden = (head.hidden, 1, 1)
        yield _linear(weights, "hidden", shape, hidden, (Activation("relu"),))
        shape = hidden
    yield _linear(weights, "classifier", shape, logits, ())


def _linear(
    weights: _Weights,
    name: str,
    shape: Shape,
    output: Shape,
    after: tuple[After, ...],
) -> Stage:
    """Return a linear layer as a convolution with a kernel as large as its input."""
    features = int(np.prod(shape))
    weight = weights.take(f"head.{name}.weight", (output[0], features))
    return Stage(
        name=f"head {name}",
        convolutions=(
            Convolution(
                weight.reshape(output[0], *shape),
                weights.take(f"head.{name}.bias", (output[0],)),
            ),
        ),
        after=after,
        input_shape=shape,
        conv_shape=output,
        output_shape=output,
    )


def _classifier(
    weights: _Weights, name: str, sizes: tuple[int, int, int]
) -> Convolution:
    outputs, inputs, kernel = sizes
    return Convolution(
        weights.take(f"head.{name}.weight", (outputs, inputs, kernel, kernel)),
        weights.take(f"head.{name}.bias", (outputs,)),
    )


def _folded(stage: Stage, *, repeated: bool) -> Stage:
    """Return the stage with batch norm in the convolutions where that is exact.

    A mean commutes with ``x * scale + shift``. A maximum does so for a positive scale;
    for a negative one ``scale * max(x) + shift`` is
    ``-max(|scale| * x - shift)``, so only the sign stays behind. It also does where
    the block is repeated: the applications' weights then are multiples of each other,
    and the same int8 numbers serve for all.
    """
    match stage.after:
        case (Affine() as norm, *rest) if not repeated:
            return _scaled(stage, norm.scale, norm.shift, tuple(rest))
        case (Pool("avg") as pool, Affine() as norm, *rest) if not repeated:
            return _scaled(stage, norm.scale, norm.shift, (pool, *rest))
        case (Affine() as norm, *rest):
            pools: tuple[After, ...] = ()
        case (Pool() as pool, Affine() as norm, *rest):
            pools = (pool,)
        case _:
            return stage
    sign = np.where(norm.scale < 0, -1.0, 1.0)
    signs = () if (sign > 0).all() else (Affine(sign, np.zeros_like(sign)),)
    return _scaled(stage, abs(norm.scale), sign * norm.shift, (*pools, *signs, *rest))


def _scaled(
    stage: Stage, scale: Array, shift: Array, after: tuple[After, ...]
) -> Stage:
    """Return the stage with its convolutions' outputs times scale, plus shift."""
    convolutions, start = [], 0
    for convolution in stage.convolutions:
        part = slice(start, start + len(convolution.bias))
        convolutions.append(
            replace(
                convolution,
                weight=convolution.weight * scale[part, None, None, None],
                bias=convolution.bias * scale[part] + shift[part],
            )
        )
        start = part.stop
    return replace(stage, convolutions=tuple(convolutions), after=after)
