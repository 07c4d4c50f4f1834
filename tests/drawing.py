"""Draws for the tests of spaces, and what is asked of the nets drawn."""

from __future__ import annotations

from nas.architecture import Architecture, Block
from nas.space import Caps, RandomDraws, SearchSpace, sample

SHAPE = (1, 28, 28)
ALL = Caps(1, 1, 1)


def draw(space: SearchSpace, seed: int, caps: Caps) -> Architecture:
    """Draw an architecture for MNIST's images."""
    return sample(
        space, RandomDraws(seed), input_shape=SHAPE, num_classes=10, caps=caps
    )


def way(block: Block) -> str:
    """Return how the block downsamples, or "none"."""
    return "stride" if block.stride > 1 else block.pool


def is_classifier(architecture: Architecture, place: int) -> bool:
    """Return whether the block in that place (from 0) makes the logits."""
    last = place == len(architecture.blocks) - 1
    return last and architecture.head.kind == "pool"
