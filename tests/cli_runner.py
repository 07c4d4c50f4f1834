"""Running nas inside the tests' own process, and studies for it to read."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studying import finish, make_settings, report_of, run_nas

from nas import cli
from nas.study.folders import create

NEW: list[object] = [
    "search",
    "--dataset",
    "digits",
    "--budget",
    "2000",
    "--device",
    "cpu",
]


@dataclass
class Result:
    """What nas answered."""

    code: int
    out: str
    err: str


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Invoke]:
    """Run nas in this process, which spares the imports, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capfd.readouterr()
        code = caught.value.code
        return Result(code if isinstance(code, int) else 0, out, err)

    yield run
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


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
