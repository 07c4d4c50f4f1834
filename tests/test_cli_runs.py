"""The command line at work: disks, pipes, terminals, time limits, interruptions."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_runner import NEW, Invoke, made_up, save_npz
from studying import (
    FakeEngine,
    big_study,
    command,
    environment,
    make_settings,
    one_line,
    run_nas,
    run_python,
)
from system_programs import need

from nas.api import searching
from nas.api.progress import Display
from nas.search.retraining import ProgressEvent
from nas.study.folders import create, read_study
from nas.study.study import Study

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


@pytest.mark.slow
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
        searching.search_and_draw(study, FakeEngine(), 20, None, None, None, Display())
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


# --- searches and trainings -------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
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
