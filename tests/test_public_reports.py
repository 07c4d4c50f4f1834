"""Faults that other tools' public bug reports tell of, tried on nas.

Each names the tool and the number of its issue. Those that have a place elsewhere are in
test_engines.py (open files, shared memory).
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from studying import FakeEngine, finished, make_settings

from nas.candidates.ranking import Evidence, badness, rank
from nas.data import load_dataset
from nas.errors import DataError, StudyError
from nas.search.loop import search
from nas.study.folders import create, open_study
from nas.study.settings import check_name


@pytest.mark.parametrize("loss", [math.nan, math.inf, 3e38])
def test_a_loss_that_runs_away_does_not_spoil_the_others_ranks(loss: float) -> None:
    """KerasTuner 367 and 509, AutoKeras 1758: one such trial ends or misleads a search."""
    others = [
        Evidence(
            n, 500 + 40 * n, 10**5, {1: [badness(0.3 + 0.01 * (n % 7), 0.9, 1000)]}
        )
        for n in range(60)
    ]
    bad = Evidence(60, 1500, 10**5, {1: [badness(loss, 0.1, 1000)]})
    alone = rank(others, (1, 3)).merits
    ranks = rank([*others, bad], (1, 3)).merits
    assert np.isfinite(ranks).all()
    assert ranks.argmax() == 60
    assert np.abs(ranks[:60] - alone).max() < 0.1


def test_the_time_between_two_runs_is_not_in_the_time_limit(tmp_path: Path) -> None:
    """Ray Tune 21038: what was restored later than the limit ended at once."""
    settings = make_settings()
    with create(tmp_path / "small", settings) as study:
        engine = FakeEngine()
        assert (
            search(study, engine, trials=10**4, time_limit=0.2).reason == "time limit"
        )
    with open_study(tmp_path / "small") as study:
        before = len(finished(study.candidates()))
        outcome = search(study, FakeEngine(), trials=10**4, time_limit=0.2)
        assert outcome.reason == "time limit"
        assert len(finished(study.candidates())) > before


def test_a_study_goes_on_in_another_folder(tmp_path: Path) -> None:
    """Ray Tune 40585: paths of the first machine stood in what was to be restored."""
    first = tmp_path / "one" / "small"
    with create(first, make_settings()) as study:
        search(study, FakeEngine(), trials=3)
    moved = tmp_path / "another, für alle [2]%41" / "small"
    moved.parent.mkdir()
    shutil.move(first, moved)
    assert str(tmp_path) not in (moved / "study.toml").read_text()
    with open_study(moved) as study:
        search(study, FakeEngine(), trials=5)
        assert [c.trial for c in finished(study.candidates())] == list(range(5))


def test_a_finished_search_that_is_begun_again_is_done(tmp_path: Path) -> None:
    """NNI 1443: a finished experiment that is resumed seems to run for ever."""
    with create(tmp_path / "small", make_settings()) as study:
        search(study, FakeEngine(), trials=3)
        engine = FakeEngine()
        assert search(study, engine, trials=3).reason == "done"
        assert engine.started == []


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        # AutoKeras 1120: two labels an image were taken for two classes.
        (np.tile([[1, 1], [0, 1], [1, 0]], (10, 1)), "give one label per image"),
        # AutoKeras 361: numbers of any size were taken for classes.
        (np.linspace(0, 1, 30), "give whole numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused(
    tmp_path: Path, labels: np.ndarray, words: str
) -> None:
    """In one line that says what labels are to be."""
    images = np.zeros((30, 8, 8), np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(DataError, match=words):
        load_dataset(str(path))


def test_a_name_that_is_too_long_is_refused_with_the_remedy() -> None:
    """Ray Tune 1463: names made of parameters were longer than a file's can be."""
    with pytest.raises(StudyError, match="at most 100; give another with --study"):
        check_name(f"{'n' * 200}-10000")
    assert replace(make_settings(), name="n" * 100).name == check_name("n" * 100)
