"""Checks keyword arguments as the command line checks its options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, get_args

from nas.errors import UsageError
from nas.training.report import Metric

# The minimum and maximum of each number, as for the options.
RANGES: dict[str, tuple[float, float]] = {
    "budget": (1, math.inf),
    "trials": (1, math.inf),
    "max_macs": (1, math.inf),
    "max_memory": (1, math.inf),
    "max_flash": (1, math.inf),
    "max_params": (1, math.inf),
    "epochs": (1, 100_000),
    "seed": (0, math.inf),
    "seeds": (1, math.inf),
    "finalists": (1, math.inf),
    "workers": (1, math.inf),
    "min_accuracy": (0, 1),
    "target_accuracy": (0, 1),
    "gpus_per_worker": (0, math.inf),
}
NOT_WHOLE = ("min_accuracy", "target_accuracy", "gpus_per_worker")
CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": ("evolution", "random"),
    "engine": ("local", "ray"),
    "metric": get_args(Metric),
}
FLAGS = ("pruning", "like_published", "progress")
SEARCH_EPOCHS = 10_000
"""The maximum epochs of a search's full training; a single training may have more."""


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, with numpy numbers as Python's, which can be serialised.

    Raises UsageError for the first value that is out of its option's range. None always
    stands for the default. Values without a range are returned unchanged.
    """
    _check(given)
    return {name: _plain(name, value) for name, value in given.items()}


def _plain(name: str, value: Any) -> Any:
    if value is None or name not in RANGES:
        return value
    return float(value) if name in NOT_WHOLE else int(value)


def _check(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value is None:
            continue
        option = f"--{name.replace('_', '-')} {value!r}"
        if name in CHOICES and value not in CHOICES[name]:
            either = " or ".join(map(repr, CHOICES[name]))
            raise UsageError(f"{option} is unknown: give {either}")
        if name in FLAGS and not isinstance(value, bool):
            raise UsageError(f"{option} is neither True nor False")
        if name in RANGES and not _within(name, value):
            least, most = RANGES[name]
            what = "a number" if name in NOT_WHOLE else "a whole number"
            limits = (
                f"of at least {least}" if most == math.inf else f"{least} to {most}"
            )
            raise UsageError(f"{option}: give {what} {limits}")


def _within(name: str, value: Any) -> bool:
    least, most = RANGES[name]
    kind: type = Real if name in NOT_WHOLE else Integral
    is_one = isinstance(value, kind) and not isinstance(value, bool)
    return is_one and bool(least <= value <= most)
