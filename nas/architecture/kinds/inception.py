"""Convolutions of 1x1, 3x3, ... up to the kernel's size side by side, joined.

They share the output channels evenly; what is left over goes to the smaller kernels.
"""

from __future__ import annotations

from nas.architecture.block import Block
from nas.architecture.kinds.kind import Kind
from nas.architecture.parts import Convolution, Part


def _parts(block: Block, in_channels: int) -> tuple[Part, ...]:
    kernels = range(1, block.kernel_size + 1, 2)
    each, extra = divmod(block.out_channels, len(kernels))
    return (
        Part(
            tuple(
                Convolution(
                    f"inception.branches.{place}",
                    in_channels,
                    each + (place < extra),
                    kernel_size,
                    stride=block.stride,
                    padding=(kernel_size // 2, kernel_size // 2),
                    bias=block.has_bias,
                )
                for place, kernel_size in enumerate(kernels)
            )
        ),
    )


def _least_width(kernel_size: int) -> int:
    return (kernel_size + 1) // 2


def _refusal(block: Block) -> str | None:
    if block.kernel_size == 1 or not block.keeps_size:
        return "an inception block needs a kernel_size of at least 3 and same padding"
    least = _least_width(block.kernel_size)
    if block.out_channels < least:
        return (
            f"out_channels is {block.out_channels}, fewer than the {least} "
            "convolutions of the inception block"
        )
    return None


KIND = Kind(
    letter="i",
    plural="inception",
    parts=_parts,
    refusal=_refusal,
    least_width=_least_width,
    drawn=lambda kernel_size, padding: kernel_size > 1 and padding == "same",
    shaped=False,
)
