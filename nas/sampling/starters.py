"""The first candidates of a search: what anyone would draw by hand, near the cap.

A random draw decides block by block, and is seldom as regular as a net that a person
draws. So a short search would lose to a few plain nets; it begins with them instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.architecture import Architecture, Head
from nas.sampling.mutation import BlockGenes, Genome, express, usual_options
from nas.space.completion import Caps
from nas.space.definition import SearchSpace
from nas.space.encoding import encode


@dataclass(frozen=True, slots=True)
class _Stage:
    """A block of a starter, with a 3x3 kernel where the space has it.

    ``kind`` None is the first kind of the space, ``halves`` pools behind it; widths are
    in proportion to one another.
    """

    width: float
    halves: bool = False
    kind: str | None = None
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Starter:
    """A net as large as a ``share`` of the cap."""

    share: float
    stages: tuple[_Stage, ...]


# One convolution between poolings, or two.
_SHORT = (_Stage(1, halves=True), _Stage(2, halves=True), _Stage(4))
_LONG = (
    *(_Stage(1), _Stage(1, halves=True)),
    *(_Stage(2), _Stage(2, halves=True)),
    *(_Stage(4), _Stage(4)),
)
# Wide separable blocks, each applied several times: what most of our searches on MNIST
# came to.
_SHARED = (
    _Stage(1, halves=True),
    _Stage(1, kind="separable", repeats=3),
    _Stage(1, halves=True, kind="separable", repeats=3),
)
STARTERS = tuple(
    Starter(share, stages)
    for share in (1.0, 0.25)
    for stages in (_SHORT, _LONG, _SHARED)
)
"""In the order of the trials."""


def made(
    starter: Starter, space: SearchSpace, like: Architecture, caps: Caps
) -> tuple[Architecture, dict[str, float]] | None:
    """Return the net and its draws, halved as often as the images allow; or None.

    It takes the images and gives the classes of the architecture that it is ``like``.
    """
    share = max(1, round((caps.num_params or 0) * starter.share))
    within = replace(caps, num_params=share)
    halvings = sum(stage.halves for stage in starter.stages)
    for most_halvings in range(halvings, -1, -1):
        genome = _genome(starter, space, most_halvings)
        found = None if genome is None else express(space, genome, like, within)
        draws = None if found is None else encode(space, found, caps)
        if found is not None and draws is not None:
            return found, draws
    return None


def _genome(starter: Starter, space: SearchSpace, most_halvings: int) -> Genome | None:
    """Return the decisions; None where the space lacks a kind or the repeats."""
    kinds = [stage.kind or space.kinds.options[0] for stage in starter.stages]
    if not set(kinds) <= set(space.kinds.options):
        return None
    if not {s.repeats for s in starter.stages} <= set(space.repeats.options):
        return None
    kernels, paddings = space.kernel_sizes.options, space.paddings.options
    genes: list[BlockGenes] = []
    for kind, stage in zip(kinds, starter.stages, strict=True):
        halves = stage.halves and most_halvings > 0
        most_halvings -= halves
        as_wide = bool(genes) and genes[-1].width == stage.width
        genes.append(
            BlockGenes(
                kind=kind,
                kernel_size=3 if 3 in kernels else kernels[0],
                padding="same" if "same" in paddings else paddings[0],
                downsampling=space.downsampling_kinds.options[0] if halves else "none",
                repeats=stage.repeats,
                options=usual_options(space, kind, as_wide=as_wide),
                width=stage.width,
            )
        )
    heads: Sequence[Any] = space.heads.options
    resolutions = space.resolutions.options
    return Genome(
        space.norms.options[0],
        space.activations.options[0],
        space.dropouts.options[0],
        Head(kind="gap" if "gap" in heads else heads[0]),
        tuple(genes),
        # 0 leaves the images as they are.
        0 if 0 in resolutions else max(resolutions),
    )
