"""The winner as files that need no nas: ``source.py`` writes weights and plain PyTorch."""

from nas.export.source import source, write_best

__all__ = ["source", "write_best"]
