"""Exports the winner as files that do not need nas: plain PyTorch, ONNX, int8, C.

``source.py`` writes the files of `nas best`, ``deliver.py`` those of `nas export`.
Every format but the source is written from a chain of stages (``stages.py``), which
``chain.py`` makes of a trained network. ``quantise.py`` turns it into whole numbers
(``integer_stages.py``); ``integer.py`` defines their arithmetic.
"""

from nas.export.source import source, write_best

__all__ = ["source", "write_best"]
