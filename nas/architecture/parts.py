"""What blocks are made of: convolutions, and what stands between them. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution with zeros around its input; ``name`` is its module's path.

    A depthwise one convolves each channel by itself.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    depthwise: bool = False
    bias: bool = False

    @property
    def weights(self) -> int:
        """The numbers of its kernels, without bias."""
        inputs = 1 if self.depthwise else self.in_channels
        return self.out_channels * inputs * self.kernel_size**2


@dataclass(frozen=True, slots=True)
class Part:
    """Convolutions side by side, their outputs joined, and what follows at once.

    What follows the last part of a block is said by the block.
    """

    convolutions: tuple[Convolution, ...]
    norm: bool = False
    activation: str = "none"

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
        around = 2 * first.padding - first.kernel_size
        return (
            (height + around) // first.stride + 1,
            (width + around) // first.stride + 1,
        )
