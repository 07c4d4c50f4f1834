"""Records the change of the weights at the end of a step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.training.kernels.gpu_recording.operations import Operations, share_evenly
from nas.training.kernels.program import Parameter, Part, uploaded
from nas.training.optimizer import BETAS, EPSILON
from nas.training.recipe import Recipe

_OPTIMIZERS = {"sgd": 0, "adam": 1, "adamw": 2}


def change_weights(
    to: Operations,
    parameters: Sequence[nn.Parameter],
    recipe: Recipe,
    rates: Tensor,
    place: Tensor | None,
) -> None:
    """Record that gradients are gathered from their parts and the weights changed.

    ``rates`` are the learning rates of all steps, ``place`` the number of the step that
    is being done.
    """
    sizes = [p.numel() for p in parameters]
    starts = [*itertools.accumulate(sizes, initial=0)]
    total = starts.pop()
    parts: list[Part] = []
    described = []
    for parameter, start, own in zip(parameters, starts, to.parts, strict=True):
        first = len(parts) if own else -1
        for number, (values, splits) in enumerate(own, start=1):
            following = len(parts) + 1 if number < len(own) else -1
            parts.append(Part(values.data_ptr(), splits, following))
            to.held.append(values)
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        described.append(
            Parameter(parameter.data_ptr(), start, parameter.numel(), first, decay)
        )
    table = uploaded(described, to.device)
    blocks = share_evenly(total)
    gradient, squares, step, *moments = (
        torch.zeros(size, device=to.device)
        for size in (total, blocks[0], 1, total, total)
    )
    counts = len(parameters), total
    to.add(
        "gather", blocks, table, uploaded(parts, to.device), gradient, squares, place,
        step, integers=counts,
    )  # fmt: skip
    sgd = recipe.optimizer == "sgd"
    first_beta = recipe.momentum if sgd else BETAS[0]
    to.add(
        "update", blocks, table, gradient, squares, place, step, rates, *moments,
        integers=(*counts, blocks[0], _OPTIMIZERS[recipe.optimizer], recipe.nesterov),
        floats=(recipe.clip_norm, first_beta, BETAS[1], EPSILON),
    )  # fmt: skip
