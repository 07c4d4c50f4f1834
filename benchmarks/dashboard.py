"""How large and how fast the dashboard is with 1,000 and 10,000 trials.

    python benchmarks/dashboard.py [--trials 1000 10000] [--output dashboard.csv]

Makes studies of made-up trials (a third pruned, curves of three rungs, architectures
drawn from the space "mixed" for 8x8 images, cap 2,000), serves each in a process of its
own and looks at it with a headless Chromium. Needs the extra `test`.

Columns: seconds until the server has read the study; of the first plot, from the
request for the page to the drawn plot; of one update, from the end of the writing of
a new trial to the drawn plot less the wait for the next look; the browser's own time
(CPU of its main thread) in both; the server's CPU seconds a minute while a page is open and
trials come at ten a minute; the server's largest memory; seconds and size of a report.
Also the load of the machine, without which no time means anything.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
from harness import conditions, made_up_settings, write
from playwright.sync_api import CDPSession, Page, sync_playwright

from nas.study.folders import create, open_study
from nas.study.study import Study
from nas.training.report import RungReport

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAS = [sys.executable, "-c", "from nas.cli import main; main()"]
TIMEOUT = 300_000
"""Milliseconds."""
UPDATES = 5
OPEN_SECONDS = 60


def train(study: Study, chance: random.Random) -> None:
    """Write one made-up trial."""
    candidate = study.ask()
    assert candidate is not None
    talent = 0.02 + 0.5 * (50 / candidate.num_params) ** 0.5 * chance.lognormvariate(
        0, 0.5
    )
    pruned = chance.random() < 1 / 3
    for rung, epochs in enumerate(study.settings.rungs[: 1 if pruned else 3]):
        error = min(talent * (3 - rung), 0.9)
        report = RungReport(
            rung=rung,
            epochs=epochs,
            val_accuracy=1 - error,
            train_loss=error,
            seconds=epochs,
        )
        study.record(candidate.trial, report)
    study.tell(candidate.trial, "pruned" if pruned else "complete")


def cpu_seconds(pid: int) -> float:
    """Return what the process has taken of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid: int) -> float:
    """Return the largest memory that the process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def browser_seconds(session: CDPSession) -> float:
    """Return the CPU time of the page's main thread so far."""
    found = session.send("Performance.getMetrics")["metrics"]
    return float(next(m["value"] for m in found if m["name"] == "TaskDuration"))


def measure(studies: Path, name: str, trials: int) -> dict[str, Any]:
    """Return one row of the table."""
    row: dict[str, Any] = {"trials": trials}
    chance = random.Random(0)
    with (
        mock.patch("os.fsync"),
        create(studies / name, made_up_settings(name=name)) as study,
    ):
        for _ in range(trials):
            train(study, chance)
    row["load"] = os.getloadavg()[0]
    began = time.monotonic()
    server = subprocess.Popen(  # noqa: S603  # ours
        [*NAS, "dashboard", name, "--port", "0", "--studies", str(studies)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert server.stdout is not None
    address = server.stdout.readline().split()[2]
    try:
        with sync_playwright() as driver:
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
            page = browser.new_page()
            page.set_default_timeout(TIMEOUT)
            page.goto(address)
            page.wait_for_selector(f'#plot[data-points="{trials}"]')
            row["server_reads_s"] = time.monotonic() - began
            page.close()
            page = browser.new_page()
            page.set_default_timeout(TIMEOUT)
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            began = time.monotonic()
            page.goto(address, wait_until="commit")
            page.wait_for_selector(f'#plot[data-points="{trials}"]')
            row["first_plot_s"] = time.monotonic() - began
            row["first_plot_browser_cpu_s"] = browser_seconds(session)
            row |= measure_updates(page, session, studies / name, trials, server.pid)
            browser.close()
        row["server_peak_mb"] = peak_megabytes(server.pid)
    finally:
        server.terminate()
        server.wait()
    report = studies / "report.html"
    began = time.monotonic()
    subprocess.run(  # noqa: S603  # ours
        [*NAS, "report", name, "--studies", str(studies), "--output", str(report)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    row["report_s"] = time.monotonic() - began
    row["report_mb"] = report.stat().st_size / 1e6
    return row


def measure_updates(
    page: Page, session: CDPSession, folder: Path, trials: int, pid: int
) -> dict[str, float]:
    """Return the times of updates, and the server's share while the page is open."""
    took, cpu, chance = [], [], random.Random(1)
    with open_study(folder) as study:
        spent, began = cpu_seconds(pid), time.monotonic()
        for number in range(1, UPDATES + 1):
            before = browser_seconds(session)
            train(study, chance)
            page.wait_for_selector(f'#plot[data-points="{trials + number}"]')
            # From the answer's arrival to the drawn plot, as the page itself measures.
            took.append(float(page.get_attribute("#plot", "data-took") or 0) / 1e3)
            cpu.append(browser_seconds(session) - before)
            time.sleep(
                max(0.0, OPEN_SECONDS / UPDATES * number - (time.monotonic() - began))
            )
        open_for = time.monotonic() - began
    return {
        "update_s": sorted(took)[len(took) // 2],
        "update_browser_cpu_s": sorted(cpu)[len(cpu) // 2],
        "server_cpu_share_open": (cpu_seconds(pid) - spent) / open_for,
    }


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--output", type=Path, default=Path("dashboard.csv"))
    given = parser.parse_args()
    print(conditions())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for trials in given.trials:
            row = measure(Path(folder), f"made-up-{trials}", trials)
            rows.append({name: round(value, 3) for name, value in row.items()})
            print(rows[-1])
            write(given.output, rows)


if __name__ == "__main__":
    main()
