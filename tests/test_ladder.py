"""Winners under several caps in one go: `nas best --front` and `Study.best_front`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Invoke
from studying import FakeEngine
from test_retrain import AFTER, CANDIDATES, SETTINGS, SIZES, after, choose

import nas
from nas.errors import StudyError, UsageError
from nas.search.kept_trainings import KeptTrainings
from nas.search.ladder import caps, sizes_from, winner_folders

FEW = ("--finalists", 1, "--epochs", 1, "--workers", 1, "--device", "cpu")


def test_the_caps_are_the_study_s_and_its_halves() -> None:
    """As far down as the smallest net that is fully trained."""
    budget = SETTINGS.param_budget
    halves = [budget // 2**n for n in range(20)]
    assert caps(CANDIDATES, SETTINGS) == [h for h in halves if h >= SIZES[0]]
    assert caps(CANDIDATES[5:6], SETTINGS)[-1] >= SIZES[5]


def test_given_sizes_are_sorted_and_each_once() -> None:
    """Those of numpy are numbers, too."""
    sizes = [SIZES[1], np.int64(SIZES[4]), SIZES[1]]
    assert caps(CANDIDATES, SETTINGS, sizes) == [SIZES[4], SIZES[1]]
    assert sizes_from("10_000, 5000") == [10_000, 5_000]


@pytest.mark.parametrize("sizes", [[], [0], [-5, 100], [10**9], [100.5], ["100"]])
def test_other_sizes_are_refused(sizes: list[int]) -> None:
    """With what can be given."""
    with pytest.raises(UsageError, match=f"numbers 1 to {SETTINGS.param_budget}"):
        caps(CANDIDATES, SETTINGS, sizes)


@pytest.mark.parametrize("text", ["", "5000;100", "-5", "5000,", "1e4"])
def test_text_that_holds_no_sizes_is_refused(text: str) -> None:
    """It names the option and shows what is meant."""
    with pytest.raises(UsageError, match=r"--sizes .*such as 10000,5000"):
        sizes_from(text)


def test_a_size_below_all_nets_is_refused_before_any_training() -> None:
    """The smallest that could be had is named."""
    with pytest.raises(StudyError, match=f"smallest has {SIZES[0]}"):
        caps(CANDIDATES, SETTINGS, [SIZES[4], SIZES[0] - 1])


def test_what_two_caps_have_in_common_is_trained_once(tmp_path: Path) -> None:
    """Finalists and seeds of the same net are kept."""
    engine, kept = FakeEngine(2, accuracy=after(AFTER)), KeptTrainings(tmp_path, {})
    first = choose(engine, kept=kept, max_params=SIZES[5], seeds=2)
    began = len(engine.started)
    again = choose(engine, kept=kept, max_params=SIZES[3], seeds=2)
    assert first.contender.trial == again.contender.trial == 3
    assert first.report["test_accuracy"] == again.report["test_accuracy"]
    new = engine.started[began:]
    # Two new finalists, and the second seed of one that was among the first four.
    assert sorted(job.architecture.blocks[0].out_channels for job in new) == [2, 3, 4]
    assert {job.mode for job in new} == {"search"}


def test_each_cap_has_its_folder_the_first_the_usual() -> None:
    """So `nas best` and `nas best --front` write the winner to the same place."""
    assert winner_folders(Path("s/best"), [9, 4, 2]) == [
        Path("s/best"),
        Path("s/best-4"),
        Path("s/best-2"),
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> nas.Study:
    """Return a study of the digits with a few fully trained nets."""
    return nas.search(
        "digits",
        budget=1000,
        trials=5,
        epochs=1,
        studies=tmp_path_factory.mktemp("ladder"),
        workers=1,
        device="cpu",
        progress=False,
    )


def test_winners_and_table_are_written(study: nas.Study, invoke: Invoke) -> None:
    """One folder a cap, and a CSV that says what the reports say."""
    at = ("--studies", study.folder.parent)
    done = invoke("best", *at, "--front", "--seeds", 2, *FEW)
    assert done.code == 0, done.err
    with (study.folder / "best.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["max_params"]) for row in rows][:1] == [1000]
    assert len(rows) == len(caps(study._candidates, study.settings))
    for number, row in enumerate(rows):
        folder = study.folder / ("best" if not number else f"best-{row['max_params']}")
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert report["num_params"] <= int(row["max_params"])
        for name in ("trial", "num_params", "test_accuracy_mean", "seeds"):
            assert float(row[name]) == report[name]
        assert (folder / "weights.safetensors").exists()
        assert not (folder / "unfinished").exists()
    assert "the winner under each cap" in done.out
    assert "the table is in" in done.out


@pytest.mark.parametrize("option", ["--max-params", "--min-accuracy"])
def test_one_winner_and_several_are_not_asked_for_at_once(
    study: nas.Study, invoke: Invoke, option: str
) -> None:
    """Refused before anything is trained."""
    at = ("--studies", study.folder.parent)
    answer = invoke("best", *at, "--sizes", "900", option, "1")
    assert answer.code == 2
    assert f"{option} asks for one winner" in answer.err


def test_the_winners_from_python(study: nas.Study) -> None:
    """Largest first, each with its own folder to be saved in."""
    sizes = [c.num_params for c in study._candidates if c.state == "complete"]
    found = study.best_front(
        sizes=[min(sizes), 1000],
        epochs=1,
        finalists=1,
        workers=1,
        device="cpu",
        progress=False,
    )
    assert [winner.report["num_params"] <= 1000 for winner in found] == [True, True]
    assert found[1].report["num_params"] == min(sizes)
    assert found[1].save().name == f"best-{min(sizes)}"
    with pytest.raises(UsageError, match="sizes="):
        study.best_front(sizes=[2000], progress=False)
    with pytest.raises(UsageError, match="seeds=0"):
        study.best_front(seeds=0, progress=False)
