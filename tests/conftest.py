"""What all tests share: which nas they test, repeatable hypothesis, few threads."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_runner import at, invoke, place
from hypothesis import HealthCheck, settings

import nas

__all__ = ["at", "invoke", "place"]  # fixtures for all tests of the command line

# Before the first import of torch: several tests at once share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a compiler every training would say so, where tests look at what is said.
if shutil.which(os.environ.get("CC", "cc")) is None:
    os.environ.setdefault("NAS_KERNELS", "0")

# The same examples on every machine: few here, more in .ci/run ("thorough");
# "explore" looks for new ones.
_COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_REPEATABLE = settings(_COMMON, derandomize=True, database=None)
settings.register_profile("repeatable", _REPEATABLE, max_examples=30)
settings.register_profile("thorough", _REPEATABLE, max_examples=100)
settings.register_profile("explore", _COMMON, max_examples=2000)
settings.load_profile("repeatable")

CHECKOUT = Path(__file__).resolve().parent.parent


PLACE = Path(nas.__file__).resolve().parent


def pytest_configure() -> None:
    """Refuse to test the checkout where .ci/run expects the installed nas."""
    if PLACE.is_relative_to(CHECKOUT) and os.environ.get("NAS_EXPECT_INSTALLED"):
        raise pytest.UsageError(f"the tests would test {PLACE}: install nas first")


def pytest_report_header() -> str:
    """Say which nas is tested."""
    return f"nas {nas.__version__} from {PLACE}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, then the long ones.

    A process runs a whole file: one of minutes at the end would leave the others idle.
    """
    slow = Counter(i.path for i in items if i.get_closest_marker("slow") is not None)
    size = Counter(item.path for item in items)
    items.sort(key=lambda item: (-slow[item.path], -size[item.path]))


# How many tests each process left out; under xdist its workers tell.
_left_out: list[int] = []


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember how many slow tests are left out; those of -k and a node id are not."""
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    if items and items[0].config.option.markexpr == "not slow":
        _left_out.append(len(slow) if len(slow) == len(items) else 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of xdist has left out; each has the same."""
    _left_out[:] = [getattr(node, "workeroutput", {}).get("left_out", 0)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell xdist's main process, where this is one of its workers."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = sum(_left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run, and how to run it."""
    if count := sum(_left_out):
        terminalreporter.write_line(
            f'{count} slow tests were left out: pytest -m "" runs all'
        )
