"""The activations: a line each in this table.

Their names are those of the functions in ``torch.nn.functional``. What no table can say
is in the integer arithmetic (``export/integer.py``, ``export/c/kernels.c``), in the
training kernels, and in the ONNX export of those that are several operators.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationFacts:
    """What is to be known of an activation."""

    module: str
    """The class in ``torch.nn``."""
    onnx: str = ""
    """The operator in ONNX, with its usual attributes; "" where it takes several."""
    flash: int = 0
    """Bytes of instructions and tables in the C code, without those of `SIGMOIDAL`."""
    monotone: bool = False
    """Whether the maximum may be taken before or after it."""
    saturates: bool = False
    """Whether it only cuts values off, which a range of uint8 numbers does, too."""


ACTIVATIONS = {
    "relu": ActivationFacts(module="ReLU", onnx="Relu", monotone=True, saturates=True),
    "leaky_relu": ActivationFacts(
        module="LeakyReLU", onnx="LeakyRelu", flash=25, monotone=True
    ),
    "hardswish": ActivationFacts(module="Hardswish", onnx="HardSwish", flash=125),
    "silu": ActivationFacts(module="SiLU", flash=100),
    "relu6": ActivationFacts(module="ReLU6", flash=65, monotone=True, saturates=True),
    "tanh": ActivationFacts(module="Tanh", onnx="Tanh", flash=95, monotone=True),
    "gelu": ActivationFacts(module="GELU", flash=690),
    "elu": ActivationFacts(module="ELU", onnx="Elu", flash=665, monotone=True),
    "sigmoid": ActivationFacts(
        module="Sigmoid", onnx="Sigmoid", flash=65, monotone=True
    ),
}
"""By the name that blocks, spaces and files have for it; "none" is no activation."""

SIGMOIDAL = {"silu", "tanh", "sigmoid"}
"""Those that need a sigmoid in the C code, as gates do."""
