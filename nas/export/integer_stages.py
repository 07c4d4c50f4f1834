"""The stages of a network in integers: what `quantise` returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.architecture import Shape
from nas.architecture.parts import Pooling
from nas.export.stages import Array, Pad, Resize, Stage

Int8 = npt.NDArray[np.int8]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A tensor's uint8 numbers: ``real = scale * (number - zero)``."""

    scale: float
    zero: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerConvolution:
    """int8 ``weight`` [O, I, kh, kw]; the outputs start at channel ``start``."""

    weight: Int8
    padding: tuple[int, int]
    start: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationStep:
    """An activation, and the conversion of its fixed-point values into output numbers.

    ``output = (fixed * multiplier + offset) >> shift``; each is a single number or one
    per channel. ``fraction`` is the number of fractional bits of ``fixed``.
    """

    activation: str
    fraction: int
    multiplier: Integers
    offset: Integers
    shift: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A tensor to add before the shift, as ``(number - zero) * multiplier``."""

    zero: int
    multiplier: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerStage:
    """A stage in integers, with their scales.

    ``input_zero`` holds one zero point, or one per channel for the image. ``bias`` is
    in units of ``input_scale * weight_scale`` for each channel. ``sum_bias`` is added
    to the sums; it corrects for the zero point and covers all of a window that is
    summed. ``output`` is None for the logits, whose unit is ``2**-logit_bits``.
    """

    float_stage: Stage
    convolutions: tuple[IntegerConvolution, ...]
    input_scale: float
    input_zero: Integers
    weight_scale: Array
    bias: Integers
    early: Pooling | None
    sum_bias: Integers
    up: int
    """Spare bits of the sums; using them keeps a shift of 32 or more precise."""
    multiplier: Integers
    shift: int
    activation_step: ActivationStep | None
    late: Pooling | None
    output: Range | None
    logit_bits: int = 0
    added: Added | None = None

    @property
    def name(self) -> str:
        """The stage's place in the network."""
        return self.float_stage.name

    @property
    def output_shape(self) -> Shape:
        """Channels, height and width of the output."""
        return self.float_stage.output_shape


def resize_of(stage: Stage) -> Resize | None:
    """Return the resize step if the stage lowers the images' resolution, else None."""
    found = stage.after[0] if stage.after else None
    return found if isinstance(found, Resize) else None


def pad_of(stage: Stage) -> Pad | None:
    """Return the step if the stage is a shortcut that pads channels, else None."""
    found = stage.after[0] if stage.after else None
    return found if isinstance(found, Pad) else None
