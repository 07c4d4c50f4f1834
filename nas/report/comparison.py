"""The plot of a study's front with hand-made nets and retrained winners beside it."""

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
from nas.report.figure import INK, front_figure
from nas.report.labels import percent

_REFERENCE_COLOUR = "#0072b2"
_WINNER_COLOUR = "#009e73"


def comparison_frame(rows: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row a comparison; trials and sizes are whole or missing."""
    frame = pd.DataFrame([row.to_dict() for row in rows])
    whole = [c for c in frame.columns if c.endswith(("trial", "params", "seeds"))]
    whole += [c for c in frame.columns if c == "params_saved"]
    return frame.astype(dict.fromkeys(whole, "Int64"))


def comparison_figure(
    rows: Sequence[Comparison],
    candidates: Sequence[Candidate],
    winners: Sequence[Point],
    *,
    param_budget: int | None,
    title: str,
) -> go.Figure:
    """Return front_figure with references and winners marked, by log error alone."""
    figure = front_figure(candidates, param_budget=param_budget, title=title)
    # Its buttons would move the candidates alone to another scale.
    figure.update_layout(updatemenus=[], annotations=[])
    known = {(row.reference, row.accuracy_is): row for row in rows}.values()
    figure.add_scatter(
        **_marks(
            [(r.num_params, r.accuracy) for r in known],
            [
                f"<b>{escape(r.reference)}</b><br>{r.num_params:,} parameters, "
                f"{percent(r.accuracy)}<br>{escape(r.accuracy_is)}"
                for r in known
            ],
            "references",
            {"symbol": "star", "size": 13, "color": _REFERENCE_COLOUR},
        ),
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
                    f"<b>trial {w.trial}, retrained</b><br>{w.num_params:,} parameters,"
                    f" {percent(w.accuracy)}<br>test, mean of {w.seeds}"
                    for w in winners
                ],
                "retrained (test)",
                {"symbol": "diamond", "size": 12, "color": _WINNER_COLOUR},
            )
        )
    accuracies = [
        *(c.val_accuracy for c in candidates if c.val_accuracy is not None),
        *(r.accuracy for r in known),
        *(w.accuracy for w in winners),
    ]
    low, high = axes.error_range([axes.error_of(a) for a in accuracies])
    sizes = [*(c.num_params for c in candidates), *(r.num_params for r in known)]
    figure.update_yaxes(
        range=axes.log_range(high, low),
        title_text="accuracy (by log error)",
        selector={"overlaying": None},
    )
    figure.update_xaxes(range=axes.log_range(*axes.size_range(sizes, param_budget)))
    return figure


def write_comparison(path: Path, figure: go.Figure) -> None:
    """Write the figure as a page that works from disk; StudyError where it cannot."""
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
