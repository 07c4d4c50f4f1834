"""Folds batch norm into the convolutions before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nas.architecture.parts import Pooling
from nas.export.stages import Affine, After, Array, Stage


def folded(stage: Stage, *, repeated: bool) -> Stage:
    """Return the stage with batch norm folded into the convolutions if that is exact.

    A mean commutes with ``x * scale + shift``. A maximum does so for a positive scale;
    for a negative one ``scale * max(x) + shift`` is ``-max(|scale| * x - shift)``, so
    only the sign stays behind. It also stays behind in a repeated block, so that the
    weights of the applications are positive multiples and share their int8 numbers.
    """
    match stage.after:
        case (Affine() as norm, *rest) if not repeated:
            return _scaled(stage, norm.scale, norm.shift, tuple(rest))
        case (Pooling("avg") as pool, Affine() as norm, *rest) if not repeated:
            return _scaled(stage, norm.scale, norm.shift, (pool, *rest))
        case (Affine() as norm, *rest):
            pools: tuple[After, ...] = ()
        case (Pooling() as pool, Affine() as norm, *rest):
            pools = (pool,)
        case _:
            return stage
    sign = np.where(norm.scale < 0, -1.0, 1.0)
    signs = () if (sign > 0).all() else (Affine(sign, np.zeros_like(sign)),)
    return _scaled(stage, abs(norm.scale), sign * norm.shift, (*pools, *signs, *rest))


def _scaled(
    stage: Stage, scale: Array, shift: Array, after: tuple[After, ...]
) -> Stage:
    """Return the stage with its convolutions' outputs scaled and shifted."""
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
