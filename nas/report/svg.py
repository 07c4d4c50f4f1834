"""The plot of a study as a small static SVG, for a README or a page without scripts.

It follows the reader's light or dark scheme, even in an ``<img>``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape

from nas.candidates.candidate import Candidate, front
from nas.report import axes
from nas.report.labels import STATES, details, percent

_WIDTH, _HEIGHT = 760, 484
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 740, 44, 396
_LABEL_ROOM = 72
"""Width in pixels of a label of the front, left of its point."""

_STYLE = """
.nas { color-scheme: light dark; font: 14px system-ui, sans-serif; }
.nas text { fill: #565c66; }
.nas .grid { stroke: #80869038; }
.nas .cap { stroke: #565c66; stroke-width: 1.5; stroke-dasharray: 7 5; }
.nas .point { fill: none; stroke: #8a9099; stroke-width: 1.3; opacity: .75; }
.nas .point.complete { fill: #8a9099; stroke: none; }
.nas .stair { fill: none; stroke: #d55e00; stroke-width: 2; }
.nas .front { fill: #d55e00; }
.nas .number { font-size: 13px; font-weight: 600; fill: #b04e00; }
@media (prefers-color-scheme: dark) {
  .nas text { fill: #b4bac4; }
  .nas .cap { stroke: #b4bac4; }
  .nas .number { fill: #f0954d; }
}
""".strip()

_FRONT = '<circle class="front" cx="{x}" cy="{y}" r="5">{title}</circle>'
_SHAPES = {
    "complete": '<circle class="point complete" cx="{x}" cy="{y}" r="3.2"/>',
    "pruned": '<path class="point" d="M{x} {y}m-3.6-3.2h7.2l-3.6 6.4z"/>',
    "running": '<path class="point" d="M{x} {y}m0-4.4l4.4 4.4-4.4 4.4-4.4-4.4z"/>',
    "failed": '<path class="point" d="M{x} {y}m-3.5-3.5l7 7m0-7l-7 7"/>',
}


def front_svg(
    candidates: Sequence[Candidate],
    *,
    param_budget: int | None = None,
    title: str = "Pareto front",
    accuracy: str = "validation accuracy",
) -> str:
    """Return front_figure's plot as an SVG document, without hovers and zoom.

    There may be no candidates. If the SVG is inlined in a page, the members of the
    front have tooltips with their details.
    """
    return "\n".join(_lines(candidates, param_budget, title, accuracy)) + "\n"


def _lines(
    candidates: Sequence[Candidate],
    param_budget: int | None,
    title: str,
    name: str,
) -> Iterator[str]:
    seen = [c for c in candidates if c.val_accuracy is not None]
    members = front(candidates)
    sizes = axes.size_range([c.num_params for c in seen], param_budget)
    errors = axes.error_range([axes.error_of(c.val_accuracy or 0) for c in seen])

    def across(size: float) -> float:
        return _between(_LEFT, _RIGHT, size, sizes)

    def up(accuracy: float) -> float:
        return _between(_TOP, _BOTTOM, axes.error_of(accuracy), errors)

    summary = f"{title}: {name} against parameters"
    yield (
        f'<svg class="nas" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-label="{escape(summary)}">'
    )
    yield f"<style>{_STYLE}</style>"
    yield f'<text x="{_LEFT}" y="18" font-weight="600">{escape(title)}</text>'
    for size in axes.one_two_five(*sizes):
        x = across(size)
        yield f'<path class="grid" d="M{x} {_TOP}V{_BOTTOM}"/>'
        yield _text(x, _BOTTOM + 20, axes.size_label(size), "middle")
    for error in axes.one_two_five(*errors):
        if error < 1:
            y = up(1 - error)
            yield f'<path class="grid" d="M{_LEFT} {y}H{_RIGHT}"/>'
            yield _text(_LEFT - 8, y + 5, axes.accuracy_label(error), "end")
    yield _text((_LEFT + _RIGHT) / 2, _BOTTOM + 44, "parameters", "middle")
    yield _text(_LEFT, _TOP - 8, name, "start")
    if param_budget:
        x = across(param_budget)
        yield f'<path class="cap" d="M{x} {_TOP}V{_BOTTOM}"/>'
        yield _text(x, _TOP - 8, f"cap {param_budget:,}", "end")
    on_front = {member.trial for member in members}
    for c in seen:
        if c.trial not in on_front:
            x, y = across(c.num_params), up(c.val_accuracy or 0)
            yield _SHAPES[c.state].format(x=x, y=y)
    corners = axes.staircase(
        [(c.num_params, c.val_accuracy or 0) for c in members], param_budget
    )
    if corners:
        path = "L".join(f"{across(size)} {up(height)}" for size, height in corners)
        yield f'<path class="stair" d="M{path}"/>'
    else:
        middle = (_LEFT + _RIGHT) / 2
        yield _text(middle, _HEIGHT / 2, "no candidate is fully trained yet", "middle")
    for c in members:
        x, y = across(c.num_params), up(c.val_accuracy or 0)
        hover = escape("\n".join(details(c)))
        yield _FRONT.format(x=x, y=y, title=f"<title>{hover}</title>")
    for c in _labelled(members, [across(c.num_params) for c in members]):
        x, y = across(c.num_params), up(c.val_accuracy or 0)
        yield _text(x - 7, y - 8, percent(c.val_accuracy), "end", "number")
    yield from _legend(candidates, members)
    yield "</svg>"


def _between(
    start: float, end: float, value: float, bounds: tuple[float, float]
) -> float:
    """Return the position of a value between start and end on a logarithmic scale."""
    share = math.log(value / bounds[0]) / math.log(bounds[1] / bounds[0])
    return round(start + share * (end - start), 1)


def _labelled(members: Sequence[Candidate], places: Sequence[float]) -> list[Candidate]:
    """Return the members with room for a label, the largest first.

    A label is above and left of its point, where the front's line never runs.
    """
    chosen: list[Candidate] = []
    free = math.inf
    for member, x in sorted(zip(members, places, strict=True), key=lambda m: -m[1]):
        if x <= free and x - _LABEL_ROOM >= _LEFT:
            chosen.append(member)
            free = x - _LABEL_ROOM
    return chosen


def _legend(candidates: Sequence[Candidate], members: Sequence[Candidate]) -> list[str]:
    counts = Counter(candidate.state for candidate in candidates)
    y = _HEIGHT - 12
    entries = [(_FRONT.format(x=0, y=y - 5, title=""), f"front ({len(members):,})")]
    entries += [
        (_SHAPES[state].format(x=0, y=y - 5), f"{state} ({counts[state]:,})")
        for state in STATES
        if counts[state]
    ]
    return [
        f'<g transform="translate({_LEFT + 8 + 132 * column} 0)">{shape}'
        f"{_text(10, y, words, 'start')}</g>"
        for column, (shape, words) in enumerate(entries)
    ]


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return (
        f'<text{of_kind} x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
    )
