"""The interactive plot of a study: accuracy against parameters, the front marked."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import plotly.graph_objects as go

from nas.candidates.candidate import Candidate, State, front
from nas.report import axes
from nas.report.labels import STATES, details

FRONT_COLOUR = "#d55e00"
"""Vermilion of Okabe and Ito: distinct from grey for all colour vision and themes."""
GREY = "#8a9099"
INK = "#6b717a"
"""Readable on both white and near black, so that the figure fits both."""
GRID = "rgba(128, 134, 144, 0.22)"

BUTTONS: dict[str, Any] = {
    "type": "buttons",
    "direction": "right",
    # Plotly's colour of the active button is fixed and unreadable on dark; the axis
    # title says what is shown.
    "showactive": False,
    "x": 0,
    "xanchor": "left",
    "y": 1.02,
    "yanchor": "bottom",
    "pad": {"l": 0, "r": 0, "t": 0, "b": 4},
    "bgcolor": "rgba(128, 134, 144, 0.15)",
    "bordercolor": GRID,
}
"""The style of a row of buttons above the plot."""

_HOVER_WIDTH = 60


class Mark(NamedTuple):
    """The marker of one state; the shapes alone distinguish the states."""

    symbol: str
    opacity: float


MARKS: dict[State, Mark] = {
    "complete": Mark("circle", 0.75),
    "pruned": Mark("triangle-down-open", 0.75),
    "running": Mark("diamond-open", 0.75),
    "failed": Mark("x-thin-open", 0.9),
}


def front_figure(
    candidates: Sequence[Candidate],
    *,
    param_budget: int | None = None,
    title: str | None = None,
    accuracy: str = "validation accuracy",
) -> go.Figure:
    """Return the plot of a study's candidates, which may be none.

    The x axis is the number of parameters, logarithmic, with ``param_budget`` as a
    line. The y axis is the validation accuracy, named ``accuracy``, as its error on a
    logarithmic scale; a button makes it linear. Candidates are shown at their last
    report, failed ones without a report along the bottom.
    """
    members = front(candidates)
    on_front = {member.trial for member in members}
    others = [c for c in candidates if c.trial not in on_front]
    states = Counter(c.state for c in candidates)
    names = {state: f"{state} ({states[state]:,})" for state in STATES}
    figure = go.Figure(layout=_layout(candidates, param_budget, title, accuracy))
    by_accuracy: list[list[float] | None] = []
    by_error: list[list[float] | None] = []

    def add(accuracies: list[float], **options: Any) -> None:
        """Add a trace whose y values the button switches between the two scales."""
        by_accuracy.append(accuracies)
        by_error.append([axes.error_of(accuracy) for accuracy in accuracies])
        figure.add_scatter(y=by_error[-1], **options)

    for state in STATES:
        group = [c for c in others if c.state == state and c.val_accuracy is not None]
        if group:
            add(
                [_accuracy(c) for c in group],
                **_points(group, names[state], _marker(MARKS[state])),
            )
    corners = axes.staircase(
        [(c.num_params, _accuracy(c)) for c in members], param_budget
    )
    if members:
        add(
            [accuracy for _, accuracy in corners],
            x=[size for size, _ in corners],
            mode="lines",
            line={"color": FRONT_COLOUR, "width": 2},
            hoverinfo="skip",
            showlegend=False,
            legendgroup="front",
        )
        marker = {"symbol": "circle", "size": 9, "color": FRONT_COLOUR}
        add(
            [_accuracy(c) for c in members],
            **_points(members, f"front ({len(members):,})", marker),
            legendgroup="front",
        )
    blind = [c for c in others if c.val_accuracy is None and c.state == "failed"]
    if blind:
        by_accuracy.append(None)
        by_error.append(None)
        figure.add_scatter(
            y=[0.015] * len(blind),
            yaxis="y2",
            **_points(blind, names["failed"], _marker(MARKS["failed"])),
            showlegend=not any(trace.name == names["failed"] for trace in figure.data),
        )
    if not any(by_error):
        figure.add_annotation(
            text="No candidate has reported yet.<br>"
            "<b>nas search</b> fills this plot as it goes.",
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
            showarrow=False,
        )
    else:
        figure.update_layout(
            updatemenus=[_scale_buttons(candidates, accuracy, by_accuracy, by_error)]
        )
    return figure


def _accuracy(candidate: Candidate) -> float:
    return candidate.val_accuracy or 0.0


def _marker(mark: Mark) -> dict[str, Any]:
    return {
        "symbol": mark.symbol,
        "size": 7,
        "color": GREY,
        "opacity": mark.opacity,
        "line": {"width": 1.3, "color": GREY},
    }


def _points(
    group: Sequence[Candidate], name: str, marker: dict[str, Any]
) -> dict[str, Any]:
    return {
        "x": [c.num_params for c in group],
        "mode": "markers",
        "name": name,
        "marker": marker,
        "hovertext": [_hover(c) for c in group],
        "hoverinfo": "text",
        # nas.report.comparison can put these on the x axis instead of the parameters.
        "customdata": [(c.macs, c.peak_memory) for c in group],
    }


def _hover(candidate: Candidate) -> str:
    """Return the candidate's details as plotly's HTML, wrapped into narrow lines."""
    head, *rest = [
        escape(part) for line in details(candidate) for part in _wrapped(line)
    ]
    return "<br>".join([f"<b>{head}</b>", *rest])


def _wrapped(line: str) -> list[str]:
    # Most lines fit; textwrap on all would take half the time of the whole figure.
    if len(line) <= _HOVER_WIDTH:
        return [line]
    return textwrap.wrap(line, _HOVER_WIDTH, subsequent_indent="  ")


def _layout(
    candidates: Sequence[Candidate],
    param_budget: int | None,
    title: str | None,
    accuracy: str,
) -> dict[str, Any]:
    low, high = axes.size_range([c.num_params for c in candidates], param_budget)
    # Ticks beyond the visible range, for zooming out.
    sizes = axes.one_two_five(low / 100, high * 100)
    layout: dict[str, Any] = {
        "template": None,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 10, "r": 14, "t": 92 if title else 52, "b": 10},
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": INK},
        "hoverlabel": {
            "align": "left",
            "bgcolor": "#23272e",
            "font": {"color": "#ffffff", "family": "system-ui, sans-serif"},
        },
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        "xaxis": {
            "type": "log",
            "range": axes.log_range(low, high),
            "title": {"text": "parameters"},
            "tickvals": sizes,
            "ticktext": [axes.size_label(size) for size in sizes],
            "gridcolor": GRID,
            "zeroline": False,
            "automargin": True,
        },
        "yaxis": _error_axis(_errors(candidates), accuracy),
        # The strip along the bottom for candidates that have no accuracy.
        "yaxis2": {
            "overlaying": "y",
            "range": [0, 1],
            "visible": False,
            "fixedrange": True,
        },
    }
    if title:
        layout["title"] = {"text": escape(title), "x": 0, "xref": "paper", "y": 0.97}
    if param_budget:
        layout["shapes"] = [
            {
                "type": "line",
                "x0": param_budget,
                "x1": param_budget,
                "y0": 0,
                "y1": 1,
                "yref": "paper",
                "line": {"color": INK, "width": 1.5, "dash": "dash"},
            }
        ]
        layout["annotations"] = [
            {
                "text": f"cap {param_budget:,}",
                # Plotly expects the logarithm here, unlike in the shape above.
                "x": axes.log_range(param_budget, param_budget)[0],
                "xanchor": "right",
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
            }
        ]
    return layout


def _errors(candidates: Sequence[Candidate]) -> list[float]:
    return [
        axes.error_of(c.val_accuracy) for c in candidates if c.val_accuracy is not None
    ]


def _error_axis(errors: Sequence[float], accuracy: str) -> dict[str, Any]:
    low, high = axes.error_range(errors)
    ticks = axes.one_two_five(axes.SMALLEST_ERROR / 10, 0.9)
    return {
        "type": "log",
        # From the largest error at the bottom to the smallest at the top.
        "range": axes.log_range(high, low),
        "title": {"text": f"{accuracy} (by log error)", "standoff": 8},
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [axes.accuracy_label(tick) for tick in ticks],
        "tickformat": "",
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
    }


def _scale_buttons(
    candidates: Sequence[Candidate],
    accuracy: str,
    by_accuracy: Sequence[list[float] | None],
    by_error: Sequence[list[float] | None],
) -> dict[str, Any]:
    traces = [i for i, heights in enumerate(by_error) if heights is not None]
    error_axis = _error_axis(_errors(candidates), accuracy)
    low, high = axes.accuracy_range(
        [c.val_accuracy for c in candidates if c.val_accuracy is not None]
    )
    linear_axis = error_axis | {
        "type": "linear",
        "title": {"text": f"{accuracy} (linear)", "standoff": 8},
        "range": [low, high],
        "tickmode": "auto",
        "tickformat": ".4~p",
    }

    def button(
        label: str, heights: Sequence[list[float] | None], axis: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "label": label,
            "method": "update",
            "args": [{"y": [heights[i] for i in traces]}, {"yaxis": axis}, traces],
        }

    return BUTTONS | {
        "buttons": [
            button("log error", by_error, error_axis),
            button("linear", by_accuracy, linear_axis),
        ]
    }
