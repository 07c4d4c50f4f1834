"""The winner as files that need no nas: weights and plain PyTorch, ONNX, int8, C.

``source.py`` writes what `nas best` hands over, ``deliver.py`` what `nas export` does.
Every format but the source is written from the chain of ``stages.py``; ``quantise.py``
turns that into whole numbers, and ``integer.py`` says what they mean.
"""

from nas.export.source import source, write_best

__all__ = ["source", "write_best"]
