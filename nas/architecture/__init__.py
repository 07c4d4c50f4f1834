"""The frozen description of a network: pure data, no framework.

``definition.py`` is the description and its canonical key, ``block.py`` one block,
``kinds/`` says which convolutions each kind of block is made of, ``cost.py`` counts
parameters, multiply-accumulates and memory, ``notation.py`` writes it in one line.
"""

from nas.architecture.block import (
    POOLING,
    Activation,
    Bias,
    Block,
    Gate,
    Norm,
    Order,
    Padding,
    Pool,
    Shortcut,
)
from nas.architecture.definition import (
    Architecture,
    Head,
    HeadKind,
    Shape,
    conv_size,
    feature_shapes,
    resized,
    sides_after,
)

__all__ = [
    "POOLING",
    "Activation",
    "Architecture",
    "Bias",
    "Block",
    "Gate",
    "Head",
    "HeadKind",
    "Norm",
    "Order",
    "Padding",
    "Pool",
    "Shape",
    "Shortcut",
    "conv_size",
    "feature_shapes",
    "resized",
    "sides_after",
]
