"""Proof that the architecture says the user's module: it computes the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.architecture import Architecture
from nas.errors import ArchitectureError
from nas.importing.layer import Chain, Layer
from nas.importing.tracing import trace
from nas.training.model import build


def check_same(model: nn.Module, chain: Chain, architecture: Architecture) -> None:
    """Raise ArchitectureError unless the architecture is that of the module.

    Both have as many trainable parameters; and with the same random weights their
    layers take the same values for random images, and their logits are the same. The
    module's weights are changed.
    """
    ours = build(architecture, seed=0)
    expected = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = sum(p.numel() for p in ours.parameters())
    if expected != found:
        raise ArchitectureError(
            f"the module has {expected} trainable parameters, but the layers that nas "
            f"found have {found}{_why_counts_differ(model, chain)}"
        )
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        theirs = _with_weights(chain)
        built = _with_weights(trace(ours, architecture.input_shape))
        for one, other in zip(theirs, built, strict=True):
            _randomise(one)
            # A 1x1 convolution of one pixel is a linear layer here.
            other.load_state_dict(
                {
                    key: value.reshape(other.state_dict()[key].shape)
                    for key, value in one.state_dict().items()
                }
            )
        images = torch.randn(4, *architecture.input_shape)
        with _Watched(theirs) as wanted:
            logits = _tensors(model.eval()(images))[chain.logits]
        with _Watched(built) as given:
            our_logits = ours.eval()(chain.normalise(images))
    if chain.ending is not None:
        our_logits = getattr(our_logits, chain.ending)(1)
    names = list(theirs.values())
    before = "the images"
    for key, values in wanted.taken.items():
        found = given.taken.get(key)
        # A classifier that is moved before the pooling takes another map.
        if found is not None and found.numel() == values.numel():
            _check_alike(values, found, before, names[key[0]], model)
        before = names[key[0]]
    _check_alike(logits, our_logits, before, "the logits", model)


def _check_alike(
    wanted: Tensor, found: Tensor, before: str, behind: str, model: nn.Module
) -> None:
    """Raise ArchitectureError where what stands between two layers differs."""
    difference = float((wanted.flatten() - found.flatten()).abs().max())
    if difference <= 1e-3 * float(wanted.abs().max()):
        return
    hooked = [
        name
        for name, module in model.named_modules()
        if vars(module)["_forward_hooks"] or vars(module)["_forward_pre_hooks"]
    ]
    cause = (
        f"the hooks of {', '.join(name or 'the module' for name in hooked)}"
        if hooked
        else "a change of weights or of part of a feature map, or images of one batch "
        "that are not treated alike"
    )
    raise ArchitectureError(
        f"between {before} and {behind} forward does something that nas does not see, "
        f"such as {cause}, so that the values differ by {difference:.2g}; the nearest is "
        "without it"
    )


def _tensors(returned: Any) -> list[Any]:
    """Return the tensors that a forward returns, also in a dict or tuple."""
    if isinstance(returned, dict):
        returned = tuple(returned.values())
    if isinstance(returned, tuple | list):
        return [tensor for part in returned for tensor in _tensors(part)]
    return [returned] if isinstance(returned, Tensor) else []


class _Watched(TorchFunctionMode):  # type: ignore[misc,unused-ignore]
    """Keeps what each layer takes, by its place and how often it ran before.

    Dropout functions that are on in evaluation, too, are left out; so is autocast, whose
    rounding would hide what differs.
    """

    def __init__(self, modules: dict[nn.Module, str]) -> None:
        super().__init__()
        self.places = {id(module.weight): place for place, module in enumerate(modules)}
        self.taken: dict[tuple[int, int], Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Return the values as they are, or what the function does."""
        kwargs = kwargs or {}
        values = args[0] if args else kwargs.get("input")
        if "dropout" in getattr(func, "__name__", ""):
            return values
        # A layer's function takes the values first, then the weights.
        for given in (
            (*args[1:], *kwargs.values()) if isinstance(values, Tensor) else ()
        ):
            if (place := self.places.get(id(given))) is not None:
                count = sum(place == one for one, _ in self.taken)
                self.taken[place, count] = values.clone()
        with torch.autocast("cpu", enabled=False):
            return func(*args, **kwargs)


def _why_counts_differ(model: nn.Module, chain: Chain) -> str:
    """Return what explains another number of parameters, as the end of a sentence."""
    used: dict[int, list[str]] = {}
    for module, name in _weighted(chain.layers):
        for p in module.parameters():
            used.setdefault(id(p), []).append(name)
    named = list(model.named_parameters())
    unused = [name for name, p in named if id(p) not in used]
    if unused:
        return (
            f": no layer on the way to the logits uses {', '.join(unused)}; the nearest "
            "is a module without them"
        )
    if frozen := [name for name, p in named if not p.requires_grad]:
        return (
            f": {', '.join(frozen)} are frozen, and nas trains all; the nearest is "
            "requires_grad=True"
        )
    if shared := [names for names in used.values() if len(names) > 1]:
        return (
            f": the weights of {' and '.join(dict.fromkeys(shared[0]))} are used more than "
            "once; the nearest is a layer of its own for each use"
        )
    return ""


def _weighted(layers: Iterable[Layer]) -> Iterator[tuple[nn.Module, str]]:
    """Yield each use of a module that has weights, with its layer's name."""
    for layer in layers:
        inside = [*layer.body, *layer.shortcut]
        if inside:
            yield from _weighted(inside)
        else:
            for module in layer.modules:
                yield module, layer.name


def _with_weights(chain: Chain) -> dict[nn.Module, str]:
    """Return each module that has weights once, in the order of the execution."""
    found: dict[nn.Module, str] = {}
    for module, name in _weighted(chain.layers):
        found.setdefault(module, name)
    return found


def _randomise(module: nn.Module) -> None:
    """Give weights and statistics that would show whatever differs."""
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        module.eps = 1e-5
        for tensor in (module.weight, module.bias, module.running_mean):
            assert tensor is not None
            tensor.normal_()
        assert module.running_var is not None
        module.running_var.uniform_(0.5, 1.5)
    elif isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            module.bias.normal_(0, 0.1)
