"""TPE with what it has learnt kept: Optuna's own draws, at a bounded cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import Trial
from studying import make_settings, train_made_up

from nas.study import create, open_study
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
    ours = _draws(120, lambda seed: QuickTPESampler(lore, seed=seed))
    optunas = _draws(120, lambda seed: TPESampler(seed=seed, multivariate=False))
    assert ours == optunas


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
