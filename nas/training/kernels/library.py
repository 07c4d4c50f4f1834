"""The kernels compiled: found in the user's cache, or made there, and called."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from torch import Tensor

from nas.errors import OutOfMemoryError

_SOURCE = Path(__file__).with_name("kernels.c")
# The compiler must not assume that there are no NaNs: they tell of divergence.
_FLAGS = ["-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno"]
_LINK = ["-shared", "-fPIC", "-lm"]

# The arguments: p a tensor or a shape, i an int, l a long, f a float.
_SIGNATURES = {
    "conv": "ppppi",
    "conv_weight": "pppp",
    "depthwise": "ppppi",
    "depthwise_weight": "pppp",
    "add_bias": "ppiil",
    "add_bias_back": "ppiil",
    "max_pool": "pppiii",
    "max_pool_back": "pppiii",
    "avg_pool": "ppiii",
    "avg_pool_back": "ppiii",
    "pool": "pppi",
    "pool_back": "pppppi",
    "global_mean": "ppil",
    "global_mean_back": "ppili",
    "activate": "pplfi",
    "activate_back": "ppplfi",
    "add": "ppl",
    "join": "ppiiiili",
    "scale": "pppil",
    "scale_back": "pppppil",
    "batch_norm": "pppppppffp",
    "norm_eval": "ppiilppppfi",
    "batch_norm_back": "pppppppp",
    "dropout": "pplp",
    "warp": "pppiiiii",
}
# These take memory of their own, and return whether there was none.
_ALLOCATING = {"conv", "conv_weight", "depthwise", "depthwise_weight", "warp"}
_TYPES = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_long,
    "f": ctypes.c_float,
}


def call(name: str, *arguments: Any) -> None:
    """Run a kernel on tensors, which have to be contiguous, and numbers.

    Raises OutOfMemoryError where it finds no memory.
    """
    compiled = load()
    assert compiled is not None  # supports() has said so
    failed = getattr(compiled, name)(
        *(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
    )
    if failed:
        raise OutOfMemoryError("out of memory on cpu")


@functools.cache
def count_lanes() -> int:
    """Return how many images a vector register holds."""
    compiled = load()
    assert compiled is not None
    return int(compiled.lanes())


def load() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where there is no way to have them."""
    return _found()[0]


def why_missing() -> str | None:
    """Return why there are no kernels here, with the remedy; None where there are.

    None, too, where the user switched them off.
    """
    return _found()[1]


@functools.cache
def _found() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the compiled kernels, or why there are none."""
    if os.environ.get("NAS_KERNELS") == "0":
        return None, None
    wanted = os.environ.get("CC", "cc")
    compiler = shutil.which(wanted)
    if compiler is None:
        return None, f"there is no C compiler {wanted!r}: install one, or set CC to one"
    try:
        compiled = ctypes.CDLL(str(_compiled(compiler)))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or [""]
        return None, f"{compiler} cannot compile them ({lines[0]}): set CC to another"
    except subprocess.TimeoutExpired as error:
        return None, f"{compiler} takes over {error.timeout:g} s: set CC to another"
    except OSError as error:
        return None, cannot_keep(error)
    _declare(compiled)
    return compiled, None


def _declare(compiled: ctypes.CDLL) -> None:
    """Tell ctypes what the kernels take and return."""
    for name, signature in _SIGNATURES.items():
        function = getattr(compiled, name)
        function.argtypes = [_TYPES[letter] for letter in signature]
        function.restype = ctypes.c_int if name in _ALLOCATING else None


def _folder() -> Path:
    chosen = os.environ.get("NAS_CACHE_DIR")
    return Path(chosen) if chosen else platformdirs.user_cache_path("nas")


def cannot_keep(error: OSError) -> str:
    """Return in words that `kept` failed, with the remedy."""
    return (
        f"they cannot be kept in {_folder()} and loaded from there ({error}): set "
        "NAS_CACHE_DIR to another folder"
    )


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """Return the file of that name in the user's cache; ``make`` writes a missing one.

    The cache may be shared by machines of all kinds: the name tells all that the file
    depends on. Raises OSError where it cannot be written.
    """
    folder = _folder()
    path = folder / name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        fresh = Path(temporary) / name
        make(fresh)
        fresh.replace(path)  # at once: other workers may be at the same
    return path


def _compiled(compiler: str) -> Path:
    """Return the shared library for this source, compiler and processor."""
    parts = (_SOURCE.read_text(), compiler, *_FLAGS, platform.machine(), _processor())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def make(path: Path) -> None:
        subprocess.run(  # noqa: S603 - the user's own compiler on our own source
            [compiler, *_FLAGS, str(_SOURCE), "-o", str(path), *_LINK],
            check=True,
            capture_output=True,
            timeout=300,
        )

    return kept(f"kernels-{digest}.so", make)


def _processor() -> str:
    """Return what tells processors with other instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
