"""The GPU's kernel compiled, found in the user's cache or made there, and launched.

NVRTC, the compiler that torch brings along, compiles it once for a source, a compiler and
a kind of GPU. Its blocks wait for one another, so all of them have to run at the same
time. Where one process has the GPU, a cooperative launch promises that. Where several
share it, each takes so few blocks that those of all find room.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from nas.errors import first_line
from nas.training.kernels.library import cannot_keep, kept

_SOURCE = Path(__file__).with_name("gpu.cu")
# Threads of one warp can hold each other up before this one.
_LEAST_CAPABILITY = (7, 0)
_THREADS = 256


class CudaLauncher:
    """Runs programs on a GPU, see `nas.training.kernels.program.Launcher`."""

    def __init__(self, device: torch.device) -> None:
        """Compile or find the kernel, and load it; RuntimeError where there is no way."""
        self.device = device
        properties = torch.cuda.get_device_properties(device)
        self._processors = properties.multi_processor_count
        with torch.cuda.device(device):
            # The driver's calls work in torch's own context, which this makes current.
            self._arrived = torch.zeros(2, dtype=torch.int32, device=device)
            self._driver = ctypes.CDLL("libcuda.so.1")
            module, self._kernel = ctypes.c_void_p(), ctypes.c_void_p()
            code = _compiled((properties.major, properties.minor))
            self._call("cuModuleLoadData", ctypes.byref(module), code)
            self._call(
                "cuModuleGetFunction", ctypes.byref(self._kernel), module, b"run"
            )
            each = ctypes.c_int()
            self._call(
                "cuOccupancyMaxActiveBlocksPerMultiprocessor",
                *(ctypes.byref(each), self._kernel, _THREADS, ctypes.c_size_t(0)),
            )
        self._capacity = each.value * self._processors
        self.share(1)

    def share(self, processes: int) -> None:
        """Take the part of the GPU that is one process's where so many are at work.

        All blocks of all of them have to run at the same time, and what torch does for
        them needs room, too.
        """
        self.cooperative = processes == 1
        self.blocks = self._processors
        if processes > 1:
            room = self._capacity - self._processors // 4
            self.blocks = max(1, min(self.blocks, room // processes))

    def launch(self, operations: Tensor, count: int, times: int) -> None:
        """Go through the operations so many times, on torch's current stream."""
        with torch.cuda.device(self.device):
            self._arrived[0].zero_()
            arguments = (
                ctypes.c_void_p(operations.data_ptr()),
                ctypes.c_int(count),
                ctypes.c_int(times),
                ctypes.c_void_p(self._arrived.data_ptr()),
            )
            addresses = (ctypes.c_void_p * len(arguments))(
                *(ctypes.addressof(argument) for argument in arguments)
            )
            stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
            sizes = self.blocks, 1, 1, _THREADS, 1, 1, 0, stream, addresses
            if self.cooperative:
                self._call("cuLaunchCooperativeKernel", self._kernel, *sizes)
            else:
                self._call("cuLaunchKernel", self._kernel, *sizes, None)

    def check(self) -> None:
        """Wait for the last launch; RuntimeError where blocks of one never ran together."""
        if int(self._arrived[1]):
            self._arrived.zero_()
            raise RuntimeError(
                f"the kernels of all processes do not fit on {self.device} at once: is "
                "something else at work there? Try fewer --workers, or NAS_KERNELS=0"
            )

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            reason = text.value.decode() if text.value else f"error {code}"
            raise RuntimeError(f"CUDA error: {reason} in {name}")


def launcher(device: torch.device) -> CudaLauncher | None:
    """Return what runs programs on the device; None where that is not possible.

    ``NAS_KERNELS=0`` in the environment turns it off.
    """
    return _found(device)[0]


def why_missing(device: torch.device) -> str | None:
    """Return why the device has no kernel; None where it has, or where none is wanted."""
    return _found(device)[1]


@functools.cache
def _found(device: torch.device) -> tuple[CudaLauncher | None, str | None]:
    if os.environ.get("NAS_KERNELS") == "0":
        return None, None
    if torch.version.cuda is None:
        return None, "this torch is not made for NVIDIA's GPUs"
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        return None, f"{name} is too old: it takes compute capability 7.0 or later"
    try:
        return CudaLauncher(device), None
    except PermissionError as error:
        return None, cannot_keep(error)
    except (OSError, RuntimeError, AttributeError) as error:
        return None, first_line(error)


def _compiled(capability: tuple[int, int]) -> bytes:
    """Return the machine code for GPUs of that compute capability."""
    major, minor = capability
    flags = [f"-arch=sm_{major}{minor}", "-std=c++17"]
    compiler = _nvrtc()
    version = ctypes.c_int(), ctypes.c_int()
    compiler.nvrtcVersion(*map(ctypes.byref, version))
    source = _SOURCE.read_bytes()
    parts = "\0".join([*flags, *(str(number.value) for number in version)]).encode()
    digest = hashlib.sha256(source + b"\0" + parts).hexdigest()[:16]

    def make(path: Path) -> None:
        path.write_bytes(_machine_code(compiler, source, flags))

    return kept(f"gpu-{digest}.cubin", make).read_bytes()


def _nvrtc() -> ctypes.CDLL:
    """Return NVRTC of CUDA's major version that torch was made with; OSError for none."""
    assert torch.version.cuda is not None  # _found() has looked
    major = torch.version.cuda.partition(".")[0]
    beside = Path(torch.__file__).parent.parent / "nvidia"
    for path in sorted(beside.glob(f"*/lib/libnvrtc.so.{major}")):
        # NVRTC asks for its second half by name, and does not look beside itself.
        for half in path.parent.glob(f"libnvrtc-builtins.so.{major}.*"):
            ctypes.CDLL(str(half), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    return ctypes.CDLL(f"libnvrtc.so.{major}")


def _machine_code(compiler: ctypes.CDLL, source: bytes, flags: list[str]) -> bytes:
    """Return the source's machine code; RuntimeError with the compiler's words."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = [flag.encode() for flag in flags]
    code = compiler.nvrtcCreateProgram(
        ctypes.byref(program), source, _SOURCE.name.encode(), 0, None, None
    )
    if code:
        raise RuntimeError(f"NVRTC error {code}")
    try:
        array = (ctypes.c_char_p * len(options))(*options)
        if compiler.nvrtcCompileProgram(program, len(options), array):
            compiler.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            compiler.nvrtcGetProgramLog(program, log)
            raise RuntimeError(log.value.decode(errors="replace"))
        compiler.nvrtcGetCUBINSize(program, ctypes.byref(size))
        code = ctypes.create_string_buffer(size.value)
        compiler.nvrtcGetCUBIN(program, code)
        return code.raw
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))
