"""Displays the progress of a search or a training: terminal, notebook or none.

The command line shows it on stdout, as plain lines if that is not a terminal. `import
nas` shows it on a terminal's stderr or below a notebook's cell, and nowhere else.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.architecture.notation import describe
from nas.candidates.candidate import Candidate
from nas.engines import Finished, Job, Reported
from nas.search.progress import Progress
from nas.search.retraining import ProgressEvent

TrainingEvent = tuple[Job, Reported | Finished]

_T = TypeVar("_T")
_SECONDS_BETWEEN_UPDATES = 0.25


class Display(Generic[_T]):
    """Shows events while it is entered as a context; this one shows nothing."""

    def __enter__(self) -> Self:
        """Start the display."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the display and remove its transient output."""

    def show(self, event: _T, /) -> None:
        """Show the progress after an event."""


def search_display(*, progress: bool) -> Display[Progress]:
    """Return the display of a search from Python; it is empty unless ``progress``."""
    if progress and _in_notebook():
        return NotebookDisplay(_as_text)
    return (
        SearchDisplay(Console(stderr=True))
        if progress and _on_terminal()
        else Display()
    )


def training_display(
    line: Callable[[_T], str | None], *, progress: bool
) -> Display[_T]:
    """Return the display of a training from Python, with one line per event."""
    if progress and _in_notebook():
        return NotebookDisplay(line)
    if not (progress and _on_terminal()):
        return Display()
    return LineDisplay(Console(stderr=True), line, lambda _: True)


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _in_notebook() -> bool:
    """Return whether this runs in a notebook's kernel, whose cells can show output."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def percent(accuracy: float | None) -> str:
    """Return an accuracy from 0 to 1 as a percentage with two decimals."""
    return "-" if accuracy is None else f"{100 * accuracy:.2f} %"


def duration(seconds: float) -> str:
    """Return a time in its two largest units, such as ``3 min 20 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class SearchDisplay(Display[Progress]):
    """A live display of a search on a terminal, plain lines anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )
        self._due = 0.0
        self._last: Progress | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Clear the live display; the caller prints the result."""
        if self._live is not None:
            if self._last is not None:
                self._live.update(_dashboard(self._last), refresh=True)
            self._live.stop()

    def show(self, event: Progress, /) -> None:
        """Show the search's progress after an event."""
        changed = event.changed
        if self._live is not None:
            self._last = event
            # In a large study the front and the time left take longer than an event.
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + _SECONDS_BETWEEN_UPDATES
                self._live.update(_dashboard(event))
        elif changed is not None and changed.state != "running":
            self._console.print(_line(event, changed), soft_wrap=True, highlight=False)


def _line(progress: Progress, changed: Candidate) -> str:
    counts = progress.study.counts()
    finished = counts["complete"] + counts["pruned"]
    promoted = any(t.curve for t in changed.trainings)
    how = f"{changed.epochs:g} epochs" if promoted else changed.state
    if progress.failure is not None:
        how = f"{changed.trainings[-1].epochs} epochs failed"
    text = (
        f"{finished}/{progress.trials}  trial {changed.trial} {how}  "
        f"{changed.num_params} params  {percent(changed.val_accuracy)}"
    )
    cause = changed.reason if changed.state == "failed" else progress.failure
    if cause is not None:
        text += f"  {cause}"
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
    # A bar does not end its line; the padding does.
    return Group(Padding(bar, 0), Text(counted), Text(paced), best)


def _three(members: Sequence[Candidate]) -> list[Candidate]:
    """Return the front's best at three sizes: the largest, and two far smaller."""
    if not members:
        return []
    largest = members[-1].num_params
    chosen = []
    for share in (0.1, 0.4, 1.0):
        fitting = [m for m in members if m.num_params <= share * largest]
        if fitting and fitting[-1] not in chosen:
            chosen.append(fitting[-1])
    return chosen


class LineDisplay(Display[_T]):
    """Prints the progress of a training: one line per report on a terminal.

    Anywhere else it prints one line per training, when that has ended.
    """

    def __init__(
        self,
        console: Console,
        line: Callable[[_T], str | None],
        ends: Callable[[_T], bool],
    ) -> None:
        """Print ``line(event)`` for each event, unless it is None.

        ``ends`` returns whether an event is the last one of a training with a line.
        """
        self._console, self._line, self._ends = console, line, ends
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        """Start the clock."""
        self._began = time.monotonic()
        return self

    def show(self, event: _T, /) -> None:
        """Print the event's line, if it has one."""
        if not (self._console.is_terminal or self._ends(event)):
            return
        text = self._line(event)
        if text is not None:
            spent = duration(time.monotonic() - self._began)
            self._console.print(f"{spent:>12}  {text}", highlight=False, soft_wrap=True)


class NotebookDisplay(Display[_T]):
    """One text below a notebook's cell, replaced at each update; the last one stays."""

    def __init__(self, text: Callable[[_T], str | None]) -> None:
        """Show ``text(event)`` for each event, unless it is None."""
        self._text = text
        self._handle: Any = None
        self._pending: str | None = None
        self._due = 0.0

    def __exit__(self, *_: object) -> None:
        """Show the last event's text."""
        self._put()

    def show(self, event: _T, /) -> None:
        """Replace the text, at most a few times a second."""
        text = self._text(event)
        if text is not None:
            self._pending = text
            if time.monotonic() >= self._due:
                self._put()

    def _put(self) -> None:
        if self._pending is None:
            return
        data, self._pending = {"text/plain": self._pending}, None
        self._due = time.monotonic() + _SECONDS_BETWEEN_UPDATES
        if self._handle is None:
            display = sys.modules["IPython"].display.display
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def _as_text(progress: Progress) -> str:
    """Return the text that a terminal would show for a search."""
    # Without force_jupyter=False rich would itself display its output in a notebook.
    console = Console(
        file=io.StringIO(), width=100, color_system=None, force_jupyter=False
    )
    with console.capture() as capture:
        console.print(_dashboard(progress))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def retraining_line(event: ProgressEvent) -> str | None:
    """Return a line for an event of a retraining; None if it needs none."""
    resized = ", resized" if event.resized else ""
    who = f"{event.stage} trial {event.trial} ({event.num_params} params{resized})"
    if event.stage != "screening":  # a contender may be trained with two seeds
        who += f", seed {event.seed}"
    if event.test_accuracy is not None:
        return f"{who}: test accuracy {percent(event.test_accuracy)}"
    if event.report is None:
        return None
    what = f"epoch {event.report.epochs:g}: loss {event.report.train_loss:.4f}"
    if event.stage != "winner":
        what += f", validation {percent(event.report.val_accuracy)}"
    return f"{who}: {what}"


def ends_retraining(event: ProgressEvent) -> bool:
    """Return whether the event ends a finalist's or the winner's training."""
    tested = event.test_accuracy is not None
    return tested or (event.last and event.stage != "winner")


def ends_training(event: TrainingEvent) -> bool:
    """Return whether the event ends a training of one architecture."""
    return isinstance(event[1], Finished)


def training_line(event: TrainingEvent) -> str:
    """Return a line for an event of a training of one architecture."""
    job, happened = event
    if isinstance(happened, Finished):
        what = f"test accuracy {percent(happened.test_accuracy)}"
    else:
        report = happened.report
        what = f"epoch {report.epochs:g}: loss {report.train_loss:.4f}"
        if job.mode == "published":
            what += f", test {percent(report.val_accuracy)}"
    return f"seed {job.seed}: {what}"
