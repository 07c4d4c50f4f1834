"""Measures the C code on a Cortex-M: cross-compiles it and runs it in an emulator.

This needs Debian's gcc-arm-none-eabi and qemu-system-arm, or equivalents.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.errors import ExportError

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
_BOARDS = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386"}
_NANOSECONDS_A_TICK = 40  # the boards run at 25 MHz; qemu counts 1 ns per instruction
_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of net.c: ``flash`` is code and constants, ``ram`` variables, no stack."""

    flash: int
    ram: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """The output of the emulated processor and its cost.

    ``output`` has one line per image, as ``classify --logits`` prints it. ``stack`` is
    in bytes. ``instructions`` is the count for one image; the emulator has no cycles.
    """

    output: str
    stack: int
    instructions: int


def footprint(files: Mapping[str, str], cpu: str = "cortex-m4") -> Footprint | None:
    """Return the code's footprint on that processor; None without a compiler."""
    if shutil.which(COMPILER) is None or shutil.which("make") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        _write(files, Path(folder))
        text = _run(["make", "-s", "size", f"CPU={cpu}"], Path(folder))
        code, data, zeroed = map(int, text.splitlines()[-1].split()[:3])
    return Footprint(flash=code + data, ram=data + zeroed)


def emulate(
    files: Mapping[str, str],
    images: npt.NDArray[np.uint8],
    cpu: str = "cortex-m4",
) -> Emulated | None:
    """Run the code on uint8 images [N, C, H, W]; None if a tool is missing."""
    if any(shutil.which(tool) is None for tool in (COMPILER, EMULATOR, "make")):
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(files, folder)
        (folder / "images.bin").write_bytes(images.tobytes())
        _run(["make", "-s", "emulate", f"CPU={cpu}", f"BOARD={_BOARDS[cpu]}"], folder)
        stack, ticks = map(int, (folder / "measured.txt").read_text().split())
        return Emulated(
            output=(folder / "output.txt").read_text(),
            stack=stack,
            instructions=ticks * _NANOSECONDS_A_TICK // max(1, len(images)),
        )


def _write(files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # our own Makefile
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{' '.join(command)} took over {_SECONDS:g} s") from error
    if done.returncode != 0:
        raise ExportError(
            f"{' '.join(command)} failed: {' '.join(done.stderr.split())[-500:]}"
        )
    return done.stdout
