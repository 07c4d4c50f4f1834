"""The speed benchmarks run, on a few images, and end as they promise."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from studying import environment

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
    """Each row's parts add up, and the table has a line a size and a timing."""
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
