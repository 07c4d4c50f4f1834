"""A user's own torch module as a reference: traced, taken apart, checked.

::

    loading.py     the user's file to a module; runs the user's code
    recording.py   the module to a graph of its operations, by torch.fx
    trying.py      one run, for errors of the module itself
    normalising.py what forward does with the images before its first layer
    tracing.py     the graph to a chain of layers (layer.py)
    operations.py  what each of its operations is as a layer
    adding.py      where a feature map goes two ways that are added
    gating.py      where it is multiplied with what is made of its means
    refusals.py    what is said of a layer that has no place
    byhand.py      activations that are written by hand
    weights.py     functions that take parameters
    dense.py       linear layers as convolutions
    assembling.py  the chain to an Architecture
    convolutions.py  what nas takes of one
    summing.py     the blocks of several parts among them
    checking.py    the architecture, built anew, computes the same
"""

from nas.importing.assembling import assemble
from nas.importing.checking import check_same
from nas.importing.loading import load_module, unwrapped
from nas.importing.tracing import trace

__all__ = ["assemble", "check_same", "load_module", "trace", "unwrapped"]
