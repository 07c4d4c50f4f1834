"""One block of a network: frozen data that says nothing of how its kind is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.architecture.parts import Pooling

Padding = Literal["same", "valid"]
Norm = Literal["batch", "none"]
Bias = Literal["auto", "yes", "no"]
Order = Literal["early_pool", "late_pool", "activation_first", "norm_last"]
Activation = Literal[
    "relu",
    "leaky_relu",
    "hardswish",
    "silu",
    "relu6",
    "tanh",
    "gelu",
    "elu",
    "sigmoid",
    "none",
]
Pool = Literal["none", "max", "avg"]
Gate = Literal["sigmoid", "hard_sigmoid"]
Shortcut = Literal[
    "none", "identity", "conv", "bias_conv", "bare_conv", "activated_conv", "pad"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Convolutions and what follows them; a 1x1 ``conv`` is a bottleneck (squeeze).

    ``kind`` says which convolutions: one of `nas.architecture.kinds.KINDS`. The first
    that is no 1x1 one has the ``stride``.

    ``pool`` takes the maximum or the mean of windows ``pool_size`` high and
    ``pool_width`` wide, 0 for as wide as high. Their tops lie ``pool_stride`` rows and
    columns apart, 0 for a window's size; never more than that, so that none is skipped.
    Around the map are ``pool_padding`` rows and columns that no maximum takes, at most
    half a window; a mean has none. A last window that is not whole is left out.

    ``bias`` "auto" gives the convolution a bias exactly where there is no batch norm,
    which has its own. ``repeats`` applies the block so many times one after the other
    with the same convolution weights, each time with a batch norm of its own (shared
    running statistics would fit no application), and pools after the last; it takes
    as many channels as it gives and keeps the feature map's size.

    ``shortcut`` adds to the last convolution, after its batch norm, what the block
    takes: "identity" as it is, where the shape stays, "conv" by a 1x1 convolution of
    the block's stride, with norm and bias as the others have them. "bias_conv" has a
    bias and no norm, "bare_conv" neither, "activated_conv" the block's activation
    behind the norm. "pad" takes every so many-th row and column, by the stride, and
    puts as many channels of zeros before as behind them, of an odd number one more
    behind; a narrower block lacks them there. Activation and dropout follow the
    addition, and the pooling comes last.

    ``expansion`` is how many times as wide as its input an ``inverted_bottleneck`` is
    inside, and how many times as narrow as its output a ``bottleneck`` is.
    ``squeeze_excitation`` is how many times narrower than the depthwise convolution the
    hidden layer is that makes one gate for each of its channels (Hu et al. 2018); 0 for no
    gates. ``gate_width`` is that layer's width in numbers, instead; ``gate_activation``
    follows it, and without ``gate_bias`` neither of the two layers has a bias. ``gate``
    makes the gates: "hard_sigmoid" is relu6(x + 3) / 6 (Howard et al. 2019).

    The kernel is ``kernel_size`` high and ``kernel_width`` wide, 0 for as wide as high;
    its taps stand ``dilation`` rows and columns apart. ``padding`` is "same", "valid", or
    how many rows of zeros are above and below the input and how many columns beside it,
    both fewer than what the kernel covers; an even kernel has no "same".

    A ``conv`` with ``groups`` convolves each of so many equal parts of its channels by
    itself: it takes and gives a multiple of them, and has so many times fewer weights.
    """

    kind: str = "conv"
    out_channels: int
    kernel_size: int = 3
    stride: int = 1
    padding: Padding | tuple[int, int] = "same"
    norm: Norm = "batch"
    activation: Activation = "relu"
    pool: Pool = "none"
    dropout: float = 0.0
    bias: Bias = "auto"
    order: Order = "early_pool"
    repeats: int = 1
    shortcut: Shortcut = "none"
    expansion: int = 1
    squeeze_excitation: int = 0
    kernel_width: int = 0
    dilation: int = 1
    groups: int = 1
    gate_width: int = 0
    gate_activation: Activation = "relu"
    gate_bias: Literal["yes", "no"] = "yes"
    gate: Gate = "sigmoid"
    pool_size: int = 2
    pool_width: int = 0
    pool_stride: int = 0
    pool_padding: int = 0

    @property
    def has_bias(self) -> bool:
        """Whether the convolution has a bias."""
        return self.bias == "yes" or (self.bias == "auto" and self.norm == "none")

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return self.kernel_size, self.kernel_width or self.kernel_size

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of what the kernel covers."""
        height, width = self.kernel
        return self.dilation * (height - 1) + 1, self.dilation * (width - 1) + 1

    @property
    def zeros(self) -> tuple[int, int]:
        """The rows of zeros above and below its input, the columns beside it."""
        if isinstance(self.padding, tuple):
            return self.padding
        if self.padding == "valid":
            return 0, 0
        height, width = self.extent
        return height // 2, width // 2

    @property
    def pooling(self) -> Pooling | None:
        """What it pools, if it does."""
        if self.pool == "none":
            return None
        window = self.pool_size, self.pool_width or self.pool_size
        high, wide = (min(self.pool_stride or side, side) for side in window)
        above, beside = (min(self.pool_padding, side // 2) for side in window)
        return Pooling(self.pool, window, (high, wide), (above, beside))

    @property
    def keeps_size(self) -> bool:
        """Whether its kernels leave height and width as they are, but for stride."""
        pairs = zip(self.zeros, self.extent, strict=True)
        return all(2 * zeros == extent - 1 for zeros, extent in pairs)

    @property
    def gated(self) -> bool:
        """Whether it has squeeze-and-excitation."""
        return bool(self.squeeze_excitation or self.gate_width)

    @property
    def tied(self) -> bool:
        """Whether it gives as many channels as it takes, so that it has no own width."""
        return self.repeats > 1 or self.shortcut == "identity"

    @property
    def downsampling(self) -> str:
        """How it halves height and width: "stride", "max", "avg", or "none"."""
        return "stride" if self.stride > 1 else self.pool


POOLING = {"pool_size": 2, "pool_width": 0, "pool_stride": 0, "pool_padding": 0}
"""The options of a block that pools, with what they are in one that does not."""
