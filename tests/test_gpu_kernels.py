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
from nas.training.kernels import cuda, gpu
from nas.training.kernels.layers import all_layers
from nas.training.optimizer import Optimizer
from nas.training.recipe import Recipe

HERE = Path(__file__).parent
SOURCE = Path(gpu.__file__).with_name("gpu.cu")
BATCH, STEPS = 64, 3


class Emulator:
    """Runs programs on the CPU, with so many blocks."""

    device = torch.device("cpu")

    def __init__(self, library: Path, blocks: int) -> None:
        self.blocks = blocks
        self._launch = ctypes.CDLL(str(library)).launch
        self._launch.restype = None

    def launch(self, operations: Tensor, count: int, times: int) -> None:
        """Go through the operations so many times."""
        arrived = ctypes.c_uint32(0)
        address = ctypes.c_void_p(operations.data_ptr())
        self._launch(address, count, times, ctypes.byref(arrived), self.blocks)
        self._gave_up = bool(arrived.value >> 31)

    def check(self) -> None:
        """Hold that no block gave up."""
        assert not self._gave_up


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the GPU's source for this CPU."""
    need("c++")
    compiler = shutil.which("c++")
    assert compiler is not None
    library = tmp_path_factory.mktemp("gpu") / "emulated.so"
    flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-pthread", "-U_FORTIFY_SOURCE"]
    subprocess.run(
        [
            *(compiler, *flags, "-Wall", "-Werror", "-Wno-unknown-pragmas"),
            *(f'-DKERNELS="{SOURCE}"', "-x", "c++", str(HERE / "gpu_emulator.hpp")),
            *("-o", str(library)),
        ],
        check=True,
    )
    return library


@pytest.fixture(params=["emulated", "gpu"])
def launcher(request: pytest.FixtureRequest) -> gpu.Launcher:
    """Have the emulator, with blocks that wait for one another, or the GPU."""
    if request.param == "emulated":
        return Emulator(request.getfixturevalue("emulated"), blocks=3)
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    found = cuda.launcher(torch.device("cuda:0"))
    assert found is not None, cuda.why_missing(torch.device("cuda:0"))
    return found


def training_of(
    launcher: gpu.Launcher, model: nn.Module, recipe: Recipe, weights: Any = None
) -> gpu.Training:
    """Return the model's training on the launcher's device, for 2x15x18 images."""
    return gpu.Training(
        launcher,
        all_layers(model),
        recipe,
        shape=(2, 15, 18),
        batch_size=BATCH,
        ahead=STEPS,
        class_weights=weights,
    )


def both_trained(
    launcher: gpu.Launcher, model: nn.Module, recipe: Recipe, weights: Any = None
) -> tuple[nn.Module, nn.Module, float, float]:
    """Train the model and an exact copy for some steps; return them and their losses."""
    exact = copy.deepcopy(model).double()
    model = model.to(launcher.device)
    images = images_of(BATCH * STEPS)
    labels = torch.arange(BATCH * STEPS).view(STEPS, BATCH) * 7 % 11 % 4
    rates = [0.02, 0.03, 0.01]
    on_device = None if weights is None else weights.to(launcher.device)
    training = training_of(launcher, model, recipe, on_device)
    training.load(
        images.to(launcher.device), labels.to(launcher.device), torch.tensor(rates)
    )
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
CASES = [
    pytest.param(name, HEADS[(number + 1) % len(HEADS)], id=name)
    for number, name in enumerate(CHAINS)
]


@pytest.mark.parametrize(("name", "head"), CASES)
def test_steps_agree_with_torch(
    name: str, head: dict[str, Any], launcher: gpu.Launcher
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
    recipe: Recipe, weights: Tensor | None, launcher: gpu.Launcher
) -> None:
    """Weights and loss follow the recipe and what each class counts."""
    model = model_of(Block(out_channels=5), kind="gap")
    model, exact, ours, theirs = both_trained(launcher, model, recipe, weights)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert_alike(model, exact)


@pytest.mark.parametrize(("name", "head"), CASES)
def test_evaluation_agrees_with_torch(
    name: str, head: dict[str, Any], launcher: gpu.Launcher
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
    norm: Any, launcher: gpu.Launcher
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
    training.load(images, labels, torch.zeros(STEPS))
    for _ in range(STEPS):
        training.run(1)
        kept.append(dropped_map(training).cpu() != 0)
    error = (share * (1 - share) / kept[0].numel()) ** 0.5
    for one, other in itertools.pairwise(kept):
        assert float(one.double().mean()) == pytest.approx(1 - share, abs=5 * error)
        both = float((one & other).double().mean())
        assert both == pytest.approx((1 - share) ** 2, abs=6 * error)


def dropped_map(training: gpu.Training) -> Tensor:
    """Return the map behind the dropout: the second that the program makes."""
    held = training._program._held
    maps = {t.data_ptr(): t for t in held if t.ndim == 5 and t.shape[1] == 16}
    return [*maps.values()][1]
