"""Frames, notation, plots and the page of a study's candidates."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import net_of
from strategies import architectures, dominates, points
from studying import complete_candidate, report_of, run_python

from nas.architecture import Architecture, Block, Head
from nas.architecture.notation import describe
from nas.candidates.candidate import Candidate, State, front
from nas.report import (
    candidates_frame,
    format_frame,
    front_figure,
    front_frame,
    front_html,
    front_svg,
    write_front,
)
from nas.report.axes import one_two_five, size_label, staircase

EVIL = '</script><img src=x onerror=alert(1)> & "|" $x'
SVG = "{http://www.w3.org/2000/svg}"


def architecture(out_channels: int = 4) -> Architecture:
    """Return a small architecture."""
    return net_of(Block(out_channels=out_channels, pool="max"))


def candidate(  # a whole candidate of what matters to a test
    trial: int,
    state: State = "complete",
    val_accuracy: float | None = 0.9,
    **others: Any,
) -> Candidate:
    """Return a candidate that was trained for one epoch if it has an accuracy."""
    known: dict[str, Any] = {
        "state": state,
        "seed": trial + 100,
        "curve": () if val_accuracy is None else (report_of(0, val_accuracy),),
    }
    net = architecture(trial + 1)
    made = complete_candidate(trial, net, val_accuracy or 0.0, **known | others)
    return replace(made, val_accuracy=val_accuracy)


STUDY = [
    candidate(0, val_accuracy=0.8),
    candidate(1, val_accuracy=0.7),
    candidate(2, val_accuracy=0.95, reason=EVIL),
    candidate(3, "pruned", 0.99, reason=EVIL),
    candidate(4, "failed", None, reason=EVIL),
    candidate(5, "failed", 0.3, reason="NaN"),
    candidate(6, "running", 0.4),
    candidate(7, "running", None),
]
"""The front is trials 0 and 2."""


class Page(HTMLParser):
    """What a page holds: its elements and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        """Read the whole page."""
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element."""
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - HTMLParser's signature
        """Note that what follows is not its text."""
        self._open = ""

    def handle_data(self, data: str) -> None:
        """Note the text."""
        if self._open:
            self.texts[self._open][-1] += data


def figure_in(page: Page) -> Any:
    """Return the figure that the page gives to plotly."""
    for text, (_, attributes) in zip(
        page.texts["script"],
        [element for element in page.elements if element[0] == "script"],
        strict=True,
    ):
        if attributes.get("id") == "figure":
            return json.loads(text)
    raise AssertionError("the page holds no figure")


@given(scores=points())
def test_the_front_is_that_of_brute_force(scores: list[tuple[int, float]]) -> None:
    """The front is what no complete candidate dominates, each point once, sorted."""
    states: list[State] = ["complete", "pruned", "complete", "failed", "running"]
    candidates = [
        candidate(i, states[i % 5], accuracy, num_params=size)
        for i, (size, accuracy) in enumerate(scores)
    ]
    complete = [p for i, p in enumerate(scores) if states[i % 5] == "complete"]
    expected = {p for p in complete if not any(dominates(q, p) for q in complete)}
    members = [(c.num_params, c.val_accuracy) for c in front(candidates)]
    assert members == sorted(expected)
    assert all(c.state == "complete" for c in front(candidates))


def test_the_frame_holds_every_candidate() -> None:
    """One row a candidate, with missing values where there is no accuracy or reason."""
    frame = candidates_frame(STUDY)
    assert list(frame["trial"]) == list(range(8))
    assert list(frame["val_accuracy"].isna()) == [c.val_accuracy is None for c in STUDY]
    assert list(frame["reason"].isna()) == [c.reason is None for c in STUDY]
    assert list(frame["epochs"]) == [1.0 if c.curve else 0.0 for c in STUDY]
    assert list(frame["seed"]) == [100 + i for i in range(8)]
    assert set(frame["depth"]) == {1}
    assert frame["summary"][2] == "3c3/max - gap"


def test_an_empty_frame_has_the_same_columns_and_types() -> None:
    """A study without candidates gives frames that code for full ones can take."""
    pd.testing.assert_series_equal(
        candidates_frame([]).dtypes, candidates_frame(STUDY).dtypes
    )
    pd.testing.assert_series_equal(front_frame([]).dtypes, front_frame(STUDY).dtypes)


def test_front_csv_reads_back_exactly() -> None:
    """The CSV has the promised columns first and loses no digit."""
    third = candidate(2, val_accuracy=1 / 3)
    rows = list(csv.DictReader(io.StringIO(format_frame(front_frame([third]), "csv"))))
    assert list(rows[0])[:6] == [
        "trial",
        "num_params",
        "val_accuracy",
        "macs",
        "peak_memory",
        "key",
    ]
    assert float(rows[0]["val_accuracy"]) == 1 / 3
    assert int(rows[0]["macs"]) == third.macs
    assert rows[0]["key"] == third.key


def test_json_has_null_for_what_is_missing() -> None:
    """The JSON is strict JSON, with whole numbers where they are whole."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = format_frame(candidates_frame(STUDY), "json")
    rows = json.loads(text, parse_constant=refuse)
    assert rows[4]["val_accuracy"] is None
    assert rows[0]["reason"] is None
    assert rows[4]["reason"] == EVIL
    assert isinstance(rows[0]["num_params"], int)
    assert json.loads(format_frame(front_frame([]), "json")) == []


def test_markdown_is_one_row_a_line() -> None:
    """Bars and line breaks in a text do not break the Markdown table."""
    rows = [candidate(0, "failed", None, reason="a|b\nc\\")]
    lines = format_frame(candidates_frame(rows), "md").splitlines()
    assert len(lines) == 3
    assert r"| a\|b c\\ |" in lines[2]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert columns == {17}


def test_an_unknown_format_is_refused() -> None:
    """A format that is none of the three is an error that names them."""
    with pytest.raises(ValueError, match=r"'xml': use one of \('csv', 'json', 'md'\)"):
        format_frame(front_frame([]), "xml")  # type: ignore[arg-type]


@given(one=architectures(2), other=architectures(2))
def test_the_notation_tells_architectures_apart(
    one: Architecture, other: Architecture
) -> None:
    """What differs in resolution, blocks or head has another notation, on one line."""
    parts = [(net.resolution, net.blocks, net.head) for net in (one, other)]
    same = parts[0] == parts[1]
    assert (describe(one) == describe(other)) is same
    assert describe(one).isprintable()


def test_the_notation_is_as_documented() -> None:
    """Each mark of the notation stands for what its table says."""
    described = net_of(
        Block(out_channels=8),
        Block(out_channels=16, pool="max"),
        Block(
            kind="separable",
            out_channels=10,
            kernel_size=5,
            padding="valid",
            stride=2,
            activation="silu",
            norm="none",
            dropout=0.1,
        ),
        Block(out_channels=9, pool="avg", activation="none"),
        Block(out_channels=8, kernel_width=9, dilation=2),
        Block(kind="mobilenet", out_channels=16, squeeze_excitation=8),
        shape=(1, 28, 28),
        head=Head(kind="flatten", hidden=32),
        resolution=14,
    )
    assert describe(described) == (
        "14px - 8c3 - 16c3/max - 10s5v/2 silu bias drop0.1 - 9c3/avg linear - "
        "8c(3,9)d2 - 16m3se8 - flatten hidden32"
    )


def test_the_figure_shows_every_candidate_that_reported() -> None:
    """Each candidate with an accuracy, and each failed one, is one point."""
    figure = front_figure(STUDY, param_budget=500)
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    shown = sorted(
        int(re.findall(r"trial (\d+)", text)[0])
        for trace in marks
        for text in trace.hovertext
    )
    assert shown == [0, 1, 2, 3, 4, 5, 6]
    by_name = {trace.name: trace for trace in marks if trace.showlegend is not False}
    assert {n: t.marker.symbol for n, t in by_name.items()} == {
        "complete (3)": "circle",
        "pruned (1)": "triangle-down-open",
        "running (2)": "diamond-open",
        "failed (2)": "x-thin-open",
        "front (2)": "circle",
    }
    assert list(by_name["front (2)"].x) == [c.num_params for c in (STUDY[0], STUDY[2])]
    assert list(by_name["front (2)"].y) == pytest.approx([0.2, 0.05])


def test_the_button_changes_each_trace_between_accuracy_and_error() -> None:
    """Linear shows accuracies, log error their complements, of the same traces."""
    figure = front_figure(STUDY)
    error, linear = (button.args for button in figure.layout.updatemenus[0].buttons)
    assert error[2] == linear[2]
    for index, errors, accuracies in zip(
        error[2], error[0]["y"], linear[0]["y"], strict=True
    ):
        assert list(figure.data[index].y) == errors
        assert [1 - e for e in errors] == pytest.approx(accuracies)
    assert error[1]["yaxis"]["type"] == "log"
    assert linear[1]["yaxis"]["type"] == "linear"
    lowest, highest = linear[1]["yaxis"]["range"]
    assert lowest < 0.95 < highest


def test_a_hover_tells_costs_and_blocks_escaped() -> None:
    """The hover of a candidate has its costs, curve and blocks, and no markup else."""
    figure = front_figure(STUDY)
    (text,) = next(t for t in figure.data if t.name == "pruned (1)").hovertext
    for part in (
        "trial 3, pruned",
        f"{STUDY[3].num_params} parameters",
        f"{STUDY[3].macs:,} MACs",
        f"{STUDY[3].peak_memory:,} bytes",
        "99.00 % after 1 epoch",
        "4c3/max → 4x4x4",
        "gap → 10",
        "&lt;/script&gt;",
    ):
        assert part in text
    assert set(re.findall(r"<[^>]*>", text)) == {"<b>", "</b>", "<br>"}


def test_no_candidates_give_a_figure_that_says_what_to_do() -> None:
    """With nothing to show, plot, picture and page say so instead of failing."""
    for study in ([], [candidate(0, "running", None)]):
        figure = front_figure(study, param_budget=1000, title="empty")
        assert any("nas search" in note.text for note in figure.layout.annotations)
        assert "no candidate is fully trained yet" in front_svg(study)
        page = Page(front_html(study, title="empty"))
        assert "No candidate is fully trained yet" in page.texts["p"][0]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10**9),
            st.floats(0, 1) | st.sampled_from([0.0, 1.0]) | st.none(),
            st.sampled_from(["complete", "pruned", "failed", "running"]),
        ),
        max_size=4,
    ),
    st.none() | st.integers(1, 10**9),
)
def test_any_sizes_and_accuracies_can_be_drawn(
    rows: list[tuple[int, float | None, State]], param_budget: int | None
) -> None:
    """Equal, extreme and missing values give a figure and a picture within its frame."""
    study = [
        candidate(i, "failed" if acc is None else state, acc, num_params=size)
        for i, (size, acc, state) in enumerate(rows)
    ]
    front_figure(study, param_budget=param_budget).to_json()
    root = ET.fromstring(front_svg(study, param_budget=param_budget))  # noqa: S314
    for circle in root.iter(f"{SVG}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= 760
        assert 0 <= float(circle.attrib["cy"]) <= 484


def test_the_picture_shows_the_same_candidates() -> None:
    """The SVG is well-formed, escapes its texts and marks the front with details."""
    text = front_svg(STUDY, param_budget=500, title=EVIL)
    root = ET.fromstring(text)  # noqa: S314 - we have just written it
    assert EVIL in [element.text for element in root.iter(f"{SVG}text")]
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert [title.splitlines()[0] for title in titles if title] == [
        "trial 0, complete",
        "trial 2, complete",
    ]
    assert "prefers-color-scheme: dark" in text
    assert "href" not in text


def test_the_page_asks_no_host_for_anything() -> None:
    """No element loads anything, and the page's own policy forbids it to scripts."""
    page = Page(front_html(STUDY, title="mnist"))
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "base"}
        assert not {"src", "href", "srcset", "action"} & set(attributes), tag
    (style,) = {text for text in page.texts["style"] if "body" in text}
    assert "url(" not in style
    assert "@import" not in style
    policies = [
        attributes.get("content") or ""
        for tag, attributes in page.elements
        if tag == "meta" and "http-equiv" in attributes
    ]
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]
    assert "http" not in policies[0]


def test_the_page_escapes_what_it_shows() -> None:
    """A title or reason with markup is text, in the page and within the figure."""
    page = Page(front_html(STUDY, title=EVIL, param_budget=500))
    assert page.texts["title"][0] == EVIL
    assert page.texts["h1"] == [EVIL]
    assert "img" not in [tag for tag, _ in page.elements]
    expected = json.loads(front_figure(STUDY, param_budget=500).to_json())
    assert figure_in(page) == expected


def test_the_page_has_language_title_and_table() -> None:
    """A screen reader finds the language, a title and the front as a table."""
    page = Page(front_html(STUDY, title="mnist-10000"))
    elements = dict(page.elements)
    assert elements["html"]["lang"] == "en"
    assert page.texts["title"][0] == "mnist-10000"
    rows = [a for tag, a in page.elements if tag == "th" and a.get("scope") == "row"]
    assert len(rows) == 2
    assert page.texts["code"] == [
        text for c in front(STUDY) for text in (describe(c.architecture), c.key)
    ]
    assert (
        "2 of 8 candidates (3 complete, 1 pruned, 2 running, 2 failed)"
        in (page.texts["p"][0])
    )


def test_both_files_are_written_again(tmp_path: Path) -> None:
    """front.csv and front.html follow the study, and nothing else is left behind."""
    write_front(tmp_path / "study", [], title="mnist", param_budget=500)
    write_front(tmp_path / "study", STUDY, title="mnist", param_budget=500)
    folder = tmp_path / "study"
    assert sorted(path.name for path in folder.iterdir()) == ["front.csv", "front.html"]
    written = pd.read_csv(folder / "front.csv")
    assert list(written["trial"]) == [0, 2]
    page = (folder / "front.html").read_text(encoding="utf-8")
    assert page == front_html(STUDY, title="mnist", param_budget=500)


def test_the_ticks_and_stairs_of_the_plots() -> None:
    """Ticks are 1, 2 and 5 within the range; the stairs hold until the next size."""
    assert one_two_five(90, 2100) == [100, 200, 500, 1000, 2000]
    assert one_two_five(0.005, 0.05) == [0.005, 0.01, 0.02, 0.05]
    assert [size_label(s) for s in (50, 1000, 2500, 2e6)] == ["50", "1k", "2.5k", "2M"]
    corners = [(1, 0.5), (3, 0.5), (3, 0.7), (9, 0.7)]
    assert staircase([(1, 0.5), (3, 0.7)], 9) == corners
    assert staircase([(1, 0.5), (3, 0.7)], None) == corners[:3]
    assert staircase([], 9) == []


def test_reports_need_neither_torch_nor_optuna() -> None:
    """`nas front` starts fast: the report loads no torch and no optuna."""
    code = (
        "import sys, nas.report\n"
        "print({'torch', 'optuna'} & {name.split('.')[0] for name in sys.modules})"
    )
    done = run_python(code, cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == "set()", done.stderr
