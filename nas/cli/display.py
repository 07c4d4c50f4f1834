"""What the terminal shows: progress, tables, curves. Every line is made here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.architecture.boards import Board
from nas.architecture.cost import Cost, cost, layers, total
from nas.architecture.notation import describe
from nas.candidates.candidate import Candidate
from nas.engines import Finished, Job, Reported
from nas.references.comparison import Comparison, Point
from nas.search.best import ProgressEvent
from nas.search.loop import Progress

_BLOCKS = "▁▂▃▄▅▆▇█"


def percent(accuracy: float | None) -> str:
    """Return an accuracy of 0 to 1 with two decimals of a percent."""
    return "-" if accuracy is None else f"{100 * accuracy:.2f} %"


def duration(seconds: float) -> str:
    """Return a time in its two largest units, such as ``3 min 20 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class SearchDisplay:
    """One live display of a search on a terminal, plain lines anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the live part; what is worth keeping the caller prints."""
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show where the search stands after some event."""
        changed = progress.changed
        if self._live is not None:
            self._live.update(_dashboard(progress))
        elif changed is not None and changed.state != "running":
            self._console.print(
                _line(progress, changed), soft_wrap=True, highlight=False
            )


def _line(progress: Progress, changed: Candidate) -> str:
    counts = progress.study.counts()
    finished = counts["complete"] + counts["pruned"]
    promoted = any(t.curve for t in changed.trainings)
    how = f"{changed.epochs:g} epochs" if promoted else changed.state
    text = (
        f"{finished}/{progress.trials}  trial {changed.trial} {how}  "
        f"{changed.num_params} params  {percent(changed.val_accuracy)}"
    )
    if changed.state == "failed":
        text += f"  {changed.reason}"
    left = progress.seconds_left
    return text if left is None else f"{text}  {duration(left)} left"


def _dashboard(progress: Progress) -> Group:
    counts = progress.study.counts()
    finished = counts["complete"] + counts["pruned"]
    bar = ProgressBar(total=progress.trials, completed=finished, width=40)
    speed = (finished - progress.finished_before) / max(progress.seconds, 1e-9) * 60
    left = progress.seconds_left
    counted = (
        f"{finished} of {progress.trials} trials: {counts['complete']} complete, "
        f"{counts['pruned']} pruned, {counts['failed']} failed; "
        f"{counts['running']} in training"
    )
    paced = f"{speed:.1f} trials a minute"
    if left is not None:
        paced += f", about {duration(left)} left"
    best = Table.grid(padding=(0, 2))
    for member in _three(progress.study.front()):
        best.add_row(
            Text(f"{member.num_params:,} params", justify="right"),
            percent(member.val_accuracy),
            Text(describe(member.architecture), style="dim", overflow="ellipsis"),
        )
    return Group(bar, Text(counted), Text(paced), best)


def _three(members: Sequence[Candidate]) -> list[Candidate]:
    """Return the front's best in three sizes: its largest, and two far smaller."""
    if not members:
        return []
    largest = members[-1].num_params
    chosen = []
    for share in (0.1, 0.4, 1.0):
        fitting = [m for m in members if m.num_params <= share * largest]
        if fitting and fitting[-1] not in chosen:
            chosen.append(fitting[-1])
    return chosen


class RetrainDisplay:
    """Says how a retraining comes along: one line a report, few enough to keep."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def show(self, event: ProgressEvent) -> None:
        """Print one line."""
        who = f"{event.stage} trial {event.trial} ({event.num_params} params)"
        if event.stage == "winner":
            who += f", seed {event.seed}"
        if event.test_accuracy is not None:
            what = f"test accuracy {percent(event.test_accuracy)}"
        elif event.report is None:
            return
        else:
            what = f"epoch {event.report.epochs:g}: loss {event.report.train_loss:.4f}"
            if event.stage == "finalist":
                what += f", validation {percent(event.report.val_accuracy)}"
        spent = duration(time.monotonic() - self._began)
        self._console.print(
            f"{spent:>12}  {who}: {what}", highlight=False, soft_wrap=True
        )


class SingleDisplay:
    """Says how the training of one architecture comes along: one line a report."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def show(self, job: Job, event: Reported | Finished) -> None:
        """Print one line."""
        if isinstance(event, Finished):
            what = f"test accuracy {percent(event.test_accuracy)}"
        else:
            report = event.report
            what = f"epoch {report.epochs:g}: loss {report.train_loss:.4f}"
            if job.mode == "published":
                what += f", test {percent(report.val_accuracy)}"
        spent = duration(time.monotonic() - self._began)
        self._console.print(
            f"{spent:>12}  seed {job.seed}: {what}", highlight=False, soft_wrap=True
        )


# Wider than a terminal and no help to the eye; report.json has it all.
_MOST_ANSWERS = 12


def confusion_table(report: dict[str, Any], class_names: Sequence[str]) -> Table:
    """Return each class's test images and accuracy, and what was answered instead."""
    # As Text: rich would take a name in brackets for markup.
    answers = [Text(name) for name in class_names]
    answers = answers if len(answers) <= _MOST_ANSWERS else []
    table = Table(title="test images by class (rows), and the answers (columns)")
    table.add_column("class", overflow="fold")
    for heading in (Text("images"), Text("accuracy"), *answers):
        table.add_column(heading, justify="right")
    for name, counts, share in zip(
        class_names,
        report["test_confusion"],
        report["test_accuracy_by_class"],
        strict=True,
    ):
        cells = [str(count) for count in counts] if answers else []
        table.add_row(Text(name), f"{sum(counts):,}", percent(share), *cells)
    return table


def front_table(
    members: Sequence[Candidate], title: str, board: Board | None = None
) -> Table:
    """Return the front as a table, smallest first; with flash and latency for a board."""
    table = Table(title=title)
    for heading in ("trial", "params", "val accuracy", "MACs", "memory"):
        table.add_column(heading, justify="right", overflow="fold")
    for heading in ("flash", f"ms on {board.name}") if board else ():
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("architecture", overflow="fold")
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


def _on_board(costs: Cost, board: Board | None) -> list[str]:
    if board is None:
        return []
    return [f"{costs.flash:,}", f"{costs.latency / 1e6:.2f}"]


def comparison_view(rows: Sequence[Comparison], title: str) -> Group:
    """Return what beats each reference, one table for each kind of accuracy."""
    kinds = dict.fromkeys(row.found_accuracy_is for row in rows)
    return Group(
        *(
            _comparison([r for r in rows if r.found_accuracy_is == kind], title, kind)
            for kind in kinds
        )
    )


def _comparison(rows: Sequence[Comparison], title: str, kind: str) -> Table:
    own = dict.fromkeys(row.accuracy_is for row in rows)
    caption = f"accuracy of the references: {'; '.join(own)}"
    table = Table(title=f"{title}: {kind}", caption=caption, caption_justify="left")
    table.add_column("reference", overflow="fold")
    for heading in ("params", "accuracy", "best of its size", "gain"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("smallest as good", justify="right", overflow="fold")
    table.add_column("saved", justify="right", overflow="fold")
    for row in rows:
        gain, saved = row.accuracy_gained, row.params_saved
        own_kind = f" [{1 + list(own).index(row.accuracy_is)}]" if len(own) > 1 else ""
        table.add_row(
            row.reference,
            f"{row.num_params:,}",
            percent(row.accuracy) + own_kind,
            _point(row.best),
            "-" if gain is None else f"{100 * gain:+.2f}",
            _point(row.smallest),
            "-" if saved is None else f"{saved:,}",
        )
    if len(own) > 1:
        marks = (f"[{n}] {text}" for n, text in enumerate(own, start=1))
        table.caption = f"accuracy of the references: {'; '.join(marks)}"
    return table


def _point(point: Point | None) -> str:
    if point is None:
        return "-"
    seeds = "" if point.seeds == 1 else f" (n={point.seeds})"
    return f"#{point.trial} {point.num_params:,} {percent(point.accuracy)}{seeds}"


def candidate_view(candidate: Candidate, board: Board | None = None) -> Group:
    """Return the layer table of a candidate and its learning curve.

    With a board it has each layer's bytes of flash and its estimated milliseconds.
    """
    table = Table(title=f"trial {candidate.trial}, {candidate.state}")
    table.add_column("part", overflow="fold")
    table.add_column("layer", overflow="fold")
    for heading in ("output", "params", "MACs", "memory"):
        table.add_column(heading, justify="right", overflow="fold")
    for heading in ("flash", f"ms on {board.name}") if board else ():
        table.add_column(heading, justify="right", overflow="fold")
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
    table = Table(title="learning curve")
    for heading in ("epochs", "val accuracy", "train loss", "seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("")
    for report in candidate.curve:
        height = round(report.val_accuracy * (len(_BLOCKS) - 1))
        table.add_row(
            f"{report.epochs:g}",
            percent(report.val_accuracy),
            f"{report.train_loss:.4f}",
            f"{report.seconds:.1f}",
            _BLOCKS[max(0, height)],
        )
    return table


def studies_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the studies with their counts."""
    table = Table()
    headings = ("name", "complete", "pruned", "failed", "running", "budget")
    for heading in headings:
        justify: Literal["left", "right"] = "left" if heading == "name" else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[heading]) for heading in headings))
    return table
