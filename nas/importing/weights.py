"""Layers that forward computes with weights of its own: `F.conv2d(x, self.weight)`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from nas.importing.refusals import OWN_WEIGHTS, nearest, refuse

TAKING_WEIGHTS = {
    "conv2d": (
        *("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    "linear": ("input", "weight", "bias"),
    "batch_norm": (
        *("input", "running_mean", "running_var", "weight", "bias"),
        *("training", "momentum", "eps"),
    ),
}
"""The functions, and their arguments in their order."""
_COMPUTED = (
    "its weights are computed from others (weight standardisation, weight or spectral "
    "norm, pruning); the nearest is the plain layer"
)


def with_its_weights(node: fx.Node, target: str, name: str) -> nn.Module:
    """Return the torch module that does the same with the same parameters.

    Raises ArchitectureError for another function, and for weights that are no
    parameters.
    """
    if target not in TAKING_WEIGHTS:
        values = [n.meta["value"] for n in node.all_input_nodes if n.op == "get_attr"]
        trained = any(isinstance(value, nn.Parameter) for value in values)
        raise refuse(name, OWN_WEIGHTS if trained else nearest(target))
    named = zip(TAKING_WEIGHTS[target], node.args, strict=False)
    given: dict[str, Any] = dict(named) | dict(node.kwargs)
    for key, value in given.items():
        if key != "input" and isinstance(value, fx.Node):
            if value.op != "get_attr":
                raise refuse(name, _COMPUTED)
            given[key] = value.meta["value"]
    weight, bias = given.get("weight"), given.get("bias")
    for tensor in (weight, bias):
        if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter):
            raise refuse(name, "its weights are no parameters, so they are not trained")
    if target == "batch_norm":
        return _norm(given)
    assert isinstance(weight, nn.Parameter)
    if target == "linear":
        module: nn.Module = nn.Linear(
            weight.shape[1], weight.shape[0], bias=bias is not None, device="meta"
        )
    else:
        groups = given.get("groups", 1)
        module = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            (weight.shape[2], weight.shape[3]),
            **{k: given[k] for k in ("stride", "padding", "dilation") if k in given},
            groups=groups,
            bias=bias is not None,
            device="meta",
        )
    module.weight, module.bias = weight, bias  # type: ignore[assignment]
    return module


def _norm(given: dict[str, Any]) -> nn.Module:
    mean = given["running_mean"]
    size = 1 if mean is None else len(mean)
    norm = nn.BatchNorm2d(
        size,
        eps=given.get("eps", 1e-5),
        momentum=given.get("momentum", 0.1),
        affine=given.get("weight") is not None,
        track_running_stats=mean is not None,
        device="meta",
    )
    for key in ("weight", "bias", "running_mean", "running_var"):
        setattr(norm, key, given.get(key))
    return norm


def check_plain_weights(module: nn.Module, name: str) -> None:
    """Raise ArchitectureError where the module's weight is computed from others."""
    if "weight" not in dict(module.named_parameters(recurse=False)):
        raise refuse(name, _COMPUTED)
