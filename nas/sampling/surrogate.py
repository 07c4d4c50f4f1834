"""Predicts how good an architecture is for its size, from trained ones.

Gaussian process regression on a few numbers that describe a net: depth, compute, where
it downsamples, kernels, head. It is no judge; it only sorts out the worse of several
changes before one of them is trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from nas.architecture import Architecture, Block, feature_shapes
from nas.architecture.cost import cost
from nas.architecture.kinds import parts_of

Array = npt.NDArray[np.floating[Any]]

# In a study of thousands, this many of the best measured and latest are enough.
_MOST = 400
_LENGTH = 1.0  # in standard deviations of a feature, times the root of their number
LOG_PARAMS, LOG_MACS = 0, 1  # indices among the features
_NOISE = 0.5  # the share of the residuals' variance that no feature explains


def features(architecture: Architecture) -> Array:
    """Return the numbers that describe the architecture, float ``[21]``."""
    blocks, head = architecture.blocks, architecture.head
    shapes = feature_shapes(architecture)
    costs = cost(architecture)
    sides = [shape[1] for shape in shapes[1:]]
    start = architecture.input_shape[1]
    depth = len(blocks)
    applied = sum(block.repeats for block in blocks)
    halving = [n for n, b in enumerate(blocks) if b.stride > 1 or b.pool != "none"]
    first = halving[0] if halving else depth
    last = halving[-1] if halving else depth
    # How much of the work is done at full, half and quarter resolution.
    work = np.zeros(3)
    for block, side in zip(blocks, sides, strict=True):
        work[min(2, max(0, round(math.log2(start / max(side, 1)))))] += block.repeats
    widths = [math.log(block.out_channels) for block in blocks]
    return np.array(
        [
            math.log(costs.num_params),
            math.log(costs.macs),
            math.log(costs.peak_memory),
            depth,
            math.log(applied),
            len(halving),
            first / depth,
            last / depth,
            *(work / applied),
            np.mean([block.kernel for block in blocks]),
            np.mean(blocks[0].kernel),
            np.mean([_is_depthwise(block) for block in blocks]),
            np.mean([block.padding == "valid" for block in blocks]),
            np.mean([block.norm == "batch" for block in blocks]),
            np.mean([block.activation == "relu" for block in blocks]),
            np.mean([block.dropout for block in blocks]) * 20,
            widths[-1] - widths[0],
            head.kind in {"gap", "pool"},
            head.kind == "flatten",
        ],
        dtype=np.float64,
    )


def _is_depthwise(block: Block) -> bool:
    return any(part.depthwise for part in parts_of(block, 1))


# The workers keep all cores busy. Were the inverse made by a thread for each core, these
# would wait for one another: 21 times as long with 16 threads on two busy cores.
_blas = ThreadpoolController()


class Surrogate:
    """A Gaussian process over architectures, fitted to their residuals."""

    def __init__(self, rows: Sequence[Array], residuals: Sequence[float]) -> None:
        """Fit to features and residuals of trained architectures, if many the last ones."""
        inputs = np.array(rows[-_MOST:])
        targets = np.array(residuals[-_MOST:], dtype=np.float64)
        # One failed training must not stretch the scale.
        low, high = np.percentile(targets, [0, 90])
        targets = np.clip(targets, low, high)
        self._centre = inputs.mean(axis=0)
        self._scale = np.maximum(inputs.std(axis=0), 1e-6)
        self._inputs = self._scaled(inputs)
        self._mean = float(targets.mean())
        self._spread = float(targets.std()) or 1.0
        kernel = self._kernel(self._inputs, self._inputs)
        kernel[np.diag_indices_from(kernel)] += _NOISE
        with _blas.limit(limits=1, user_api="blas"):
            self._factor = np.linalg.inv(kernel)
            self._weights = self._factor @ ((targets - self._mean) / self._spread)

    def predict(self, rows: Sequence[Array]) -> tuple[Array, Array]:
        """Return the expected residuals and their standard deviations, ``[len(rows)]``."""
        kernel = self._kernel(self._scaled(np.array(rows)), self._inputs)
        mean = self._mean + self._spread * (kernel @ self._weights)
        variance = 1 - np.einsum("ij,jk,ik->i", kernel, self._factor, kernel)
        return mean, self._spread * np.sqrt(np.maximum(variance, 0.0))

    def _scaled(self, inputs: Array) -> Array:
        scaled: Array = np.clip((inputs - self._centre) / self._scale, -4, 4)
        return scaled

    def _kernel(self, a: Array, b: Array) -> Array:
        squares = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
        kernel: Array = np.exp(-squares / (2 * _LENGTH**2 * a.shape[1]))
        return kernel
