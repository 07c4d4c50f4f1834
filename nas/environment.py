"""What a number was measured with: versions and hardware."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from nas import __version__


def versions(*more: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result.

    Of ``more`` packages only those that are installed are in it.
    """
    found = {"nas": __version__, "python": platform.python_version()}
    for package in ("torch", "optuna", "numpy", *more):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package not in more:
                found[package] = "not installed"
    return found


def hardware(devices: list[str]) -> dict[str, Any]:
    """Return the processor, the cores this process may use and the devices' names."""
    names = []
    for device in devices:
        if device.startswith("cuda"):
            import torch  # only where there is a GPU to name

            names.append(torch.cuda.get_device_name(device))
        else:
            names.append(device)
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "devices": names,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
