"""Faster training of tiny networks on one CPU core, by kernels in C (kernels.c).

Torch's own kernels put channels into the lanes of the vector registers, and tiny
networks have too few of them; these put images there. ``available()`` compiles them
once for this machine with its C compiler, in some three seconds, and tells whether
that went well. Without them, and on GPUs, the model itself is trained: slower, and
the same but for rounding.

``library.py`` compiles and calls them, ``functions.py`` gives each its gradient, and
``layers.py`` computes a model with them.
"""

from nas.training.kernels.functions import warp
from nas.training.kernels.layers import available, forward, supports, warn_if_missing

__all__ = ["available", "forward", "supports", "warn_if_missing", "warp"]
