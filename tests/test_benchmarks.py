"""The speed benchmarks run, on a few images, and end as they promise."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from studying import environment

from nas.architecture import Architecture, Block, Head
from nas.architecture.boards import Board, find_board
from nas.architecture.cost import cost
from nas.export import write_best
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
        architecture = Architecture(
            input_shape=(1, 28, 28), num_classes=10, blocks=blocks, head=head
        )
        write_best(
            tmp_path / name,
            architecture,
            build(architecture, seed=0).state_dict(),
            {},
            mean=[0.1],
            std=[0.3],
            class_names=list("0123456789"),
        )
        times.append(f"{name}={cost(architecture, board).latency / 1e6}")
    text = run(tmp_path, "calibrate.py", "known", "--mhz", "80", *times)
    (tmp_path / "known.toml").write_text(text)
    found = find_board(str(tmp_path / "known.toml"))
    for name in ("mhz", "conv", "depthwise", "linear"):
        assert getattr(found, name) == pytest.approx(getattr(board, name), rel=0.01)
