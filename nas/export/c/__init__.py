"""The int8 net as freestanding C99: ``generate.py`` fills the files beside it."""

from nas.export.c.generate import arena_size, c_files

__all__ = ["arena_size", "c_files"]
