"""Where a program of the system is missing its tests are skipped, or fail in CI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import system_programs
from system_programs import chromium, missing, need, need_kernels, postgres

ASKED: dict[str, tuple[Callable[[], object], str]] = {
    "browser": (chromium, "no chromium here: apt-get install chromium"),
    "database": (postgres, "no PostgreSQL server here: apt-get install postgresql"),
    "emulator": (
        lambda: need("make", "qemu-system-arm", "arm-none-eabi-gcc"),
        (
            "no make, qemu-system-arm, arm-none-eabi-gcc here: apt-get install make "
            "qemu-system-arm gcc-arm-none-eabi"
        ),
    ),
    "compiler": (need_kernels, "no cc here: apt-get install gcc libc6-dev"),
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be on a machine without any program, neither on the PATH nor in its usual place."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(system_programs, "POSTGRES", tmp_path)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", ASKED)
def test_a_missing_program_is_a_skip_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And a failure where the variable asks for that."""
    ask, said = ASKED[name]
    monkeypatch.delenv("NAS_REQUIRE_SYSTEM_PROGRAMS", raising=False)
    with pytest.raises(pytest.skip.Exception) as skipped:
        ask()
    assert str(skipped.value) == said
    monkeypatch.setenv("NAS_REQUIRE_SYSTEM_PROGRAMS", "1")
    with pytest.raises(pytest.fail.Exception) as failed:
        ask()
    assert str(failed.value) == f"{said}, and NAS_REQUIRE_SYSTEM_PROGRAMS is set"


def test_what_is_there_is_no_reason_to_skip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The newest PostgreSQL is taken; a browser by either name."""
    for path in ("9.6/bin/initdb", "15/bin/initdb", "bin/google-chrome", "bin/make"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(system_programs, "POSTGRES", tmp_path)
    assert postgres() == tmp_path / "15" / "bin"
    assert chromium() == str(tmp_path / "bin" / "google-chrome")
    need("make")
    monkeypatch.delenv("NAS_REQUIRE_SYSTEM_PROGRAMS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="this"):
        missing("this")


def test_ci_requires_them_all() -> None:
    """The one place that may leave nothing out says so."""
    run = Path(__file__).parents[1] / ".ci" / "run"
    assert "NAS_REQUIRE_SYSTEM_PROGRAMS=1" in run.read_text()
