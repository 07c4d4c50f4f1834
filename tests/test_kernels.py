"""The C kernels against their slow oracle, torch's own layers."""

from __future__ import annotations

import copy
import ctypes
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import net_of
from system_programs import need, need_kernels
from torch import nn
from torch.nn import functional

from nas.architecture import Block, Head
from nas.data import load_dataset
from nas.engines import Finished, Job
from nas.engines.out_of_memory import OutOfMemory
from nas.engines.worker import Worker, WorkerConfig
from nas.errors import OutOfMemoryError
from nas.training import augmentation, kernels
from nas.training.kernels import library
from nas.training.kernels.cpu import Dropped
from nas.training.model import build
from nas.training.recipe import Recipe

needs_kernels = pytest.mark.usefixtures("compiled")


@pytest.fixture
def compiled() -> None:
    """Have the kernels, or leave the test out."""
    need_kernels()


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
    "norm last": (
        Block(out_channels=6, order="norm_last", pool="max", bias="yes"),
        Block(out_channels=5, order="norm_last", pool="avg", activation="silu"),
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
    "residual": (
        Block(out_channels=6, shortcut="conv", dropout=0.0),
        Block(kind="residual", out_channels=6, shortcut="identity", pool="max"),
        Block(kind="residual", out_channels=7, shortcut="conv", stride=2, norm="none"),
        Block(
            kind="separable", out_channels=7, shortcut="identity", activation="relu6"
        ),
    ),
    "further shortcuts": (
        # Behind ReLU the next norm would make the gradients of the scales nothing.
        Block(
            kind="bottleneck",
            out_channels=6,
            expansion=2,
            shortcut="activated_conv",
            activation="hardswish",
        ),
        Block(kind="residual", out_channels=6, shortcut="bias_conv", stride=2),
        Block(kind="residual", out_channels=9, shortcut="pad", stride=2, pool="max"),
        Block(
            kind="full_bottleneck",
            out_channels=6,
            shortcut="pad",
            activation="hardswish",
        ),
        Block(
            kind="inverted_bottleneck",
            out_channels=5,
            shortcut="bare_conv",
            activation="silu",
        ),
    ),
    "mobilenet": (
        # Behind ReLU the next norm would make the gradients of the scales nothing.
        Block(out_channels=5, padding="valid", activation="hardswish"),
        Block(kind="mobilenet", out_channels=6, stride=2, activation="silu"),
        Block(kind="mobilenet", out_channels=6, shortcut="identity", pool="max"),
        Block(kind="mobilenet", out_channels=4, kernel_size=5, norm="none"),
    ),
    "rectangular": (
        Block(out_channels=5, kernel_size=5, kernel_width=3, padding="valid"),
        Block(out_channels=4, kernel_size=1, kernel_width=5, stride=2, norm="none"),
        Block(kind="separable", out_channels=6, kernel_width=1),
        Block(kind="residual", out_channels=6, kernel_width=5, shortcut="identity"),
    ),
    "dilated": (
        Block(out_channels=5, dilation=2, pool="max", activation="hardswish"),
        Block(kind="mobilenet", out_channels=6, dilation=3, activation="silu"),
        Block(out_channels=4, dilation=2, padding="valid", stride=2, norm="none"),
        Block(kind="separable", out_channels=4, kernel_width=5, dilation=2),
    ),
    "grouped": (
        Block(out_channels=6, padding="valid", activation="hardswish"),
        Block(out_channels=9, groups=3, stride=2, norm="none"),
        Block(out_channels=9, groups=9, pool="max", activation="silu"),
        Block(out_channels=18, groups=9, dilation=2, shortcut="conv"),
        Block(out_channels=18, groups=6, kernel_size=1, repeats=2),
    ),
    "squeeze-and-excitation": (
        Block(out_channels=6, padding="valid", activation="hardswish"),
        Block(kind="mobilenet", out_channels=5, squeeze_excitation=2, pool="max"),
        Block(
            kind="inverted_bottleneck",
            out_channels=5,
            expansion=2,
            squeeze_excitation=4,
            activation="silu",
            shortcut="identity",
        ),
        Block(
            kind="mobilenet",
            out_channels=5,
            gate_width=3,
            gate_activation="silu",
            gate_bias="no",
        ),
    ),
    "hard gates": (
        Block(kind="mobilenet", out_channels=5, gate_width=3, gate="hard_sigmoid"),
        Block(
            kind="inverted_bottleneck",
            out_channels=5,
            expansion=2,
            squeeze_excitation=2,
            gate="hard_sigmoid",
            activation="silu",
            shortcut="identity",
        ),
    ),
    "inverted bottleneck": (
        Block(out_channels=6, activation="relu6"),
        Block(
            kind="inverted_bottleneck",
            out_channels=6,
            expansion=3,
            shortcut="identity",
            activation="hardswish",
            pool="avg",
        ),
        Block(kind="inverted_bottleneck", out_channels=4, stride=2),
        Block(kind="inverted_bottleneck", out_channels=5, expansion=2, norm="none"),
    ),
    "sigmoid": (
        Block(out_channels=5, padding="valid", activation="sigmoid", pool="avg"),
        Block(kind="mobilenet", out_channels=6, activation="sigmoid", norm="none"),
    ),
    "curves": (
        Block(out_channels=5, activation="tanh", order="late_pool", pool="avg"),
        Block(kind="residual", out_channels=5, activation="gelu", shortcut="identity"),
        Block(kind="mobilenet", out_channels=6, activation="elu", norm="none"),
        Block(out_channels=6, activation="gelu", repeats=2),
    ),
    "many maps": (
        Block(out_channels=35, padding="valid"),
        Block(kind="separable", out_channels=34, kernel_size=7),
        Block(out_channels=6, kernel_size=1, stride=2),
    ),
    "poolings of other sizes": (
        Block(
            out_channels=5,
            pool="max",
            pool_size=3,
            pool_stride=2,
            pool_padding=1,
            activation="hardswish",
        ),
        Block(out_channels=4, pool="avg", pool_size=2, pool_stride=1),
        Block(out_channels=6, pool="max", pool_width=1, norm="none"),
        Block(out_channels=6, repeats=2, pool="avg", pool_size=3, order="late_pool"),
    ),
    "even kernel": (Block(out_channels=5, kernel_size=4, stride=2, padding="valid"),),
    "padding in numbers": (
        Block(out_channels=5, kernel_size=4, kernel_width=3, padding=(1, 2)),
        Block(
            kind="separable",
            out_channels=4,
            kernel_size=2,
            padding=(1, 0),
            stride=2,
            activation="silu",
        ),
        Block(kind="mobilenet", out_channels=4, kernel_size=5, padding=(1, 4)),
        Block(out_channels=4, dilation=2, padding=(3, 0), norm="none"),
    ),
}


def model_of(*blocks: Block, **head: Any) -> nn.Sequential:
    """Build a model for 2x15x18 images and 4 classes."""
    return build(
        net_of(*blocks, shape=(2, 15, 18), classes=4, head=Head(**head)),
        seed=3,
    )


def images_of(count: int) -> torch.Tensor:
    """Return images ``[count, 2, 15, 18]``."""
    return torch.randn(count, 2, 15, 18, generator=torch.Generator().manual_seed(7))


@needs_kernels
def test_a_lower_resolution_is_computed_before_the_kernels() -> None:
    """As the model does it."""
    architecture = net_of(
        Block(out_channels=5), shape=(2, 15, 18), classes=4, resolution=8
    )
    model = build(architecture, seed=3).eval()
    images = images_of(16)
    assert kernels.supports(model, 16)
    with torch.inference_mode():
        ours = kernels.Compiled(model)(images)
        assert model.blocks(model.resize(images)).shape[2:] == (8, 10)
        torch.testing.assert_close(ours, model(images))


def difference(ours: torch.Tensor, exact: torch.Tensor) -> float:
    """Return how far a tensor is from the exact one, relative to that one's size."""
    relative = (ours - exact).norm() / exact.norm().clamp_min(1e-9)
    return float(relative.detach())


def dropped(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return the values ``[..., V]`` after dropout, by torch's next random numbers."""
    drop, result = Dropped(), torch.empty_like(values)
    drop.draw(share)
    count = values.numel() // values.shape[-1]
    library.call("dropout", values, result, count, ctypes.byref(drop))
    return result


@needs_kernels
@pytest.mark.parametrize("name", CHAINS)
def test_training_agrees_with_torch(name: str) -> None:
    """Logits, every gradient and every buffer are torch's in double precision."""
    model = model_of(*CHAINS[name], kind="flatten")
    exact = copy.deepcopy(model).double()
    images, labels = images_of(32), torch.arange(32) % 4
    assert kernels.supports(model, 32)
    logits = kernels.Compiled(model)(images)
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
        assert difference(kernels.Compiled(model)(images), model(images)) < 1e-5


@needs_kernels
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3, 0.5, 0.999])
def test_dropout_drops_what_was_asked(share: float) -> None:
    """The share is neither rounded nor are draws alike, nor neighbours dropped together."""
    lanes = library.count_lanes()
    ones = torch.ones(2_000_000 // lanes, lanes)
    torch.manual_seed(2)
    first = dropped(ones, share) == 0
    second = dropped(ones, share) == 0
    error = (share * (1 - share) / ones.numel()) ** 0.5
    assert float(first.double().mean()) == pytest.approx(share, abs=5 * error)
    both = share**2
    error = (both * (1 - both) / ones.numel()) ** 0.5 + 1e-9
    flat = first.flatten()
    for one, other in (
        (flat, second.flatten()),
        (flat[1:], flat[:-1]),
        (flat[lanes:], flat[:-lanes]),
    ):
        assert float((one & other).double().mean()) == pytest.approx(
            both, abs=5 * error
        )
    kept = dropped(ones, share).max()
    assert float(kept) == pytest.approx(1 / (1 - share), rel=1e-5)


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
    values = kernels.Compiled(model)(images_of(512))
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
        assert bool((kernels.Compiled(model)(images_of(16)) == 1).all())


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
    values = kernels.Compiled(model)(images)
    torch.manual_seed(4)
    lanes = library.count_lanes()
    factor = dropped(torch.ones(32 // lanes, 6, 15, 18, lanes), 0.3)
    factor = factor.permute(0, 4, 1, 2, 3).reshape(32, 6, 15, 18).double()
    exact.blocks[0].dropout = nn.Identity()  # type: ignore[union-attr, index]
    expected = exact(images.double()).view_as(factor) * factor
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
    recipe = Recipe(rotation=60, shift=0.5, scale=0.6, shear=30, augment=0.9, flip=0.5)
    images = images_of(64)
    matrices = augmentation.random_matrices(
        64,
        recipe,
        torch.Generator().manual_seed(0),
        images.device,
        size=(images.shape[2], images.shape[3]),
    )
    for repeat in (False, True):
        expected = augmentation.warp(images, matrices, repeat=repeat)
        ours = kernels.warp(images, matrices, repeat=repeat)
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@needs_kernels
def test_a_nan_is_not_lost() -> None:
    """A weight that diverged reaches the logits through ReLU and pooling."""
    model = model_of(*CHAINS["plain"])
    with torch.no_grad():
        model.get_parameter("blocks.0.conv.weight").fill_(torch.nan)
    assert bool(kernels.Compiled(model)(images_of(16)).isnan().all())


@needs_kernels
def test_only_what_build_made_is_supported() -> None:
    """Other models, other numbers and odd batches are left to torch."""
    model = model_of(*CHAINS["plain"])
    assert kernels.supports(model, 64)
    assert not kernels.supports(model, 65)
    assert not kernels.supports(nn.Sequential(nn.Flatten()), 64)
    assert not kernels.supports(copy.deepcopy(model).double(), 64)
    model.get_submodule("blocks").append(nn.Sequential(nn.Softplus()))  # type: ignore[operator]
    assert not kernels.supports(model, 64)


# kernels.c with an allocator that fails from a chosen request on.
_FAILING = """
#include <stdlib.h>
static int left = -1;
void fail_after(int requests) { left = requests; }
static int fails(void) { return left == 0 || (left > 0 && left-- == 0); }
static void *failing_malloc(size_t size) { return fails() ? NULL : malloc(size); }
static void *failing_calloc(size_t n, size_t size) {
  return fails() ? NULL : calloc(n, size);
}
#define malloc failing_malloc
#define calloc failing_calloc
#include "%s"
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the kernels over that allocator, compiled once for all tests."""
    folder = tmp_path_factory.mktemp("failing")
    source = folder / "failing.c"
    source.write_text(_FAILING % library._SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_SOURCE", source)
        patch.setenv("NAS_CACHE_DIR", str(folder))
        compiled = library._found.__wrapped__()[0]
    assert compiled is not None
    return compiled


@pytest.fixture
def fail_after(monkeypatch: pytest.MonkeyPatch, failing: Any) -> Callable[[int], None]:
    """Return what lets every request for memory after the next so many fail; -1 none."""
    compiled = failing
    monkeypatch.setattr(library, "load", lambda: compiled)
    after: Callable[[int], None] = compiled.fail_after
    return after


@needs_kernels
@pytest.mark.parametrize("name", ["plain", "valid and odd sizes", "separable"])
def test_memory_that_runs_out_is_an_error(
    name: str, fail_after: Callable[[int], None]
) -> None:
    """Whichever request of a whole step fails, nas says so; none gives other numbers."""

    def step() -> torch.Tensor:
        model = model_of(*CHAINS[name])
        matrices = torch.eye(2, 3).expand(32, 2, 3)
        images = kernels.warp(images_of(32), matrices)
        functional.cross_entropy(
            kernels.Compiled(model)(images), torch.arange(32) % 4
        ).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]

    fail_after(-1)
    expected = step()
    failed = 0
    while True:
        fail_after(failed)
        try:
            gradients = step()
        except OutOfMemoryError as error:
            assert str(error) == "out of memory on cpu"  # noqa: PT017
            failed += 1
            continue
        break
    assert torch.equal(gradients, expected)
    # The image's frame, and for each convolution at least offsets, weights and sums.
    assert failed >= 1 + 5 * len(CHAINS[name])


@needs_kernels
def test_a_training_without_memory_ends_as_any_that_runs_out(
    fail_after: Callable[[int], None],
) -> None:
    """The worker tells its engine, which has one worker fewer from then on."""
    dataset = load_dataset("digits")
    worker = Worker(dataset, WorkerConfig(split_seed=0, val_size=300, device="cpu"))
    job = Job(
        number=3,
        architecture=net_of(Block(out_channels=4)),
        recipe=Recipe(epochs=1, batch_size=64),
        seed=0,
        rungs=(1.0,),
    )
    fail_after(50)
    assert list(worker.events(job)) == [OutOfMemory(3)]
    fail_after(-1)
    events = list(worker.events(job))
    assert isinstance(events[-1], Finished)
    assert events[-1].kernels is True


@pytest.fixture
def fresh() -> Iterator[None]:
    """Let the kernels be looked for anew, in the test and after it."""
    library._found.cache_clear()
    yield
    library._found.cache_clear()


def unwritable(folder: Path) -> str:
    """Return a folder that nobody can make, root neither."""
    (folder / "file").touch()
    return str(folder / "file" / "cache")


def broken_compiler(folder: Path) -> str:
    """Return a compiler that compiles nothing."""
    path = folder / "broken-cc"
    path.write_text("#!/bin/sh\necho 'no header files' >&2; exit 1\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NAS_KERNELS", lambda _: "0", ""),
        (
            "CC",
            lambda _: "no-such-compiler",
            "no C compiler 'no-such-compiler': install",
        ),
        (
            "CC",
            broken_compiler,
            "broken-cc cannot compile them (no header files): set CC",
        ),
        ("NAS_CACHE_DIR", unwritable, "file/cache and loaded from there ([Errno 20]"),
    ],
    ids=["off", "no compiler", "broken compiler", "unwritable cache"],
)
def test_without_kernels_torch_trains_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: Callable[[Path], str],
    said: str,
) -> None:
    """Only where the user wanted none there is nothing to be said."""
    if variable == "NAS_CACHE_DIR":
        need("cc")
    monkeypatch.delenv("NAS_KERNELS", raising=False)
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "new"))
    monkeypatch.setenv(variable, value(tmp_path))
    assert not kernels.available()
    assert not kernels.supports(model_of(*CHAINS["plain"]), 64)
    kernels.warn_if_missing(torch.device("cpu"))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(said)
    assert all(said in line and "\n" not in line for line in lines)


@needs_kernels
def test_the_library_is_compiled_once_for_a_source_and_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is found again in the cache; another source or compiler has its own."""
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    compiler = shutil.which("cc")
    assert compiler is not None
    # Little to compile: what counts here is how often.
    small = tmp_path / "small.c"
    small.write_text("int one(void) { return 1; }\n")
    monkeypatch.setattr(library, "_SOURCE", small)
    path = library._compiled(compiler)
    made = path.stat().st_mtime_ns
    assert library._compiled(compiler) == path
    assert path.stat().st_mtime_ns == made
    assert {p.name for p in tmp_path.iterdir()} == {path.name, small.name}
    link = tmp_path / "another-cc"
    link.symlink_to(compiler)
    assert library._compiled(str(link)) != path
    small.write_text(small.read_text() + "/* newer */\n")
    assert library._compiled(compiler) != path
    assert len(list(tmp_path.glob("kernels-*.so"))) == 3
