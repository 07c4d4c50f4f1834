"""Training and evaluating one model.

``recipe.py`` is the hyperparameters, ``model.py`` builds the model, ``loop.py`` is the
training loop and ``step.py`` what it repeats; ``kernels/`` makes that fast on a CPU and
``cuda_graph.py`` on a GPU. Importing the package loads no torch.
"""
