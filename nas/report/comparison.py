"""The plot of a study's front together with hand-made nets and retrained winners."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nas.candidates.candidate import Candidate
from nas.files import write_atomically
from nas.references.comparison import Comparison, Point
from nas.report import axes
from nas.report.figure import BUTTONS, INK, front_figure
from nas.report.labels import percent

_REFERENCE_COLOUR = "#0072b2"
_WINNER_COLOUR = "#009e73"


def comparison_frame(rows: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row per comparison; trials and sizes are integers or missing."""
    frame = pd.DataFrame([row.to_dict() for row in rows])
    ends = ("trial", "params", "seeds", "macs", "memory", "params_saved")
    whole = [c for c in frame.columns if c.endswith(ends)]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def comparison_figure(
    rows: Sequence[Comparison],
    candidates: Sequence[Candidate],
    winners: Sequence[Point],
    *,
    param_budget: int | None,
    title: str,
) -> go.Figure:
    """Return front_figure with references and winners marked, on the log scale only.

    Buttons switch the x axis from parameters to MACs or activation memory. A reference
    of unknown accuracy is a vertical line at its size.
    """
    figure = front_figure(candidates, param_budget=param_budget, title=title)
    # Its buttons would only move the candidates to another scale.
    figure.layout.updatemenus = ()
    every = {(row.reference, row.accuracy_is): row for row in rows}.values()
    known = [row for row in every if row.accuracy is not None]
    figure.add_scatter(
        **_marks(
            [(r.num_params, r.accuracy or 0.0) for r in known],
            [
                f"<b>{escape(r.reference)}</b><br>{_costs(r)}, "
                f"{percent(r.accuracy)}<br>{escape(r.accuracy_is)}"
                for r in known
            ],
            "references",
            {"symbol": "star", "size": 13, "color": _REFERENCE_COLOUR},
        ),
        customdata=[(r.macs, r.peak_memory) for r in known],
        text=[r.reference for r in known],
        textposition="top center",
        textfont={"color": INK},
    )
    figure.data[-1].mode = "markers+text"
    if winners:
        figure.add_scatter(
            **_marks(
                [(w.num_params, w.accuracy) for w in winners],
                [
                    f"<b>trial {w.trial}, retrained</b><br>{_costs(w)},"
                    f" {percent(w.accuracy)}<br>test, mean of {w.seeds}"
                    for w in winners
                ],
                "retrained (test)",
                {"symbol": "diamond", "size": 12, "color": _WINNER_COLOUR},
            ),
            customdata=[(w.macs, w.peak_memory) for w in winners],
        )
    accuracies = [
        *(c.val_accuracy for c in candidates if c.val_accuracy is not None),
        *(r.accuracy for r in known if r.accuracy is not None),
        *(w.accuracy for w in winners),
    ]
    low, high = axes.error_range([axes.error_of(a) for a in accuracies])
    for row in every:
        if row.accuracy is None:
            figure.add_scatter(**_line(row, low, high))
    sizes = [*(c.num_params for c in candidates), *(r.num_params for r in every)]
    figure.update_yaxes(
        range=axes.log_range(high, low),
        title_text="accuracy (by log error)",
        selector={"overlaying": None},
    )
    figure.update_xaxes(range=axes.log_range(*axes.size_range(sizes, param_budget)))
    figure.layout.updatemenus = (_cost_buttons(figure),)
    return figure


def _line(row: Comparison, low: float, high: float) -> dict[str, Any]:
    """Return the vertical line of a net of unknown accuracy."""
    steps = 40  # enough points to show the hover text anywhere on the line
    heights = [low * (high / low) ** (step / steps) for step in range(steps + 1)]
    words = f"<b>{escape(row.reference)}</b><br>{_costs(row)}<br>{row.accuracy_is}"
    return {
        "x": [row.num_params] * len(heights),
        "y": heights,
        "mode": "lines",
        "name": f"{escape(row.reference)} ({row.accuracy_is})",
        "line": {"color": _REFERENCE_COLOUR, "width": 2, "dash": "dot"},
        "hovertext": [words] * len(heights),
        "hoverinfo": "text",
        "customdata": [(row.macs, row.peak_memory)] * len(heights),
    }


def _costs(net: Comparison | Point) -> str:
    if net.macs is None or net.peak_memory is None:
        return f"{net.num_params:,} parameters"
    return (
        f"{net.num_params:,} parameters, {net.macs:,} MACs,<br>"
        f"{net.peak_memory:,} bytes of activations"
    )


def _cost_buttons(figure: go.Figure) -> dict[str, Any]:
    """Return the buttons that put another cost on the x axis.

    The cap and the front's line are shown for parameters only.
    """
    x_axis = figure.layout.xaxis
    sizes = {
        "xaxis.title.text": "parameters",
        "xaxis.range": x_axis.range,
        "xaxis.tickvals": x_axis.tickvals,
        "xaxis.ticktext": x_axis.ticktext,
        "shapes": list(figure.layout.shapes),
        "annotations": list(figure.layout.annotations),
    }
    buttons = [_button([list(trace.x) for trace in figure.data], sizes)]
    for place, title in enumerate(("multiply-accumulates", "bytes of activations")):
        across = [
            [None] * len(trace.x)
            if trace.customdata is None
            else [costs[place] for costs in trace.customdata]
            for trace in figure.data
        ]
        low, high = axes.size_range([x for xs in across for x in xs if x], None)
        ticks = axes.one_two_five(low / 100, high * 100)
        costs_axis = {
            "xaxis.title.text": title,
            "xaxis.range": axes.log_range(low, high),
            "xaxis.tickvals": ticks,
            "xaxis.ticktext": [axes.size_label(tick) for tick in ticks],
            "shapes": [],
            "annotations": [],
        }
        buttons.append(_button(across, costs_axis))
    return BUTTONS | {"buttons": buttons}


def _button(across: list[list[Any]], axis: dict[str, Any]) -> dict[str, Any]:
    return {
        "label": axis["xaxis.title.text"],
        "method": "update",
        "args": [{"x": across}, axis],
    }


def write_comparison(path: Path, figure: go.Figure) -> None:
    """Write the figure as a page that works from disk; StudyError on failure."""
    write_atomically(path, figure.to_html(include_plotlyjs=True, full_html=True))


def _marks(
    points: Sequence[tuple[int, float]],
    hovers: Sequence[str],
    name: str,
    marker: dict[str, Any],
) -> dict[str, Any]:
    return {
        "x": [size for size, _ in points],
        "y": [axes.error_of(accuracy) for _, accuracy in points],
        "mode": "markers",
        "name": f"{name} ({len(points)})",
        "marker": marker,
        "hovertext": list(hovers),
        "hoverinfo": "text",
    }
