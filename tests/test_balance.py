"""What an accuracy is worth: class by class, and beside the largest class's share."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import Invoke
from rich.console import Console
from torch import nn
from torch.nn import functional

from nas.cli.display import confusion_table
from nas.search.balance import balance, effective_size, no_better_than_majority
from nas.study.folders import load_settings, read_study
from nas.training.loop import confusion, measure


def test_balance_is_what_the_counts_say() -> None:
    """Two seeds are added; a class without images has no accuracy."""
    seeds = [[[8, 0, 2], [0, 0, 0], [3, 0, 1]], [[10, 0, 0], [0, 0, 0], [1, 1, 2]]]
    found = balance(seeds)
    assert found["test_confusion"] == [[18, 0, 2], [0, 0, 0], [4, 1, 3]]
    assert found["test_accuracy_by_class"] == [18 / 20, None, 3 / 8]
    assert found["test_balanced_accuracy"] == pytest.approx((0.9 + 0.375) / 2)
    assert (found["majority_class"], found["majority_share"]) == (0, 20 / 28)
    assert balance([None]) == balance([]) == {}


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        (["airplane", "automobile", *"abcdefgh"], list("0123456789")),
        (["ab", "[b]c"], ["ab", "[b]c"]),
        ([f"class {number}" for number in range(13)], []),
    ],
    ids=["long", "short", "many"],
)
def test_the_confusion_matrix_fits_into_80_columns(
    names: list[str], heads: list[str]
) -> None:
    """Long names head no columns, but their numbers; nothing is cut."""
    size = len(names)
    counts = np.full((size, size), 101) + 900 * np.eye(size, dtype=int)
    report = {
        "test_confusion": counts.tolist(),
        "test_accuracy_by_class": [1.0] * size,
    }
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(confusion_table(report, names))
    text = console.export_text()
    lines = [line.split() for line in text.splitlines()]
    assert ["class", "images", "accuracy", *heads] in lines
    assert "…" not in text
    shown = [line for line in lines if "100.00" in line]
    for name, line, row in zip(names, shown, counts.tolist(), strict=True):
        assert name in " ".join(line)
        assert line[line.index("%") + 1 :] == ([str(n) for n in row] if heads else [])


def test_the_majority_is_not_beaten_by_noise() -> None:
    """Two standard errors above the share is the limit; and below it nothing counts."""
    assert no_better_than_majority(0.5, 0.8696, 69)
    assert no_better_than_majority(0.8696, 0.8696, 69)
    assert no_better_than_majority(0.94, 0.8696, 69)
    assert not no_better_than_majority(0.96, 0.8696, 69)
    assert not no_better_than_majority(0.90, 0.8696, 10_000)


def test_the_balanced_accuracy_is_as_noisy_as_that_of_so_many_images() -> None:
    """Against throwing dice: classes of one size are all of their images, rare ones count."""
    assert effective_size([50, 50, 0, 50]) == 150
    sizes = np.array([400, 40, 10])
    random = np.random.default_rng(0)
    shares = random.binomial(sizes, 0.8, (20_000, 3)) / sizes
    plain = 0.8 * 0.2 / effective_size(sizes.tolist())
    assert shares.mean(axis=1).var() == pytest.approx(plain, rel=0.05)


def test_the_balanced_measurement_is_the_mean_over_classes() -> None:
    """Accuracy and loss alike, over several batches; a class without images is left out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    images = torch.randint(256, (300, 1, 4, 4), dtype=torch.uint8)
    labels = torch.cat([torch.zeros(250), torch.ones(40), torch.full((10,), 3)]).long()
    some = (model, images, labels, [0.5], [0.3])
    with torch.no_grad():
        logits = model((images / 255 - 0.5) / 0.3)
    parts = [labels == label for label in (0, 1, 3)]
    right = [(logits.argmax(1) == labels)[part].double().mean() for part in parts]
    losses = [functional.cross_entropy(logits[part], labels[part]) for part in parts]
    accuracy, loss = measure(*some, metric="balanced-accuracy")
    assert accuracy == pytest.approx(float(sum(right)) / 3)
    assert loss == pytest.approx(float(sum(losses)) / 3, rel=1e-5)
    assert accuracy != pytest.approx(measure(*some).accuracy)


def test_confusion_counts_each_image_once() -> None:
    """Against counting one by one, over several batches; its diagonal is the accuracy."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images = torch.randint(256, (300, 1, 4, 4), dtype=torch.uint8)
    labels = torch.randint(3, (300,))
    found = confusion(model, images, labels, [0.5], [0.3], 3)
    with torch.no_grad():
        said = model((images / 255 - 0.5) / 0.3).argmax(1)
    expected = [
        [int(((labels == row) & (said == column)).sum()) for column in range(3)]
        for row in range(3)
    ]
    assert found.tolist() == expected
    right = int(found.diagonal().sum()) / 300
    assert right == measure(model, images, labels, [0.5], [0.3]).accuracy
    assert model.training


@pytest.mark.slow
def test_nets_that_only_say_the_largest_class_are_told(
    invoke: Invoke, tmp_path: Path
) -> None:
    """Noise with 88 % of one class: search, best and the report say what it is."""
    random = np.random.default_rng(0)
    labels = np.array(["[cat]"] * 132 + ["dog"] * 18)
    order = random.permutation(150)
    arrays = {
        f"{axis}_{part}": values[some]
        for part, some in (("train", order[:100]), ("test", order[100:]))
        for axis, values in (
            ("x", random.integers(0, 256, (150, 8, 8), dtype=np.uint8)),
            ("y", labels),
        )
    }
    np.savez(tmp_path / "pets.npz", **arrays)
    common = ("--workers", 1, "--device", "cpu")
    found = invoke(
        *("search", "--dataset", "pets.npz", "--budget", 400, "--trials", 2),
        *("--epochs", 3, *common),
    )
    assert found.code == 0, found.err
    assert "data: text labels" in found.out
    assert "data: warning: " in found.out
    assert "no net is better than always answering '[cat]'" in found.out
    assert "next: " not in found.out
    assert "no net better than always" in invoke("front").out
    best = invoke("best", "pets-400", "--epochs", 1, *common)
    assert best.code == 0, best.err
    assert "balanced accuracy" in best.out
    assert "[cat]" in best.out
    assert "no better than always answering '[cat]'" in best.out
    folder = tmp_path / "studies/pets-400/best"
    report = json.loads((folder / "report.json").read_text())
    counts = np.array(report["test_confusion"])
    assert counts.sum() == 50
    assert counts.diagonal().sum() / 50 == pytest.approx(report["test_accuracy_mean"])
    assert report["majority_share"] == pytest.approx(counts.sum(1).max() / 50)
    # A row of the matrix is a line of the file.
    assert f"{counts[0].tolist()}," in (folder / "report.json").read_text()
    # The same data by the balanced accuracy: chance is one of two classes.
    (tmp_path / "weighted.toml").write_text('class_weights = "balanced"\n')
    balanced = ("--metric", "balanced-accuracy", "--recipe", "weighted.toml")
    found = invoke(
        *("search", "--dataset", "pets.npz", "--budget", 400, "--trials", 2),
        *("--epochs", 3, "--study", "fair", *balanced, *common),
    )
    assert found.code == 0, found.err
    assert "'[cat]', whose balanced validation accuracy is 50.00 %" in found.out
    assert "try --metric" not in found.out
    settings = load_settings(tmp_path / "studies/fair")
    assert settings.effective_val_size == effective_size([14, 2])
    assert settings.recipe.class_weights == "balanced"
    study = read_study(tmp_path / "studies/fair")
    ends = [c.curve[-1].val_accuracy for c in study.candidates() if c.curve]
    assert ends
    # Fourteen images of one class and two of the other: no plain accuracy is 1/28 of.
    assert all((28 * end) % 1 == pytest.approx(0, abs=1e-6) for end in ends)
    (tmp_path / "weighted.toml").write_text("class_weights = [1, 2, 3]\n")
    bad = invoke("best", "fair", "--recipe", "weighted.toml", *common)
    assert (bad.code, bad.err.count("\n")) == (1, 1)
    assert "class_weights has 3 numbers, and the data 2 classes" in bad.err
