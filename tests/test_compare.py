"""What of a study beats hand-made nets, by each kind of accuracy."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import Invoke
from hypothesis import given
from hypothesis import strategies as st
from nets import net_of
from rich.console import Console
from strategies import points
from studying import complete_candidate, finish, make_settings, one_block

from nas.architecture.cost import cost
from nas.candidates.candidate import Candidate
from nas.cli.display import comparison_view
from nas.errors import ArchitectureError
from nas.references.bundled import (
    Measured,
    Published,
    Reference,
    find_reference,
    write_reference,
)
from nas.references.comparison import (
    TEST,
    VALIDATION,
    Point,
    compare,
    read_winners,
    references_for,
)
from nas.report import comparison_figure, comparison_frame, format_frame
from nas.study.folders import create

SETTINGS = make_settings()


def candidate(trial: int, width: int, accuracy: float) -> Candidate:
    """Return a fully trained candidate."""
    return complete_candidate(trial, one_block(width), accuracy)


def reference(width: int, accuracy: float | None, dataset: str = "digits") -> Reference:
    """Return a reference, with that published accuracy."""
    published = accuracy and Published(
        num_params=1, epochs=3, accuracy=accuracy, dataset=dataset
    )
    return Reference(
        name="mine", architecture=one_block(width), published=published or None
    )


CANDIDATES = [candidate(0, 4, 0.90), candidate(1, 8, 0.95), candidate(2, 12, 0.97)]


def test_the_best_of_its_size_and_the_smallest_as_good() -> None:
    """Against a published accuracy; the words say of what kind both are."""
    (row,) = compare([reference(10, 0.94)], CANDIDATES, [], SETTINGS)
    assert row.accuracy_is == "published, best epoch on the test set"
    assert row.found_accuracy_is == VALIDATION
    costs = cost(one_block(8))
    assert (
        row.best
        == row.smallest
        == Point(
            1, costs.num_params, 0.95, macs=costs.macs, peak_memory=costs.peak_memory
        )
    )
    assert (row.macs, row.peak_memory) == (
        cost(one_block(10)).macs,
        cost(one_block(10)).peak_memory,
    )
    assert row.accuracy_gained == pytest.approx(0.01)
    assert row.params_saved == cost(one_block(10)).num_params - CANDIDATES[1].num_params


def test_a_reference_that_is_ahead_is_told_so() -> None:
    """The gain is then below 0, and nothing is as good."""
    (row,) = compare([reference(10, 0.99)], CANDIDATES, [], SETTINGS)
    assert row.accuracy_gained == pytest.approx(-0.04)
    assert (row.smallest, row.params_saved) == (None, None)
    (row,) = compare([reference(2, 0.5)], CANDIDATES, [], SETTINGS)
    assert (row.best, row.accuracy_gained) == (None, None)
    assert (
        row.params_saved == cost(one_block(2)).num_params - CANDIDATES[0].num_params < 0
    )


def test_a_net_in_the_study_is_compared_by_its_own_validation_accuracy() -> None:
    """It needs no published one, and does not beat itself."""
    (row,) = compare([reference(8, None)], CANDIDATES, [], SETTINGS)
    assert (row.accuracy, row.accuracy_is) == (0.95, "validation, trial 1")
    assert row.best is not None
    assert row.best.trial == 0
    assert row.smallest is not None
    assert row.smallest.trial == 2


def test_winners_are_compared_with_what_was_published() -> None:
    """In a row of their own: both are on the test set."""
    winners = [Point(1, 100, 0.96, seeds=3)]
    rows = compare([reference(10, 0.94)], CANDIDATES, winners, SETTINGS)
    assert [row.found_accuracy_is for row in rows] == [VALIDATION, TEST]
    assert rows[1].best == winners[0]


def test_other_images_cannot_be_compared() -> None:
    """One line says for which the net is."""
    other = net_of(shape=(1, 9, 9))
    with pytest.raises(ArchitectureError, match="other is for 1x9x9 images"):
        compare([Reference(name="other", architecture=other)], CANDIDATES, [], SETTINGS)


@pytest.mark.parametrize(
    ("dataset", "fingerprint", "known"),
    [
        ("digits", None, True),
        ("moved.npz", None, False),
        ("moved.npz", SETTINGS.data_fingerprint, True),
        ("digits", "0" * 16, False),
    ],
)
def test_a_measurement_counts_on_the_same_data(
    dataset: str, fingerprint: str | None, known: bool
) -> None:
    """Whatever it is called; reports of an older nas have its name alone."""
    measured = Measured(
        accuracy=0.97, seeds=2, dataset=dataset, data_fingerprint=fingerprint
    )
    own = replace(reference(10, None), measured=measured)
    (row,) = compare([own], CANDIDATES, [], SETTINGS)
    assert row.accuracy == (0.97 if known else None)


@pytest.mark.parametrize(
    "unknown", [reference(10, None), reference(10, 0.9, dataset="mnist")]
)
def test_what_nobody_measured_stands_beside_the_best_of_its_size(
    unknown: Reference,
) -> None:
    """But by how much that is ahead is not known; nor is anything as good."""
    (row,) = compare([unknown], CANDIDATES, [Point(1, 100, 0.96)], SETTINGS)
    assert (row.accuracy, row.accuracy_is) == (None, "not measured yet")
    assert row.best is not None
    assert row.best.trial == 1
    assert (row.smallest, row.accuracy_gained, row.params_saved) == (None, None, None)
    figure = comparison_figure(
        [row], CANDIDATES, [], param_budget=2000, title="unknown"
    )
    (line,) = [t for t in figure.data if t.name == "mine (not measured yet)"]
    assert set(line.x) == {row.num_params}
    assert f"{row.macs:,} MACs" in line.hovertext[0]


def write_trained(folder: Path, report: str) -> None:
    """Write what `nas train --output` does, without the weights."""
    folder.mkdir()
    (folder / "architecture.json").write_text(one_block(10).to_json())
    (folder / "report.json").write_text(report)


def test_a_trained_folder_is_compared_by_its_test_accuracy(tmp_path: Path) -> None:
    """Before what was published, and against retrained winners, too."""
    report = {"test_accuracy_mean": 0.96, "seeds": 2, "dataset": "digits"}
    write_trained(tmp_path / "own", json.dumps(report))
    found = find_reference(str(tmp_path / "own"))
    assert found.name == "own"
    rows = compare([found], CANDIDATES, [Point(1, 100, 0.97, seeds=3)], SETTINGS)
    assert [(r.accuracy, r.accuracy_is) for r in rows] == [
        (0.96, "test, as trained, mean of 2")
    ] * 2
    assert [row.found_accuracy_is for row in rows] == [VALIDATION, TEST]


@pytest.mark.parametrize("report", ["{", "{}", '{"test_accuracy_mean": "much"}'])
def test_a_trained_folder_with_a_broken_report_is_a_net_without(
    tmp_path: Path, report: str
) -> None:
    """Its architecture is as good."""
    write_trained(tmp_path / "own", report)
    (row,) = compare([find_reference(str(tmp_path / "own"))], CANDIDATES, [], SETTINGS)
    assert row.accuracy is None


@given(points(), st.integers(1, 40), st.floats(0.001, 1))
def test_no_other_point_is_better(
    found: list[tuple[int, float]], width: int, accuracy: float
) -> None:
    """Brute force agrees on both."""
    winners = [Point(n, size, value) for n, (size, value) in enumerate(found)]
    size = cost(one_block(width)).num_params
    rows = compare([reference(width, accuracy)], [], winners, SETTINGS)
    for row in rows:
        small = [p.accuracy for p in winners if p.num_params <= size]
        good = [p.num_params for p in winners if p.accuracy >= accuracy]
        assert (row.best and row.best.accuracy) == max(small, default=None)
        assert (row.smallest and row.smallest.num_params) == min(good, default=None)


def test_the_references_are_those_of_the_data_set() -> None:
    """None of MNIST's beside a study of the digits."""
    assert references_for(SETTINGS) == []
    mnist = make_settings(dataset="mnist", input_shape=(1, 28, 28))
    for one in references_for(mnist):
        assert one.architecture.input_shape == (1, 28, 28)
    same_shape = make_settings(dataset="fashion-mnist", input_shape=(1, 28, 28))
    assert references_for(same_shape) == []


def test_winners_are_read_and_other_files_passed_over(tmp_path: Path) -> None:
    """Any folder of the study's may hold one."""
    good = {"trial": 3, "num_params": 50, "test_accuracy_mean": 0.9, "seeds": 2}
    good["macs"] = 700
    for name, text in {"best": json.dumps(good), "bad": "{", "odd": "[]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(text)
    assert read_winners(tmp_path) == [Point(3, 50, 0.9, 2, macs=700)]


def test_frame_and_figure_hold_every_row() -> None:
    """Also where something is missing; names are no HTML."""
    winners = [Point(1, 100, 0.96, seeds=3)]
    odd = Reference(
        name="<b>", architecture=one_block(2), published=reference(2, 0.99).published
    )
    rows = compare([reference(10, 0.94), odd], CANDIDATES, winners, SETTINGS)
    for text_format in ("csv", "json", "md"):
        text = format_frame(comparison_frame(rows), text_format)
        assert "NaN" not in text
        assert "<NA>" not in text
    figure = comparison_figure(
        rows, CANDIDATES, winners, param_budget=2000, title="all"
    )
    names = [trace.name for trace in figure.data]
    assert "references (2)" in names
    assert "retrained (test) (1)" in names
    marks = next(trace for trace in figure.data if trace.name == "references (2)")
    assert "&lt;b&gt;" in marks.hovertext[1]


def test_the_buttons_put_other_costs_across() -> None:
    """Every point moves to its own; lines of parameters alone go."""
    rows = compare([reference(10, 0.94)], CANDIDATES, [], SETTINGS)
    figure = comparison_figure(rows, CANDIDATES, [], param_budget=2000, title="all")
    (menu,) = figure.layout.updatemenus
    by_title = {button.label: button.args for button in menu.buttons}
    macs, axis = by_title["multiply-accumulates"]
    assert axis["shapes"] == []
    traces = [trace.name for trace in figure.data]
    stars = macs["x"][traces.index("references (1)")]
    assert list(stars) == [cost(one_block(10)).macs]
    members = macs["x"][traces.index("front (3)")]
    assert list(members) == [c.macs for c in CANDIDATES]
    (sizes, axis) = by_title["parameters"]
    assert [tuple(xs) for xs in sizes["x"]] == [trace.x for trace in figure.data]
    assert len(axis["shapes"]) == 1


# --- the command ------------------------------------------------------------------


def small_study(folder: Path) -> None:
    """Make a study of three trials, 70, 80 and 90 % accurate."""
    with create(folder / "studies/small", SETTINGS) as study:
        for _ in range(3):
            study.ask()
        for trial in range(3):
            finish(study, trial, [0.5, 0.6, 0.7 + trial / 10])


def test_the_command_prints_and_draws(invoke: Invoke, tmp_path: Path) -> None:
    """A table for people, CSV for programs, a page that needs no network."""
    small_study(tmp_path)
    (tmp_path / "mine.toml").write_text(write_reference(reference(10, 0.5)))
    result = invoke("compare", "mine.toml", "--html", "c.html")
    assert result.code == 0, result.err
    assert "validation" in result.out
    assert "written to c.html" in result.err
    page = (tmp_path / "c.html").read_text()
    assert "references (1)" in page
    assert 'src="http' not in page
    result = invoke("compare", "mine.toml", "small:0", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [row["reference"] for row in rows] == ["mine", "small:0"]
    result = invoke("compare")
    assert result.code == 0
    assert result.out.startswith("nothing to compare: ")
    result = invoke("compare", "none")
    assert result.code == 1
    assert "unknown reference 'none'" in result.err


def test_the_table_says_which_way_a_difference_goes() -> None:
    """More is +, of accuracy and of parameters; both accuracies are named below."""
    rows = [
        *compare([reference(10, 0.94)], CANDIDATES, [], SETTINGS),
        *compare([reference(6, 0.96)], CANDIDATES, [], SETTINGS),
        *compare([reference(8, 0.95)], CANDIDATES[1:], [], SETTINGS),
    ]
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as captured:
        console.print(comparison_view(rows, "small: digits"))
    text = captured.get()
    for words in ("+1.00 points", "-6.00 points"):
        assert words in text
    assert re.search(r" -\d+ params", text)
    assert re.search(r" \+\d+ params", text)
    assert "accuracy of the front: validation, search" in text
    assert "accuracy of the references: " in text


OWN = """\
from torch import nn
net = nn.Sequential(
    nn.Conv2d(1, 40, 3), nn.BatchNorm2d(40), nn.ReLU(), nn.Flatten(), nn.Linear(1440, 10)
)
"""


def test_an_imported_net_stands_beside_the_front(
    invoke: Invoke, tmp_path: Path
) -> None:
    """With its costs; the study tells the size of the images."""
    small_study(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    result = invoke("import", "own.py:net", "--compare", "small", "--html", "c.html")
    assert result.code == 0, result.err
    architecture = find_reference("net.toml").architecture
    costs = cost(architecture)
    for value in (costs.num_params, costs.macs, costs.peak_memory):
        assert f"{value:,}" in result.out
    assert "best of its size: #2" in result.out
    assert "90.00 %" in result.out
    assert "net has not been measured on digits: `nas train`" in result.err
    assert "net (not measured yet)" in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--html", "c.html"], 2, "give --compare, too"),
        (["--compare", "none"], 1, "none"),
        (["--compare", "small", "--input-shape", "1x9x9"], 1, "does not take 1x9x9"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_is_written(
    invoke: Invoke, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    """In one line."""
    small_study(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    result = invoke("import", "own.py:net", *arguments)
    assert (result.code, words in result.err) == (code, True), result.err
    assert not (tmp_path / "net.toml").exists()
