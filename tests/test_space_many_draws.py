"""Thousands of draws are under the cap, and cover all that the space offers."""

from __future__ import annotations

import pytest
from drawing import CAPS, check_coverage


@pytest.mark.slow
# test_space_coverage draws the first 400.
@pytest.mark.parametrize("first", range(400, 4_000, 900))
@pytest.mark.parametrize("cap", CAPS)
def test_thousands_of_draws_keep_the_cap(cap: int, first: int) -> None:
    """Draws of the default space, which holds all that the others do.

    benchmarks/draws.py draws ten thousand for every space and cap.
    """
    check_coverage("mixed", cap, range(first, first + 900))
