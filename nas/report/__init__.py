"""The results of a study as tables, plots and files; imports no torch and no optuna.

::

    frames.py   candidate_record; candidates_frame, front_frame, trials_frame; as CSV, JSON, Markdown, parquet
    axes.py     the scales that both plots share
    labels.py   the texts that both plots share
    figure.py   front_figure: the plotly figure
    svg.py      front_svg: the same plot as a small static picture
    comparison.py  the front together with references: nas compare
    page.py     front_html: the self-contained page; write_front
"""

from nas.report.comparison import (
    comparison_figure,
    comparison_frame,
    write_comparison,
)
from nas.report.figure import front_figure
from nas.report.frames import (
    candidate_record,
    candidates_frame,
    format_frame,
    front_frame,
    parquet,
    trials_frame,
)
from nas.report.page import front_html, write_front
from nas.report.svg import front_svg

__all__ = [
    "candidate_record",
    "candidates_frame",
    "comparison_figure",
    "comparison_frame",
    "format_frame",
    "front_figure",
    "front_frame",
    "front_html",
    "front_svg",
    "parquet",
    "trials_frame",
    "write_comparison",
    "write_front",
]
