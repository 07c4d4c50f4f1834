"""Makes the results that README.md and docs/results.md publish, or checks that they are today's.

    python benchmarks/published.py [TASK...] [--seeds 0-4] [--work FOLDER]  # hours; can be resumed
    python benchmarks/published.py --check

A task is a data set and its caps: mnist (the default, README.md), fashion-mnist, words. For each
study seed `nas search` and `nas best --seeds 3 --sizes ...` run with today's defaults. What
is small goes into studies/published/ (the trials packed, the front, the reports), and the
tables and README's picture are made anew from it.

``--check`` exits with 1 and a line for each fault: a study made with other rules, another
recipe or space than the code beside it has, or whose first trials are not those that it
draws, or a table that is not that of the reports.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import put_between, seeds

from nas.candidates.promotion import PromotionRule
from nas.candidates.pruning import PruningRule
from nas.data.split import default_val_size
from nas.report import front_svg
from nas.sampling.evolution import EvolutionRule
from nas.search.recipes import default_recipe, search_training
from nas.search.start import DEFAULT_SPACE
from nas.space import find_space
from nas.study.folders import create, load_settings, read_study
from nas.study.settings import FORMAT, Settings
from nas.training.kinds import Pixels

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "studies" / "published"
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set, the commands whose results are published, and where their table is."""

    dataset: str
    search: tuple[str, ...] = ()
    """Further options of the search."""
    trials: int = 200
    caps: tuple[int, ...]
    """The largest is that of the search."""
    images: int
    """The official training set, with a validation part of its own if there is one."""
    val_size: int
    pixels: Pixels
    elsewhere: str
    others: dict[int, str]
    """What others have reached at about each cap; ``elsewhere`` heads their column."""
    page: Path

    @property
    def study(self) -> str:
        """The study's name by default."""
        return f"{self.dataset}-{self.caps[0]}"

    @property
    def marks(self) -> tuple[str, str]:
        """The lines around the table."""
        return f"<!-- {self.dataset} -->", f"<!-- end of {self.dataset} -->"

    def named(self, seed: int) -> str:
        """Return the name of the study of that seed; seed 0 has the default name."""
        return self.study + (f"-seed-{seed}" if seed else "")


MNIST = Task(
    dataset="mnist",
    caps=(10_000, 5_000, 2_500, 1_000),
    images=60_000,
    val_size=default_val_size(60_000),
    pixels=Pixels((1, 28, 28)),
    elsewhere="hand-made networks, published test accuracy",
    others={
        10_000: "99.61 % with 9,994 parameters; 99.50 % with 12,332; 99.40 % with 10,540",
        5_000: "99.52 % with 3,762; 98.42 % with 4,879 in 10 epochs",
        2_500: "99.10 % with 1,936 in 75 epochs",
        1_000: "98.76 % with 997, median of 223 trainings in up to 200 epochs",
    },
    page=README,
)
"""The best hand-made nets of about each size are from docs/references.md."""
TASKS = {
    task.dataset: task
    for task in (
        MNIST,
        Task(
            dataset="fashion-mnist",
            search=(
                *("--dataset", "fashion-mnist"),
                *("--data-dir", "/usr/share/datasets/fashion-mnist"),
            ),
            caps=(15_000, 5_000),
            images=60_000,
            val_size=default_val_size(60_000),
            pixels=Pixels((1, 28, 28)),
            elsewhere="published elsewhere",
            others={15_000: "89 % with 14,862 parameters", 5_000: "-"},
            page=RESULTS,
        ),
        Task(
            dataset="words",
            # benchmarks/spoken_words.py makes it.
            search=("--dataset", "/tmp/words.npz"),  # noqa: S108 - the user's own file
            trials=100,
            caps=(5_000, 2_500, 1_000),
            images=2_560,
            val_size=320,
            pixels=Pixels((1, 40, 49)),
            elsewhere="published elsewhere",
            others=dict.fromkeys((5_000, 2_500, 1_000), "-"),
            page=RESULTS,
        ),
    )
}


def best_folder(task: Task, cap: int) -> str:
    """Return the folder of the winner under that cap."""
    return "best" if cap == task.caps[0] else f"best-{cap}"


def make(task: Task, seed: int, work: Path) -> None:
    """Run the commands for one study seed, as far as they have not run."""
    name = task.named(seed)
    search = f"search --budget {task.caps[0]} --trials {task.trials} --studies".split()
    more = ["--study", name, "--seed", str(seed)] if seed else []
    _nas(*search, str(work), *more, *task.search)
    if not (work / name / "best.csv").exists():
        sizes = ",".join(map(str, task.caps))
        _nas("best", name, "--sizes", sizes, "--seeds", "3", "--studies", str(work))
    publish(task, seed, work)


def publish(task: Task, seed: int, work: Path) -> None:
    """Keep what there is of one study, and make README's picture of MNIST's seed 0 anew."""
    name = task.named(seed)
    _publish(task, work / name, PUBLISHED / name, whole=task is MNIST and seed == 0)
    if task is MNIST and seed == 0:
        candidates = read_study(PUBLISHED / name).candidates()
        title = f"{name}: accuracy on the validation split"
        picture = front_svg(candidates, param_budget=task.caps[0], title=title)
        (ROOT / "docs" / "front.svg").write_text(picture, encoding="utf-8")


def _nas(*arguments: str) -> None:
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "nas", *arguments], check=True
    )


def _publish(task: Task, folder: Path, target: Path, *, whole: bool) -> None:
    """Keep what is small; the winners' weights only where all is to be kept."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("study.toml", "front.csv", "timing.json", "best.csv"):
        if (folder / name).exists():
            shutil.copy(folder / name, target)
    journal = (folder / "journal.log").read_bytes()
    # Without the time in its header the same trials give the same file.
    (target / "journal.log.gz").write_bytes(gzip.compress(journal, mtime=0))
    for cap in task.caps:
        best = best_folder(task, cap)
        if not (folder / best / "report.json").exists():
            continue
        (target / best).mkdir()
        names = ["report.json", "architecture.json"]
        if whole:
            names += ["model.py", "weights.safetensors"]
        for name in names:
            shutil.copy(folder / best / name, target / best)


def reports(task: Task = MNIST) -> dict[int, dict[int, dict[str, Any]]]:
    """Return the reports by study seed and cap; a study without winners has none."""
    found: dict[int, dict[int, dict[str, Any]]] = {}
    for folder in _folders(task):
        paths = {
            cap: folder / best_folder(task, cap) / "report.json" for cap in task.caps
        }
        some = {
            cap: json.loads(path.read_text())
            for cap, path in paths.items()
            if path.exists()
        }
        if some:
            found[load_settings(folder).seed] = some
    return found


def _folders(task: Task) -> list[Path]:
    return sorted(PUBLISHED.glob(f"{task.study}*"))


def table(task: Task = MNIST) -> str:
    """Return the task's table: one row a cap, from the reports alone."""
    found = reports(task)
    rows = []
    for cap in task.caps:
        some = {seed: one[cap] for seed, one in found.items() if cap in one}
        winner, tested = "-", "not measured yet"
        if 0 in some:
            first = some[0]
            winner = (
                f"{first['num_params']:,} parameters, {first['macs'] / 1e6:.1f} M MACs"
            )
            tested = (
                f"**{100 * first['test_accuracy_mean']:.2f} %** ± "
                f"{100 * first['test_accuracy_std']:.2f}"
            )
        cells = [f"{cap:,}", winner, tested]
        if len(found) > 1:
            means = [100 * one["test_accuracy_mean"] for one in some.values()]
            cells.append(
                f"{statistics.mean(means):.2f} % ({min(means):.2f} to {max(means):.2f})"
                if len(means) == len(found)
                else "not measured yet"
            )
        rows.append([*cells, task.others[cap]])
    heads = ["parameter cap", "winner", "test accuracy, mean ± std of 3 trainings"]
    heads += [f"mean of {len(found)} searches (range)"] if len(found) > 1 else []
    lines = [[*heads, task.elsewhere], ["--:", *["---"] * len(heads)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_tables() -> None:
    """Put each task's table into its page, between the two marks."""
    for task in TASKS.values():
        if reports(task):
            put_between(task.page, task.marks, table(task))


def faults() -> list[str]:
    """Return a line for each way in which the published results are not today's."""
    found = []
    space = find_space(DEFAULT_SPACE)
    for task in TASKS.values():
        train_size = task.images - task.val_size
        recipe = default_recipe(train_size, None, task.pixels)
        today: dict[str, Any] = {
            "format": FORMAT,
            "space": space.name,
            "space_toml": space.text,
            "sampler": "evolution",
            "val_size": task.val_size,
            "pruning": PruningRule(),
            "evolution": EvolutionRule(),
            "promotion": PromotionRule(),
            "param_budget": task.caps[0],
            **search_training(recipe.epochs, train_size, recipe),
        }
        for folder in _folders(task):
            settings = load_settings(folder)
            found += [
                f"studies/published/{folder.name}: {name} is not what the code has now"
                for name, value in today.items()
                if getattr(settings, name) != value
            ]
            if first_drawn(settings) != _first_trials(folder, settings):
                found.append(
                    f"studies/published/{folder.name}: its first trials are not those "
                    "that the code draws now"
                )
        if reports(task) and table(task) not in task.page.read_text(encoding="utf-8"):
            found.append(f"{task.page.name}: its table is not that of the reports")
    known = {folder for task in TASKS.values() for folder in _folders(task)}
    found += [
        f"studies/published/{folder.name}: no task makes it"
        for folder in sorted(set(PUBLISHED.iterdir()) - known)
    ]
    return found


def first_drawn(settings: Settings) -> list[str]:
    """Return the keys of the first networks of a study begun today, in their order.

    They show what the settings do not hold, such as the plain nets and the draws. There
    are as many as depend on no results.
    """
    with (
        tempfile.TemporaryDirectory() as studies,
        create(Path(studies) / settings.name, settings) as study,
    ):
        asked = [study.ask() for _ in range(settings.evolution.start)]
    return [one.architecture.key for one in asked if one is not None]


def _first_trials(folder: Path, settings: Settings) -> list[str]:
    first = read_study(folder).candidates()[: settings.evolution.start]
    return [candidate.architecture.key for candidate in first]


def main() -> None:
    """Make or check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="store_true", help="write the tables alone")
    parser.add_argument("--seeds", type=seeds, default=range(5))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "published")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"no task {', '.join(unknown)}: give some of {', '.join(TASKS)}")
    if options.check:
        found = faults()
        print("\n".join(found) or "the published results are today's")
        sys.exit(bool(found))
    if not options.table:
        for task in options.tasks or [MNIST.dataset]:
            for seed in options.seeds:
                make(TASKS[task], seed, options.work)
    write_tables()


if __name__ == "__main__":
    main()
