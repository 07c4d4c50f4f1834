"""Proof that the architecture says the user's module: it computes the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.architecture import Architecture
from nas.errors import ArchitectureError
from nas.importing.layer import Chain
from nas.importing.tracing import trace
from nas.training.model import build


def check_same(model: nn.Module, chain: Chain, architecture: Architecture) -> None:
    """Raise ArchitectureError unless the architecture is that of the module.

    Both have as many trainable parameters; and with the same random weights they give
    the same logits for random images. The module's weights are changed.
    """
    ours = build(architecture, seed=0)
    expected = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = sum(p.numel() for p in ours.parameters())
    if expected != found:
        raise ArchitectureError(
            f"the module has {expected} trainable parameters, but the layers that nas "
            f"found have {found}: are some frozen, or unused?{_unused(model, chain)}"
        )
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        theirs = list(_with_weights(chain))
        for one, other in zip(
            theirs, _with_weights(trace(ours, architecture.input_shape)), strict=True
        ):
            _randomise(one)
            # A 1x1 convolution of one pixel is a linear layer here.
            other.load_state_dict(
                {
                    key: value.reshape(other.state_dict()[key].shape)
                    for key, value in one.state_dict().items()
                }
            )
        images = torch.randn(4, *architecture.input_shape)
        with _NoDropout():
            wanted = _tensors(model.eval()(images))[chain.logits]
        logits = ours.eval()(chain.normalise(images))
    if chain.ending is not None:
        logits = getattr(logits, chain.ending)(1)
    difference = float((wanted - logits).abs().max())
    if not difference <= 1e-3 * max(1.0, float(wanted.abs().max())):
        raise ArchitectureError(
            "the architecture that nas found computes something else than the module "
            f"(logits differ by {difference:.3g}): do hooks or its forward change "
            "weights, or does it treat images of one batch differently?"
        )


def _tensors(returned: Any) -> list[Any]:
    """Return the tensors that a forward returns, also in a dict or tuple."""
    if isinstance(returned, dict):
        returned = tuple(returned.values())
    if isinstance(returned, tuple | list):
        return [tensor for part in returned for tensor in _tensors(part)]
    return [returned] if isinstance(returned, Tensor) else []


class _NoDropout(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    """Leaves out dropout functions that are on in evaluation, too."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return the values as they are, or what the function does."""
        if "dropout" in getattr(func, "__name__", ""):
            return args[0] if args else kwargs["input"]
        return func(*args, **(kwargs or {}))


def _unused(model: nn.Module, chain: Chain) -> str:
    """Return the names of the parameters that no layer uses, as a clause."""
    used = {
        id(p) for layer in chain.layers for m in layer.modules for p in m.parameters()
    }
    names = [name for name, p in model.named_parameters() if id(p) not in used]
    return f" No layer uses {', '.join(names)}" if names else ""


def _with_weights(chain: Chain) -> Iterator[nn.Module]:
    """Yield each module that has weights once, in the order of the execution."""
    seen: set[int] = set()
    for layer in chain.layers:
        for module in layer.modules:
            if id(module) not in seen:
                seen.add(id(module))
                yield module


def _randomise(module: nn.Module) -> None:
    """Give batch norm weights and statistics that would show a changed order."""
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        module.eps = 1e-5
        for tensor in (module.weight, module.bias, module.running_mean):
            assert tensor is not None
            tensor.normal_()
        assert module.running_var is not None
        module.running_var.uniform_(0.5, 1.5)
