# ruff: noqa: SLF001  # what is measured has no public way in
"""The tool's own time for a trial, and its memory, in studies of any size.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --sizes 200 --trials 20 --repeats 1

What runs is `nas search` less its workers: the real loop with its promotions, sampler,
pruning, the journal with its fsync, the display as on a terminal and the writing of the
front, both as often as there. The engine reports recorded trainings
(benchmarks/curves.csv) and needs no time. In searches that are half way, with so many
trials drawn at random, it goes on for --trials more and tells, in ms of the processor and
of the clock for each of these, the time spent on

- draw: the sampler's own draw, with the repair under the cap;
- duplicates: the look whether the study has it, the costs, the record;
- storage: the journal, of Optuna and on the disk;
- pruning: the rule at each rung;
- progress: what the terminal shows;
- front: writing front.csv and front.html, as often as `nas search` does;
- other: telling the sampler, the promotion rule, the loop itself.

``own`` is all of that but the draw. ``front_write`` is one writing of the front. Memory
is that of the whole process, at its end and its peak, but without torch, which a search
loads for its workers and the coordinator does not use. ``mb_per_1000_trials`` is how it
grew, the slope of a line through all but the first fifth of --trials; ask for several
thousand to know it. What happens once, as the reading of the study, is left out.

Each measurement is a process of its own; sizes alternate within a repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import numbers, write
from replaying import (
    Enough,
    InstantEngine,
    ended,
    filled,
    read_curves,
    use_sampler,
)

if TYPE_CHECKING:
    from nas.search.progress import Progress

KINDS = ("draw", "duplicates", "storage", "pruning", "progress", "front", "other")
SIZES = [200, 2_000, 20_000]


class Meter:
    """Tells how much time functions take, each without the others that it calls."""

    def __init__(self) -> None:
        """Begin with what no function is known of."""
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._within = ["other"]
        self._since = (time.perf_counter(), time.process_time())

    def wrap(self, owner: Any, name: str, kind: str) -> None:
        """Add the time of a function to its kind from now on."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            self.charge()
            self._within.append(kind)
            self.calls[kind] += 1
            try:
                return function(*arguments, **options)
            finally:
                self.charge()
                self._within.pop()

        setattr(owner, name, timed)

    def charge(self) -> None:
        """Add the time since the last charge to what goes on at present."""
        now = (time.perf_counter(), time.process_time())
        self.wall[self._within[-1]] += now[0] - self._since[0]
        self.cpu[self._within[-1]] += now[1] - self._since[1]
        self._since = now


def measure(folder: Path, trials: int) -> dict[str, float]:
    """Search on in the study for so many trials; return the figures of a row."""
    from rich.console import Console

    from nas.api import searching as command
    from nas.api.progress import SearchDisplay
    from nas.search.loop import _Search
    from nas.search.pruner import Pruner
    from nas.study.folders import open_study

    engine = InstantEngine(read_curves(seconds=5.0))
    with (
        Path(os.devnull).open("w") as nowhere,
        open_study(folder) as study,
    ):
        use_sampler(study, "evolution")
        before = ended(study)
        # What is needed once a process, such as plotly, belongs to no trial.
        command.draw(study)
        study.front()
        study.ask()
        meter = Meter()
        for name in ("start", "wait", "decide"):
            meter.wrap(engine, name, "engine")
        meter.wrap(_Search, "__init__", "beginning")
        meter.wrap(study._storage, "create_new_trial", "storage")
        for part in ("user_attr", "state_values"):
            meter.wrap(study._storage, f"set_trial_{part}", "storage")
        meter.wrap(study, "ask", "duplicates")
        meter.wrap(study, "_propose", "draw")
        meter.wrap(Pruner, "reason_to_prune", "pruning")
        meter.wrap(_Search, "report_progress", "progress")
        meter.wrap(command, "draw", "front")
        meter.charge()
        meter.wall.clear()
        meter.cpu.clear()
        sizes: dict[int, float] = {}

        class Watched(SearchDisplay):
            """What a terminal shows, and the memory at each trial."""

            def show(self, event: Progress, /) -> None:
                super().show(event)
                new = ended(event.study) - before
                if new not in sizes:
                    sizes[new] = memory("VmRSS")
                if new >= trials:
                    raise Enough

        display = Watched(Console(file=nowhere, force_terminal=True))
        with suppress(Enough):
            command.search_and_draw(
                study, engine, 2 * before, None, None, None, display
            )
        meter.charge()
    row: dict[str, float] = {}
    for clock, spent in (("cpu", meter.cpu), ("wall", meter.wall)):
        times = {kind: 1000 * spent[kind] / trials for kind in KINDS}
        times["own"] = sum(times.values()) - times["draw"]
        row |= {f"{kind}_{clock}_ms": ms for kind, ms in times.items()}
        row[f"front_write_{clock}_ms"] = 1000 * spent["front"] / meter.calls["front"]
    # The first fifth fills caches, and memory that the reading of the study left.
    late = {new: mb for new, mb in sizes.items() if new >= trials / 5}
    growth = statistics.linear_regression(list(late), list(late.values())).slope
    return row | {
        "end_mb": memory("VmRSS"),
        "peak_mb": memory("VmHWM"),
        "mb_per_1000_trials": 1000 * growth,
    }


def memory(name: str) -> float:
    """Return a figure of this process's memory in MB; the peak is not its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def measured_apart(folder: Path, source: Path, trials: int) -> dict[str, float]:
    """Return the figures of a row, measured in a process of its own on a copy."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    done = subprocess.run(  # noqa: S603  # this script
        [sys.executable, __file__, "--one", str(copy), "--trials", str(trials)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def summary(rows: list[dict[str, Any]]) -> None:
    """Print a table: medians, and from the least to the most of what counts."""
    names = ["own", *KINDS, "front_write"]
    memory_columns = ["end_mb", "peak_mb", "mb_per_1000_trials"]
    headings = ["trials", *names, "end MB", "peak MB", "MB / 1000"]
    print(" ".join(f"{name:>12}" for name in headings))
    for size in sorted({row["trials_in_study"] for row in rows}):
        some = [row for row in rows if row["trials_in_study"] == size]
        for clock in ("cpu", "wall"):
            columns = [f"{name}_{clock}_ms" for name in names]
            cells = [
                f"{statistics.median(row[column] for row in some):12.2f}"
                for column in [*columns, *memory_columns]
            ]
            own = sorted(row[f"own_{clock}_ms"] for row in some)
            spread = f"{clock}, own {own[0]:.2f} to {own[-1]:.2f}, n={len(own)}"
            print(f"{size:12}", *cells, f" {spread}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=numbers, default=SIZES)
    parser.add_argument("--trials", type=int, default=100, help="to measure with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to keep the studies")
    parser.add_argument("--out", type=Path, default=Path("overhead.csv"))
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.trials)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or Path(place)
        curves = read_curves(seconds=5.0)
        sources = {size: filled(folder, size, curves) for size in arguments.sizes}
        for repeat in range(arguments.repeats):
            for size, source in sources.items():
                row = measured_apart(folder, source, arguments.trials)
                load = round(os.getloadavg()[0], 1)
                row = {name: round(value, 3) for name, value in row.items()}
                rows.append(
                    {"trials_in_study": size, "repeat": repeat, "load": load, **row}
                )
                print(rows[-1], file=sys.stderr, flush=True)
                write(arguments.out, rows)
    summary(rows)


if __name__ == "__main__":
    main()
