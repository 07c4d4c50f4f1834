"""Neural architecture search for tiny image classifiers under a hard parameter cap."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nas.errors import NasError

if TYPE_CHECKING:
    from nas.api.data import Data
    from nas.api.networks import count, train
    from nas.api.study import Study, open_study, search
    from nas.api.trained import Trained, load

__version__ = "0.1.0"
__all__ = [
    "Data",
    "NasError",
    "Study",
    "Trained",
    "count",
    "load",
    "open_study",
    "search",
    "train",
]

_PLACES = {
    "Data": "nas.api.data",
    "Study": "nas.api.study",
    "Trained": "nas.api.trained",
    "count": "nas.api.networks",
    "load": "nas.api.trained",
    "open_study": "nas.api.study",
    "search": "nas.api.study",
    "train": "nas.api.networks",
}


def __getattr__(name: str) -> Any:
    """Load the Python API when it is first asked for: `nas --help` needs no torch."""
    if name not in _PLACES:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    with warnings.catch_warnings():
        # Optuna loads tqdm, which in a notebook wants widgets that nas does not use.
        warnings.filterwarnings("ignore", "IProgress not found")
        value = getattr(import_module(_PLACES[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    """Return the names of the API, loaded or not, and what every module has."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


class _Nas(ModuleType):
    """This module, in which `search` is the function whatever is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        """Leave out the package nas/search, which Python would put here."""
        if not (name == "search" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Nas
