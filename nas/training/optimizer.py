"""The recipe's optimizer: torch's fused kernels, called directly.

Making one of torch.optim imports torch's compiler: half of a worker's start (1.4 of
3 s of processor time) and 150 MB, for nothing that a worker needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.training.recipe import Recipe

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer:
    """SGD, Adam or AdamW; biases and batch norm do not decay.

    It reads its learning rate from the tensor ``rate`` at every step. ``state`` is
    all that it remembers: with every tensor of it at 0 it has not begun.
    """

    def __init__(
        self, parameters: Sequence[Tensor], recipe: Recipe, rate: Tensor
    ) -> None:
        self.state: list[Tensor] = []
        self._recipe, self._rate = recipe, rate
        groups = (
            ([p for p in parameters if p.ndim > 1], recipe.weight_decay),
            ([p for p in parameters if p.ndim == 1], 0.0),
        )
        self._groups: list[tuple[list[Tensor], float]] = list(groups)
        self._moments: list[tuple[list[Tensor], ...]] = []

    def zero_grad(self) -> None:
        """Forget the gradients: the next ones then take memory of their own."""
        for parameters, _ in self._groups:
            for parameter in parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the weights by their gradients."""
        if not self._moments:
            self._remember()
        for (parameters, weight_decay), moments in zip(
            self._groups, self._moments, strict=True
        ):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if not gradients:
                continue
            if self._recipe.optimizer == "sgd":
                torch._fused_sgd_(
                    parameters,
                    gradients,
                    moments[0] if self._recipe.momentum else [],
                    weight_decay=weight_decay,
                    momentum=self._recipe.momentum,
                    lr=self._rate,
                    dampening=0.0,
                    nesterov=self._recipe.nesterov,
                    maximize=False,
                    is_first_step=False,
                )
                continue
            averages, squares, steps = moments
            torch._foreach_add_(steps, 1)
            kind = (
                torch._fused_adam_
                if self._recipe.optimizer == "adam"
                else torch._fused_adamw_
            )
            kind(
                parameters,
                gradients,
                averages,
                squares,
                [],
                steps,
                lr=self._rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def _remember(self) -> None:
        # Only now: the kernels want everything laid out as the gradients are. What has
        # no gradient takes no part in the model.
        self._groups = [
            ([p for p in parameters if p.grad is not None], weight_decay)
            for parameters, weight_decay in self._groups
        ]
        for parameters, _ in self._groups:
            gradients = [p.grad for p in parameters if p.grad is not None]
            moments: tuple[list[Tensor], ...] = (
                [torch.zeros_like(g) for g in gradients],
            )
            if self._recipe.optimizer != "sgd":
                moments += (
                    [torch.zeros_like(g) for g in gradients],
                    [torch.zeros((), device=g.device) for g in gradients],
                )
            self._moments.append(moments)
            self.state += [tensor for moment in moments for tensor in moment]
