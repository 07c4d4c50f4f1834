"""Makes the chain of stages of a trained network.

A block has one stage per part. Weights that no part uses are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nas.architecture import Architecture, Block, Head, Shape, resized
from nas.architecture.definition import MONOTONE
from nas.architecture.kinds import (
    channels_beside,
    finish_of,
    parts_of,
    pools_apart,
    shortcut_of,
)
from nas.architecture.parts import Convolution as PartConvolution
from nas.architecture.parts import Part, Pooling, SqueezeExcitation
from nas.errors import ExportError
from nas.export.folding import folded
from nas.export.stages import (
    Activation,
    Affine,
    After,
    Array,
    Convolution,
    Pad,
    Resize,
    Stage,
)

_EPSILON = 1e-5  # torch's default for BatchNorm2d


def stages(
    architecture: Architecture, weights: Mapping[str, npt.NDArray[np.generic]]
) -> list[Stage]:
    """Return the network's stages; ``weights`` is the state dict as numpy arrays.

    Raises ExportError for weights that do not fit the architecture.
    """
    source = _Weights(weights)
    chain: list[Stage] = []
    images = architecture.input_shape
    shape = resized(images, architecture.resolution)
    if shape != images:
        chain.append(
            Stage(
                name="input",
                convolutions=(),
                after=(Resize(shape[1:]),),
                input_shape=images,
                conv_shape=images,
                output_shape=shape,
            )
        )
    for number, block in enumerate(architecture.blocks):
        name = f"block {number + 1}"
        *inner, last = (
            folded(stage, repeated=block.repeats > 1)
            for stage in _block_stages(block, shape, name, source, f"blocks.{number}")
        )
        # Gates have poolings of their own, which stay as they are.
        chain += [*inner, *(_parted(last) if pools_apart(block) else [last])]
        shape = last.output_shape
    chain += _head_stages(architecture.head, shape, architecture.num_classes, source)
    source.check_all_taken()
    return chain


class _Weights:
    """The state dict; records which entries have been used."""

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


def _block_stages(
    block: Block, shape: Shape, name: str, weights: _Weights, prefix: str
) -> Iterator[Stage]:
    """Yield the stages of one block."""
    if block.shortcut != "none":
        yield from _adding_stages(block, shape, name, weights, prefix)
        return
    shared = block.repeats > 1
    for application in range(block.repeats):
        parts = parts_of(block, shape[0])
        *first, last = _part_stages(
            parts,
            shape,
            name,
            weights,
            f"{prefix}.convolutions" if shared else prefix,
        )
        yield from first
        last = _followed(
            last,
            block,
            _steps(block),
            weights,
            f"{prefix}.applications.{application}" if shared else prefix,
            pools=application == block.repeats - 1,
        )
        yield last
        shape = last.output_shape


def _steps(block: Block) -> tuple[str, ...]:
    """Return what follows the last convolution, in an order that int8 can compute.

    A mean commutes with batch norm, a maximum with an activation that never falls.
    """
    steps = finish_of(block)
    if steps[:3] != ("activation", "pool", "norm"):
        return steps
    if block.pool == "avg":
        return "activation", "norm", "pool"
    return ("pool", "activation", "norm") if block.activation in MONOTONE else steps


def _adding_stages(
    block: Block, shape: Shape, name: str, weights: _Weights, prefix: str
) -> Iterator[Stage]:
    """Yield the stages of a block with a shortcut."""
    inside = f"{prefix}.residual"
    parts = parts_of(block, shape[0])
    *inner, last = _part_stages(parts, shape, name, weights, f"{inside}.body")
    yield from inner
    adds = 1 + len(inner)
    shortcut = shortcut_of(block, shape[0])
    stage: Stage | None = None
    if shortcut is not None:
        (stage,) = _part_stages(
            (shortcut,), shape, f"{name} shortcut", weights, f"{inside}.shortcut"
        )
        if shortcut.norm:
            norm = _norm(weights, f"{inside}.shortcut.norm", shortcut.out_channels)
            stage = replace(stage, after=(norm,))
        if shortcut.activation != "none":
            activated = Activation(shortcut.activation)
            stage = replace(stage, after=(*stage.after, activated))
    elif block.shortcut == "pad":
        stage = Stage(
            name=f"{name} shortcut",
            convolutions=(),
            after=(Pad(block.stride, *channels_beside(block, shape[0])),),
            input_shape=shape,
            conv_shape=shape,
            output_shape=last.output_shape,
        )
    if stage is not None:
        yield replace(stage, takes=adds)
        # The stage of the shortcut lies between the last stage and its input.
        last = replace(last, takes=2)
        adds = 1
    finish = finish_of(block)
    before = [step for step in finish if step == "norm"]
    after = [step for step in finish if step in {"activation", "pool"}]
    last = _followed(last, block, before, weights, f"{inside}.body")
    last = replace(folded(last, repeated=False), adds=adds)
    yield _followed(last, block, after, weights, prefix)


def _parted(stage: Stage) -> Iterator[Stage]:
    """Yield the stage up to its pooling, if it has one, and one from there on."""
    kinds = [type(step) for step in stage.after]
    if Pooling not in kinds:
        yield stage
        return
    place = kinds.index(Pooling)
    before, rest = stage.after[:place], stage.after[place:]
    match rest:
        case (Pooling("max"), Activation(name)) if name in MONOTONE:
            # Then the second stage is of maxima alone, which are exact.
            before, rest = (*before, rest[1]), rest[:1]
    yield replace(stage, after=before, output_shape=stage.conv_shape)
    channels = stage.conv_shape[0]
    # A factor for each channel needs a convolution that has as many.
    ones = Convolution(np.ones((channels, 1, 1, 1)), np.zeros(channels))
    each = any(isinstance(step, Affine) for step in rest)
    yield Stage(
        name=f"{stage.name} pool",
        convolutions=(ones,) if each else (),
        after=rest,
        input_shape=stage.conv_shape,
        conv_shape=stage.conv_shape,
        output_shape=stage.output_shape,
        groups=channels if each else 1,
        depthwise=each,
    )


def _part_stages(
    parts: Sequence[Part], shape: Shape, name: str, weights: _Weights, prefix: str
) -> Iterator[Stage]:
    """Yield the stages of a block's parts, without the steps after the last one."""
    for number, part in enumerate(parts, start=1):
        output = (part.out_channels, *part.sides(*shape[1:]))
        last = number == len(parts)
        after: list[After] = []
        if part.norm and not last:
            after.append(_norm(weights, f"{prefix}.norm{number}", part.out_channels))
        if part.activation != "none" and not last:
            after.append(Activation(part.activation))
        first = part.convolutions[0]
        yield Stage(
            name=name if len(parts) == 1 else f"{name} {first.name}",
            convolutions=tuple(
                _convolution(one, weights, prefix) for one in part.convolutions
            ),
            after=tuple(after),
            input_shape=shape,
            conv_shape=output,
            output_shape=output,
            stride=first.stride,
            dilation=first.dilation,
            groups=first.in_channels // first.inputs,
            depthwise=first.depthwise,
        )
        shape = output
        if part.gates is not None:
            yield from _gate_stages(
                part.gates, shape, name, weights, f"{prefix}.gates{number}"
            )


def _gate_stages(
    gates: SqueezeExcitation, shape: Shape, name: str, weights: _Weights, prefix: str
) -> Iterator[Stage]:
    """Yield the stages that compute gates from the previous stage and apply them."""
    means = (gates.channels, 1, 1)
    yield Stage(
        name=f"{name} squeeze pool",
        convolutions=(),
        after=(_mean(shape[1:]),),
        input_shape=shape,
        conv_shape=shape,
        output_shape=means,
    )
    gate: tuple[After, ...] = (Activation(gates.gate),)
    if gates.gate == "hard_sigmoid":
        # It is straight up to its bounds, to which a range of uint8 numbers cuts, too.
        ones = np.ones(gates.channels)
        gate = Affine(ones / 6, ones / 2), Activation("unit")
    for step, sizes, after in (
        (
            "squeeze",
            (gates.hidden, gates.channels, 1, 1),
            (Activation(gates.activation),),
        ),
        ("excite", (gates.channels, gates.hidden, 1, 1), gate),
    ):
        output = (sizes[0], 1, 1)
        bias = f"{prefix}.{step}.bias"
        yield Stage(
            name=f"{name} {step}",
            convolutions=(
                Convolution(
                    weights.take(f"{prefix}.{step}.weight", sizes),
                    weights.take(bias, sizes[:1]) if gates.bias else np.zeros(sizes[0]),
                ),
            ),
            after=after,
            input_shape=(sizes[1], 1, 1),
            conv_shape=output,
            output_shape=output,
        )
    yield Stage(
        name=f"{name} gates",
        convolutions=(),
        input_shape=shape,
        conv_shape=shape,
        output_shape=shape,
        takes=4,
        gates=1,
    )


def _mean(sides: tuple[int, int]) -> Pooling:
    """Return the mean of a whole feature map."""
    return Pooling("avg", sides, sides)


def _convolution(one: PartConvolution, weights: _Weights, prefix: str) -> Convolution:
    sizes = (one.out_channels, one.inputs, *one.kernel)
    return Convolution(
        weights.take(f"{prefix}.{one.name}.weight", sizes),
        weights.take(f"{prefix}.{one.name}.bias", (one.out_channels,))
        if one.bias
        else np.zeros(one.out_channels),
        one.padding,
    )


def _followed(
    stage: Stage,
    block: Block,
    steps: Sequence[str],
    weights: _Weights,
    prefix: str,
    *,
    pools: bool = True,
) -> Stage:
    """Return the stage with these steps appended: norm, activation and pooling."""
    channels, height, width = stage.output_shape
    after = list(stage.after)
    for step in steps:
        match step:
            case "pool" if pools and block.pooling is not None:
                after.append(block.pooling)
                height, width = block.pooling.sides(height, width)
            case "norm":
                after.append(_norm(weights, f"{prefix}.norm", channels))
            case "activation":
                after.append(Activation(block.activation))
    return replace(stage, after=tuple(after), output_shape=(channels, height, width))


def _norm(weights: _Weights, prefix: str, channels: int) -> Affine:
    """Return batch norm in inference mode, with its running statistics."""
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
    if head.kind == "conv":
        kernel = head.kernel_size
        sides = (height - kernel + 1, width - kernel + 1)
        yield Stage(
            name="head",
            convolutions=(
                Convolution(
                    weights.take(
                        "head.classifier.weight",
                        (num_classes, channels, kernel, kernel),
                    ),
                    weights.take("head.classifier.bias", (num_classes,)),
                ),
            ),
            after=(_mean(sides),) if sides != (1, 1) else (),
            input_shape=shape,
            conv_shape=(num_classes, *sides),
            output_shape=logits,
        )
        return
    if head.kind in {"gap", "pool"} and (height * width > 1 or head.kind == "pool"):
        pooled = (channels, 1, 1)
        yield Stage(
            name="head pool",
            convolutions=(),
            after=(_mean((height, width)),),
            input_shape=shape,
            conv_shape=shape,
            output_shape=pooled,
        )
        shape = pooled
    if head.kind == "pool":
        return
    after = () if head.activation == "none" else (Activation(head.activation),)
    for number, width in enumerate(head.widths, start=1):
        hidden = (width, 1, 1)
        name = "hidden" if number == 1 else f"hidden{number}"
        yield _linear(weights, name, shape, hidden, after)
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
