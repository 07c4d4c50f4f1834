"""nas in scripts and notebooks: what an import loads, terminals, interruptions."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from calling import digits
from studying import environment, run_python, run_script

import nas
from nas.engines.local import LocalEngine

# --- what import loads ------------------------------------------------------------


def test_import_nas_loads_nothing_and_knows_its_names() -> None:
    """`nas --help` imports it, too; dir() and an unknown name are as of any module."""
    done = run_python(
        "import sys, nas\n"
        "assert nas.__all__ == [n for n in dir(nas) if not n.startswith('__')]\n"
        "assert not {'torch', 'optuna', 'pandas', 'numpy'} & set(sys.modules)\n"
        "nas.serch\n",
        cwd=Path(__file__).parent,
    )
    assert "\nAttributeError: module 'nas' has no attribute 'serch'" in done.stderr


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("import nas.search.loop", marks=pytest.mark.slow),
        "nas.search",
        pytest.param("nas.train", marks=pytest.mark.slow),
    ],
)
def test_search_is_the_function_whatever_was_imported_first(first: str) -> None:
    """There is a package of that name, which Python would put in its place."""
    done = run_python(
        f"import nas\n{first}\nfrom nas.search.start import Request\n"
        "from nas import search\n"
        "print(search.__module__, nas.search is search, nas.search.__name__)\n",
        cwd=Path(__file__).parent,
    )
    assert done.stdout == "nas.api.study True search\n", done.stderr


@pytest.mark.slow
def test_the_package_is_typed(tmp_path: Path) -> None:
    """py.typed is shipped, and a type checker knows what each function returns."""
    assert (Path(nas.__file__).parent / "py.typed").exists()
    (tmp_path / "script.py").write_text(
        "import nas\n"
        "reveal_type(nas.search('digits', budget=9))\n"
        "reveal_type(nas.search('digits').best().report)\n"
        "reveal_type(nas.count('s0'))\n"
        "nas.search(budgte=9)\n"
    )
    around = Path(nas.__file__).parent.parent
    # mypy finds what is installed, and refuses to be pointed at site-packages.
    checkout = {} if around.name == "site-packages" else {"MYPYPATH": str(around)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "script.py"],
        cwd=tmp_path,
        env=environment() | checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    assert len(found) >= 4, done.stdout
    for line, words in zip(
        found, ["nas.api.study.Study", "dict[str, ", '"int"', '"budgte"'], strict=False
    ):
        assert words in line


# --- scripts ----------------------------------------------------------------------

SCRIPT = """\
import nas

print("once")
study = nas.search("digits", budget=900, trials=2, epochs=1, device="cpu", workers=2)
print(len(study.trials()), study.best(epochs=1, finalists=1, device="cpu", workers=1).report["seeds"])
"""


@pytest.mark.slow
def test_a_plain_script_needs_no_main_guard(tmp_path: Path) -> None:
    """Its workers do not run it anew, and nothing is printed but what it prints."""
    done = run_script(SCRIPT, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("once\n2 1\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("progress", [True, False])
def test_a_terminal_shows_how_it_comes_along(tmp_path: Path, progress: bool) -> None:
    """On stderr, so that stdout stays the script's own; nothing where it is unwanted."""
    (tmp_path / "script.py").write_text(
        "import nas\n"
        f"given = dict(epochs=1, device='cpu', workers=1, progress={progress})\n"
        "study = nas.search('digits', budget=900, trials=1, **given)\n"
        "study.best(finalists=1, **given)\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment() | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    parts = []
    with contextlib.suppress(OSError):  # the other side is closed
        while part := os.read(ours, 65536):
            parts.append(part)
    os.close(ours)
    assert process.communicate(timeout=100)[0] == b""
    assert process.returncode == 0
    text = b"".join(parts).decode()
    if progress:
        assert "1 of 1 trials: 1 complete" in text
        assert re.search(r"winner trial 0 .*: test accuracy \d", text)
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is back
    else:
        assert text == ""


# Where the tests run in the background, the script has inherited that SIGINT is ignored.
INTERRUPTED = """\
import signal
import nas

signal.signal(signal.SIGINT, signal.default_int_handler)
given = dict(budget=900, epochs=2, device="cpu", workers=1, studies="studies")
try:
    nas.search("digits", trials=100_000, **given)
except KeyboardInterrupt as stop:
    print(stop, flush=True)
opened = nas.open_study(studies="studies")
states = opened.trials()["state"].tolist()
done = sum(state in ("complete", "pruned") for state in states)
study = nas.search("digits", trials=done + 1, **given)
print(done, study.outcome, study.trials()["state"].isin(["complete", "pruned"]).sum())
"""


@pytest.mark.slow
def test_an_interrupt_leaves_the_study_in_order(tmp_path: Path) -> None:
    """The same process goes on: nothing is locked, no worker and no trial is left."""
    (tmp_path / "script.py").write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for_a_finished_trial(tmp_path / "studies" / "digits-900", process)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does, and a notebook
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, err
    stopped, ended = out.splitlines()
    done = int(ended.split()[0])
    assert done >= 1
    assert stopped == (
        f"stopped with {done} of 100000 trials finished; resume with the same call"
    )
    assert ended == f"{done} done {done + 1}"
    assert err == ""


def wait_for_a_finished_trial(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the study has a trial that has come to its end."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if (folder / "journal.log").exists():
            trials = nas.open_study(folder.name, studies=folder.parent).trials()
            if (trials["state"] != "running").any():
                return
        time.sleep(0.2)
    pytest.fail("no trial has finished")


def test_an_interrupt_while_workers_start_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a notebook they would live on as long as its kernel."""
    started: list[Any] = []
    start = LocalEngine._start_worker

    def interrupted(engine: LocalEngine, device: str) -> Any:
        if started:
            raise KeyboardInterrupt
        started.append(start(engine, device))
        return started[-1]

    monkeypatch.setattr(LocalEngine, "_start_worker", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LocalEngine(
            digits().dataset, split_seed=0, val_size=240, workers=2, devices=["cpu"]
        )
    assert started[0].process.exitcode is not None
