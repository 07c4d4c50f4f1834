"""Exports the winner as files that do not need nas: plain PyTorch, ONNX, int8, C.

``source.py`` writes the files of `nas best`, ``deliver.py`` those of `nas export`.
Every format but the source is written from the stages of ``stages.py``.
``quantise.py`` turns these into integers; ``integer.py`` defines their arithmetic.
"""

from nas.export.source import source, write_best

__all__ = ["source", "write_best"]
