"""The parts of Optuna that it may change: tried with this release, and in one file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from studying import make_settings, train_made_up

import nas
from nas.study import optuna_internals
from nas.study.folders import create, read_study
from nas.study.optuna_internals import KNOWN_RELEASES, QuickInsertStorage

INTERNALS = Path(optuna_internals.__file__)
PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_this_release_of_optuna_is_a_known_one() -> None:
    """With another one the file's words tell what to do; users are given known ones."""
    release = ".".join(optuna.__version__.split(".")[:2])
    assert release in KNOWN_RELEASES, f"{INTERNALS.name}: {optuna_internals.__doc__}"
    needed = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"]
    assert f"optuna~={KNOWN_RELEASES[-1]}.0" in needed


# An underscored module, a name from one, or an underscored attribute of a trial or study.
PRIVATE = re.compile(
    r"^\s*(from|import) optuna(\.\w+)*\._|^\s*from optuna\S* import .*\b_\w"
    r"|\._(trial|study)_id\b",
    re.MULTILINE,
)


@pytest.mark.parametrize(
    ("line", "private"),
    [
        ("from optuna.storages.journal._file import Lock", True),
        ("    from optuna.storages.journal import _storage", True),
        ("import optuna.storages._rdb", True),
        ("number = trial._trial_id", True),
        ("from optuna.storages import RDBStorage", False),
        ("from optuna_dashboard import wsgi", False),
    ],
)
def test_what_is_private_is_known_as_such(line: str, private: bool) -> None:
    """Else the next test would find nothing, whatever there is."""
    assert bool(PRIVATE.search(line)) == private


def test_no_other_file_reaches_into_optuna() -> None:
    """What is private is used in one file."""
    files = Path(nas.__file__).parent.rglob("*.py")
    found = [path for path in files if PRIVATE.search(path.read_text("utf-8"))]
    assert found == [INTERNALS]


@pytest.fixture
def trials(tmp_path: Path) -> list[FrozenTrial]:
    """Return two trials of a study, read from its journal."""
    with create(tmp_path / "small", make_settings()) as study:
        for _ in range(2):
            train_made_up(study, study.ask())
    with read_study(tmp_path / "small") as study:
        return study._storage.get_all_trials(study._id)


def test_a_quickly_added_trial_is_the_trial_that_optuna_adds(
    trials: list[FrozenTrial],
) -> None:
    """Optuna's own storage is the oracle, in memory: all that can be read is alike."""
    read = []
    for kind in (RDBStorage, QuickInsertStorage):
        storage = kind("sqlite://")
        directions = [optuna.study.StudyDirection.MAXIMIZE] * 2
        study = storage.create_new_study(directions, "one")
        for trial in (*trials, None):
            storage.create_new_trial(study, template_trial=trial)
        found = storage.get_all_trials(study)
        assert found[0].params
        assert found[0].user_attrs == trials[0].user_attrs
        read.append(found[:-1])
        last = found[-1]
        assert last.state == TrialState.RUNNING
        assert [storage.get_trial_number_from_id(t._trial_id) for t in found] == [
            t.number for t in found
        ]
        assert storage.set_trial_state_values(
            last._trial_id, TrialState.COMPLETE, [0.5, 900.0]
        )
        ended = storage.get_trial(last._trial_id)
        assert (ended.state, ended.values) == (TrialState.COMPLETE, [0.5, 900.0])
        assert ended.datetime_complete is not None
        with pytest.raises(UpdateFinishedTrialError):
            storage.set_trial_state_values(last._trial_id, TrialState.PRUNED)
        with pytest.raises(KeyError):
            storage.get_trial_number_from_id(999)
        with pytest.raises(KeyError):
            storage.set_trial_state_values(999, TrialState.PRUNED)
        storage.engine.dispose()
    assert read[0] == read[1]
