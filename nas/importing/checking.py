"""Proof that the architecture says the user's module: it computes the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from nas.architecture import Architecture
from nas.errors import ArchitectureError
from nas.importing.tracing import Chain, trace
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
            f"found have {found}: are some frozen, or unused?"
        )
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        theirs = list(_with_weights(chain))
        for one, other in zip(
            theirs, _with_weights(trace(ours, architecture.input_shape)), strict=True
        ):
            _randomise(one)
            other.load_state_dict(one.state_dict())
        images = torch.randn(4, *architecture.input_shape)
        wanted = model.eval()(images)
        logits = ours.eval()(images)
    if chain.ending is not None:
        logits = getattr(logits, chain.ending)(1)
    difference = float((wanted - logits).abs().max())
    if not difference <= 1e-3 * max(1.0, float(wanted.abs().max())):
        raise ArchitectureError(
            "the architecture that nas found computes something else than the module "
            f"(logits differ by {difference:.3g}): please report it"
        )


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
    if isinstance(module, nn.BatchNorm2d):
        module.eps = 1e-5
        for tensor in (module.weight, module.bias, module.running_mean):
            assert tensor is not None
            tensor.normal_()
        assert module.running_var is not None
        module.running_var.uniform_(0.5, 1.5)
