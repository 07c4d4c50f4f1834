"""The frozen description of a network: pure data, no framework.

``definition.py`` is the description and its canonical key, ``cost.py`` counts
parameters, multiply-accumulates and memory, ``notation.py`` writes it in one line.
"""

from nas.architecture.definition import (
    Activation,
    Architecture,
    Bias,
    Block,
    BlockKind,
    Head,
    HeadKind,
    Norm,
    Order,
    Padding,
    Pool,
    Shape,
    conv_size,
    feature_shapes,
)

__all__ = [
    "Activation",
    "Architecture",
    "Bias",
    "Block",
    "BlockKind",
    "Head",
    "HeadKind",
    "Norm",
    "Order",
    "Padding",
    "Pool",
    "Shape",
    "conv_size",
    "feature_shapes",
]
