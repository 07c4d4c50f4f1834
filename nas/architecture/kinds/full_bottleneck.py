"""An inverted bottleneck as wide inside as its input, with its first 1x1 convolution.

That of `inverted_bottleneck` is left out at expansion 1; networks that are made of one
class for all expansions have it there, too. Without an addition it would be a 1x1
convolution and such an inverted bottleneck.
"""

from __future__ import annotations

from nas.architecture.kinds.inverted_bottleneck import expanded_parts
from nas.architecture.kinds.kind import Kind
from nas.architecture.kinds.residual import ADDED

KIND = Kind(
    letter="f",
    plural="inverted bottlenecks as wide as their input",
    parts=expanded_parts,
    drawn=lambda kernel_size, padding: kernel_size > 1 and padding == "same",
    shortcuts=ADDED,
    repeatable=False,
    linear=True,
    gates=True,
)
