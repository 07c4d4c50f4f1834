"""How long an epoch takes: nas against the usual PyTorch training loop.

    python benchmarks/training_speed.py [images.npz] [--batch-size 128] [--repeats 5]

The usual loop is a DataLoader over torchvision transforms (RandomAffine, ToTensor,
Normalize) with AdamW and OneCycleLR; nas trains the same network with the same batch
size and changes of the same bounds, once with its C kernels and once without. All
three take turns. What is shown is the median of the processor's seconds for an epoch
of 55,000 images, from runs over fewer. One thread; without a file (``images`` uint8
[N, 1, 28, 28] and ``labels``) the images are random, which changes nothing here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nas.architecture import Architecture, Block, Head
from nas.cost import count_params
from nas.model import build
from nas.recipe import Recipe
from nas.training import TrainingData, kernels, train

IMAGES = 16 * 256
EPOCH = 55_000


def network(*blocks: Block, kernel_size: int = 0) -> Architecture:
    """Return an architecture for MNIST, with a conv head where a size is given."""
    head = Head(kind="conv", kernel_size=kernel_size) if kernel_size else Head()
    return Architecture(
        input_shape=(1, 28, 28), num_classes=10, blocks=blocks, head=head
    )


def conv(out_channels: int, kernel_size: int = 3, *, valid: bool = False) -> Block:
    """Return a convolution with batch norm and ReLU."""
    return Block(
        out_channels=out_channels,
        kernel_size=kernel_size,
        padding="valid" if valid else "same",
    )


def pooled(out_channels: int, kernel_size: int = 3, *, valid: bool = False) -> Block:
    """Return the same with max pooling."""
    return Block(
        out_channels=out_channels,
        kernel_size=kernel_size,
        padding="valid" if valid else "same",
        pool="max",
    )


def separable(out_channels: int, pool: str = "none") -> Block:
    """Return a separable convolution."""
    return Block(kind="separable", out_channels=out_channels, pool=pool)  # type: ignore[arg-type]


NETWORKS = {
    "tiny": network(pooled(6), conv(6), pooled(6), conv(5)),
    "4-8-8, nine convolutions": network(
        *(conv(4), conv(4), pooled(4)),
        *(conv(8), conv(8), pooled(8)),
        *(conv(8), conv(8), conv(8)),
    ),
    "separable": network(
        pooled(8), separable(24), separable(32, "max"), separable(48), separable(48)
    ),
    "10-30-10-14": network(
        *(conv(10, valid=True), conv(30, valid=True), pooled(10, 1)),
        *(conv(14, valid=True) for _ in range(3)),
        conv(14),
    ),
    "S0 without dropout": network(
        *(pooled(16, valid=True), conv(32, valid=True), conv(10, 1)),
        *(conv(16, valid=True), pooled(16, valid=True)),
        kernel_size=3,
    ),
}


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's data sets give them."""

    def __init__(self, data: TrainingData, recipe: Recipe) -> None:
        self.images = data.train_images.squeeze(1).numpy()
        self.labels = data.train_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomAffine(
                    recipe.rotation,
                    (recipe.shift, recipe.shift),
                    (1 - recipe.scale, 1 + recipe.scale),
                    recipe.shear,
                    transforms.InterpolationMode.BILINEAR,
                ),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def usual_epoch(model: nn.Module, data: TrainingData, recipe: Recipe) -> None:
    """Train one epoch as the tutorials do."""
    loader = DataLoader(Pictures(data, recipe), recipe.batch_size, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.max_lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.max_lr, total_steps=len(loader)
    )
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()


def our_epoch(model: nn.Module, data: TrainingData, recipe: Recipe) -> None:
    """Train one epoch as nas does."""
    for _ in train(model, data, recipe, seed=0, rungs=[1]):
        pass


def torch_epoch(model: nn.Module, data: TrainingData, recipe: Recipe) -> None:
    """Train one epoch as nas does where there is no C compiler."""
    with (
        mock.patch.object(kernels, "supports", return_value=False),
        mock.patch.object(kernels, "available", return_value=False),
    ):
        our_epoch(model, data, recipe)


WAYS: dict[str, Callable[[nn.Module, TrainingData, Recipe], None]] = {
    "usual": usual_epoch,
    "torch": torch_epoch,
    "kernels": our_epoch,
}


def read(path: Path | None) -> TrainingData:
    """Return the images of the file, or random ones."""
    if path is None:
        generator = torch.Generator().manual_seed(0)
        shape = (IMAGES, 1, 28, 28)
        images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        labels = torch.randint(10, (IMAGES,), generator=generator)
    else:
        with np.load(path) as arrays:
            images = torch.from_numpy(arrays["images"][:IMAGES])
            labels = torch.from_numpy(arrays["labels"][:IMAGES])
    return TrainingData(
        train_images=images,
        train_labels=labels,
        val_images=images[:0],
        val_labels=labels[:0],
        mean=(0.1307,),
        std=(0.3081,),
    )


def main() -> None:
    """Measure and print one line a network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", nargs="?", type=Path)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = read(options.images)
    recipe = Recipe(
        epochs=1,
        batch_size=options.batch_size,
        optimizer="adamw",
        max_lr=0.015,
        augment=1.0,
    )
    print(f"torch {torch.__version__}, batch {options.batch_size}, s an epoch")
    print(f"{'':26}{'params':>7}" + "".join(f"{way:>9}" for way in WAYS))
    for name, architecture in NETWORKS.items():
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, epoch in WAYS.items():
                model = build(architecture, seed=0)
                started = time.process_time()
                epoch(model, data, recipe)
                spent = time.process_time() - started
                seconds[way].append(spent * EPOCH / len(data.train_labels))
        medians = [statistics.median(seconds[way]) for way in WAYS]
        ratios = [medians[0] / m for m in medians[1:]]
        print(
            f"{name:26}{count_params(architecture):7}"
            + "".join(f"{m:9.2f}" for m in medians)
            + "   usual / ours: "
            + ", ".join(f"{r:.1f}" for r in ratios),
            flush=True,
        )


if __name__ == "__main__":
    main()
