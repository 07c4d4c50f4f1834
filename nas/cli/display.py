"""Results on the terminal: tables and curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from nas.api.progress import percent
from nas.architecture.boards import Board
from nas.architecture.cost import Cost, cost, layers, total
from nas.architecture.notation import describe
from nas.candidates.candidate import Candidate
from nas.references.comparison import Comparison, Point
from nas.training.report import RungReport

_BLOCKS = "▁▂▃▄▅▆▇█"


# With more columns the table is too wide for a terminal; report.json has all counts.
_MOST_ANSWERS = 12
# Characters of their columns, of at least four digits each, that 80 columns leave room for.
_WIDEST_ANSWERS = 52


def confusion_table(report: dict[str, Any], class_names: Sequence[str]) -> Table:
    """Return each class's test images, accuracy and counts by prediction."""
    shown = len(class_names) <= _MOST_ANSWERS
    # With long names in its columns a table does not fit into a terminal.
    numbered = shown and sum(max(4, len(c)) + 1 for c in class_names) > _WIDEST_ANSWERS
    names = [f"{i} {c}" for i, c in enumerate(class_names)] if numbered else class_names
    answers = map(str, range(len(class_names))) if numbered else class_names
    title = "test images by class (rows), and the answers (columns)"
    table = Table(title=title, box=SIMPLE_HEAD, padding=0)
    table.add_column("class", overflow="fold")
    # As Text, since rich would treat a name in brackets as markup.
    for heading in ("images", "accuracy", *(answers if shown else ())):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for name, counts, share in zip(
        names,
        report["test_confusion"],
        report["test_accuracy_by_class"],
        strict=True,
    ):
        cells = [str(count) for count in counts] if shown else []
        table.add_row(Text(name), f"{sum(counts):,}", percent(share), *cells)
    return table


def front_table(
    members: Sequence[Candidate], title: str, board: Board | None = None
) -> Table:
    """Return the front as a table, smallest first; a board adds flash and latency."""
    headings = ("trial", "params", "val accuracy", "MACs", "memory")
    table = _table(
        title, *headings, *_board_headings(board), "architecture", left=["architecture"]
    )
    for member in members:
        table.add_row(
            str(member.trial),
            f"{member.num_params:,}",
            percent(member.val_accuracy),
            f"{member.macs:,}",
            f"{member.peak_memory:,}",
            *_on_board(cost(member.architecture, board), board),
            describe(member.architecture),
        )
    return table


def winners_table(limits: Sequence[int], reports: Sequence[Mapping[str, Any]]) -> Table:
    """Return the winners of several caps, one row each, for `nas best --front`."""
    table = _table(
        "the winner under each cap",
        *("at most", "trial", "params", "MACs"),
        *("validation", "test accuracy", "±", "seeds"),
    )
    for limit, report in zip(limits, reports, strict=True):
        spread = report["test_accuracy_std"]
        table.add_row(
            f"{limit:,}",
            f"{report['trial']}{' resized' if report['resized'] else ''}",
            f"{report['num_params']:,}",
            f"{report['macs']:,}",
            percent(report["val_accuracy"]),
            percent(report["test_accuracy_mean"]),
            "-" if spread is None else f"{100 * spread:.2f}",
            str(report["seeds"]),
        )
    return table


def trials_table(candidates: Sequence[Candidate], name: str) -> Table:
    """Return all trials in order, with state, size, accuracy and reason of the end."""
    last = "architecture, or why it ended"
    headings = ("trial", "state", "params", "val accuracy", "epochs", last)
    table = _table(f"{name}: all trials", *headings, left=["state", last])
    for found in candidates:
        table.add_row(
            str(found.trial),
            found.state,
            f"{found.num_params:,}",
            percent(found.val_accuracy),
            f"{found.epochs:g}",
            Text(found.reason or describe(found.architecture)),
        )
    return table


def _table(title: str | None, *headings: str, left: Sequence[str] = ()) -> Table:
    """Return an empty table with numbers in all columns but those ``left`` ones."""
    table = Table(title=title)
    for heading in headings:
        justify: Literal["left", "right"] = "left" if heading in left else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    return table


def _board_headings(board: Board | None) -> list[str]:
    return [] if board is None else ["flash", f"ms on {board.name}"]


def _on_board(costs: Cost, board: Board | None) -> list[str]:
    if board is None:
        return []
    return [f"{costs.flash:,}", f"{costs.latency / 1e6:.2f}"]


def comparison_view(rows: Sequence[Comparison], title: str) -> Group:
    """Return the nets that beat each reference, one table per kind of accuracy."""
    kinds = dict.fromkeys(row.found_accuracy_is for row in rows)
    return Group(
        *(
            _comparison([r for r in rows if r.found_accuracy_is == kind], title, kind)
            for kind in kinds
        )
    )


def _comparison(rows: Sequence[Comparison], title: str, kind: str) -> Table:
    own = dict.fromkeys(row.accuracy_is for row in rows)
    headings = ("net", "params", "MACs", "memory", "accuracy", "compared")
    table = _table(title, *headings, left=["net"])
    for row in rows:
        mark = f" [{1 + list(own).index(row.accuracy_is)}]" if len(own) > 1 else ""
        known = percent(row.accuracy) if row.accuracy is not None else "?"
        table.add_row(
            Text(row.reference), *_costs(row), Text(known + mark), "", style="bold"
        )
        gain, saved = row.accuracy_gained, row.params_saved
        if row.best is not None:
            words = "" if gain is None else f"{100 * gain:+.2f} points"
            table.add_row(*_found("best of its size", row.best), words)
        if row.smallest is not None and saved is not None:
            words = f"{-saved:+,} params"
            table.add_row(*_found("smallest as good", row.smallest), words)
        table.add_section()
    table.caption_justify = "left"
    marks = own if len(own) == 1 else [f"[{n}] {w}" for n, w in enumerate(own, 1)]
    table.caption = Text(
        f"accuracy of the front: {kind}\naccuracy of the references: {'; '.join(marks)}"
    )
    return table


def _found(place: str, point: Point) -> list[str]:
    seeds = "" if point.seeds == 1 else f" (n={point.seeds})"
    accuracy = percent(point.accuracy) + seeds
    return [f"  {place}: #{point.trial}", *_costs(point), accuracy]


def _costs(net: Comparison | Point) -> list[str]:
    costs = (net.num_params, net.macs, net.peak_memory)
    return ["-" if value is None else f"{value:,}" for value in costs]


def candidate_view(candidate: Candidate, board: Board | None = None) -> Group:
    """Return the layer table of a candidate and the learning curves of its trainings.

    A board adds each layer's flash in bytes and its estimated latency in milliseconds.
    """
    headings = ("part", "layer", "output", "params", "MACs", "memory")
    table = _table(
        f"trial {candidate.trial}, {candidate.state}",
        *(*headings, *_board_headings(board)),
        left=["part", "layer"],
    )
    rows = layers(candidate.architecture)
    for layer in rows:
        table.add_row(
            layer.name,
            layer.description,
            "x".join(map(str, layer.output_shape)),
            f"{layer.num_params:,}",
            f"{layer.macs:,}",
            f"{layer.memory:,}",
            *_on_board(total([layer], board), board),
        )
    table.add_section()
    costs = cost(candidate.architecture, board)
    table.add_row(
        "total",
        "",
        "",
        f"{costs.num_params:,}",
        f"{costs.macs:,}",
        f"{costs.peak_memory:,} peak",
        *_on_board(costs, board),
    )
    lines = [describe(candidate.architecture), f"key {candidate.key}"]
    if candidate.reason:
        lines.append(f"{candidate.state}: {candidate.reason}")
    return Group(table, *(Text(line) for line in lines), _curve_table(candidate))


def _curve_table(candidate: Candidate) -> Table:
    headings = ("training", "epochs", "val accuracy", "train loss", "seconds", "")
    table = _table("learning curves", *headings, left=["training", ""])
    for name, curve in _curves(candidate):
        for place, report in enumerate(curve):
            height = round(report.val_accuracy * (len(_BLOCKS) - 1))
            table.add_row(
                "" if place else name,
                f"{report.epochs:g}",
                percent(report.val_accuracy),
                f"{report.train_loss:.4f}",
                f"{report.seconds:.1f}",
                _BLOCKS[max(0, height)],
            )
        table.add_section()
    return table


def _curves(candidate: Candidate) -> Iterator[tuple[str, Sequence[RungReport]]]:
    """Yield the name and the curve of each training, the first, short one first."""
    yield "screening", candidate.curve
    for training in sorted(
        candidate.trainings, key=lambda t: (t.epochs, t.seed_number)
    ):
        seed = f", seed {training.seed_number + 1}" if training.seed_number else ""
        yield f"{training.epochs} epochs{seed}", training.curve


def studies_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the studies with their numbers of trials."""
    headings = ("name", "complete", "pruned", "failed", "running", "budget")
    table = _table(None, *headings, left=["name"])
    for row in rows:
        table.add_row(*(str(row[heading]) for heading in headings))
    return table
