"""The texts on one candidate that the plots, their hovers and the table share."""

from __future__ import annotations

from nas.architecture import feature_shapes
from nas.architecture.notation import describe_block, describe_head
from nas.candidates.candidate import Candidate, State

STATES: tuple[State, ...] = ("complete", "pruned", "running", "failed")
"""The states in the order of counting and drawing."""


def percent(val_accuracy: float | None) -> str:
    """Return an accuracy with two decimals, or a dash for None."""
    return "–" if val_accuracy is None else f"{100 * val_accuracy:.2f} %"


def details(candidate: Candidate) -> list[str]:
    """Return lines of plain text: costs, accuracy, then the blocks with their shapes.

    The shapes are channels x height x width after each block.
    """
    architecture, epochs = candidate.architecture, candidate.epochs
    trained = f"{epochs:.3g} epoch{'' if epochs == 1 else 's'}"
    lines = [
        f"trial {candidate.trial}, {candidate.state}",
        f"{candidate.num_params:,} parameters",
        f"{candidate.macs:,} MACs, {candidate.peak_memory:,} bytes of activations",
        f"{percent(candidate.val_accuracy)} after {trained}",
    ]
    if candidate.reason:
        lines.append(candidate.reason)
    shapes = ["x".join(map(str, shape)) for shape in feature_shapes(architecture)]
    lines.append(f"input {shapes[0]}")
    for block, shape in zip(architecture.blocks, shapes[1:], strict=True):
        lines.append(f"{describe_block(block)} → {shape}")
    lines.append(f"{describe_head(architecture.head)} → {architecture.num_classes}")
    return lines
