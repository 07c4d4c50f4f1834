"""Optuna's densities of one number, drawn from and judged in a tenth of the time.

Optuna computes anew at each draw how much of each kernel lies within the range, by
loops in Python, and inverts the normal distribution by Newton's method. The kernels of
densities that are kept from draw to draw stay the same, and scipy inverts at once.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import (
    _BatchedTruncNormDistributions,
)
from scipy.special import ndtr, ndtri

Floats = npt.NDArray[np.float64]


class Density:
    """A mixture of normal distributions, each cut off at the ends of the range."""

    def __init__(
        self, weights: Floats, mu: Floats, sigma: Floats, low: float, high: float
    ) -> None:
        """Take the kernels, all with their middle from low to high."""
        self._weights, self._mu, self._sigma = weights, mu, sigma  # [kernels]
        self._low, self._high = low, high
        # Stable, as the range's ends lie on both sides of each kernel's middle.
        self._left = ndtr((low - mu) / sigma)
        self._mass = ndtr((high - mu) / sigma) - self._left
        self._log_height = np.log(
            weights / (self._mass * sigma * math.sqrt(2 * math.pi))
        )

    def sample(self, rng: np.random.RandomState, size: int) -> Floats:
        """Return so many draws, by the same random numbers as Optuna's: [size]."""
        kernels = rng.choice(len(self._weights), p=self._weights, size=size)
        quantiles = rng.uniform(size=size)
        z = ndtri(self._left[kernels] + quantiles * self._mass[kernels])
        points: Floats = self._mu[kernels] + z * self._sigma[kernels]
        return points.clip(self._low, self._high)  # what rounding put beyond

    def log_pdf(self, x: Floats) -> Floats:
        """Return the logarithm of the density at each of x: [size]."""
        z = (x[:, np.newaxis] - self._mu) / self._sigma  # [size, kernels]
        logs = self._log_height - 0.5 * z * z
        top = logs.max(axis=1)
        total: Floats = np.exp(logs - top[:, np.newaxis]).sum(axis=1)
        return np.asarray(top + np.log(total))


def quick(estimator: _ParzenEstimator) -> Density:
    """Return the density of Optuna's estimator of one number, on a plain scale."""
    mixture = estimator._mixture_distribution  # noqa: SLF001
    (kernels,) = mixture.distributions
    assert isinstance(kernels, _BatchedTruncNormDistributions)
    return Density(
        mixture.weights, kernels.mu, kernels.sigma, kernels.low, kernels.high
    )
