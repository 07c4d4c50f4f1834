"""What a training's batches are like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Batches of ``size`` images ``[C, H, W]``, loaded at most ``ahead`` at a time.

    ``class_weights`` is what each class counts in the loss, float ``[K]``; None where all
    count alike.
    """

    shape: Sequence[int]
    size: int
    ahead: int
    class_weights: Tensor | None = None
