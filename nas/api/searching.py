"""The common part of `nas search` and `nas.search`.

It runs the search and writes the files of the study's folder. It prints nothing; a
display gets every event.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import asdict

from nas.api.progress import Display
from nas.api.words import Say, say_notes
from nas.api.workers import WorkersWanted, starter
from nas.data import Dataset
from nas.engines import Engine
from nas.environment import hardware, versions
from nas.errors import NasError, UsageError
from nas.files import append_json, check_writable
from nas.search.loop import search
from nas.search.progress import Outcome, Progress
from nas.search.recipes import augmentation_line
from nas.search.start import Request, launch
from nas.study.settings import Settings
from nas.study.study import Study

# The minimum time between two writes of front.html. A write takes about 30 ms, but over
# a second with many thousand trials; it may then take at most this share of the time.
_SECONDS_BETWEEN_FRONTS = 20.0
_SHARE_OF_FRONTS = 0.02


def run_search(
    request: Request,
    workers: WorkersWanted,
    display: Display[Progress],
    *,
    trials: int,
    time_limit: str | float | None = None,
    trial_time_limit: str | float | None = None,
    target_accuracy: float | None = None,
    data: Dataset | None = None,
    say: Say = lambda _: None,
) -> tuple[Study, Outcome, Dataset]:
    """Start or resume a study; return it closed, the search's outcome and the data.

    ``say`` gets one line for each note before the training.
    Raises UsageError before anything is loaded, the errors of launch and
    nas.search.loop.search, and KeyboardInterrupt with a line on how to resume; the
    study is closed then.
    """
    # Import the report's libraries now, as Ctrl-C during a later import can be lost.
    import nas.report  # noqa: F401 - pandas and plotly, which only searches need

    limit = seconds(time_limit, "--time-limit")
    trial_limit = seconds(trial_time_limit, "--trial-time-limit")
    start = starter(workers)
    study, dataset = launch(request, data, say)
    say_notes(dataset, say)
    say(augmentation_line(study.settings.recipe))
    with study, _mention_resuming(study, trials):
        check_writable(study.folder, ("front.csv", "front.html", "timing.json"))
        engine, devices, count = start(dataset, study)
        try:
            outcome = search_and_draw(
                study, engine, trials, limit, trial_limit, target_accuracy, display
            )
        except BaseException:
            # Report the original error, not one of drawing.
            with contextlib.suppress(NasError):
                draw(study)
            raise
        finally:
            engine.close()
        draw(study)
        _write_timing(study, outcome, devices, count)
    return study, outcome, dataset


def seconds(given: str | float | None, option: str) -> float | None:
    """Return a duration such as 90s, 30m, 2h or 1h30m in seconds; so are numbers.

    Raises UsageError for anything else.
    """
    if given is None:
        return None
    total = 0.0
    if isinstance(given, str):
        match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", given.strip())
        if match:
            hours, minutes, rest = (int(group or 0) for group in match.groups())
            total = float(3600 * hours + 60 * minutes + rest)
    elif isinstance(given, int | float) and not isinstance(given, bool):
        total = float(given)
    if not 0 < total < float("inf"):
        raise UsageError(
            f"{option} {given!r} is not a duration: write 90s, 30m, 2h or 1h30m"
        )
    return total


def search_and_draw(
    study: Study,
    engine: Engine,
    trials: int,
    limit: float | None,
    trial_limit: float | None,
    target: float | None,
    display: Display[Progress],
) -> Outcome:
    """Run the search and write the study's front at intervals."""
    due = 0.0

    def show(progress: Progress) -> None:
        nonlocal due
        display.show(progress)
        ended = progress.changed is not None and progress.changed.state != "running"
        began = time.monotonic()
        if ended and began >= due:
            draw(study)
            spent = time.monotonic() - began
            due = began + max(_SECONDS_BETWEEN_FRONTS, spent / _SHARE_OF_FRONTS)

    with display:
        return search(
            study,
            engine,
            trials=trials,
            time_limit=limit,
            trial_time_limit=trial_limit,
            target_accuracy=target,
            show=show,
        )


def draw(study: Study) -> None:
    """Write front.csv and front.html of the study."""
    from nas.report import write_front  # not at the top, as it loads pandas and plotly

    settings = study.settings
    write_front(
        study.folder,
        study.candidates(),
        title=title_of(settings),
        param_budget=settings.param_budget,
        accuracy=settings.accuracy_name,
    )


def title_of(settings: Settings) -> str:
    """Return the title of the plot of a study's front."""
    return (
        f"{settings.name}: {settings.data_title}, at most "
        f"{settings.param_budget:,} parameters"
    )


@contextlib.contextmanager
def _mention_resuming(study: Study, trials: int) -> Iterator[None]:
    """Add the finished trials and how to resume to a KeyboardInterrupt."""
    try:
        yield
    except KeyboardInterrupt:
        finished = sum(c.state in {"complete", "pruned"} for c in study.candidates())
        left = " and longer trainings left" if finished >= trials else ""
        raise KeyboardInterrupt(
            f"stopped with {finished} of {trials} trials finished{left}; resume with the "
            "same command"
        ) from None


def _write_timing(
    study: Study, outcome: Outcome, devices: list[str], workers: int
) -> None:
    append_json(
        study.folder / "timing.json",
        {
            "ended": outcome.reason,
            "workers": workers,
            "seconds": {k: round(v, 2) for k, v in asdict(outcome.timing).items()},
            "c_kernels": outcome.kernels,
            "hardware": hardware(devices),
            "versions": versions(),
        },
    )
