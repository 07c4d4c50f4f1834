"""What judging a candidate costs: nas against the usual training loops and the limit.

    python benchmarks/throughput.py [--device cpu|cuda] [--quick] [--csv FILE]
        [--nets s0,s3a,...] [--batch-sizes 64,128] [--repeats N] [--images N]

For each network and batch size the ways below train in turn, over and over, each on one
thread, with random affine changes of every image of the same bounds:

example   the loop of PyTorch's own MNIST example: a DataLoader over torchvision's
          transforms of PIL images, Adadelta, the loss read every tenth step
workers   the same with as many DataLoader workers as cores (and pinned memory on a GPU)
torch     nas as it trains where there is no C compiler (CPU alone)
nas       nas as it trains
keras     Keras with the network of the first seed (s0) as `model.fit` trains it, with
          no changes of the images, where Keras is installed

What is shown, a line a way: images a second (median of the rounds, and the lowest and
the highest), what an epoch of 55,000 images takes on the wall and of the processors, the
share of the time that the loop waits for its data, how many times faster than `example`,
and the share of the limit. The limit is the larger of two times: the network's arithmetic
(2 operations a multiply-accumulate; forwards, for the weights and, but for the first
layer, for the inputs) over the measured rate of a matrix product in single precision,
and its memory traffic (each feature map written and read forwards, its gradient likewise,
and the map read again for the weights' gradient) over the measured rate of a copy.

Ratios are of processor seconds on a CPU, so that other work disturbs them little, and of
wall seconds on a GPU. All rows go to a csv file. The last line is JSON: speedup_geomean
is nas against `example`, over networks and batch sizes. Images are random, which changes
nothing here. ``--quick`` measures less: under 3 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
import torch
from harness import conditions, numbers, write
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from nas.architecture import Architecture
from nas.architecture.cost import cost, count_params, layers
from nas.references.bundled import find_reference
from nas.training import kernels
from nas.training.loop import train
from nas.training.model import build
from nas.training.recipe import Recipe
from nas.training.step import TrainingData

NETS = "s0,s3a,s4,public-1936"
EPOCH = 55_000
# As in nas's own recipe, but every image is changed, in nas and in the usual loops.
RECIPE = Recipe(epochs=1, augment=1.0)


@dataclass(frozen=True)
class Round:
    """One training: how many images, and the seconds that they took."""

    images: int
    wall: float
    cpu: float
    waiting: float = math.nan  # for data


@dataclass(frozen=True)
class Row:
    """The rounds of one way to train one network, summed up; seconds are an epoch's."""

    net: str
    params: int
    batch: int
    way: str
    n: int
    images: int
    images_per_s: float
    lowest: float
    highest: float
    wall_s: float
    cpu_s: float
    data_share: float
    times_example: float
    limit_share: float


Way = Callable[[Architecture, TrainingData, int], Round]


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's MNIST gives them."""

    def __init__(self, data: TrainingData) -> None:
        self.images = data.train_images.cpu().squeeze(1).numpy()
        self.labels = data.train_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomAffine(
                    RECIPE.rotation,
                    (RECIPE.shift, RECIPE.shift),
                    (1 - RECIPE.scale, 1 + RECIPE.scale),
                    RECIPE.shear,
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


def usual(
    architecture: Architecture, data: TrainingData, batch_size: int, workers: int = 0
) -> Round:
    """Train one epoch as PyTorch's MNIST example does."""
    device = data.train_images.device
    model = build(architecture, seed=0).to(device)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    pictures = Pictures(data)
    waiting = 0.0
    with clock(device, len(pictures)) as finish:
        loader = DataLoader(
            pictures,
            batch_size,
            shuffle=True,
            num_workers=workers,
            pin_memory=bool(workers) and device.type == "cuda",
        )
        model.train()
        since = time.perf_counter()
        for number, (images, labels) in enumerate(loader):
            waiting += time.perf_counter() - since
            images, labels = images.to(device), labels.to(device)  # noqa: PLW2901
            optimizer.zero_grad()
            output = functional.log_softmax(model(images), dim=1)
            loss = functional.nll_loss(output, labels)
            loss.backward()
            optimizer.step()
            if number % 10 == 0:
                loss.item()
            since = time.perf_counter()
        del loader
    return replace(finish(), waiting=waiting)


def with_workers(
    architecture: Architecture, data: TrainingData, batch_size: int
) -> Round:
    """Train as the example, with DataLoader workers."""
    return usual(architecture, data, batch_size, len(os.sched_getaffinity(0)))


def nas(architecture: Architecture, data: TrainingData, batch_size: int) -> Round:
    """Train as nas does: on a GPU three epochs, as a search, with the recording."""
    device = data.train_images.device
    epochs = 3 if device.type == "cuda" else 1
    recipe = replace(RECIPE, epochs=epochs, batch_size=batch_size)
    model = build(architecture, seed=0).to(device)
    with clock(device, epochs * len(data.train_labels)) as finish:
        for _ in train(model, data, recipe, seed=0, rungs=[epochs]):
            pass
    return finish()


def torch_only(
    architecture: Architecture, data: TrainingData, batch_size: int
) -> Round:
    """Train as nas does where there is no C compiler."""
    with (
        mock.patch("nas.training.kernels.layers.supports", return_value=False),
        mock.patch.object(kernels, "available", return_value=False),
    ):
        return nas(architecture, data, batch_size)


def keras(architecture: Architecture, data: TrainingData, batch_size: int) -> Round:
    """Train the first seed's network as it was trained: model.fit on arrays."""
    del architecture
    keras_model, images, labels = _keras_model(data)
    keras_model.fit(images, labels, batch_size=batch_size, epochs=1, verbose=0)
    with clock(data.train_images.device, len(labels)) as finish:
        keras_model.fit(images, labels, batch_size=batch_size, epochs=1, verbose=0)
    return finish()


def _keras_model(data: TrainingData) -> tuple[Any, Any, Any]:
    import keras as k  # type: ignore[import-not-found, unused-ignore]

    def conv(out_channels: int, kernel_size: int, *, bias: bool = True) -> list[Any]:
        return [
            k.layers.Conv2D(
                out_channels, kernel_size, use_bias=bias, activation="relu"
            ),
            k.layers.BatchNormalization(),
            k.layers.Dropout(0.1),
        ]

    model = k.Sequential(
        [
            k.layers.Input((28, 28, 1)),
            *conv(16, 3, bias=False),
            k.layers.MaxPooling2D(),
            *conv(32, 3),
            *conv(10, 1),
            *conv(16, 3),
            *conv(16, 3),
            k.layers.MaxPooling2D(),
            k.layers.Conv2D(10, 3),
            k.layers.BatchNormalization(),
            k.layers.Dropout(0.1),
            k.layers.Flatten(),
            k.layers.Activation("softmax"),
        ]
    )
    assert sum(prod(weight.shape) for weight in model.trainable_weights) == 10_540
    model.compile(
        optimizer=k.optimizers.Adam(0.003), loss="sparse_categorical_crossentropy"
    )
    pixels = data.train_images.cpu().permute(0, 2, 3, 1).float().div(255).numpy()
    return model, pixels, data.train_labels.cpu().numpy()


def keras_backend() -> str:
    """Return what Keras runs on, on one thread; empty without Keras."""
    try:
        import keras as k
    except ImportError:
        return ""
    backend = str(k.backend.backend())
    if backend == "tensorflow":
        import tensorflow as tf  # type: ignore[import-not-found, unused-ignore]

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return f"{k.__version__} on {backend}"


@contextmanager
def clock(device: torch.device, images: int) -> Iterator[Callable[[], Round]]:
    """Time a block; afterwards the yielded function tells."""

    def now() -> tuple[float, float]:
        if device.type == "cuda":
            torch.cuda.synchronize()
        usage = [
            resource.getrusage(who)
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        return time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in usage)

    start = now()
    stop = start
    yield lambda: Round(images, stop[0] - start[0], stop[1] - start[1])
    stop = now()


def seconds(one: Round, device: torch.device) -> float:
    """Return the seconds an image that ratios are made of."""
    return (one.wall if device.type == "cuda" else one.cpu) / one.images


def limit(architecture: Architecture, matrix: float, copy: float) -> float:
    """Return the least seconds an image, with operations and bytes a second."""
    macs = cost(architecture).macs
    table = [layer for layer in layers(architecture) if layer.macs]
    operations = 2 * (3 * macs - table[0].macs)
    values = sum(prod(layer.output_shape) for layer in table)
    return max(operations / matrix, 5 * 4 * values / copy)


def matrix_rate(device: torch.device) -> float:
    """Return operations a second of a product of matrices, the best of many."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    return 2 * size**3 / _best(lambda: torch.mm(a, b), device)


def copy_rate(device: torch.device) -> float:
    """Return bytes a second, read and written, of copying far more than caches hold."""
    count = 2**28 if device.type == "cuda" else 2**26
    a = torch.rand(count, device=device)
    b = torch.empty_like(a)
    return 2 * 4 * count / _best(lambda: b.copy_(a), device)


def _best(work: Callable[[], Any], device: torch.device) -> float:
    return min(_timed(work, device) for _ in range(12))


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    with clock(device, 1) as finish:
        work()
    return seconds(finish(), device)


def random_data(count: int, device: torch.device) -> TrainingData:
    """Return that many random images and labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, 1, 28, 28)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (count,), generator=generator)
    return TrainingData(
        train_images=images.to(device),
        train_labels=labels.to(device),
        val_images=images[:0].to(device),
        val_labels=labels[:0].to(device),
        mean=(0.1307,),
        std=(0.3081,),
    )


def ways_for(device: torch.device, *, quick: bool) -> dict[str, Way]:
    """Return what is compared on that device."""
    ways: dict[str, Way] = {"example": usual, "workers": with_workers}
    if device.type == "cpu" and not quick:
        ways["torch"] = torch_only
    return ways | {"nas": nas}


def summed_up(
    rounds: dict[str, list[Round]], plain: Row, device: torch.device
) -> list[Row]:
    """Return one row a way; ``plain`` has what all of them share."""
    rows = []
    example = statistics.median(seconds(one, device) for one in rounds["example"])
    for way, runs in rounds.items():
        rates = [one.images / one.wall for one in runs]
        typical = statistics.median(seconds(one, device) for one in runs)
        shares = [one.waiting / one.wall for one in runs]
        rows.append(
            replace(
                plain,
                way=way,
                n=len(runs),
                images=runs[0].images,
                images_per_s=statistics.median(rates),
                lowest=min(rates),
                highest=max(rates),
                wall_s=EPOCH / statistics.median(rates),
                cpu_s=EPOCH * statistics.median(r.cpu / r.images for r in runs),
                data_share=statistics.median(shares),
                times_example=example / typical,
                limit_share=plain.limit_share / typical,
            )
        )
    return rows


def measure(options: argparse.Namespace, device: torch.device) -> list[Row]:
    """Measure everything, printing the table as it grows."""
    matrix, copy = matrix_rate(device), copy_rate(device)
    print(f"matrix product {matrix / 1e9:,.0f} GFLOP/s, copy {copy / 1e9:,.1f} GB/s")
    backend = keras_backend() if "s0" in options.nets.split(",") else ""
    print(f"keras: {backend or 'not installed'}\n")
    few = random_data(options.images, device)
    data = random_data(EPOCH, device) if device.type == "cuda" else few
    print(
        f"{'net':12}{'params':>7}{'batch':>6}  {'way':8}{'images/s':>9}"
        f"{'lowest':>9}{'highest':>9}{'epoch s':>9}{'cpu s':>8}{'data':>6}"
        f"{'x':>7}{'limit':>7}"
    )
    rows = []
    for net in options.nets.split(","):
        architecture = find_reference(net).architecture
        for batch in options.batch_sizes:
            ways = ways_for(device, quick=options.quick)
            if net == "s0" and backend:
                ways["keras"] = keras
            rounds: dict[str, list[Round]] = {way: [] for way in ways}
            nas(architecture, few, batch)  # compiles, warms up
            for _ in range(options.repeats):
                for name, way in ways.items():
                    some = data if name == "nas" else few
                    rounds[name].append(way(architecture, some, batch))
            shared = Row(
                **dict.fromkeys((field.name for field in fields(Row)), math.nan)  # type: ignore[arg-type]
            )
            shared = replace(
                shared,
                net=net,
                params=count_params(architecture),
                batch=batch,
                limit_share=limit(architecture, matrix, copy),
            )
            some_rows = summed_up(rounds, shared, device)
            for row in some_rows:
                print(
                    f"{row.net:12}{row.params:7}{row.batch:6}  {row.way:8}"
                    f"{row.images_per_s:9.0f}{row.lowest:9.0f}{row.highest:9.0f}"
                    f"{row.wall_s:9.2f}{row.cpu_s:8.2f}"
                    + (
                        "     -"
                        if math.isnan(row.data_share)
                        else f"{row.data_share:6.0%}"
                    )
                    + f"{row.times_example:7.2f}{row.limit_share:7.1%}",
                    flush=True,
                )
            rows += some_rows
    return rows


def rounded(row: Row) -> dict[str, object]:
    """Return the row for the csv file."""
    return {
        name: f"{value:.4g}" if isinstance(value, float) else value
        for name, value in asdict(row).items()
    }


def geomean(numbers: list[float]) -> float:
    """Return the geometric mean."""
    return math.exp(statistics.fmean(map(math.log, numbers)))


def main() -> None:
    """Measure, print the table, write the csv file, end with one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nets", default=NETS, help="references, by name or file")
    parser.add_argument("--batch-sizes", type=numbers)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--csv", type=Path, default=Path("throughput.csv"))
    options = parser.parse_args()
    options.batch_sizes = options.batch_sizes or ([64] if options.quick else [64, 128])
    options.repeats = options.repeats or (3 if options.quick else 5)
    options.images = options.images or (1280 if options.quick else 4096)
    device = torch.device(options.device)
    torch.set_num_threads(1)
    started = time.perf_counter()
    print(f"{conditions(options.device)}, one thread; n = {options.repeats}")
    rows = measure(options, device)
    write(options.csv, [rounded(row) for row in rows])
    ours = [row for row in rows if row.way == "nas"]
    summary = {
        "speedup_geomean": round(geomean([row.times_example for row in ours]), 3),
        "limit_share_geomean": round(geomean([row.limit_share for row in ours]), 3),
        "speedup": {
            f"{row.net} at {row.batch}": round(row.times_example, 2) for row in ours
        },
        "device": options.device,
        "n": options.repeats,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(f"\nwritten to {options.csv}; {summary['seconds']} s")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
