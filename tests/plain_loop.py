"""The slow oracle of the training loop: torch's own parts, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nas.training import augmentation
from nas.training.loop import learning_rate
from nas.training.recipe import Recipe
from nas.training.step import TrainingData


def plain_loop(
    model: nn.Module, data: TrainingData, recipe: Recipe, *, seed: int
) -> Iterator[None]:
    """Train the model in place as a tutorial would, on a CPU, and stop each epoch."""
    images = data.train_images.float() / 255
    mean, std = (torch.tensor(n).view(1, -1, 1, 1) for n in (data.mean, data.std))
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0},
    ]
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            groups, 1.0, recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov
        )
    elif recipe.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, 1.0, weight_decay=decay)
    else:
        optimizer = torch.optim.AdamW(groups, 1.0, weight_decay=decay)
    steps = len(images) // recipe.batch_size
    total = steps * recipe.epochs
    averaged = round(total * recipe.average)
    averages: dict[str, torch.Tensor] = {}
    weights = None
    if recipe.class_weights != "none":
        weights = torch.tensor(recipe.class_weights)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for step in range(steps):
            some = order[step * recipe.batch_size :][: recipe.batch_size]
            batch = images[some]
            batch = augmentation.augmented(batch, recipe, generator, augmentation.warp)
            loss = functional.cross_entropy(
                model((batch - mean) / std),
                data.train_labels[some],
                weight=weights,
                label_smoothing=recipe.label_smoothing,
            )
            model.zero_grad()
            loss.backward()
            if recipe.clip_norm > 0:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            number = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(number, total, recipe)
            optimizer.step()
            since = number - (total - averaged)
            if since >= 0:
                weight = max(1 / (since + 1), 5 / max(5, averaged))
                for name, value in model.state_dict().items():
                    if value.is_floating_point():
                        old = averages.get(name, value)
                        averages[name] = old + weight * (value - old)
        if epoch < recipe.epochs - 1:
            yield
    model.load_state_dict(averages, strict=False)
    yield
