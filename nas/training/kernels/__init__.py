"""Faster training of tiny networks, by kernels of our own.

On a CPU they are in C (kernels.c). Torch's own kernels put channels into the lanes of the
vector registers, and tiny networks have too few of them; these put images there.
``available()`` compiles them once for this machine with its C compiler, in some three
seconds, and tells whether that went well. On a GPU one kernel (gpu.cu) does whole steps;
torch's compiler makes it once, in some ten seconds. Without them the model itself is
trained: slower, and the same but for rounding.

``recording.py`` goes through a model's layers. For a CPU ``cpu.py`` records them as calls
on a tape (``tape.py``) and ``library.py`` compiles the C functions. For a GPU
``gpu_recording/`` records them as a program (``program.py``), ``cuda.py`` compiles and
launches the kernel, and ``gpu.py`` trains and evaluates. ``layers.py`` has what stands in
for the model.
"""

from nas.training.kernels.layers import (
    Compiled,
    available,
    gpu_training,
    predictor,
    share_gpu,
    supports,
    warn_if_missing,
    warp,
)

__all__ = [
    "Compiled",
    "available",
    "gpu_training",
    "predictor",
    "share_gpu",
    "supports",
    "warn_if_missing",
    "warp",
]
