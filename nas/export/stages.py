"""A trained network as a chain of stages, the common input of all exports.

A stage is one convolution (or several in parallel) and the steps after it. Batch norm
is folded into the convolution if that is exact, also across a pooling; otherwise the
remainder is an Affine in ``after``. Linear layers are convolutions whose kernel covers
their whole input. A stage may add an earlier stage's output, as a shortcut.

``chain.py`` makes the stages of a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nas.architecture import Shape
from nas.architecture.parts import Pooling

Array = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """``weight`` [O, I, kh, kw], ``bias`` [O].

    I is how many channels each group of the stage takes: 1 if depthwise. ``padding`` is
    the number of rows and columns of zeros on each side of the input.
    """

    weight: Array
    bias: Array
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """``x * scale + shift`` with one scale and shift per channel."""

    scale: Array
    shift: Array


@dataclass(frozen=True, slots=True)
class Activation:
    """One of `nas.architecture.activations.ACTIVATIONS`, or "unit": between 0 and 1."""

    name: str


@dataclass(frozen=True, slots=True)
class Resize:
    """Adaptive average pooling, as in torch, to ``sides`` (height and width)."""

    sides: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pad:
    """Every so many-th row and column, and channels of zeros ``before`` and ``behind``.

    Fewer than 0 channels are taken away.
    """

    stride: int
    before: int
    behind: int


After = Pooling | Affine | Activation | Resize | Pad


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """Parallel convolutions, their outputs concatenated, and the steps after them.

    A repeated block yields stages of the same name for each application.
    ``input_shape``, ``conv_shape`` (after the convolutions) and ``output_shape`` (after
    all steps) are channels, height and width. Without convolutions a stage only pools.

    ``takes`` is the distance to the stage whose output is the input: 1 is the previous
    stage, 2 the one before it, and so on; the image precedes the first stage. Likewise
    ``adds`` is the distance to the output that is added to the convolutions' sums, and
    ``gates`` to the one whose channels, one number each, are multiplied with the input;
    0 for none. Each of ``groups`` parts of the input's channels is convolved by itself;
    if ``depthwise`` each channel.
    """

    name: str
    convolutions: tuple[Convolution, ...]
    input_shape: Shape
    conv_shape: Shape
    output_shape: Shape
    after: tuple[After, ...] = ()
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    depthwise: bool = False
    takes: int = 1
    adds: int = 0
    gates: int = 0


def areas(before: int, after: int) -> list[tuple[int, int]]:
    """Return the start and end of each of ``after`` areas of ``before`` pixels.

    They are the areas of torch's adaptive pooling: neighbours may overlap.
    """
    return [
        (place * before // after, -(-(place + 1) * before // after))
        for place in range(after)
    ]


def by_weight(
    values: npt.NDArray[Scalar], groups: int, outputs: int
) -> npt.NDArray[Scalar]:
    """Return each input channel's value for each weight that it has, [O, I, 1, 1]."""
    of_group = values.reshape(groups, -1)
    return np.repeat(of_group, outputs // groups, axis=0)[:, :, None, None]


def reach(chain: Sequence[Stage]) -> int:
    """Return how many of the latest outputs later stages may still need."""
    return max(max(stage.takes, stage.adds, stage.gates) for stage in chain)
