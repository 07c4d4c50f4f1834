"""The GPU's kernel against its slow oracle, torch: on a CPU here, on a GPU where one is.

On a CPU the same source is compiled with what gpu_emulator.hpp has in place of CUDA: each
block is a thread, and its 256 threads take turns.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from system_programs import need
from test_kernels import CHAINS, difference, images_of, model_of
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture import Block
from nas.training import kernels
from nas.training.batches import Batches
from nas.training.kernels import cuda, gpu, program
from nas.training.kernels.gpu_recording import can_record
from nas.training.kernels.layers import all_layers, with_bodies
from nas.training.loop import train
from nas.training.model import ACTIVATION_MODULES
from nas.training.optimizer import Optimizer
from nas.training.recipe import Recipe
from nas.training.report import RungReport
from nas.training.step import TrainingData

HERE = Path(__file__).parent
SOURCE = Path(gpu.__file__).with_name("gpu.cu")
BATCH, STEPS = 64, 3


class Emulator:
    """Runs programs on the CPU, with so many blocks."""

    device = torch.device("cpu")

    def __init__(self, library: Path, blocks: int) -> None:
        self.blocks = self.present = blocks
        self._arrived = (ctypes.c_uint32 * 2)()
        self._launch = ctypes.CDLL(str(library)).launch
        self._launch.restype = None

    def launch(self, operations: Tensor, count: int, times: int) -> None:
        """Go through the operations so many times."""
        self._arrived[0] = 0
        address = ctypes.c_void_p(operations.data_ptr())
        counts = count, times
        self._launch(address, *counts, self._arrived, self.blocks, self.present)

    def check(self) -> None:
        """Raise RuntimeError where blocks of a launch gave up."""
        if self._arrived[1]:
            raise RuntimeError("blocks gave up")


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the GPU's source for this CPU."""
    need("c++")
    compiler = shutil.which("c++")
    assert compiler is not None
    library = tmp_path_factory.mktemp("gpu") / "emulated.so"
    # Without -Werror: what a compiler warns of changes with its version.
    flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-pthread", "-U_FORTIFY_SOURCE"]
    subprocess.run(
        [
            *(compiler, *flags, "-Wall", "-Wno-unknown-pragmas"),
            *(f'-DKERNELS="{SOURCE}"', "-x", "c++", str(HERE / "gpu_emulator.hpp")),
            *("-o", str(library)),
        ],
        check=True,
    )
    return library


@pytest.fixture(params=["emulated", "gpu"])
def launcher(request: pytest.FixtureRequest) -> program.Launcher:
    """Have the emulator, with blocks that wait for one another, or the GPU."""
    if request.param == "emulated":
        return Emulator(request.getfixturevalue("emulated"), blocks=3)
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    found = cuda.launcher(torch.device("cuda:0"))
    assert found is not None, cuda.why_missing(torch.device("cuda:0"))
    return found


def training_of(
    launcher: program.Launcher, model: nn.Module, recipe: Recipe, weights: Any = None
) -> gpu.Training:
    """Return the model's training on the launcher's device, for 2x15x18 images."""
    batches = Batches(shape=(2, 15, 18), size=BATCH, ahead=STEPS, class_weights=weights)
    return gpu.Training(launcher, all_layers(model), recipe, batches)


def both_trained(
    launcher: program.Launcher, model: nn.Module, recipe: Recipe, weights: Any = None
) -> tuple[nn.Module, nn.Module, float, float]:
    """Train the model and an exact copy for some steps; return them and their losses."""
    exact = copy.deepcopy(model).double()
    model = model.to(launcher.device)
    images = images_of(BATCH * STEPS)
    labels = torch.arange(BATCH * STEPS).view(STEPS, BATCH) * 7 % 11 % 4
    rates = [0.02, 0.03, 0.01]
    on_device = None if weights is None else weights.to(launcher.device)
    training = training_of(launcher, model, recipe, on_device)
    training.load(images.to(launcher.device), labels.to(launcher.device), rates)
    training.run(1)
    training.run(STEPS - 1)
    rate = torch.zeros((), dtype=torch.float64)
    parameters = list(exact.parameters())
    optimizer = Optimizer(parameters, recipe, rate)
    total = 0.0
    for batch, answers, now in zip(images.split(BATCH), labels, rates, strict=True):
        rate.fill_(now)
        loss = functional.cross_entropy(
            exact(batch.double()),
            answers,
            weight=None if weights is None else weights.double(),
            label_smoothing=recipe.label_smoothing,
        )
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip_norm > 0:
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        total += float(loss.detach())
    return model.cpu(), exact, float(training.losses), total


def assert_alike(model: nn.Module, exact: nn.Module) -> None:
    """Hold that weights and statistics are the same but for rounding."""
    for (name, ours), theirs in zip(
        model.state_dict().items(), exact.state_dict().values(), strict=True
    ):
        if "num_batches" not in name:
            torch.testing.assert_close(
                ours.double(), theirs.double(), rtol=2e-4, atol=2e-6, msg=name
            )


SGD = Recipe(epochs=1, weight_decay=0.01, clip_norm=0.5, label_smoothing=0.1)


HEADS: tuple[dict[str, Any], ...] = (
    {"kind": "gap"},
    {"kind": "conv"},
    {"kind": "flatten"},
    {"kind": "gap", "hidden": 5},
)
# They have layers that `can_record` leaves to torch.
LEFT_TO_TORCH = {
    "grouped",
    "poolings of other sizes",
    "curves",
    "further shortcuts",
    "hard gates",
}
CASES = [
    pytest.param(
        name,
        HEADS[(number + 1) % len(HEADS)],
        id=name,
        marks=pytest.mark.slow if number > 2 else [],
    )
    for number, name in enumerate(name for name in CHAINS if name not in LEFT_TO_TORCH)
]


@pytest.mark.parametrize("name", CHAINS)
def test_what_the_kernel_lacks_is_left_to_torch(name: str) -> None:
    """A net with such a layer is not recorded at all."""
    layers = with_bodies(all_layers(model_of(*CHAINS[name])))
    assert all(map(can_record, layers)) == (name not in LEFT_TO_TORCH)


@pytest.mark.parametrize("name", ACTIVATION_MODULES)
def test_the_activations_that_the_kernel_lacks_are_left_to_torch(name: str) -> None:
    """It is asked layer by layer."""
    can = name not in {"tanh", "gelu", "elu"}
    assert can_record(ACTIVATION_MODULES[name]()) == can


@pytest.mark.parametrize(("name", "head"), CASES)
def test_steps_agree_with_torch(
    name: str, head: dict[str, Any], launcher: program.Launcher
) -> None:
    """Weights, statistics and loss after some steps are torch's in double precision."""
    model = model_of(*CHAINS[name], **head)
    model, exact, ours, theirs = both_trained(launcher, model, SGD)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert_alike(model, exact)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 0.25])])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=1, optimizer="adam", weight_decay=0.02, clip_norm=0.0),
        Recipe(epochs=1, optimizer="adamw", weight_decay=0.1, clip_norm=0.1),
        Recipe(epochs=1, momentum=0.0, nesterov=False),
        Recipe(epochs=1, momentum=0.8, nesterov=False, label_smoothing=0.0),
    ],
    ids=["adam", "adamw", "plain", "momentum"],
)
def test_optimizers_and_losses_agree_with_torch(
    recipe: Recipe, weights: Tensor | None, launcher: program.Launcher
) -> None:
    """Weights and loss follow the recipe and what each class counts."""
    model = model_of(Block(out_channels=5), kind="gap")
    model, exact, ours, theirs = both_trained(launcher, model, recipe, weights)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert_alike(model, exact)


@pytest.mark.parametrize(("name", "head"), CASES)
def test_evaluation_agrees_with_torch(
    name: str, head: dict[str, Any], launcher: program.Launcher
) -> None:
    """Any number of images gives torch's logits."""
    model = model_of(*CHAINS[name], **head)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    model.eval()
    images = images_of(37)
    with torch.inference_mode():
        expected = model(images)
        model, images = model.to(launcher.device), images.to(launcher.device)
        evaluation = gpu.Evaluation(launcher, all_layers(model), images.shape)
        assert difference(evaluation(images).cpu(), expected) < 1e-5
        assert difference(evaluation(images.flip(0)).cpu(), expected.flip(0)) < 1e-5


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_dropout_drops_other_values_in_each_step(
    norm: Any, launcher: program.Launcher
) -> None:
    """Forwards and backwards the same ones, the share that was asked, anew each step."""
    share = 0.3
    block = Block(
        out_channels=16, kernel_size=1, norm=norm, activation="none", dropout=share
    )
    model = model_of(block, kind="flatten").to(launcher.device)
    training = training_of(launcher, model, Recipe(epochs=1, weight_decay=0.0))
    kept = []
    images = torch.ones(BATCH * STEPS, 2, 15, 18, device=launcher.device)
    if norm == "batch":  # of a constant the norm would make nothing
        images += torch.randn(images.shape, device=launcher.device)
    labels = torch.zeros(STEPS, BATCH, dtype=torch.int64, device=launcher.device)
    training.load(images, labels, [0.0] * STEPS)
    for _ in range(STEPS):
        training.run(1)
        kept.append(dropped_map(training).cpu() != 0)
    error = (share * (1 - share) / kept[0].numel()) ** 0.5
    for one, other in itertools.pairwise(kept):
        assert float(one.double().mean()) == pytest.approx(1 - share, abs=5 * error)
        both = float((one & other).double().mean())
        assert both == pytest.approx((1 - share) ** 2, abs=6 * error)


def test_blocks_that_never_come_are_told_even_after_a_launch_that_went_well(
    emulated: Path,
) -> None:
    """The others give up, and no later launch hides it."""
    emulator = Emulator(emulated, blocks=2)
    training = training_of(emulator, model_of(*CHAINS["plain"], kind="gap"), SGD)
    for present in (1, 2):
        emulator.present = present
        labels = torch.zeros(STEPS, BATCH, dtype=torch.int64)
        training.load(images_of(BATCH * STEPS), labels, [0.0] * STEPS)
        training.run(1)
        with pytest.raises(RuntimeError, match="gave up"):
            training.check()


def trained(data: TrainingData, recipe: Recipe) -> tuple[nn.Module, list[RungReport]]:
    """Return a model after its training, and what was reported."""
    model = model_of(*CHAINS["plain"], kind="gap")
    return model, [*train(model, data, recipe, seed=0, rungs=[0.5, 1.3, 3])]


@pytest.mark.slow
def test_a_training_by_programs_is_one_by_torch(
    emulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the loop: batches ahead, rungs amid them, the average of the weights."""
    images = images_of(5 * BATCH).mul(40).add(128).clamp(0, 255).to(torch.uint8)
    labels = torch.arange(len(images)) * 7 % 11 % 4
    data = TrainingData(
        train_images=images[:-BATCH],
        train_labels=labels[:-BATCH],
        val_images=images[-BATCH:],
        val_labels=labels[-BATCH:],
        mean=(0.5, 0.5),
        std=(0.2, 0.2),
    )
    recipe = Recipe(epochs=3, batch_size=BATCH, augment=0.0, average=0.5)
    monkeypatch.setattr("nas.training.step.AHEAD_ON_CPU", 3)
    results = [trained(data, recipe)]
    emulator = Emulator(emulated, blocks=2)

    def by_program(model: nn.Module, *others: Any) -> gpu.Training:
        return gpu.Training(emulator, all_layers(model), *others)

    monkeypatch.setattr(kernels, "gpu_training", by_program)
    results.append(trained(data, recipe))
    (ours, told), (exact, expected) = reversed(results)
    # Both round, each in its own way, in each of twelve steps; one left out is 1e-2.
    for own, other in zip(ours.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0.0, atol=1e-4)
    for report, by_torch in zip(told, expected, strict=True):
        assert report.train_loss == pytest.approx(by_torch.train_loss, rel=1e-4)
        assert report.val_loss == pytest.approx(by_torch.val_loss, rel=1e-4)


def dropped_map(training: gpu.Training) -> Tensor:
    """Return the map behind the dropout: the second that the program makes."""
    held = training._program._held
    maps = {t.data_ptr(): t for t in held if t.ndim == 5 and t.shape[1] == 16}
    return [*maps.values()][1]
