"""What blocks are made of: convolutions, and what stands between them. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution; ``name`` is its module's path.

    ``padding`` is how many rows of zeros are above and below its input, and how many
    columns beside it. A depthwise one convolves each channel by itself.
    ``kernel_width`` 0 is as wide as high, ``dilation`` how far apart its taps are.
    With ``groups`` each of so many parts of the channels is convolved by itself.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    depthwise: bool = False
    bias: bool = False
    kernel_width: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of its kernel."""
        return self.kernel_size, self.kernel_width or self.kernel_size

    @property
    def inputs(self) -> int:
        """The input channels that each output channel is made of."""
        return 1 if self.depthwise else self.in_channels // self.groups

    @property
    def weights(self) -> int:
        """The numbers of its kernels, without bias."""
        height, width = self.kernel
        return self.out_channels * self.inputs * height * width


@dataclass(frozen=True, slots=True)
class Pooling:
    """Maximum ("max") or mean ("avg") over windows, dropping incomplete ones.

    ``window``, ``strides`` and ``padding`` are of height and width; a maximum takes
    nothing of what is padded.
    """

    kind: str
    window: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    @property
    def plain(self) -> bool:
        """Whether each value is in at most one window, and all windows are in the map."""
        return self.strides == self.window and self.padding == (0, 0)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of its output, which may be below 1."""
        high, wide = (
            (side + 2 * zeros - long) // stride + 1
            for side, long, stride, zeros in zip(
                (height, width), self.window, self.strides, self.padding, strict=True
            )
        )
        return high, wide


@dataclass(frozen=True, slots=True)
class SqueezeExcitation:
    """One factor of 0 to 1 for each channel, made of the means of all channels.

    A 1x1 convolution to ``hidden`` values, an activation, another one back, ``gate``.
    Hu et al. 2018, "Squeeze-and-Excitation Networks".
    """

    channels: int
    hidden: int
    activation: str = "relu"
    bias: bool = True
    gate: str = "sigmoid"

    @property
    def weights(self) -> int:
        """The numbers of both kernels, without biases."""
        return 2 * self.channels * self.hidden

    @property
    def biases(self) -> int:
        """The numbers of both biases."""
        return self.channels + self.hidden if self.bias else 0


@dataclass(frozen=True, slots=True)
class Part:
    """Convolutions side by side, their outputs joined, and what follows at once.

    What follows the last part of a block is said by the block. ``gates`` come last.
    """

    convolutions: tuple[Convolution, ...]
    norm: bool = False
    activation: str = "none"
    gates: SqueezeExcitation | None = None

    @property
    def out_channels(self) -> int:
        """The channels of all convolutions together."""
        return sum(one.out_channels for one in self.convolutions)

    @property
    def weights(self) -> int:
        """The numbers of all kernels."""
        return sum(one.weights for one in self.convolutions)

    @property
    def own(self) -> int:
        """The numbers a channel has: biases, batch norm's scale and shift."""
        biases = sum(one.out_channels for one in self.convolutions if one.bias)
        return biases + (2 * self.out_channels if self.norm else 0)

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.convolutions[0].depthwise

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of its output, which may be below 1."""
        first = self.convolutions[0]
        (high, wide), (above, beside) = first.kernel, first.padding
        return (
            (height + 2 * above - first.dilation * (high - 1) - 1) // first.stride + 1,
            (width + 2 * beside - first.dilation * (wide - 1) - 1) // first.stride + 1,
        )
