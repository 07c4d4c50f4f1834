"""The speed benchmarks run, on a few images, and end as they promise."""

from __future__ import annotations

import csv
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from nets import net_of
from studying import environment

from nas.architecture import Block, Head
from nas.architecture.boards import Board, find_board
from nas.architecture.cost import cost
from nas.export import source, write_best
from nas.training.model import build

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(tmp_path: Path, *command: str) -> str:
    """Run a benchmark in an empty folder and return what it prints."""
    finished = subprocess.run(
        [sys.executable, str(BENCHMARKS / command[0]), *command[1:]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return what the scripts share."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("harness")


def test_a_run_that_was_stopped_goes_on_in_its_file(
    harness: ModuleType, tmp_path: Path
) -> None:
    """Rows are added under one heading; without a file there are none."""
    path = tmp_path / "rows.csv"
    assert harness.read(path) == []
    for seed in harness.seeds("3-4"):
        harness.append(path, {"seed": seed, "accuracy": 0.5})
    assert [row["seed"] for row in harness.read(path)] == ["3", "4"]
    assert list(harness.seeds("7")) == [7]


@pytest.mark.slow
def test_spaces_are_compared_by_whole_searches(tmp_path: Path) -> None:
    """A row a search; what is there is not searched again."""
    options = (
        "--budget",
        "400",
        "--trials",
        "4",
        "--epochs",
        "2",
        "--seeds",
        "0",
        "--workers",
        "1",
    )
    options += ("--dataset", "digits", "--device", "cpu", "--csv", "rows.csv")
    printed = run(tmp_path, "spaces.py", "run", "plain", "separable", *options)
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["space"] for row in rows] == ["plain", "separable"]
    assert all(float(row["hypervolume"]) > 0 for row in rows)
    assert all(int(row["fully_trained"]) > 0 for row in rows)
    assert "digits, at most 400 parameters, 4 trials" in printed
    again = run(tmp_path, "spaces.py", "run", "plain", *options)
    assert again.count("hypervolume") == 1  # of the table's heading
    assert (
        again.splitlines()[1:] == printed.splitlines()[-len(again.splitlines()) + 1 :]
    )


def test_methods_are_compared_seed_by_seed(harness: ModuleType) -> None:
    """A seed that one of them lacks counts for nothing; one seed is no comparison."""
    ours = {0: 1.0, 1: 2.0, 2: 3.0, 9: 100.0}
    median, better, p = harness.Paired.of(
        ours, {0: 0.5, 1: 2.5, 2: 0.0, 8: 0.0}
    ).cells()
    assert (median, better) == ("+0.500", "2 of 3")
    assert 0 < float(p) <= 1
    assert harness.Paired.of(ours, {9: 1.0}).cells() == ["", "", ""]


def test_a_page_keeps_what_stands_around_its_table(
    harness: ModuleType, tmp_path: Path
) -> None:
    """Without both marks nothing is written."""
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- a -->\nold\n<!-- b -->\nbelow\n")
    table = harness.table(["net", "n"], [["s0", 3]])
    harness.put_between(page, ("<!-- a -->", "<!-- b -->"), table + "\n")
    assert page.read_text() == (
        "above\n<!-- a -->\n| net | n |\n|---|--:|\n| s0 | 3 |\n<!-- b -->\nbelow\n"
    )
    with pytest.raises(
        SystemExit, match=r"page.md has no <!-- a --> \.\.\. <!-- c -->"
    ):
        harness.put_between(page, ("<!-- a -->", "<!-- c -->"), "new")
    assert "s0" in page.read_text()


def test_the_page_tells_of_each_script_and_of_no_other() -> None:
    """What is new there is new on the page, what is gone is gone."""
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"\b\w+\.(?:py|sh)\b", page))
    assert told == {p.name for p in BENCHMARKS.iterdir() if p.suffix in {".py", ".sh"}}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_throughput_ends_with_one_line_of_json(tmp_path: Path) -> None:
    """The last line has the speedup; the csv file has a row a way."""
    options = ("--quick", "--images", "128", "--repeats", "1", "--nets", "public-1936")
    printed = run(tmp_path, "throughput.py", *options)
    summary = json.loads(printed.splitlines()[-1])
    assert summary["speedup_geomean"] > 1
    assert summary["device"] == "cpu"
    with (tmp_path / "throughput.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows] == ["example", "workers", "nas"]
    assert all(float(row["images_per_s"]) > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_candidates_train_together_as_processes(tmp_path: Path) -> None:
    """On a CPU, too, so that the GPU's benchmark is known to run."""
    options = ("--device", "cpu", "--at-once", "2", "--epochs", "1", "--images", "128")
    run(tmp_path, "together.py", *options)
    with (tmp_path / "together.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["way"], row["at_once"]) == ("processes", "2")
    assert float(row["epochs_per_s"]) > 0


@pytest.mark.slow
def test_trainings_are_kept_net_by_net(tmp_path: Path) -> None:
    """Run again, it trains what is missing; a net is the same each time."""
    options = ("--epochs", "1,2", "--images", "600", "--device", "cpu", "--jobs", "1")
    file = ("--csv", "rows.csv")
    run(tmp_path, "trainings.py", "--nets", "0-0", *options, *file)
    printed = run(tmp_path, "trainings.py", "--nets", "0-1", *options, *file)
    assert "2 trainings to come, 2 in rows.csv" in printed
    with (tmp_path / "rows.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["net"], row["epochs"]) for row in rows] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
        ("1", "2"),
    ]
    assert rows[0]["key"] == rows[1]["key"] != rows[2]["key"]
    assert all(0 <= float(row["held_out_accuracy"]) <= 1 for row in rows)


@pytest.mark.slow
def test_the_overhead_is_told_by_what_it_is_for(tmp_path: Path) -> None:
    """Each row's parts add up, and the table has a line a size and a clock."""
    options = ("--sizes", "3,6", "--trials", "2", "--repeats", "1")
    printed = run(tmp_path, "overhead.py", *options)
    assert len(printed.splitlines()) == 5
    with (tmp_path / "overhead.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["trials_in_study"] for row in rows] == ["3", "6"]
    parts = ("duplicates", "storage", "pruning", "progress", "front", "other")
    for row in rows:
        own = sum(float(row[f"{part}_cpu_ms"]) for part in parts)
        assert float(row["own_cpu_ms"]) == pytest.approx(own, abs=0.01)
        assert float(row["draw_cpu_ms"]) > 0
        assert float(row["peak_mb"]) > 50


def test_rates_are_found_from_times(tmp_path: Path) -> None:
    """Times that a known board would take give back its rates; bad input one line."""
    board = Board(name="known", mhz=80, conv=0.25, depthwise=0.08, linear=0.05)
    nets = {
        "plain": ((Block(out_channels=8), Block(out_channels=8)), Head()),
        "separable": ((Block(kind="separable", out_channels=12, repeats=1),), Head()),
        "hidden": ((Block(out_channels=4),), Head(kind="flatten", hidden=32)),
    }
    times = []
    for name, (blocks, head) in nets.items():
        architecture = net_of(*blocks, shape=(1, 28, 28), head=head)
        write_best(
            tmp_path / name,
            architecture,
            source(architecture, mean=[0.1], std=[0.3], class_names=list("0123456789")),
            build(architecture, seed=0).state_dict(),
            {},
        )
        times.append(f"{name}={cost(architecture, board).latency / 1e6}")
    text = run(tmp_path, "calibrate.py", "known", "--mhz", "80", *times)
    (tmp_path / "known.toml").write_text(text)
    found = find_board(str(tmp_path / "known.toml"))
    for name in ("mhz", "conv", "depthwise", "linear"):
        assert getattr(found, name) == pytest.approx(getattr(board, name), rel=0.01)
