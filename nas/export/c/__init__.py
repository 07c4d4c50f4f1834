"""The int8 net as freestanding C99: ``generate.py`` fills the files beside it.

``arena.py`` assigns each feature map its place in memory.
"""

from nas.export.c.arena import arena_size
from nas.export.c.generate import c_files

__all__ = ["arena_size", "c_files"]
