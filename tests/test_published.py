"""What the README publishes is what the code of this commit does."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from nas.study.settings import from_toml, to_toml

ROOT = Path(__file__).parent.parent


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script as a module of its own, to be changed at will."""
    path = ROOT / "benchmarks" / "published.py"
    spec = importlib.util.spec_from_file_location("published", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "published", module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_the_published_results_are_todays(published: ModuleType) -> None:
    """Made with today's space, rules, recipe and defaults; README's table is theirs."""
    assert published.faults() == []
    assert 0 in published.reports()


@pytest.fixture
def copy(
    published: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a copy of the published study that the script looks at."""
    source = published.PUBLISHED / "mnist-10000"
    target = tmp_path / "mnist-10000"
    for path in source.rglob("*"):
        if path.suffix in {".toml", ".json", ".csv", ".gz"}:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    monkeypatch.setattr(published, "PUBLISHED", tmp_path)
    return target


def test_a_rule_that_has_changed_since_is_told(
    published: ModuleType, copy: Path
) -> None:
    """It is named with its study."""
    path = copy / "study.toml"
    settings = from_toml(path.read_text(), "study.toml")
    rule = replace(settings.promotion, full=0.5)
    path.write_text(to_toml(replace(settings, promotion=rule)))
    (fault,) = [f for f in published.faults() if "README" not in f]
    assert "mnist-10000: promotion is not what" in fault


def test_other_first_draws_are_told(published: ModuleType, copy: Path) -> None:
    """Those of another seed here, as of a sampler that was changed since."""
    path = copy / "study.toml"
    settings = from_toml(path.read_text(), "study.toml")
    path.write_text(to_toml(replace(settings, seed=7)))
    (fault,) = [f for f in published.faults() if "README" not in f]
    assert "mnist-10000: its first trials are not those" in fault


def test_a_number_that_is_not_that_of_the_study_is_told(
    published: ModuleType, copy: Path
) -> None:
    """One image more is enough."""
    path = copy / "best" / "report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    report["test_accuracy_mean"] += 0.0001
    path.write_text(json.dumps(report), encoding="utf-8")
    assert "README.md: its table is not that of the reports" in published.faults()


def test_a_study_without_winners_does_not_count_in_the_table(
    published: ModuleType, copy: Path
) -> None:
    """Its search stands for itself; with a winner the table has the mean of both."""
    before = published.table()
    further = copy.with_name("mnist-10000-seed-1")
    further.mkdir()
    settings = from_toml((copy / "study.toml").read_text(), "study.toml")
    text = to_toml(replace(settings, name=further.name, seed=1))
    (further / "study.toml").write_text(text)
    assert published.table() == before
    (further / "best").mkdir()
    (further / "best" / "report.json").write_bytes(
        (copy / "best" / "report.json").read_bytes()
    )
    assert "mean of 2 searches" in published.table()


def test_a_study_that_no_task_makes_is_told(published: ModuleType, copy: Path) -> None:
    """So that nothing stands among the results that cannot be made again."""
    copy.rename(copy.with_name("kmnist-9"))
    assert "studies/published/kmnist-9: no task makes it" in published.faults()


def test_a_task_is_known_by_its_data_set(published: ModuleType) -> None:
    """Its studies have the names that its commands give."""
    words = published.TASKS["words"]
    assert (words.named(0), words.named(2)) == ("words-5000", "words-5000-seed-2")
    assert published.best_folder(words, 5_000) == "best"
    assert published.best_folder(words, 1_000) == "best-1000"
