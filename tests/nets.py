"""Networks by hand for the tests."""

from __future__ import annotations

from nas.architecture import Architecture, Block, Head, HeadKind, Shape


def net_of(
    *blocks: Block,
    shape: Shape = (1, 8, 8),
    classes: int = 10,
    head: HeadKind | Head = "gap",
    resolution: int = 0,
) -> Architecture:
    """Return the net of these blocks, by default for the digits."""
    return Architecture(
        input_shape=shape,
        num_classes=classes,
        blocks=blocks,
        head=Head(kind=head) if isinstance(head, str) else head,
        resolution=resolution,
    )
