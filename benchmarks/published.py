"""Makes the results that the README publishes, or checks that they are today's.

    python benchmarks/published.py [--seeds 0-4] [--work FOLDER]   # hours; goes on where it was stopped
    python benchmarks/published.py --check

For each study seed the README's own commands run with today's defaults: one
`nas search --budget 10000 --trials 200`, then one `nas best --seeds 3 --sizes ...`. What is
small goes into studies/published/ (the trials packed, the front, the reports), and the
README's table and picture are made anew from them.

``--check`` exits with 1 and a line for each fault: a study made with other rules, another
recipe or space than the code beside it has, or a table that is not that of the reports.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
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
from nas.search.recipes import search_training
from nas.search.start import DEFAULT_SPACE
from nas.space import find_space
from nas.study.folders import load_settings, read_study
from nas.study.settings import FORMAT

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "studies" / "published"
README = ROOT / "README.md"
BUDGET, TRIALS, IMAGES = 10_000, 200, 60_000
CAPS = (10_000, 5_000, 2_500, 1_000)
MARKS = ("<!-- results -->", "<!-- end of results -->")

HAND_MADE = {
    10_000: "99.61 % with 9,994 parameters; 99.50 % with 12,332; 99.40 % with 10,540",
    5_000: "99.52 % with 3,762; 98.42 % with 4,879 in 10 epochs",
    2_500: "99.10 % with 1,936 in 75 epochs",
    1_000: "98.76 % with 997, median of 223 trainings in up to 200 epochs",
}
"""The best hand-made nets of about each size, see docs/references.md."""


def study_name(seed: int) -> str:
    """Return the study's name; seed 0 has the name that the README's command gives."""
    return f"mnist-{BUDGET}" + (f"-seed-{seed}" if seed else "")


def best_folder(cap: int) -> str:
    """Return the folder of the winner under that cap."""
    return "best" if cap == BUDGET else f"best-{cap}"


def make(seed: int, work: Path) -> None:
    """Run the README's commands for one study seed, as far as they have not run."""
    name = study_name(seed)
    folder = work / name
    search = f"search --budget {BUDGET} --trials {TRIALS} --studies".split()
    more = ["--study", name, "--seed", str(seed)] if seed else []
    _nas(*search, str(work), *more)
    if not (folder / "best.csv").exists():
        sizes = ",".join(map(str, CAPS))
        _nas("best", name, "--sizes", sizes, "--seeds", "3", "--studies", str(work))
    publish(seed, work)


def publish(seed: int, work: Path) -> None:
    """Keep what there is of one study, and make the picture of seed 0 anew."""
    name = study_name(seed)
    _publish(work / name, PUBLISHED / name, whole=seed == 0)
    if seed == 0:
        candidates = read_study(PUBLISHED / name).candidates()
        title = f"{name}: accuracy on the validation split"
        picture = front_svg(candidates, param_budget=BUDGET, title=title)
        (ROOT / "docs" / "front.svg").write_text(picture, encoding="utf-8")


def _nas(*arguments: str) -> None:
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "nas", *arguments], check=True
    )


def _publish(folder: Path, target: Path, *, whole: bool) -> None:
    """Keep what is small; the winners' weights of seed 0 alone."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("study.toml", "front.csv", "timing.json", "best.csv"):
        if (folder / name).exists():
            shutil.copy(folder / name, target)
    journal = (folder / "journal.log").read_bytes()
    # Without the time in its header the same trials give the same file.
    (target / "journal.log.gz").write_bytes(gzip.compress(journal, mtime=0))
    for cap in CAPS:
        best = best_folder(cap)
        if not (folder / best / "report.json").exists():
            continue
        (target / best).mkdir()
        names = ["report.json", "architecture.json"]
        if whole:
            names += ["model.py", "weights.safetensors"]
        for name in names:
            shutil.copy(folder / best / name, target / best)


def reports() -> dict[int, dict[int, dict[str, Any]]]:
    """Return the reports by study seed and cap."""
    found: dict[int, dict[int, dict[str, Any]]] = {}
    for folder in sorted(PUBLISHED.glob(f"mnist-{BUDGET}*")):
        seed = load_settings(folder).seed
        found[seed] = {
            cap: json.loads((folder / best_folder(cap) / "report.json").read_text())
            for cap in CAPS
            if (folder / best_folder(cap) / "report.json").exists()
        }
    return found


def table() -> str:
    """Return the README's table: one row a cap, from the reports alone."""
    found = reports()
    rows = []
    for cap in CAPS:
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
        rows.append([*cells, HAND_MADE[cap]])
    heads = ["parameter cap", "winner", "test accuracy, mean ± std of 3 trainings"]
    heads += [f"mean of {len(found)} searches (range)"] if len(found) > 1 else []
    lines = [[*heads, "hand-made networks, published test accuracy"]]
    lines += [["--:", *["---"] * len(heads)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_table() -> None:
    """Put the table into the README, between its two marks."""
    put_between(README, MARKS, table())


def faults() -> list[str]:
    """Return a line for each way in which the published results are not today's."""
    found = []
    space = find_space(DEFAULT_SPACE)
    val_size = default_val_size(IMAGES)
    today: dict[str, Any] = {
        "format": FORMAT,
        "space": space.name,
        "space_toml": space.text,
        "sampler": "evolution",
        "val_size": val_size,
        "pruning": PruningRule(),
        "evolution": EvolutionRule(),
        "promotion": PromotionRule(),
        "param_budget": BUDGET,
        **search_training(None, IMAGES - val_size),
    }
    for folder in sorted(PUBLISHED.iterdir()):
        settings = load_settings(folder)
        found += [
            f"studies/published/{folder.name}: {name} is not what the code has now"
            for name, value in today.items()
            if getattr(settings, name) != value
        ]
    text = README.read_text(encoding="utf-8")
    if table() not in text:
        found.append("README.md: its table is not that of the reports")
    return found


def main() -> None:
    """Make or check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="store_true", help="write the table alone")
    parser.add_argument("--seeds", type=seeds, default=range(5))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "published")
    options = parser.parse_args()
    if options.check:
        found = faults()
        print("\n".join(found) or "the published results are today's")
        sys.exit(bool(found))
    if not options.table:
        for seed in options.seeds:
            make(seed, options.work)
    write_table()


if __name__ == "__main__":
    main()
