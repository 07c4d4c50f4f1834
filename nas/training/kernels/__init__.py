"""Faster training of tiny networks on one CPU core, by kernels in C (kernels.c).

Torch's own kernels put channels into the lanes of the vector registers, and tiny
networks have too few of them; these put images there. ``available()`` compiles them
once for this machine with its C compiler, in some three seconds, and tells whether
that went well. Without them, and on GPUs, the model itself is trained: slower, and
the same but for rounding.

``library.py`` compiles them, ``recording.py`` records a model's layers as calls of them,
``tape.py`` makes these calls, and ``layers.py`` has the function that stands in for the
model.
"""

from nas.training.kernels.layers import (
    Compiled,
    available,
    supports,
    warn_if_missing,
    warp,
)

__all__ = ["Compiled", "available", "supports", "warn_if_missing", "warp"]
