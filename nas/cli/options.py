"""Shared code of several commands: options, the console, opening a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, BadParameter, Option

# Not imported at run time, so that `nas --help` works without torch.
if TYPE_CHECKING:
    from nas.study.study import Study

StudyName = Annotated[
    str | None,
    Argument(help="Name of the study; optional if there is only one."),
]
ArchitectureName = Annotated[
    str,
    Argument(
        metavar="NAME|FILE|STUDY:TRIAL",
        help="Name of a bundled reference, a .toml file or architecture.json, or "
        "a candidate as STUDY:TRIAL.",
    ),
]
MaxMacs = Annotated[
    int | None, Option(min=1, help="Hard cap: multiply-accumulates per image.")
]
MaxMemory = Annotated[
    int | None,
    Option(min=1, help="Hard cap: peak activation memory in bytes, as int8."),
]
MaxFlash = Annotated[
    int | None,
    Option(
        min=1,
        help="Hard cap: flash in bytes, for the C code and its weights on a Cortex-M.",
    ),
]
MaxLatency = Annotated[
    str | None,
    Option(
        metavar="BOARD=MS",
        help="Hard cap: estimated milliseconds per image on a board (esp32, "
        "nrf52840 or a .toml file).",
    ),
]
BoardName = Annotated[
    str | None,
    Option(
        "--board",
        metavar="NAME|FILE",
        help="Also show flash and the latency on this board: esp32, nrf52840 or "
        "a .toml file.",
    ),
]
Studies = Annotated[
    Path,
    Option("--studies", envvar="NAS_STUDIES", help="Folder that holds the studies."),
]
Storage = Annotated[
    str | None,
    Option(
        envvar="NAS_STORAGE",
        metavar="URL",
        help="Database of the trials, such as postgresql://USER@HOST/DB [default: a "
        "journal in the study's folder].",
    ),
]
DataDir = Annotated[
    Path | None,
    Option(help="Folder with the data set's files [env var: NAS_DATA_DIR]."),
]
ImageSize = Annotated[
    str | None,
    Option(
        metavar="N|HxW",
        help="Resize image files to this height and width in pixels [default: "
        "their own size; if they differ, the median, at most 64].",
    ),
]
Recipe = Annotated[
    Path | None,
    Option(
        help="TOML file that overrides keys of the training recipe [default: the "
        "study's; else what suits the data]."
    ),
]
Augment = Annotated[
    str | None,
    Option(
        metavar="KINDS",
        help="Comma-separated augmentations: affine, shift, flip, crop; or none "
        "[default: the study's; else what suits the data].",
    ),
]
Workers = Annotated[
    int | None,
    Option(
        min=1,
        help="Worker processes [default: one per core, but at most 16 per GPU, or two "
        "without MPS].",
    ),
]
Device = Annotated[
    str,
    Option(metavar="NAME", help="auto (a GPU if there is one), cpu, cuda or cuda:N."),
]
Format = Annotated[
    Literal["table", "csv", "json", "md"], Option("--format", help="Output format.")
]


def read_image_size(text: str | None) -> tuple[int, int] | None:
    """Return height and width from N or HxW; raise typer's usage error otherwise."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.strip().lower())
    size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(size) < 4:
        raise BadParameter(
            f"{text!r} is not a size: write 32, or 48x64 for a height of 48 and a width of "
            "64, at least 4",
            param_hint="--image-size",
        )
    return size


def console() -> Any:
    """Return rich's console on stdout, which detects whether it is a terminal."""
    from rich.console import Console

    return Console()


def read(name: str | None, studies: Path, storage: str | None) -> Study:
    """Open the study of that name, or the only one that exists, for reading."""
    from nas.study.folders import find_study, only_study, read_study

    return read_study(
        find_study(studies, name) if name else only_study(studies), storage
    )
