"""Training and evaluating one model.

``loop.py`` is the training loop and ``kernels.py`` what makes it fast on a CPU.
"""

from nas.training.loop import TrainingData, evaluate, learning_rate, train

__all__ = ["TrainingData", "evaluate", "learning_rate", "train"]
