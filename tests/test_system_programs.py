"""Where a program of the system is missing its tests are skipped, but not in CI."""

from __future__ import annotations

from pathlib import Path


def test_ci_requires_them_all() -> None:
    """The one place that may leave nothing out says so."""
    run = Path(__file__).parents[1] / ".ci" / "run"
    assert "NAS_REQUIRE_SYSTEM_PROGRAMS=1" in run.read_text()
