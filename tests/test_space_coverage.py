"""Some hundred draws are under the cap and cover all sizes and options of their space."""

from __future__ import annotations

import pytest
from drawing import CAPS, check_coverage

from nas.space import available


@pytest.mark.parametrize(
    ("name", "cap"),
    [
        pytest.param(
            name,
            cap,
            marks=[] if name == "mixed" or cap == CAPS[2] else pytest.mark.slow,
        )
        for name in available()
        for cap in CAPS
    ],
)
def test_draws_keep_the_cap_and_cover_the_range(name: str, cap: int) -> None:
    """A few hundred draws are all under the cap, in all sizes, depths and kinds."""
    check_coverage(name, cap, range(400))
