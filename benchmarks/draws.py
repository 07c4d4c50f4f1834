"""Draws many architectures from each bundled space under each cap, and shows them.

    python benchmarks/draws.py [draws per space and cap, default 10000]

Writes docs/draws.csv (how often each value came), docs/draws.svg (the same as
histograms) and the table in docs/spaces.md. Stops with an error at the first draw that
is over its cap. Uses every core; needs no data and no torch.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import put_between

from nas.architecture.cost import cost
from nas.space import Caps, RandomDraws, available, find_space, sample, smallest

DOCS = Path(__file__).parent.parent / "docs"
SHAPE, NUM_CLASSES = (1, 28, 28), 10  # MNIST
CAPS = (300, 1_000, 3_000, 10_000, 50_000)
BINS = 20
QUANTITIES = ("size", "depth", "kernel_size", "downsampling", "head")


@dataclass
class Drawn:
    """What one series of draws gave; counts are keyed by (quantity, value)."""

    space: str
    cap: int
    smallest: int
    sizes: list[int]
    counts: Counter[tuple[str, int | str]]


def draw(task: tuple[str, int, int]) -> Drawn:
    """Draw that many architectures of a space under a cap."""
    name, cap, number = task
    space = find_space(name)
    least = smallest(space, SHAPE, NUM_CLASSES, Caps(cap))
    sizes = []
    counts: Counter[tuple[str, int | str]] = Counter()
    for seed in range(number):
        architecture = sample(
            space,
            RandomDraws(seed),
            input_shape=SHAPE,
            num_classes=NUM_CLASSES,
            caps=Caps(cap),
        )
        size = cost(architecture).num_params
        if size > cap:
            raise SystemExit(f"{name}, cap {cap}, seed {seed}: {size} parameters")
        sizes.append(size)
        # A block's own way may leave out its norm, which the smallest net has.
        share = max(0.0, math.log(size / least) / math.log(cap / least))
        counts["size", min(BINS - 1, int(share * BINS))] += 1
        counts["depth", len(architecture.blocks)] += 1
        counts["head", architecture.head.kind] += 1
        for block in architecture.blocks:
            way = "stride" if block.stride > 1 else block.pool
            counts["downsampling", way] += 1
            counts["kernel_size", block.kernel_size] += 1
    return Drawn(name, cap, least, sizes, counts)


def histogram(drawn: Drawn, quantity: str) -> list[tuple[int | str, int]]:
    """Return the values of a quantity with their counts, in order."""
    found = {v: n for (name, v), n in drawn.counts.items() if name == quantity}
    if quantity == "size":
        return [(value, found.get(value, 0)) for value in range(BINS)]
    order = ["none", "max", "avg", "stride", "gap", "conv", "flatten", "pool"]
    return sorted(
        found.items(),
        key=lambda item: order.index(item[0]) if isinstance(item[0], str) else item[0],
    )


def write_csv(series: list[Drawn]) -> None:
    """Write every count as a row."""
    with (DOCS / "draws.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["space", "cap", "quantity", "value", "count"])
        for drawn in series:
            for quantity in QUANTITIES:
                for value, count in histogram(drawn, quantity):
                    shown = value
                    if quantity == "size":
                        # The lower edge of the bin, in parameters.
                        ratio = drawn.cap / drawn.smallest
                        shown = math.ceil(drawn.smallest * ratio ** (int(value) / BINS))
                    rows.writerow([drawn.space, drawn.cap, quantity, shown, count])


def write_svg(series: list[Drawn]) -> None:
    """Draw a grid of histograms: a row for each space and quantity, a column a cap."""
    width, height, left, top = 160, 86, 130, 30
    names = list(dict.fromkeys(drawn.space for drawn in series))
    parts = []
    for column, cap in enumerate(CAPS):
        x = left + column * width + width / 2
        parts.append(f'<text x="{x}" y="18" text-anchor="middle">cap {cap:,}</text>')
    for drawn in series:
        for row, quantity in enumerate(
            QUANTITIES, len(QUANTITIES) * names.index(drawn.space)
        ):
            x = left + CAPS.index(drawn.cap) * width
            base = top + row * height + height - 24
            if drawn.cap == CAPS[0]:
                label = f"{drawn.space}: {quantity.replace('_', ' ')}"
                parts.append(f'<text x="4" y="{base - 20}">{label}</text>')
            bars = histogram(drawn, quantity)
            step = (width - 14) / len(bars)
            most = max(count for _, count in bars)
            for position, (value, count) in enumerate(bars):
                bar = (height - 32) * count / most
                at = x + position * step
                parts.append(
                    f'<rect x="{at:.1f}" y="{base - bar:.1f}" '
                    f'width="{step - 1:.1f}" height="{bar:.1f}"/>'
                )
                if quantity != "size":
                    parts.append(
                        f'<text x="{at + step / 2:.1f}" y="{base + 11}" class="s" '
                        f'text-anchor="middle">{value}</text>'
                    )
            if quantity == "size":
                parts.append(
                    f'<text x="{x}" y="{base + 11}" class="s">{drawn.smallest}</text>'
                    f'<text x="{x + width - 14}" y="{base + 11}" class="s" '
                    f'text-anchor="end">{drawn.cap:,}</text>'
                )
    size = (left + len(CAPS) * width, top + len(names) * len(QUANTITIES) * height)
    (DOCS / "draws.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}">'
        "<style>text{font:11px sans-serif;fill:#333}.s{font-size:9px}"
        "rect{fill:#4477aa}</style>"
        f'<rect width="{size[0]}" height="{size[1]}" style="fill:#fff"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def write_table(series: list[Drawn], number: int) -> None:
    """Put the table between the two markers in docs/spaces.md."""
    titles = ["space", "cap", "smallest net", "draws over the cap", "smallest draw"]
    titles += ["median", "largest draw", "depths"]
    lines = [
        f"{number:,} random draws each (seeds 0 to {number - 1:,}), MNIST's shape:",
        "",
        "| " + " | ".join(titles) + " |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for drawn in series:
        depths = [int(depth) for depth, _ in histogram(drawn, "depth")]
        sizes = sorted(drawn.sizes)
        lines.append(
            f"| {drawn.space} | {drawn.cap:,} | {drawn.smallest} "
            f"| {sum(size > drawn.cap for size in sizes)} | {sizes[0]:,} "
            f"| {sizes[len(sizes) // 2]:,} | {sizes[-1]:,} "
            f"| {depths[0]} to {depths[-1]} |"
        )
    table = "\n".join(lines)
    marks = ("<!-- draws -->", "<!-- end of draws -->")
    put_between(DOCS / "spaces.md", marks, table + "\n")
    print(table)


def main() -> None:
    """Draw on every core and write the three results."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    tasks = [(name, cap, number) for name in available() for cap in CAPS]
    with multiprocessing.Pool() as pool:
        series = pool.map(draw, tasks, chunksize=1)
    write_csv(series)
    write_svg(series)
    write_table(series, number)


if __name__ == "__main__":
    main()
