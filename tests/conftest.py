"""What all tests share: which nas they test, repeatable hypothesis, few threads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_runner import invoke
from hypothesis import HealthCheck, settings

import nas

__all__ = ["invoke"]  # a fixture for all tests of the command line

# Before the first import of torch: several tests at once share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without a compiler every training would say so, where tests look at what is said.
if shutil.which(os.environ.get("CC", "cc")) is None:
    os.environ.setdefault("NAS_KERNELS", "0")

# The same examples on every machine; "explore" looks for new ones.
_COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("repeatable", _COMMON, derandomize=True, database=None)
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
