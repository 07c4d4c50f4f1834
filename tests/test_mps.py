"""NVIDIA's Multi-Process Service: started for the workers, and ended with them.

The program is a script that writes down how it was called; test_gpu.py has the real one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.engines import mps
from nas.errors import EngineError

SCRIPT = """#!/bin/sh
echo "$CUDA_MPS_PIPE_DIRECTORY $1 $(cat)" >> {log}
exit {code}
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a program on the PATH and return the file that it writes to."""
    install(tmp_path, 0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.delenv("NAS_MPS", raising=False)
    return tmp_path / "log"


def install(folder: Path, code: int) -> None:
    """Write the program, which ends with that code."""
    program = folder / "nvidia-cuda-mps-control"
    program.write_text(SCRIPT.format(log=folder / "log", code=code))
    program.chmod(0o755)


def test_it_is_started_in_a_folder_of_its_own_and_ended(log: Path) -> None:
    """Its clients get the folder by their environment; nothing is left behind."""
    service = mps.MultiProcessService()
    pipe = Path(service.environment["CUDA_MPS_PIPE_DIRECTORY"])
    assert pipe.is_dir()
    service.close()
    assert log.read_text().split() == [str(pipe), "-d", str(pipe), "quit"]
    assert not pipe.parent.exists()
    assert service.environment == {}


def test_one_that_does_not_start_is_done_without(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so once; there is nothing to end."""
    install(log.parent, 1)
    service = mps.MultiProcessService()
    assert service.environment == {}
    service.close()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert log.read_text().count("\n") == 1


@pytest.mark.parametrize("name", ["CUDA_MPS_PIPE_DIRECTORY", "NAS_MPS"])
def test_a_users_own_choice_is_left_alone(
    log: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither beside a service that the environment names, nor where it is off."""
    monkeypatch.setenv(name, "0")
    mps.MultiProcessService().close()
    assert not log.exists()
    assert mps.available() == (name != "NAS_MPS")


def test_it_ends_when_its_process_is_killed(log: Path) -> None:
    """Kill -9 leaves no service behind for long."""
    script = (
        "import time; from nas.engines.mps import MultiProcessService;"
        "service = MultiProcessService(); print('up', flush=True); time.sleep(60)"
    )
    path = str(Path(mps.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 30
    while "quit" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.1)
    assert "quit" in log.read_text()


def test_the_environment_says_how_many_programs_share_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At least as many as one program has itself, by a service that they share."""
    monkeypatch.delenv("NAS_GPU_PROCESSES", raising=False)
    assert mps.processes_on_gpu(4) == 4
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setenv("NAS_GPU_PROCESSES", "12")
    with pytest.raises(EngineError, match=r"CUDA_MPS_PIPE_DIRECTORY is not set: start"):
        mps.processes_on_gpu(4)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/run/mps")
    assert mps.processes_on_gpu(4) == 12
    for wrong in ("3", "many", "-16", "²"):
        monkeypatch.setenv("NAS_GPU_PROCESSES", wrong)
        with pytest.raises(EngineError, match=r"NAS_GPU_PROCESSES is .* at least 4"):
            mps.processes_on_gpu(4)
