"""Training and evaluating one model.

``recipe.py`` is the hyperparameters, ``model.py`` builds the model, ``loop.py`` is the
training loop and ``step.py`` prepares its batches. ``autograd.py`` trains on them with
torch, ``kernels/`` makes that fast on a CPU, and on a GPU trains alone; ``cuda_graph.py``
is for GPUs without that kernel. Importing the package loads no torch.
"""
