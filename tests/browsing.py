"""Helpers of the tests that look at a page with a real browser; no tests, no fixtures."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import system_programs
from playwright.sync_api import Browser, Page, sync_playwright
from studying import command, environment

# Nothing that would reach another host, or need a desktop.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Milliseconds; the tests share their cores with others.
TIMEOUT = 180_000


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium, without a window."""
    path = system_programs.chromium()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def look(browser: Browser, *, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """Open a fresh page; at its end it must have asked no other host for anything.

    Nor may a script of it have failed.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if dark else "light",
    )
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: errors.append(message.text) if _is_error(message) else None,
    )
    yield page
    context.close()
    own = ("http://127.0.0.1:", "file://", "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []
    assert errors == []


def _is_error(message: Any) -> bool:
    # That a request was refused is what some tests are about.
    return message.type == "error" and "Failed to load resource" not in message.text


@contextlib.contextmanager
def dashboard(*arguments: object, cwd: Path) -> Iterator[str]:
    """Run `nas dashboard` on any free port; give the address that it prints."""
    process = subprocess.Popen(
        command("dashboard", "--port", 0, *arguments),
        cwd=cwd,
        env=environment(PYTHONUNBUFFERED="1") | {"NAS_TOKEN": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("dashboard at http"), line
        yield line.split()[2]
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def ready(page: Page, points: int | None = None) -> None:
    """Wait until the front is drawn, of so many candidates."""
    wanted = "[data-points]" if points is None else f'[data-points="{points}"]'
    page.wait_for_selector(f"#plot{wanted}")


def trace(page: Page, name: str) -> dict[str, Any]:
    """Return x, y and trials of one of the plot's traces."""
    found: dict[str, Any] = page.evaluate(
        """name => {
          const {x, y, customdata} = byId("plot").data.find(each => each.name === name);
          return {x, y, trials: customdata};
        }""",
        name,
    )
    return found


def shown(page: Page) -> set[int]:
    """Return the trials of all candidates that the plot shows."""
    names = ("complete", "pruned", "running", "failed", "failed, without a report")
    groups = [trace(page, name)["trials"] for name in (*names, "front's members")]
    return {trial for group in groups for trial in group}


def place_of(page: Page, name: str, index: int) -> tuple[float, float]:
    """Return where on the screen a point of a trace is."""
    x, y = page.evaluate(
        """([name, index]) => {
          const plot = byId("plot");
          const {x, y} = plot.data.find(each => each.name === name);
          const {xaxis, yaxis} = plot._fullLayout;
          const frame = plot.getBoundingClientRect();
          return [frame.left + xaxis._offset + xaxis.d2p(x[index]),
                  frame.top + yaxis._offset + yaxis.d2p(y[index])];
        }""",
        [name, index],
    )
    return x, y


def wait_for(page: Page, expression: str, argument: Any = None) -> None:
    """Wait until a JavaScript expression holds."""
    page.wait_for_function(expression, arg=argument)
