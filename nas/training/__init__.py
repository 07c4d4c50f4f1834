"""Training and evaluating one model.

``loop.py`` is the training loop and ``step.py`` what it repeats; ``kernels/`` makes
that fast on a CPU and ``capture.py`` on a GPU.
"""

from nas.training.loop import evaluate, learning_rate, train
from nas.training.memory import memory_errors
from nas.training.step import TrainingData

__all__ = ["TrainingData", "evaluate", "learning_rate", "memory_errors", "train"]
