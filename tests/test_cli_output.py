"""What the command line prints: lines, tables, formats."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from cli_runner import NEW, Invoke, made_up
from rich.console import Console
from studying import (
    complete_candidate,
    finish,
    make_settings,
    one_block,
    one_line,
    report_of,
)

from nas.architecture import Architecture
from nas.candidates.candidate import Training
from nas.cli.display import candidate_view
from nas.study.folders import create, read_study
from nas.training import kernels


def test_a_search_prints_plain_lines_where_there_is_no_terminal(place: Path) -> None:
    """One line a trial with its count, then the front and what to do next."""
    text = (place / "search.txt").read_text()
    assert "\x1b" not in text
    counts = re.findall(
        r"^(\d+)/9  trial \d+ (?:complete|pruned)  ", text, re.MULTILINE
    )
    assert [int(count) for count in counts] == list(range(1, 10))
    assert "9 trials finished" in text
    assert "next: `nas best digits-2000`" in text
    files = {path.name for path in (place / "studies" / "digits-2000").iterdir()}
    assert {"study.toml", "journal.log", "front.csv", "front.html"} <= files
    timing = json.loads((place / "studies/digits-2000/timing.json").read_text())
    assert [entry["ended"] for entry in timing] == ["done"]
    assert timing[0]["c_kernels"] is kernels.available()


def test_the_same_search_again_has_nothing_to_do(
    place: Path, at: list[str], invoke: Invoke, tmp_path: Path
) -> None:
    """It ends at once with code 0 and the same front."""
    front = (place / "studies" / "digits-2000" / "front.csv").read_bytes()
    again = invoke(*NEW, "--trials", 9, "--workers", 1, *at)
    assert again.code == 0, again.err
    assert again.err == ""
    assert "9 trials finished" in again.out
    assert (place / "studies" / "digits-2000" / "front.csv").read_bytes() == front
    assert not list(tmp_path.iterdir())


def test_the_front_in_each_format(invoke: Invoke, at: list[str]) -> None:
    """Table, CSV, JSON and Markdown show the same members, smallest first."""
    table = invoke("front", *at)
    comma = invoke("front", *at, "--format", "csv")
    plain = invoke("front", "digits-2000", *at, "--format", "json")
    marks = invoke("front", *at, "--format", "md")
    assert {a.code for a in (table, comma, plain, marks)} == {0}
    assert {a.err for a in (table, comma, plain, marks)} == {""}
    rows = list(csv.DictReader(io.StringIO(comma.out)))
    columns = ["trial", "num_params", "val_accuracy", "macs", "peak_memory", "key"]
    assert list(rows[0])[:6] == columns
    sizes = [int(row["num_params"]) for row in rows]
    assert sizes == sorted(set(sizes))
    assert all(size <= 2000 for size in sizes)
    records = json.loads(plain.out)
    assert [record["key"] for record in records] == [row["key"] for row in rows]
    assert marks.out.splitlines()[0].startswith("| trial | num_params | val_accuracy |")
    assert len(marks.out.splitlines()) == 2 + len(rows)
    for size in sizes:
        assert f"{size:,}" in table.out


def test_all_trials_in_each_format(invoke: Invoke, tmp_path: Path) -> None:
    """Also those that were pruned or failed, with why, their draws and their seconds."""
    made_up(tmp_path / "studies")
    comma = invoke("front", "--all", "--format", "csv")
    plain = invoke("front", "--all", "--format", "json")
    marks = invoke("front", "--all", "--format", "md")
    table = invoke("front", "--all")
    assert {a.code for a in (comma, plain, marks, table)} == {0}
    rows = list(csv.DictReader(io.StringIO(comma.out)))
    assert [row["state"] for row in rows] == ["complete", "pruned", "failed", "running"]
    assert [row["reason"] for row in rows[1:3]] == [
        "it was hopeless",
        "loss became NaN",
    ]
    assert [row["seconds"] for row in rows] == ["0.3", "0.1", "0.0", "0.0"]
    assert {row["metric"] for row in rows} == {"accuracy"}
    for row, record in zip(rows, json.loads(plain.out), strict=True):
        assert json.loads(row["decisions"])["depth"] >= 1
        assert record["num_params"] == int(row["num_params"]) > 0
        assert record["decisions"] == row["decisions"]
        assert f"{record['num_params']:,}" in table.out
    assert "it was hopeless" in marks.out
    assert "hopeless" in table.out


def test_parquet_is_written_or_its_package_named(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what to install where nothing can write it."""

    def write(frame: pd.DataFrame, file: io.BytesIO, *, index: bool) -> None:
        assert not index
        file.write(b"PAR1" + bytes(len(frame)))

    made_up(tmp_path / "studies")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", write)
    found = invoke("front", "--all", "--format", "parquet")
    assert (found.code, found.out) == (0, "PAR1" + "\0" * 4)

    def missing(*_: object, **__: object) -> None:
        raise ImportError

    monkeypatch.setattr(pd.DataFrame, "to_parquet", missing)
    refused = invoke("front", "--all", "--format", "parquet")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "pip install pyarrow" in refused.err


def test_the_front_of_a_study_without_one(invoke: Invoke, tmp_path: Path) -> None:
    """Said in words, or as an empty table in the other formats."""
    create(tmp_path / "studies" / "new", make_settings(name="new")).close()
    assert "no fully trained candidate in new yet" in invoke("front").out
    assert invoke("front", "--format", "json").out == "[]\n"
    assert len(invoke("front", "--format", "csv").out.splitlines()) == 1
    assert len(invoke("front", "--format", "md").out.splitlines()) == 2


def test_show_prints_layers_costs_and_curve(
    invoke: Invoke, place: Path, at: list[str]
) -> None:
    """The totals are those of the candidate, the curve has all its reports."""
    candidate = read_study(place / "studies" / "digits-2000").candidate(0)
    result = invoke("show", 0, *at)
    assert result.code == 0
    assert f"{candidate.num_params:,}" in result.out
    assert f"{candidate.macs:,}" in result.out
    assert candidate.key in result.out
    for report in candidate.curve:
        assert f"{100 * report.val_accuracy:.2f} %" in result.out


def test_show_prints_the_longer_trainings_too(invoke: Invoke, at: list[str]) -> None:
    """The accuracy that the front has is among the curves, under its training's length."""
    best = json.loads(invoke("front", "--format", "json", *at).out)[0]
    shown = invoke("show", best["trial"], *at).out
    assert f"{best['epochs']:g} epochs" in shown
    assert f"{100 * best['val_accuracy']:.2f} %" in shown


def test_curves_name_the_second_seed() -> None:
    """Two trainings of one length can be told apart; the name stands once a curve."""
    found = replace(
        complete_candidate(0, one_block(4), 0.9),
        trainings=tuple(
            Training(trial=0, epochs=9, seed_number=n, curve=(report_of(0, 0.95),))
            for n in (1, 0)
        ),
    )
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as shown:
        console.print(candidate_view(found))
    for name in ("screening", "9 epochs  ", "9 epochs, seed 2"):
        assert shown.get().count(name) == 1, name
    assert shown.get().index("9 epochs  ") < shown.get().index("9 epochs, seed 2")


def test_show_as_json_has_all_that_is_known(invoke: Invoke, tmp_path: Path) -> None:
    """The layers add up to the costs; the curve and the decision's outcome are there."""
    made_up(tmp_path / "studies")
    found = invoke("show", 0, "--format", "json", "--board", "esp32")
    assert (found.code, found.err) == (0, "")
    record = json.loads(found.out)
    assert (record["state"], record["val_accuracy"]) == ("complete", 0.7)
    assert (record["metric"], record["seconds"]) == ("accuracy", 0.3)
    for name in ("num_params", "macs", "latency_ms"):
        total = sum(layer[name] for layer in record["layers"])
        assert total == pytest.approx(record[name]), name
    assert record["flash"] > 0
    assert [rung["val_accuracy"] for rung in record["curve"]] == [0.5, 0.6, 0.7]
    net = Architecture.from_dict(record["architecture"])
    assert net.key == record["key"]
    assert json.loads(invoke("show", 2, "--format", "json").out)["reason"] == (
        "loss became NaN"
    )


def test_show_tells_why_a_candidate_ended(invoke: Invoke, tmp_path: Path) -> None:
    """The reason of a pruned and of a failed one, and the state of all."""
    made_up(tmp_path / "studies")
    answers = [invoke("show", trial).out for trial in range(4)]
    for result, state in zip(
        answers, ["complete", "pruned", "failed", "running"], strict=True
    ):
        assert state in result
    assert "pruned: it was hopeless" in answers[1]
    assert "failed: loss became NaN" in answers[2]


def test_studies_as_json_and_as_a_table(invoke: Invoke, tmp_path: Path) -> None:
    """Name, the four counts and the cap; nothing of it where there is none."""
    assert invoke("studies", "--format", "json").out == "[]\n"
    assert "no studies in studies" in invoke("studies").out
    made_up(tmp_path / "studies")
    result = invoke("studies", "--format", "json")
    expected = {"complete": 1, "pruned": 1, "failed": 1, "running": 1, "budget": 2000}
    assert json.loads(result.out) == [{"name": "made-up"} | expected]
    assert "made-up" in invoke("studies").out


def test_a_damaged_study_is_named_among_the_others(
    invoke: Invoke, tmp_path: Path
) -> None:
    """The others are listed on stdout, the damaged one has its line on stderr."""
    made_up(tmp_path / "studies", "good")
    (made_up(tmp_path / "studies", "bad") / "journal.log").write_text("no\njournal\n")
    result = invoke("studies", "--format", "json")
    assert [row["name"] for row in json.loads(result.out)] == ["good"]
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("bad: ")


def test_a_study_in_a_database(invoke: Invoke, tmp_path: Path) -> None:
    """--storage takes any storage that Optuna knows, for reading, too."""
    url = f"sqlite:///{tmp_path}/trials.db"
    with create(tmp_path / "studies" / "far", make_settings(name="far"), url) as study:
        study.ask()
        finish(study, 0, [0.5, 0.6, 0.7])
    assert (
        len(json.loads(invoke("front", "--format", "json", "--storage", url).out)) == 1
    )
    assert "--storage" in one_line(invoke("front").err)
