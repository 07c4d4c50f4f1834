"""The command line: one line for each error, exit codes, formats, speed, terminals."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_runner import Invoke
from studying import (
    FakeEngine,
    big_study,
    command,
    environment,
    finish,
    make_settings,
    one_line,
    report_of,
    run_nas,
    run_python,
)
from system_programs import need

from nas.api import searching
from nas.api.progress import NoDisplay
from nas.architecture import Architecture
from nas.search.retraining import ProgressEvent
from nas.study.folders import create, read_study
from nas.study.study import Study
from nas.training import kernels

NEW: list[object] = [
    "search",
    "--dataset",
    "digits",
    "--budget",
    "2000",
    "--device",
    "cpu",
]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a finished study of the digits, searched by nas itself."""
    folder = tmp_path_factory.mktemp("finished")
    done = run_nas(
        *NEW, "--trials", 9, "--epochs", 2, "--workers", 1, "--seed", 1, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    (folder / "search.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def at(place: Path) -> list[str]:
    """Return the options that name the finished study's folder."""
    return ["--studies", str(place / "studies")]


def made_up(studies: Path, name: str = "made-up") -> Path:
    """Write a study with one candidate in each state."""
    with create(studies / name, make_settings(name=name)) as study:
        for _ in range(4):
            study.ask()
        finish(study, 0, [0.5, 0.6, 0.7])
        study.record(1, report_of(0, 0.125))
        study.tell(1, "pruned", "it was hopeless")
        study.tell(2, "failed", "loss became NaN")
    return studies / name


# --- what it prints ---------------------------------------------------------------


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


# --- bad input --------------------------------------------------------------------


def save_npz(path: Path, **changed: Any) -> Path:
    """Write a data set of noise with 40 images of two classes."""
    random = np.random.default_rng(0)
    plain: dict[str, Any] = {
        "x_train": random.integers(0, 256, (40, 8, 8), dtype=np.uint8),
        "y_train": np.arange(40) % 2,
        "x_test": random.integers(0, 256, (4, 8, 8), dtype=np.uint8),
        "y_test": np.arange(4) % 2,
    }
    np.savez(path, **plain | changed)
    return path


def _bad_data(name: str, **changed: Any) -> Callable[[Path], list[object]]:
    def prepare(folder: Path) -> list[object]:
        path = save_npz(folder / f"{name}.npz", **changed)
        return ["search", "--budget", 2000, "--dataset", path]

    return prepare


def _cut_data(folder: Path) -> list[object]:
    path = save_npz(folder / "cut.npz")
    path.write_bytes(path.read_bytes()[:900])
    return ["search", "--budget", 2000, "--dataset", path]


def _bad_space(text: str) -> Callable[[Path], list[object]]:
    def prepare(folder: Path) -> list[object]:
        (folder / "mine.toml").write_text(text)
        return [*NEW, "--space", folder / "mine.toml"]

    return prepare


def _corrupt_mnist(folder: Path) -> list[object]:
    (folder / "data").mkdir()
    (folder / "data" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03 cut")
    return ["search", "--budget", 2000, "--data-dir", folder / "data"]


def _no_database(folder: Path) -> list[object]:
    made_up(folder / "studies")
    (folder / "studies" / "made-up" / "journal.log").write_text("Dear diary\n")
    return ["search", "--study", "made-up"]


def _damaged_settings(folder: Path) -> list[object]:
    made_up(folder / "studies")
    (folder / "studies" / "made-up" / "study.toml").write_text("name = ")
    return ["front", "made-up"]


def _other_settings(folder: Path) -> list[object]:
    made_up(folder / "studies")
    return ["search", "--study", "made-up", "--seed", 5]


def _nothing_finished(folder: Path) -> list[object]:
    create(folder / "studies" / "new", make_settings(name="new")).close()
    return ["best", "--device", "cpu", "--workers", 1]


def _studies_is_a_file(folder: Path) -> list[object]:
    (folder / "studies").write_text("")
    return NEW


def _two_studies(folder: Path) -> list[object]:
    made_up(folder / "studies", "one")
    made_up(folder / "studies", "two")
    return ["front"]


def _just(*arguments: object) -> Callable[[Path], list[object]]:
    return lambda _: list(arguments)


BAD = {
    "unknown data set": (_just("search", "--budget", 9, "--dataset", "mnits"), "mnist"),
    "missing data": (
        _just("search", "--budget", 9, "--data-dir", "nowhere"),
        "nowhere is not there",
    ),
    "missing file": (_just("search", "--budget", 9, "--dataset", "x.npz"), "x.npz"),
    "corrupt mnist": (_corrupt_mnist, "train-images-idx3-ubyte"),
    "cut data": (_cut_data, "cut.npz"),
    "missing array": (
        _bad_data("part", y_test=np.array([], dtype=np.int64)),
        "labels",
    ),
    "one class": (_bad_data("one", y_train=np.zeros(40, dtype=int)), "one class"),
    "class gap": (_bad_data("gap", y_train=np.arange(40) % 2 * 2), "label 1"),
    "wrong image shape": (
        _bad_data("shape", x_test=np.zeros((4, 9, 9), dtype=np.uint8)),
        "8x8",
    ),
    "too few images": (
        _bad_data(
            "few",
            x_train=np.zeros((6, 8, 8), dtype=np.uint8),
            y_train=np.arange(6) % 2,
        ),
        "of each of the 2 classes; give more images, at least six per class",
    ),
    "malformed TOML": (_bad_space("[blocks]\ndepth = = 1\n"), "line 2"),
    "contradictory TOML": (
        _bad_space(
            '[blocks]\ndepth = [5, 3]\nkinds = ["conv"]\nkernel_sizes = [3]\n'
            '[widths]\nmin = 2\nmax = 9\n[downsampling]\ncount = [1, 1]\nkinds = ["max"]\n'
            '[head]\nkinds = ["gap"]\n'
        ),
        "mine.toml, line 2",
    ),
    "unknown space": (_just(*NEW, "--space", "mixd"), "did you mean mixed"),
    "impossible cap": (_just(*NEW[:3], "--budget", 9), "at least --budget"),
    "impossible MACs": (_just(*NEW, "--max-macs", 9), "--max-macs"),
    "impossible memory": (_just(*NEW, "--max-memory", 9), "--max-memory"),
    "other settings": (_other_settings, "seed 0 -> 5"),
    "no database": (_no_database, "no study's journal"),
    "damaged settings": (_damaged_settings, "study.toml is damaged"),
    "no such device": (_just(*NEW[:-1], "cuda:77"), "no device 'cuda:77'"),
    "strange device": (_just(*NEW[:-1], "tpu"), "no device 'tpu'"),
    "nothing finished": (_nothing_finished, "no fully trained candidate"),
    "no budget": (_just("search", "--dataset", "digits"), "give --budget"),
    "bad name": (_just(*NEW, "--study", "../x"), "cannot be named"),
    "missing study": (_just("front", "x"), "no study 'x'"),
    "no studies": (_just("front"), "no studies in studies"),
    "which study": (_two_studies, "Give one of one, two"),
    "studies is a file": (_studies_is_a_file, "--studies"),
    "bad storage": (_just(*NEW, "--storage", "foo"), "--storage"),
    "missing driver": (_just(*NEW, "--storage", "oracle://a/b"), "--storage"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_code_1(
    invoke: Invoke, tmp_path: Path, case: str
) -> None:
    """The line says what is wrong; what was on the disk is as it was."""
    prepare, phrase = BAD[case]
    arguments = prepare(tmp_path)
    before = _contents(tmp_path)
    result = invoke(*arguments)
    assert result.code == 1, result.err
    assert phrase in one_line(result.err)
    assert result.out == ""
    assert {path: _contents(tmp_path).get(path) for path in before} == before
    # Whatever was refused, no study was begun: neither a folder nor a lock is left.
    begun = {path.parent for path in tmp_path.rglob(".lock")}
    assert all((folder / "study.toml").exists() for folder in begun)
    assert not [p for p in tmp_path.rglob("*") if p.is_dir() and not any(p.iterdir())]


def _contents(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--budget", "0"],
        ["search", "--budget", "ten"],
        ["search", "--trials", "0"],
        ["search", "--epochs", "0"],
        ["search", "--workers", "0"],
        ["search", "--seed", "-1"],
        ["search", "--sampler", "grid"],
        ["search", "--time-limit", "soon"],
        ["search", "--time-limit", "0m"],
        ["search", "--no-such-option"],
        ["search", "mnist"],
        ["best", "--min-accuracy", "99"],
        ["best", "--seeds", "0"],
        ["front", "--format", "xml"],
        ["show"],
        ["show", "x"],
        ["serch"],
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    invoke: Invoke, arguments: list[str]
) -> None:
    """The line says what is wrong and where the help is."""
    result = invoke(*arguments)
    assert result.code == 2
    assert re.search(r"see `nas( \w+)? --help`$", one_line(result.err))


def test_nas_alone_shows_the_help(invoke: Invoke) -> None:
    """With the code of wrong usage, for there is nothing that it did."""
    result = invoke()
    assert result.code == 2
    assert "Usage: nas" in result.out
    assert result.err == ""


def test_an_unknown_trial_is_an_error(invoke: Invoke, at: list[str]) -> None:
    """With the numbers that there are."""
    result = invoke("show", 99, *at)
    assert result.code == 1
    assert "its trials are 0 to " in one_line(result.err)


def test_a_bug_leaves_its_traceback_in_a_file_that_the_line_names(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 3; nobody but the one who mends it has to read a traceback."""

    def broken(*_: object) -> None:
        raise RuntimeError("unheard of\nin two lines")

    monkeypatch.setattr("nas.study.folders.overview", broken)
    result = invoke("studies")
    assert result.code == 3
    named = re.search(r"report it with (\S+)$", one_line(result.err))
    assert named
    assert "unheard of" in Path(named[1]).read_text()
    assert Path(named[1]).is_relative_to(tmp_path)


def test_a_bug_without_a_place_for_its_traceback(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it goes to stderr, the line last."""
    monkeypatch.setattr("nas.study.folders.overview", lambda *_: 1 / 0)
    (tmp_path / "state").write_text("in the way")
    result = invoke("studies")
    assert result.code == 3
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("nas: a bug in nas: ZeroDivision")


def test_an_interruption_is_code_130(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any command."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.study.folders.overview", interrupted)
    result = invoke("studies")
    assert result.code == 130
    assert one_line(result.err) == "nas: interrupted"


def test_an_import_ends_before_an_interruption_does(tmp_path: Path) -> None:
    """In the midst of it an exception could abort the process, from torch's C++."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(0.3)\n"
        "print('loaded', flush=True)\n"
    )
    code = (
        "import sys, time\n"
        "from nas.cli import handler\n"
        "sys.path.insert(0, '.')\n"
        "def app(**_):\n"
        "    import slow\n"
        "    time.sleep(20)\n"
        "handler.run(app)"
    )
    result = run_python(code, cwd=tmp_path)
    assert result.returncode == 130
    assert result.stdout == "loaded\n"
    assert one_line(result.stderr) == "nas: interrupted"


def test_a_search_stopped_while_its_workers_start_says_how_to_go_on(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take seconds; the study is there already."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.api.workers.LocalEngine", interrupted)
    result = invoke(*NEW)
    assert result.code == 130
    assert one_line(result.err) == (
        "nas: stopped with 0 of 200 trials finished; resume with the same command"
    )


def test_a_dashboard_stopped_before_it_serves_is_no_error(
    invoke: Invoke, at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is how it ends, from the moment that it has told its address."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.dashboard.server.webbrowser.open", interrupted)
    result = invoke("dashboard", "--port", 0, "--open", *at)
    assert result.code == 0
    assert "dashboard at http://127.0.0.1:" in result.out
    assert result.err == ""


def test_nas_runs_as_a_module(tmp_path: Path) -> None:
    """`python -m nas`, with the same name in its messages."""
    done = subprocess.run(
        [sys.executable, "-m", "nas", "front"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("nas: ")


# --- disks ------------------------------------------------------------------------


_SEVERAL = """
import shlex, subprocess, sys
from nas.cli import main
for line in sys.argv[1:]:
    sys.stdout.flush()
    if line.startswith("$ "):
        subprocess.run(line[2:], shell=True, check=True)
        continue
    sys.argv = ["nas", *shlex.split(line)]
    try:
        main()
    except SystemExit as end:
        print("code", end.code)
"""


def on_disk(
    options: str, folder: Path, *lines: str
) -> subprocess.CompletedProcess[str]:
    """Run commands of nas, and of the shell after "$ ", on a small disk of their own.

    It is mounted at ``folder`` in a namespace that goes with the process.
    """
    need("unshare", "mount")
    folder.mkdir()
    maps = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && cd "$2" && shift 2 && exec "$@"'
    python = [sys.executable, "-c", _SEVERAL, *lines]
    return subprocess.run(
        [
            "unshare",
            "--mount",
            *maps,
            "sh",
            "-c",
            script,
            "sh",
            options,
            folder,
            *python,
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def codes_of(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the exit codes of the commands."""
    return re.findall(r"^code (\d+)$", result.stdout, re.MULTILINE)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """On a real disk of 160 kB the search stops; with room again it goes on."""
    search = " ".join(
        [*map(str, NEW), "--epochs 1 --sampler random --workers 1 --trials 3"]
    )
    result = on_disk(
        "size=160k",
        tmp_path / "disk",
        search,
        f"$ cp -r studies {tmp_path}/full; mount -o remount,size=9m .",
        search,
        f"$ cp -r studies {tmp_path}/roomy",
    )
    assert codes_of(result) == ["1", "0"], result
    assert "o space left on device" in one_line(result.stderr)
    full = read_study(tmp_path / "full" / "digits-2000").candidates()
    done = [c for c in full if c.state in {"complete", "pruned"}]
    assert len(done) == 1
    roomy = read_study(tmp_path / "roomy" / "digits-2000").candidates()
    assert [c for c in roomy if c.trial == done[0].trial] == done
    assert [c.state for c in roomy] == ["complete"] * 3


def test_a_read_only_disk(tmp_path: Path) -> None:
    """A search there is refused with one line, new or old; reading goes on working."""
    source = made_up(tmp_path / "source" / "studies").parents[1]
    result = on_disk(
        "size=9m",
        tmp_path / "disk",
        f"$ cp -r {source}/. . && mount -o remount,ro .",
        " ".join(map(str, NEW)),
        "search --study made-up --device cpu",
        "front --format csv",
        "show 0",
    )
    assert codes_of(result) == ["1", "1", "0", "0"], result
    errors = result.stderr.splitlines()
    assert len(errors) == 2, errors
    assert all("ead-only file system" in line for line in errors), errors


# --- processes and terminals ------------------------------------------------------


def least_time(times: int, *arguments: object, cwd: Path) -> float:
    """Return the least processor time that nas took of so many times, in seconds.

    On a machine with nothing else to do that is the time on the clock, or more.
    """
    spent = []
    for _ in range(times):
        before = os.times()
        assert run_nas(*arguments, cwd=cwd).returncode == 0
        after = os.times()
        spent.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    return min(spent)


def test_help_is_fast(tmp_path: Path) -> None:
    """Under 0.4 seconds, the best of five."""
    assert least_time(5, "--help", cwd=tmp_path) < 0.4


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    """Neither torch nor optuna, pandas, plotly, sklearn or numpy."""
    code = (
        "import sys\nfrom nas.cli import main\n"
        f"sys.argv = ['nas', *{arguments}]\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'optuna', 'pandas', 'plotly', 'sklearn', 'numpy'}\n"
        "    print('LOADED', *(heavy & set(sys.modules)))"
    )
    result = run_python(code, cwd=tmp_path)
    assert result.stdout.splitlines()[-1].strip() == "LOADED", result.stderr


@pytest.mark.slow
def test_the_front_of_a_thousand_trials_is_fast(tmp_path: Path) -> None:
    """Under two seconds, the best of three, as a table and as CSV."""
    big_study(tmp_path / "studies" / "big", 1000)
    assert least_time(3, "front", cwd=tmp_path) < 2
    assert least_time(3, "front", "--format", "csv", cwd=tmp_path) < 2


def test_a_reader_that_has_enough_is_no_error(place: Path) -> None:
    """`nas ... | head -1` ends without a traceback."""
    first = subprocess.run(  # noqa: S602  # the pipe is what is tested
        "for c in 'front --format json' front 'show 0' studies; do"
        f' {sys.executable} -c "$NAS" $c | head -1; done',
        shell=True,
        cwd=place,
        env=environment(NAS="from nas.cli import main; main()"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert first.stderr == ""
    assert len(first.stdout.splitlines()) == 4


def test_a_pipe_that_is_closed_already_is_no_error(place: Path) -> None:
    """Not one line is taken, and there is no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        command("front", "--format", "json"),
        cwd=place,
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert process.returncode in {1, 141}


def test_a_terminal_gets_one_live_display(tmp_path: Path) -> None:
    """Counts, pace and the front are redrawn in place; the end stays readable."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*NEW, "--epochs", 1, "--trials", 4, "--workers", 1),
        cwd=tmp_path,
        env=environment(TERM="xterm", COLUMNS="100", LINES="30"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        text = _read_all(ours)
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert "of 4 trials: " in text
    assert "trials a minute" in text
    assert "\x1b[" in text
    assert "\x1b[2K" in text  # a line is cleared to be drawn anew
    assert not re.search(r"^4/4  trial", text, re.MULTILINE)
    assert "4 trials finished" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 20), (0.2, 1)])
def test_the_front_is_written_no_more_often_than_it_may_take_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, times: int
) -> None:
    """Where one writing takes long the next one comes much later, by a made-up clock."""
    clock = itertools.count(0.0, 0.01)  # so long takes all else
    written: list[Study] = []
    monkeypatch.setattr(searching, "_SECONDS_BETWEEN_FRONTS", 0.0)
    monkeypatch.setattr(searching, "draw", written.append)
    monkeypatch.setattr(
        searching,
        "time",
        SimpleNamespace(monotonic=lambda: next(clock) + seconds * len(written)),
    )
    monkeypatch.setattr(searching, "_SHARE_OF_FRONTS", 0.02 if seconds else 1.0)
    settings = make_settings(pruning=None)
    with create(tmp_path / "small", settings) as study:
        searching.search_and_draw(
            study, FakeEngine(), 20, None, None, None, NoDisplay()
        )
    assert len(written) == times


def _read_all(terminal: int) -> str:
    parts = []
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode(errors="replace")


def test_the_start_of_the_workers_is_no_trial(invoke: Invoke) -> None:
    """A limit shorter than the time in which torch is loaded harms nobody."""
    arguments = [*NEW, "--trials", 2, "--epochs", 1, "--workers", 1]
    done = invoke(*arguments, "--trial-time-limit", "1s")
    assert done.code == 0, done.err
    assert "2 trials finished" in done.out


@pytest.mark.slow
def test_a_time_limit_ends_with_code_0_and_says_how_to_go_on(tmp_path: Path) -> None:
    """What was finished is kept, the rest waits for the same command."""
    began = time.monotonic()
    done = run_nas(
        *NEW, "--trials", 100_000, "--epochs", 1, "--time-limit", "7s", "--workers", 1,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60
    assert "the time is up; resume with the same command" in done.stdout
    assert read_study(tmp_path / "studies" / "digits-2000").candidates()


def _no_folder(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "out"


def _report_is_a_folder(folder: Path) -> Path:
    (folder / "out" / "report.json").mkdir(parents=True)
    return folder / "out"


def _unfinished_is_a_file(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "unfinished").touch()
    return folder / "out"


@pytest.mark.parametrize("command", ["best", "best and export", "train"])
@pytest.mark.parametrize(
    "output", [_no_folder, _report_is_a_folder, _unfinished_is_a_file]
)
def test_an_output_that_cannot_be_written_is_refused_first(
    invoke: Invoke,
    at: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    output: Callable[[Path], Path],
) -> None:
    """No worker is started, nothing read, and nothing is left behind."""
    monkeypatch.setattr("nas.engines.local.LocalEngine.__init__", _never)
    place = output(tmp_path)
    before = _contents(tmp_path)
    arguments = ["train", "digits-2000:0"] if command == "train" else ["best"]
    if "export" in command:
        arguments += ["--export", "c"]
    answer = invoke(*arguments, *at, "--device", "cpu", "-o", place)
    assert answer.code == 1
    assert re.match(f"nas: cannot write {re.escape(str(place))}.*: ", answer.err)
    assert len(answer.err.splitlines()) == 1
    assert _contents(tmp_path) == before


def _never(*_: object, **__: object) -> None:
    raise AssertionError("workers were started")


def test_an_export_that_cannot_be_written_is_refused_before_the_winner_trains(
    invoke: Invoke, at: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The winner's folder is fine, that of the export is a file."""
    monkeypatch.setattr("nas.engines.local.LocalEngine.__init__", _never)
    (tmp_path / "c").touch()
    answer = invoke("best", *at, "--device", "cpu", "-o", tmp_path, "--export", "c")
    assert answer.err.startswith(f"nas: cannot write {tmp_path}/c: "), answer.err


@pytest.mark.parametrize("name", ["front.csv", "front.html", "timing.json"])
def test_a_search_refuses_first_what_it_could_not_write(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its pictures and its times are refused before a worker is started."""
    monkeypatch.setattr("nas.engines.local.LocalEngine.__init__", _never)
    (tmp_path / "studies" / "digits-2000" / name).mkdir(parents=True)
    answer = invoke(*NEW)
    assert answer.code == 1
    assert f"digits-2000/{name}: Is a directory: move the folder" in answer.err


def test_every_command_finds_the_data_from_another_folder(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study was begun where the data lies; so was the winner."""
    (tmp_path / "elsewhere").mkdir()
    save_npz(tmp_path / "mine.npz")
    few = ["--device", "cpu", "--workers", 1, "--epochs", 1]
    search = ["search", "--dataset", "mine.npz", "--budget", 900, "--trials", 2]
    assert invoke(*search, *few).code == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    at = ["--studies", "../studies"]
    for arguments in (
        ["best", *at, *few],
        ["train", "mine-900:0", *at, *few],
        ["export", "mine-900", *at, "--to", "c"],
    ):
        answer = invoke(*arguments)
        assert answer.code == 0, answer.err
        # Where there is no terminal, each training is one line at its end.
        lines = re.findall(r"^ +\d+ s  (\w+)", answer.out, re.MULTILINE)
        assert len(lines) == {"best": 3, "train": 1, "export": 0}[arguments[0]]
    (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    assert "new path with --dataset" in invoke("best", *at, *few).err
    answer = invoke("best", *at, *few, "--dataset", "../moved.npz", "--export", "c")
    assert answer.code == 0, answer.err


def test_best_goes_on_after_an_interruption(
    invoke: Invoke, at: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had ended is kept and said, and not trained again."""
    shown: list[ProgressEvent] = []

    def show(_: object, event: ProgressEvent) -> None:
        shown.append(event)
        if event.stage == "winner" and len({e.seed for e in shown}) == limit:
            raise KeyboardInterrupt

    monkeypatch.setattr("nas.api.progress.LineDisplay.show", show)
    arguments = ["best", *at, "--device", "cpu", "--workers", 1, "--epochs", 3]
    arguments += ["--finalists", 1, "--seeds", 2, "-o", tmp_path / "out"]
    limit = 3  # one finalist, and the first report of the winner's second seed
    stopped = invoke(*arguments)
    assert stopped.code == 130
    assert "stopped; 2 finished trainings are kept in " in stopped.err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["unfinished"]
    shown.clear()
    limit = 99
    done = invoke(*arguments)
    assert done.code == 0, done.err
    assert done.out.startswith("2 trained before in ")
    assert len(shown) == 8  # of what was kept its last report and its end
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("architecture.json", "model.py", "report.json", "weights.safetensors")
    }


def test_best_exports_what_it_wrote(
    at: list[str], invoke: Invoke, tmp_path: Path
) -> None:
    """Each format lies beside the winner; an unknown one is refused before training."""
    done = invoke("best", *at, "--export", "pdf")
    assert (done.code, "unknown format 'pdf'" in one_line(done.err)) == (1, True)
    folder = tmp_path / "winner"
    options = ("--finalists", 1, "--epochs", 1, "--workers", 1, "--device", "cpu")
    exports = ("--export", "c", "--export", "onnx")
    done = invoke("best", *at, *options, *exports, "--output", folder)
    assert done.code == 0, done.err
    for name in ("c", "onnx"):
        report = json.loads((folder / name / "export.json").read_text())
        best = json.loads((folder / "report.json").read_text())
        assert report["test_accuracy_float"] == pytest.approx(
            best["test_accuracy_mean"]
        )
        assert f"written to {folder / name}" in done.out
