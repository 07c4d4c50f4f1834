"""The GPU's kernel against its slow oracle, torch: on a CPU here, on a GPU where one is.

On a CPU the same source is compiled with what gpu_emulator.hpp has in place of CUDA: each
block is a thread, and its 256 threads take turns.
"""

from __future__ import annotations

import copy
import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kernels import CHAINS, difference, images_of, model_of
from torch import Tensor, nn
from torch.nn import functional

from nas.architecture import Block
from nas.training.kernels import gpu
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


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the GPU's source for this CPU."""
    compiler = shutil.which("c++")
    assert compiler is not None, "these tests need a C++ compiler"
    library = tmp_path_factory.mktemp("gpu") / "emulated.so"
    flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-pthread", "-U_FORTIFY_SOURCE"]
    subprocess.run(  # noqa: S603 - the machine's compiler on our own source
        [
            *(compiler, *flags, "-Wall", "-Werror", "-Wno-unknown-pragmas"),
            *(f'-DKERNELS="{SOURCE}"', "-x", "c++", str(HERE / "gpu_emulator.hpp")),
            *("-o", str(library)),
        ],
        check=True,
    )
    return library


@pytest.fixture(params=[1, 3], ids=["one block", "three blocks"])
def launcher(emulated: Path, request: pytest.FixtureRequest) -> Emulator:
    """Have an emulator."""
    return Emulator(emulated, request.param)


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
            assert difference(ours.double(), theirs.double()) < 1e-4, name


SGD = Recipe(epochs=1, weight_decay=0.01, clip_norm=0.5, label_smoothing=0.1)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("kind", ["gap", "conv", "flatten"])
def test_steps_agree_with_torch(name: str, kind: Any, launcher: Emulator) -> None:
    """Weights, statistics and loss after some steps are torch's in double precision."""
    model = model_of(*CHAINS[name], kind=kind)
    model, exact, ours, theirs = both_trained(launcher, model, SGD)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert_alike(model, exact)
