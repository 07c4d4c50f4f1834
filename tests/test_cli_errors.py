"""The command line's errors: one line each, exit codes, refusals before any work."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_runner import NEW, Invoke, made_up, save_npz
from studying import environment, make_settings, one_line, run_python

from nas.study.folders import create

# --- bad input --------------------------------------------------------------------


def _few_images(folder: Path) -> list[object]:
    images, labels = np.zeros((6, 8, 8), dtype=np.uint8), np.arange(6) % 2
    path = save_npz(folder / "few.npz", x_train=images, y_train=labels)
    return ["search", "--budget", 2000, "--dataset", path]


def _cut_data(folder: Path) -> list[object]:
    path = save_npz(folder / "cut.npz")
    path.write_bytes(path.read_bytes()[:900])
    return ["search", "--budget", 2000, "--dataset", path]


def _bad_space(folder: Path) -> list[object]:
    (folder / "mine.toml").write_text(
        '[blocks]\ndepth = [5, 3]\nkinds = ["conv"]\nkernel_sizes = [3]\n'
        '[widths]\nmin = 2\nmax = 9\n[downsampling]\ncount = [1, 1]\nkinds = ["max"]\n'
        '[head]\nkinds = ["gap"]\n'
    )
    return [*NEW, "--space", folder / "mine.toml"]


def _corrupt_mnist(folder: Path) -> list[object]:
    (folder / "data").mkdir()
    (folder / "data" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03 cut")
    return ["search", "--budget", 2000, "--data-dir", folder / "data"]


def _no_database(folder: Path) -> list[object]:
    made_up(folder / "studies")
    (folder / "studies" / "made-up" / "journal.log").write_text("Dear diary\n")
    return ["search", "--study", "made-up"]


def _nothing_finished(folder: Path) -> list[object]:
    create(folder / "studies" / "new", make_settings(name="new")).close()
    return ["best", "--device", "cpu", "--workers", 1]


def _studies_is_a_file(folder: Path) -> list[object]:
    (folder / "studies").write_text("")
    return NEW


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
    "too few images": (
        _few_images,
        "with every class in both; give more images, at least six per class",
    ),
    "contradictory TOML": (_bad_space, "mine.toml, line 2"),
    "unknown space": (_just(*NEW, "--space", "mixd"), "did you mean mixed"),
    "impossible cap": (_just(*NEW[:3], "--budget", 9), "at least --budget"),
    "impossible MACs": (_just(*NEW, "--max-macs", 9), "--max-macs"),
    "no database": (_no_database, "no study's journal"),
    "no such device": (_just(*NEW[:-1], "cuda:77"), "no device 'cuda:77'"),
    "nothing finished": (_nothing_finished, "no fully trained candidate"),
    "no budget": (_just("search", "--dataset", "digits"), "give --budget"),
    "no budget of a new study": (
        _just("search", "--study", "x"),
        "there is no study 'x' yet: give --budget",
    ),
    "bad name": (_just(*NEW, "--study", "../x"), "cannot be named"),
    "missing study": (_just("front", "x"), "no study 'x'"),
    "studies is a file": (_studies_is_a_file, "--studies"),
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
    ("arguments", "words"),
    [
        (["search", "--budget", "ten"], "'--budget': give a whole number: see"),
        (["search", "--budget", "0"], "'--budget': give at least 1: see"),
        (["best", "--min-accuracy", "99"], "give at most 1: see"),
        (["best", "--min-accuracy", "high"], "give a number: see"),
        (["search", "--sampler", "grid"], "'grid'"),
        (["search", "--time-limit", "soon"], "soon"),
        (["search", "--no-such-option"], "--no-such-option"),
        (["search", "mnist"], "mnist"),
        (["show"], ""),
        (["show", "x"], "'trial': give a whole number: see"),
        (["serch"], "serch"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    invoke: Invoke, arguments: list[str], words: str
) -> None:
    """The line says what to give, not how it could not be parsed, and where the help is."""
    result = invoke(*arguments)
    assert result.code == 2
    line = one_line(result.err)
    assert re.search(r"see `nas( \w+)? --help`$", line)
    assert words in line
    assert "unable to" not in line


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


# --- what cannot be written -------------------------------------------------------


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
