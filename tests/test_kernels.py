"""The C kernels against their slow oracle, torch's own layers."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from nas.architecture import Architecture, Block, Head
from nas.training import augmentation, kernels
from nas.training.kernels import library
from nas.training.model import build
from nas.training.recipe import Recipe

needs_kernels = pytest.mark.skipif(
    not kernels.available(), reason="no C compiler made the kernels"
)

CHAINS: dict[str, tuple[Block, ...]] = {
    "plain": (Block(out_channels=5), Block(out_channels=9, pool="max")),
    "valid and odd sizes": (
        Block(out_channels=3, padding="valid", pool="max"),
        Block(out_channels=7, kernel_size=5, pool="avg"),
    ),
    "1x1": (
        Block(out_channels=6, kernel_size=1, norm="none", activation="leaky_relu"),
        Block(out_channels=13, kernel_size=1, activation="none"),
    ),
    "separable": (
        Block(out_channels=6, activation="silu"),
        Block(kind="separable", out_channels=4, kernel_size=5),
        Block(kind="separable", out_channels=5, padding="valid", stride=2),
    ),
    "strides": (
        Block(out_channels=6, stride=2, activation="hardswish"),
        Block(out_channels=5, stride=3, kernel_size=5, norm="none"),
    ),
    "inception": (
        Block(kind="inception", out_channels=8, kernel_size=5, pool="max"),
        Block(kind="inception", out_channels=7, norm="none", stride=2),
    ),
    "shared": (
        Block(out_channels=6, order="activation_first", pool="max", bias="yes"),
        Block(kind="separable", out_channels=6, repeats=3, order="late_pool"),
        Block(out_channels=6, norm="none", bias="no", repeats=2, pool="avg"),
    ),
    "even kernel": (Block(out_channels=5, kernel_size=4, stride=2, padding="valid"),),
}


def model_of(*blocks: Block, **head: Any) -> nn.Sequential:
    """Build a model for 2x15x18 images and 4 classes."""
    return build(
        Architecture(
            input_shape=(2, 15, 18), num_classes=4, blocks=blocks, head=Head(**head)
        ),
        seed=3,
    )


def images_of(count: int) -> torch.Tensor:
    """Return images ``[count, 2, 15, 18]``."""
    return torch.randn(count, 2, 15, 18, generator=torch.Generator().manual_seed(7))


def difference(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Return how far a tensor is from the exact one, relative to that one's size."""
    relative = (ours - exact).norm() / exact.norm().clamp_min(1e-9)
    return float(relative.detach())


@needs_kernels
@pytest.mark.parametrize("name", CHAINS)
def test_training_agrees_with_torch(name: str) -> None:
    """Logits, every gradient and every buffer are torch's in double precision."""
    model = model_of(*CHAINS[name], kind="flatten")
    exact = copy.deepcopy(model).double()
    images, labels = images_of(32), torch.arange(32) % 4
    assert kernels.supports(model, 32)
    logits = kernels.forward(model, images)
    expected = exact(images.double())
    assert difference(logits, expected) < 1e-5
    functional.cross_entropy(logits, labels).backward()
    functional.cross_entropy(expected, labels).backward()
    for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert difference(ours.grad, theirs.grad) < 1e-4
    for buffer, expected in zip(model.buffers(), exact.buffers(), strict=True):
        assert difference(buffer.double(), expected.double()) < 1e-5


@needs_kernels
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("kind", ["gap", "conv", "flatten"])
def test_evaluation_agrees_with_torch(name: str, kind: Any) -> None:
    """In evaluation any number of images gives torch's logits, whatever the head."""
    model = model_of(*CHAINS[name], kind=kind)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    model.eval()
    images = images_of(21)
    with torch.inference_mode():
        assert difference(kernels.forward(model, images), model(images)) < 1e-5


@needs_kernels
def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """Values are dropped at the right rate, scaled, and the same in the gradient."""
    block = Block(
        out_channels=2, kernel_size=1, norm="none", activation="none", dropout=0.3
    )
    model = model_of(block, kind="flatten")
    nn.init.zeros_(model.get_parameter("blocks.0.conv.weight"))
    nn.init.ones_(model.get_parameter("blocks.0.conv.bias"))
    model.head = nn.Flatten()
    values = kernels.forward(model, images_of(512))
    dropped = (values == 0).double().mean()
    assert float(dropped) == pytest.approx(0.3, abs=0.01)
    assert float(values.detach().mean()) == pytest.approx(1, abs=0.01)
    values.sum().backward()
    gradient = model.get_parameter("blocks.0.conv.bias").grad
    assert gradient is not None
    assert float(gradient.sum()) == pytest.approx(
        float(values.detach().sum()), rel=1e-4
    )
    model.eval()
    with torch.inference_mode():
        assert bool((kernels.forward(model, images_of(16)) == 1).all())


@needs_kernels
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": "activation_first", "bias": "yes"},
        {"activation": "none", "bias": "yes"},
        {"kind": "inception", "kernel_size": 3, "bias": "yes"},
    ],
    ids=["relu after", "relu before", "no relu", "inception"],
)
def test_batch_norm_with_its_neighbours_agrees_with_torch(
    changes: dict[str, Any],
) -> None:
    """Bias, ReLU, batch norm and dropout in one go are torch's, one after the other."""
    given = {"out_channels": 6, "kernel_size": 1, "dropout": 0.3} | changes
    model = model_of(Block(**given), kind="flatten")
    model.head = nn.Flatten()
    exact = copy.deepcopy(model).double()
    images = images_of(32)
    torch.manual_seed(4)
    values = kernels.forward(model, images)
    torch.manual_seed(4)
    lanes = library.count_lanes()
    words = torch.empty(values.numel() // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8).view(-1, 6, 15, 18, lanes) >= round(0.3 * 256)
    kept = kept.permute(0, 4, 1, 2, 3).reshape(32, 6, 15, 18)
    exact.blocks[0].dropout = nn.Identity()  # type: ignore[union-attr, index]
    expected = exact(images.double()).view_as(kept) * kept * 256 / (256 - 77)
    expected = expected.flatten(1)
    assert difference(values, expected) < 1e-5
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(5))
    (values * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(model.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        # A bias right before batch norm has a gradient of 0 but for rounding.
        assert float((ours.grad - theirs.grad).norm()) < 1e-3 * (
            1 + float(theirs.grad.norm())
        )
    for buffer, exact_buffer in zip(model.buffers(), exact.buffers(), strict=True):
        assert difference(buffer.double(), exact_buffer.double()) < 1e-5


@needs_kernels
def test_warping_agrees_with_torch() -> None:
    """Images are sampled where torch samples them, beyond the edges, too."""
    recipe = Recipe(rotation=60, shift=0.5, scale=0.6, shear=30, augment=0.9)
    images = images_of(64)
    matrices = augmentation.random_matrices(
        64, recipe, torch.Generator().manual_seed(0), images.device
    )
    expected = augmentation.warp(images, matrices)
    torch.testing.assert_close(
        kernels.warp(images, matrices), expected, atol=1e-4, rtol=0
    )


@needs_kernels
def test_a_nan_is_not_lost() -> None:
    """A weight that diverged reaches the logits through ReLU and pooling."""
    model = model_of(*CHAINS["plain"])
    with torch.no_grad():
        model.get_parameter("blocks.0.conv.weight").fill_(torch.nan)
    assert bool(kernels.forward(model, images_of(16)).isnan().all())


@needs_kernels
def test_only_what_build_made_is_supported() -> None:
    """Other models, other numbers and odd batches are left to torch."""
    model = model_of(*CHAINS["plain"])
    assert kernels.supports(model, 64)
    assert not kernels.supports(model, 65)
    assert not kernels.supports(nn.Sequential(nn.Flatten()), 64)
    assert not kernels.supports(copy.deepcopy(model).double(), 64)
    model.get_submodule("blocks").append(nn.Sequential(nn.Tanh()))  # type: ignore[operator]
    assert not kernels.supports(model, 64)


@pytest.mark.parametrize(
    ("variable", "value"), [("NAS_KERNELS", "0"), ("CC", "no-such-compiler")]
)
def test_without_a_compiler_torch_trains(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Where the kernels are off or cannot be compiled nothing is supported."""
    monkeypatch.setenv(variable, value)
    library.load.cache_clear()
    try:
        assert not kernels.available()
        assert not kernels.supports(model_of(*CHAINS["plain"]), 64)
    finally:
        library.load.cache_clear()


@needs_kernels
def test_the_library_is_compiled_once_for_a_source_and_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is found again in the cache; another source or compiler has its own."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path)
    compiler = shutil.which("cc")
    assert compiler is not None
    path = library._compiled(compiler)
    made = path.stat().st_mtime_ns
    assert library._compiled(compiler) == path
    assert path.stat().st_mtime_ns == made
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    link = tmp_path / "another-cc"
    link.symlink_to(compiler)
    assert library._compiled(str(link)) != path
    source = tmp_path / "kernels.c"
    source.write_text(library._SOURCE.read_text() + "/* newer */\n")
    monkeypatch.setattr(library, "_SOURCE", source)
    assert library._compiled(compiler) != path
    assert len(list(tmp_path.glob("kernels-*.so"))) == 3
