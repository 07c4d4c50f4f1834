"""The IDX format of MNIST and its relatives: a short header, then the bytes.

Two zero bytes, a type (8 is unsigned byte), the number of dimensions, each dimension
as a big-endian 32 bit number, the values in C order.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.data.reason import reason
from nas.errors import DataError

UINT8 = 8
"""The type byte of unsigned bytes."""

MAX_BYTES = 1 << 28
"""Limit for an unpacked file: five times MNIST's largest, to stop a gzip bomb early."""


def find_idx_files(folder: Path, name: str) -> list[Path]:
    """Return the files of that name anywhere below a folder, the nearest first.

    The name may end in ``.gz``. Some programs unpack its last "-" as a dot.
    """
    names = {name, name.replace("-idx", ".idx")}
    names |= {f"{one}.gz" for one in names}
    found = [
        Path(place, file)
        for place, _, files in os.walk(folder)
        for file in files
        if file in names
    ]
    return sorted(found, key=lambda path: (len(path.parts), path.parts))


def read_bytes(path: Path) -> npt.NDArray[np.uint8]:
    """Return a file's bytes, unpacked if its name ends in ``.gz``: uint8 [n].

    Raises DataError if it cannot be read, is truncated or holds more than MAX_BYTES.
    """
    try:
        if path.suffix == ".gz":
            return unpack(path.read_bytes(), path)
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} holds over {MAX_BYTES >> 20} MiB; replace it")
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason(error)})") from error


def unpack(packed: bytes, source: object) -> npt.NDArray[np.uint8]:
    """Return the content of gzipped bytes: uint8 [n].

    Raises DataError naming ``source`` if they are truncated, damaged, or hold more than
    MAX_BYTES.
    """
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            raw = file.read(MAX_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{source} is cut or damaged ({reason(error)}); replace it"
        ) from error
    if len(raw) > MAX_BYTES:
        raise DataError(f"{source} unpacks to over {MAX_BYTES >> 20} MiB; replace it")
    # torch warns about read-only memory.
    return np.frombuffer(bytearray(raw), dtype=np.uint8)


def decode_idx(raw: npt.NDArray[np.uint8], source: object) -> npt.NDArray[np.uint8]:
    """Return the array in an IDX file's bytes, a view of ``raw`` in the array's shape.

    Raises DataError naming ``source`` unless it is a whole IDX file of unsigned bytes.
    """
    head = raw[:4].tobytes()
    if len(head) < 4 or head[:3] != bytes([0, 0, UINT8]) or not head[3]:
        raise DataError(f"{source} is not an IDX file of unsigned bytes; replace it")
    dimensions = head[3]
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise DataError(f"{source} is cut in its header; replace it")
    shape = struct.unpack(f">{dimensions}I", raw[4:start].tobytes())
    if math.prod(shape) != len(raw) - start:
        raise DataError(
            f"{source} holds {len(raw) - start} bytes where its header says "
            f"{math.prod(shape)}; replace it"
        )
    try:
        return raw[start:].reshape(shape)
    except ValueError as error:  # more dimensions than numpy supports
        raise DataError(f"{source}: {error}; replace it") from error


def encode_idx(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the bytes of an IDX file that holds ``array``: uint8 [n]."""
    head = bytes([0, 0, UINT8, array.ndim]) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return np.concatenate([np.frombuffer(head, dtype=np.uint8), array.ravel()])
