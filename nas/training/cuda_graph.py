"""On a GPU without the kernel of our own: the step, recorded once and then replayed.

A tiny network's step is some hundred kernels of a few microseconds, and starting each
from Python takes longer than running it. A CUDA graph starts them all at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from nas.training.autograd import AutogradTraining
from nas.training.kernels import gpu
from nas.training.memory import is_out_of_memory

# torch's advice: what is set up at the first use must be there before the recording.
# Together with the recorded one no more than the step can have been loaded with.
_WARM_UP_STEPS = 3
_logger = logging.getLogger("nas")


def runner(training: gpu.Training | AutogradTraining) -> Callable[[int], None]:
    """Return what runs so many steps: a recording where that is faster, or the step.

    The model is as it was, but the state of the random numbers is not: the caller
    seeds them afterwards. ``NAS_CAPTURE=0`` in the environment turns recording off. A
    step that cannot be recorded is run as it stands.
    """
    if not isinstance(training, AutogradTraining) or not training.uses_torch:
        return training.run
    if training.losses.device.type != "cuda" or os.environ.get("NAS_CAPTURE") == "0":
        return training.run
    try:
        with undone(training):
            return _recorded(training)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        _logger.warning("the training step cannot be recorded: %s", error)
        return training.run


@contextmanager
def undone(training: AutogradTraining) -> Iterator[None]:
    """Take back what steps do to the model and the optimizer, in the memory they have.

    A momentum of 0 is the same as none yet: the first step then adds the gradient.
    """
    before = [(t, t.detach().clone()) for t in training.model.state_dict().values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
            for tensor in training.optimizer.state:
                tensor.zero_()
            training.losses.zero_()
            training.rewind()


def _recorded(training: AutogradTraining) -> Callable[[int], None]:
    """Return the replaying of a recording of the step."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP_STEPS):
            training.run(1)
    torch.cuda.current_stream().wait_stream(aside)
    # The gradients have to lie in the recording's own memory.
    training.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    # "thread_local": another thread of the worker may ask the GPU something.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        training.run(1)

    def replay(steps: int) -> None:
        for _ in range(steps):
            graph.replay()

    return replay
