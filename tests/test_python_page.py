"""docs/python.md is what the docstrings say, and its example runs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from loading import module_of
from studying import run_script

import nas

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "python.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    """Run docs/python_page.py when this fails."""
    assert module_of(DOCS / "python_page.py").page() == PAGE


def public() -> list[str]:
    """Return every public name of the API, with those of its classes."""
    names = []
    for name in nas.__all__:
        thing: Any = getattr(nas, name)
        names.append(f"nas.{name}")
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            members = vars(thing)
            names += [f"nas.{name}.{m}" for m in members if not m.startswith("_")]
    return sorted(set(names) - {"nas.NasError"})


def test_the_page_tells_everything_that_is_public() -> None:
    """Each function, class and method has its section, each property one or a line."""
    told = re.findall(r"^(?:##+ |- `)(nas\.[\w.]+)", PAGE, re.MULTILINE)
    assert sorted(told) == public()


@pytest.mark.parametrize("name", ["nas.search", "nas.train", "nas.Study.best"])
def test_every_keyword_is_told_in_the_text(name: str) -> None:
    """Its docstring says what it is for."""
    function: Any = nas
    for part in name.split(".")[1:]:
        function = getattr(function, part)
    for keyword in set(inspect.signature(function).parameters) - {"self"}:
        assert f"`{keyword}`" in function.__doc__, keyword


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    """As it stands, as a script."""
    (example,) = re.findall(
        r"^```python\n(import .+?)^```", PAGE, re.MULTILINE | re.DOTALL
    )
    done = run_script(example, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^trial \d, .+: test accuracy \d+", done.stdout, re.MULTILINE)
    written = {p.name for p in (tmp_path / "studies" / "mine-2000" / "best").iterdir()}
    assert written >= {"model.py", "weights.safetensors", "report.json"}
