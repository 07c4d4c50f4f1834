"""Training: it learns, repeats itself, stops when asked and names what went wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import net_of
from plain_loop import plain_loop
from sklearn.datasets import load_digits
from system_programs import need_kernels
from torch import nn

from nas.architecture import Block
from nas.errors import TrainingError
from nas.training.cuda_graph import undone
from nas.training.ema import EMA
from nas.training.loop import learning_rate, measure, train, uncounted
from nas.training.model import build
from nas.training.recipe import Recipe
from nas.training.step import Step, TrainingData, class_weights

RECIPE = Recipe(epochs=4, batch_size=64, rotation=5, shift=0.05)
SMALL = net_of(
    Block(out_channels=8, pool="max"),
    Block(out_channels=16, dropout=0.05),
    head="flatten",
)
# Without dropout, whose numbers the kernels draw in another way.
DRY = replace(SMALL, blocks=(SMALL.blocks[0], replace(SMALL.blocks[1], dropout=0.0)))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["kernels", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Train with the C kernels and with torch's own."""
    if request.param == "torch":
        monkeypatch.setattr("nas.training.kernels.layers.supports", lambda *_: False)
    else:
        need_kernels()
    return str(request.param)


@pytest.fixture(scope="module")
def digits() -> TrainingData:
    """scikit-learn's 1,797 digits of 8x8 pixels: real images, no download."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).mul(255 / 16).to(torch.uint8).view(-1, 1, 8, 8)
    answers = torch.from_numpy(labels).long()
    return TrainingData(
        train_images=pixels[:1400],
        train_labels=answers[:1400],
        val_images=pixels[1400:],
        val_labels=answers[1400:],
        mean=(0.3053,),
        std=(0.3763,),
    )


def curve(data: TrainingData, recipe: Recipe = RECIPE, seed: int = 0) -> list[float]:
    """Train SMALL and return what the reports say of its accuracy and loss."""
    model = build(SMALL, seed=1)
    reports = train(model, data, recipe, seed=seed, rungs=[0.5, 1, recipe.epochs])
    return [n for r in reports for n in (r.val_accuracy, r.train_loss)]


@pytest.mark.usefixtures("way")
def test_training_learns_real_digits(digits: TrainingData) -> None:
    """A few seconds of training reach more than 90 % on digits never trained on."""
    model = build(SMALL, seed=0)
    recipe = replace(RECIPE, epochs=8)
    reports = list(train(model, digits, recipe, seed=0, rungs=[0.3, 1, 8]))
    assert [r.rung for r in reports] == [0, 1, 2]
    assert [r.epochs for r in reports] == [0.3, 1, 8]
    assert reports[-1].val_accuracy > 0.9
    assert reports[-1].train_loss < reports[0].train_loss
    assert 0 < reports[0].seconds < reports[-1].seconds
    again = measure(
        model, digits.val_images, digits.val_labels, digits.mean, digits.std
    ).accuracy
    assert again == reports[-1].val_accuracy


def test_each_way_is_the_one_that_trains(digits: TrainingData, way: str) -> None:
    """Torch's own kernels train where the tests say so."""
    model = build(SMALL, seed=1)
    assert Step(model, digits, RECIPE, 64).training.uses_torch == (way == "torch")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam"])
def test_the_same_seeds_give_the_same_curve(
    digits: TrainingData, optimizer: Any
) -> None:
    """Two trainings with equal seeds agree bit for bit, another seed differs."""
    recipe = replace(RECIPE, epochs=2, optimizer=optimizer)
    first = curve(digits, recipe)
    torch.rand(5)
    assert curve(digits, recipe) == first
    assert curve(digits, recipe, seed=1) != first


def test_the_global_random_state_is_left_alone(digits: TrainingData) -> None:
    """Between two reports the numbers that others draw are their own."""
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    next(train(build(SMALL, seed=1), digits, RECIPE, seed=0, rungs=[0.5, 4]))
    assert torch.equal(torch.rand(2), expected)


def test_who_asks_for_no_more_reports_ends_the_training(digits: TrainingData) -> None:
    """After the first report no weight changes unless the second is asked for."""
    model = build(SMALL, seed=1)
    reports = train(model, digits, RECIPE, seed=0, rungs=[0.5, 4])
    next(reports)
    before = [p.clone() for p in model.parameters()]
    del reports
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.usefixtures("way")
def test_a_training_that_diverges_is_an_error(digits: TrainingData) -> None:
    """An absurd learning rate ends in a TrainingError that names the cause."""
    with pytest.raises(TrainingError, match=r"^loss became NaN$"):
        curve(digits, replace(RECIPE, max_lr=1e30))


def test_running_out_of_memory_is_an_error(digits: TrainingData) -> None:
    """Too large a layer ends in a TrainingError that names the device."""

    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.new_empty(1 << 50)

    reports = train(Greedy(), digits, RECIPE, seed=0, rungs=[4])
    with pytest.raises(TrainingError, match=r"^out of memory on cpu$"):
        next(reports)


def test_without_validation_images_the_accuracy_is_nan(digits: TrainingData) -> None:
    """A training on everything reports its loss and no accuracy."""
    data = replace(
        digits, val_images=digits.val_images[:0], val_labels=digits.val_labels[:0]
    )
    accuracy, loss = curve(data, replace(RECIPE, epochs=2))[-2:]
    assert math.isnan(accuracy)
    assert 0 < loss < 3


@pytest.mark.parametrize("rungs", [[], [1], [2, 1, 4], [1, 1, 4], [4, 5], [0, 4]])
def test_rungs_that_do_not_fit_are_refused(
    digits: TrainingData, rungs: list[float]
) -> None:
    """Rungs have to rise from above 0 to the recipe's last epoch."""
    with pytest.raises(ValueError, match="rungs"):
        next(train(build(SMALL), digits, RECIPE, seed=0, rungs=rungs))


def test_fewer_images_than_a_batch_still_train(digits: TrainingData) -> None:
    """A data set smaller than the batch is one batch."""
    data = replace(
        digits,
        train_images=digits.train_images[:20],
        train_labels=digits.train_labels[:20],
    )
    assert len(curve(data, replace(RECIPE, epochs=2))) == 6


def test_colour_images_are_normalised_channel_by_channel() -> None:
    """Each channel has its own mean and standard deviation."""
    images = torch.tensor([51, 102], dtype=torch.uint8).view(1, 2, 1, 1)  # 0.2, 0.4
    seen = []

    class Spy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images.flatten().tolist())
            return images.flatten(1)

    measure(Spy(), images, torch.tensor([0]), (0.1, 0.4), (0.5, 1.0))
    assert seen[0] == pytest.approx([0.2, 0.0], abs=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_leaves_the_mode_as_it_was(
    digits: TrainingData, training: bool
) -> None:
    """Evaluation itself is in evaluation mode and then restores what it found."""
    model = build(SMALL, seed=0).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    accuracy = measure(
        model, digits.val_images, digits.val_labels, digits.mean, digits.std
    ).accuracy
    assert 0 <= accuracy <= 1
    assert model.training == training
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_learning_rate_rises_once_and_falls_to_zero() -> None:
    """One cycle: the top after the warm-up's share of the steps, almost 0 at the end."""
    recipe = Recipe(max_lr=0.5, warmup=0.25)
    rates = [learning_rate(step, 1000, recipe) for step in range(1000)]
    top = rates.index(max(rates))
    assert top == pytest.approx(250, abs=1)
    assert rates[top] == pytest.approx(0.5, rel=0.01)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 0.001 * recipe.max_lr


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, [0.01] * 4),
        # Keras' inverse time decay, once an epoch.
        ({"schedule": "inverse_time", "decay": 1.0}, [0.01, 0.005, 0.01 / 3, 0.0025]),
        # torch's StepLR.
        ({"schedule": "step", "step_epochs": 1}, [1e-2, 1e-3, 1e-4, 1e-5]),
        (
            {"schedule": "step", "step_epochs": 3, "step_factor": 0.5},
            [0.01, 0.01, 0.01, 0.005],
        ),
    ],
)
def test_the_other_schedules_change_once_an_epoch(
    changes: dict[str, Any], expected: list[float]
) -> None:
    """Every step of an epoch has the epoch's rate."""
    recipe = Recipe(epochs=4, max_lr=0.01, **changes)
    rates = [learning_rate(step, 4 * 7, recipe) for step in range(4 * 7)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(7)])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(
            RECIPE, average=0.5, label_smoothing=0.1, weight_decay=0.01, max_lr=0.02
        ),
        replace(RECIPE, optimizer="adamw", max_lr=0.01),
        replace(
            RECIPE,
            momentum=0.5,
            nesterov=False,
            clip_norm=0,
            schedule="constant",
            max_lr=0.05,
        ),
        replace(RECIPE, optimizer="adam", schedule="constant", max_lr=0.003),
        replace(
            RECIPE,
            schedule="step",
            step_epochs=1,
            max_lr=0.1,
            flip=0.5,
            crop=0.2,
            class_weights=(3.0, *[0.5] * 9),
        ),
    ],
    ids=["default", "average", "adamw", "sgd", "adam", "step, flip and weights"],
)
def test_a_plain_loop_trains_the_same(digits: TrainingData, recipe: Recipe) -> None:
    """The weights are those of a loop of torch's own parts, but for rounding."""
    recipe = replace(recipe, epochs=2)
    model, plain = build(DRY, seed=1), build(DRY, seed=1)
    for _ in train(model, digits, recipe, seed=0, rungs=[0.5, 2]):
        pass
    for _ in plain_loop(plain, digits, recipe, seed=0):
        pass
    for ours, theirs in zip(
        model.state_dict().values(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=5e-3)


def test_balanced_weights_make_up_for_the_sizes_of_classes() -> None:
    """Each class has the same share of the loss; the mean weight of an image is 1."""
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = class_weights(Recipe(class_weights="balanced"), labels)
    assert weights is not None
    shares = weights * labels.bincount()
    assert shares.tolist() == pytest.approx([10 / 3] * 3)
    assert class_weights(Recipe(), labels) is None
    listed = class_weights(Recipe(class_weights=(1, 2, 3)), labels)
    assert listed is not None
    assert listed.tolist() == [1, 2, 3]


def test_steps_are_taken_back_before_a_recording_is_used(
    digits: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the warm-up for a recording the training is as without one, bit for bit."""
    monkeypatch.setattr("nas.training.step.AHEAD_ON_CPU", 4)
    for optimizer in ("sgd", "adamw", "adam"):
        recipe = replace(RECIPE, optimizer=optimizer)
        weights = []
        for warm_up in (0, 3):
            model = build(DRY, seed=1)
            step = Step(model, digits, recipe, 64)
            step.generator.manual_seed(0)
            step.load(torch.arange(4 * 64).view(4, 64), [0.01] * 4)
            with undone(step.training):
                for _ in range(warm_up):
                    step.training.run(1)
            assert all(
                map(torch.equal, model.parameters(), build(DRY, seed=1).parameters())
            )
            step.training.run(4)
            weights.append([*model.state_dict().values(), step.losses])
        assert all(map(torch.equal, *weights))


@pytest.mark.usefixtures("way")
def test_images_prepared_ahead_train_the_same(
    digits: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU has it: the same weights, also where a rung cuts what was prepared."""
    weights = []
    for ahead in (1, 8):
        monkeypatch.setattr("nas.training.step.AHEAD_ON_CPU", ahead)
        model = build(DRY, seed=1)
        recipe = replace(RECIPE, augment=0.0, epochs=2)
        for _ in train(model, digits, recipe, seed=0, rungs=[0.3, 1.4, 2]):
            pass
        weights.append(list(model.state_dict().values()))
    assert all(map(torch.equal, *weights))


def test_batch_norm_counts_its_batches_once_for_all(digits: TrainingData) -> None:
    """On a GPU the counter is set after the steps; what is saved has the same count."""
    model = build(SMALL, seed=1)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    with uncounted(model, torch.device("cuda"), steps=3):
        assert norm.num_batches_tracked is None
        model.train()(digits.train_images[:8].float())
    assert int(norm.num_batches_tracked) == 3
    assert "blocks.0.norm.num_batches_tracked" in model.state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam"])
def test_a_recording_trains_the_same(
    digits: TrainingData, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the curve is the same with and without recording, and repeats itself."""
    tensors = {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name in ("train_images", "train_labels", "val_images", "val_labels")
        for value in [getattr(digits, name)]
    }
    data = replace(digits, **tensors)
    recipe = replace(RECIPE, optimizer=optimizer, average=0.5, max_lr=0.02)
    curves = []
    for capture in ("1", "1", "0"):
        monkeypatch.setenv("NAS_CAPTURE", capture)
        model = build(SMALL, seed=1).cuda()
        reports = train(model, data, recipe, seed=0, rungs=[0.5, 1, 4])
        curves.append([(r.val_accuracy, r.train_loss) for r in reports])
    assert curves[0] == curves[1]
    torch.testing.assert_close(
        torch.tensor(curves[0]), torch.tensor(curves[2]), atol=1e-3, rtol=1e-3
    )


@pytest.mark.usefixtures("way")
def test_the_average_is_measured_and_handed_over(digits: TrainingData) -> None:
    """The model holds it at a report; the training itself goes on without it."""
    steps = 2 * (1400 // 64)
    model, plain = build(SMALL, seed=1), build(SMALL, seed=1)
    recipe = replace(RECIPE, epochs=2)
    # A memory of one step is none, so this average is the weights themselves.
    last = replace(recipe, average=1 / steps)
    both = [
        list(train(m, digits, r, seed=0, rungs=[1, 2]))
        for m, r in ((model, last), (plain, recipe))
    ]
    assert [r.val_accuracy for r in both[0]] == [r.val_accuracy for r in both[1]]
    assert all(map(torch.equal, model.parameters(), plain.parameters()))

    model = build(SMALL, seed=1)
    reports = train(
        model, digits, replace(recipe, average=0.5), seed=0, rungs=[1, 1.5, 2]
    )
    plain = build(SMALL, seed=1)
    whole = train(plain, digits, recipe, seed=0, rungs=[1, 1.5, 2])
    for number, (ours, theirs) in enumerate(zip(reports, whole, strict=True)):
        # The training under the average is the same, so the same batches lose alike.
        assert ours.train_loss == theirs.train_loss
        same = [
            torch.equal(a, b)
            for a, b in zip(
                model.state_dict().values(), plain.state_dict().values(), strict=True
            )
        ]
        assert all(same) if number == 0 else not any(same[:4])
        again = measure(
            model, digits.val_images, digits.val_labels, digits.mean, digits.std
        ).accuracy
        assert again == ours.val_accuracy
    assert ours.val_accuracy > 0.85
    assert all(bool(v.isfinite().all()) for v in model.state_dict().values())


def test_the_average_follows_its_formula() -> None:
    """A plain mean at first, then a memory of a fifth of its steps; buffers, too."""
    layer = nn.BatchNorm1d(1)
    average = EMA(layer, 100, Recipe(average=0.5))
    expected = 0.0
    for step in range(100):
        for tensor in (layer.weight, layer.running_mean):
            assert tensor is not None
            tensor.data.fill_(float(step))
        average.update(step)
        if step >= 50:
            weight = max(1 / (step - 49), 1 / 10)
            expected += weight * (step - expected)
    average.swap()
    assert layer.running_mean is not None
    assert layer.weight.item() == pytest.approx(expected)
    assert layer.running_mean.item() == pytest.approx(expected)
    average.swap()
    assert layer.weight.item() == 99
