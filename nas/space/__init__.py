"""Search spaces: reading from TOML, and drawing under hard caps by construction."""

from nas.space.completion import Caps
from nas.space.definition import SearchSpace
from nas.space.drawing import Draws, RandomDraws, sample
from nas.space.encoding import encode
from nas.space.enumerating import every_net
from nas.space.including import include
from nas.space.limits import smallest
from nas.space.reading import available, find_space, read_space
from nas.space.widening import resize

__all__ = [
    "Caps",
    "Draws",
    "RandomDraws",
    "SearchSpace",
    "available",
    "encode",
    "every_net",
    "find_space",
    "include",
    "read_space",
    "resize",
    "sample",
    "smallest",
]
