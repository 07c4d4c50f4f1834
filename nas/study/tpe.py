"""Optuna's TPE at a cost that hardly grows with the study.

Optuna's own sorts all trials and fits its densities anew for each parameter of each
draw: 0.17 s a draw at 200 trials of some sixty parameters, 0.67 s at 1,000, and 64
workers of 5 s a candidate want one every 0.08 s. Here

- up to 100 trials every draw is the one that Optuna would make;
- beyond, what it has learnt is kept until the study has grown by one percent, and drawn
  from by densities.py, which is as exact but ten times as fast;
- beyond 300, it looks at no more than the best 30 of all (by Optuna's own order of
  dominance and hypervolume) and the latest 270 of the others.

Optuna's densities give old trials less weight in any case. What that saves and costs is
measured by benchmarks/scaling.py; see docs/reliability.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

from nas.study.densities import Density, quick

_PERCENT = 100
_FAST_BEYOND = 100
_BEST, _LATEST = 30, 270


# Of one parameter, among the good trials and the others; quick ones where there are.
Densities = tuple[_ParzenEstimator, _ParzenEstimator, tuple[Density, Density] | None]


class Lore:
    """What TPE has learnt from the trials so far; kept from draw to draw.

    It follows from the trials alone, so a study that was interrupted and read again
    has the same.
    """

    def __init__(self, best: int = _BEST, latest: int = _LATEST) -> None:
        """Look at so many of the best and of the latest others."""
        self._best, self._latest = best, latest
        self._seen = -1
        self._good: Sequence[FrozenTrial] = ()
        self._others: Sequence[FrozenTrial] = ()
        self._densities: dict[tuple[str, BaseDistribution], Densities] = {}

    def learn(self, study: Study) -> int:
        """Look at the trials again if enough have come; return how many there are."""
        trials = study._get_trials(  # noqa: SLF001
            deepcopy=False, states=(TrialState.COMPLETE,), use_cache=True
        )
        count = len(trials)
        seen = count - count % max(1, count // _PERCENT)
        if seen != self._seen:
            self._seen = seen
            good = min(math.ceil(0.1 * seen), self._best)
            self._good, others = _split_trials(study, trials[:seen], good)
            self._others = others[-self._latest :]
            self._densities.clear()
        return count

    def densities(
        self, sampler: TPESampler, study: Study, name: str, kind: BaseDistribution
    ) -> Densities:
        """Return the densities of a parameter among the good and the other trials."""
        key = (name, kind)
        if key not in self._densities:
            space = {name: kind}
            build = sampler._build_parzen_estimator  # noqa: SLF001
            good = build(study, space, list(self._good), handle_below=True)
            others = build(study, space, list(self._others), handle_below=False)
            fast = None
            plain = isinstance(kind, FloatDistribution) and not (kind.log or kind.step)
            if plain and self._seen > _FAST_BEYOND:
                fast = (quick(good), quick(others))
            self._densities[key] = (good, others, fast)
        return self._densities[key]


class QuickTPESampler(TPESampler):
    """Optuna's TPE, one parameter after the other, with what it has learnt kept.

    Made anew for each draw, as every sampler of a study, with that draw's seed.
    """

    def __init__(self, lore: Lore, *, seed: int) -> None:
        """Draw with this seed from what has been learnt."""
        super().__init__(seed=seed, multivariate=False)
        self._density_cache = lore
        self._learnt: int | None = None

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one parameter; see Optuna's."""
        if self._learnt is None:
            self._learnt = self._density_cache.learn(study)
        if self._learnt < self._n_startup_trials:
            return self._random_sampler.sample_independent(
                study, trial, param_name, param_distribution
            )
        good, others, fast = self._density_cache.densities(
            self, study, param_name, param_distribution
        )
        if fast is not None:
            points = fast[0].sample(self._rng.rng, self._n_ei_candidates)
            gains = fast[0].log_pdf(points) - fast[1].log_pdf(points)
            return points[gains.argmax()].item()
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        values = self._compute_acquisition_func(samples, good, others)
        drawn = self._compare(samples, values)[param_name]
        return param_distribution.to_external_repr(drawn)
