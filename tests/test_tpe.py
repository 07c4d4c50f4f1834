"""TPE with what it has learnt kept: Optuna's own draws, at a bounded cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import Trial, create_trial
from studying import make_settings, train_made_up

from nas.study.densities import quick
from nas.study.folders import create, open_study
from nas.study.tpe import Lore, QuickTPESampler


def _objective(trial: Trial) -> tuple[float, float]:
    """Return two values of a few parameters of each kind, some of them conditional."""
    x = trial.suggest_float("x", 0, 1)
    n = trial.suggest_int("n", 1, 9)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    y = trial.suggest_float("y", 0, 1) if kind == "a" else 0.3
    return x * n + y, (1 - x) ** 2 + 0.1 * n


def _draws(
    trials: int, sampler: Callable[[int], BaseSampler]
) -> list[dict[str, object]]:
    """Return the parameters of all trials of a study with a sampler a draw."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(trials):
        study.sampler = sampler(number)
        trial = study.ask()
        study.tell(trial, _objective(trial))
    return [trial.params for trial in study.trials]


def test_up_to_a_hundred_trials_it_draws_as_optuna_does() -> None:
    """The oracle is Optuna's TPE itself, with the same seeds."""
    lore = Lore()
    ours = _draws(101, lambda seed: QuickTPESampler(lore, seed=seed))
    optunas = _draws(101, lambda seed: TPESampler(seed=seed, multivariate=False))
    assert ours == optunas


@given(
    middles=st.lists(st.floats(0, 1), min_size=1, max_size=40),
    low=st.floats(-3, 0),
    high=st.floats(1, 3),
    seed=st.integers(0, 1000),
)
@hypothesis_settings(deadline=None)
def test_quick_densities_are_optunas(
    middles: list[float], low: float, high: float, seed: int
) -> None:
    """The oracle draws by the same random numbers, and judges the same points."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    kind = FloatDistribution(low, high)
    trials = [
        create_trial(params={"x": x}, distributions={"x": kind}, values=(0, 0))
        for x in middles
    ]
    oracle = TPESampler(seed=0)._build_parzen_estimator(
        study, {"x": kind}, trials, handle_below=True
    )
    density = quick(oracle)
    theirs = oracle.sample(np.random.RandomState(seed), 24)["x"]
    ours = density.sample(np.random.RandomState(seed), 24)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    points = np.array([low, *middles, high])
    np.testing.assert_allclose(
        density.log_pdf(points), oracle.log_pdf({"x": points}), rtol=1e-9, atol=1e-9
    )


def test_quick_densities_draw_as_optuna_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With them and without, beyond a hundred trials."""
    draws = []
    for beyond in (100, 10**9):
        lore = Lore()
        monkeypatch.setattr("nas.study.tpe._FAST_BEYOND", beyond)
        trials = _draws(140, lambda seed, lore=lore: QuickTPESampler(lore, seed=seed))
        draws.append([sorted(trial.items()) for trial in trials])
    assert draws[0] != draws[1]  # but by rounding alone
    for ours, theirs in zip(*draws, strict=True):
        assert dict(ours) == {
            name: value if isinstance(value, str) else pytest.approx(value, abs=1e-4)
            for name, value in theirs
        }


def test_beyond_it_learns_again_at_each_percent() -> None:
    """After 200 trials at every second, after 300 at every third."""
    lore = Lore()
    with mock.patch(
        "nas.study.tpe._split_trials", wraps=optuna.samplers._tpe.sampler._split_trials
    ) as split:
        _draws(330, lambda seed: QuickTPESampler(lore, seed=seed))
    counts = [len(call.args[1]) for call in split.call_args_list]
    assert counts[:195] == list(range(195))
    assert [count for count in counts if 195 <= count <= 210] == [
        *range(195, 201), *range(202, 211, 2),
    ]  # fmt: skip
    assert [count for count in counts if count >= 300] == list(range(300, 330, 3))
    # No more of the best than the limit.
    assert {
        call.args[2] for call in split.call_args_list if len(call.args[1]) > 300
    } == {30}


def test_it_looks_at_no_more_trials_than_its_limits() -> None:
    """However many there are."""
    lore = Lore(best=5, latest=20)
    _draws(80, lambda seed: QuickTPESampler(lore, seed=seed))
    assert len(lore._good) == 5
    assert len(lore._others) == 20


@pytest.mark.parametrize("before", [15, 25])
def test_a_study_that_was_closed_goes_on_with_the_same_draws(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was learnt follows from the trials alone, also where it is kept for long."""
    monkeypatch.setattr("nas.study.tpe._PERCENT", 4)
    keys = []
    for name in ("whole", "closed"):
        settings = make_settings(name=name, sampler="tpe")
        with create(tmp_path / name, settings) as study:
            for _ in range(before if name == "closed" else 40):
                train_made_up(study, study.ask())
        with open_study(tmp_path / name) as study:
            for _ in range(40 - len(study.candidates())):
                train_made_up(study, study.ask())
            keys.append([candidate.key for candidate in study.candidates()])
    assert keys[0] == keys[1]
