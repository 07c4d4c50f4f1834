"""The dashboard as its readers meet it: in a real browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import (
    chromium,
    dashboard,
    look,
    place_of,
    ready,
    shown,
    trace,
    wait_for,
)
from playwright.sync_api import Browser, Page
from studying import (
    big_study,
    command,
    environment,
    make_settings,
    report_of,
    run_nas,
    train_made_up,
)

from nas.architecture.boards import find_board
from nas.architecture.cost import cost, layers
from nas.candidates.candidate import Candidate, front
from nas.study.folders import create, open_study, read_study

EVIL = "</script><img src=x onerror=alert(1)>"
TOKEN = "a-token-of-the-tests"  # noqa: S105  # of these tests alone


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start one Chromium for all tests; each gets a fresh page of it."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with studies/: one of all states, a random one, a growing one."""
    folder = tmp_path_factory.mktemp("work")
    studies = folder / "studies"
    # With this seed three of the made-up accuracies are on the front.
    mixed = make_settings(name="mixed", sampler="evolution", seed=1)
    with create(studies / "mixed", mixed) as study:
        for _ in range(12):
            train_made_up(study, study.ask())
        study.ask()
        study.record(12, report_of(0, 0.2))
        study.tell(12, "pruned", f"weak {EVIL}")
        study.ask()
        study.tell(13, "failed", "loss is NaN")
        study.ask()
        study.record(14, report_of(0, 0.3))
    best = studies / "mixed" / "best"
    best.mkdir()
    winner = front(read_study(studies / "mixed").candidates())[-1]
    numbers = {
        "trial": winner.trial,
        "num_params": winner.num_params,
        "macs": winner.macs,
        "peak_memory": winner.peak_memory,
        "seeds": 3,
        "test_accuracy_mean": 0.91,
        "test_accuracy_std": 0.02,
    }
    (best / "report.json").write_text(json.dumps(numbers))
    big_study(studies / "random", 8)
    big_study(studies / "growing", 6)
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """Serve that folder."""
    with dashboard(cwd=place) as started:
        yield started


def of(place: Path, study: str) -> list[Candidate]:
    """Return the candidates of a study."""
    return read_study(place / "studies" / study).candidates()


def test_the_front_is_drawn(browser: Browser, address: str, place: Path) -> None:
    """Front, cap, winner and every candidate stand where the study has them."""
    candidates = of(place, "mixed")
    members = front(candidates)
    with look(browser) as page:
        page.goto(f"{address}#study=mixed")
        ready(page, 15)
        drawn = trace(page, "front's members")
        assert drawn["trials"] == [c.trial for c in members]
        assert drawn["x"] == [c.num_params for c in members]
        assert drawn["y"] == pytest.approx(
            [max(1 - (c.val_accuracy or 0), 1e-4) for c in members], abs=1e-6
        )
        assert shown(page) == set(range(15))
        corners = trace(page, "front")["x"]
        assert (corners[0], corners[-1]) == (members[0].num_params, 2000)
        assert "cap 2,000" in page.inner_text("#plot")
        star = trace(page, f"retrained winner (trial {members[-1].trial})")
        assert star["y"] == pytest.approx([0.09])
        assert "test accuracy 91.00 % ± 2.00 % over 3 seeds" in page.inner_text("#note")
        assert "12 complete, 1 pruned, 1 running, 1 failed" in page.inner_text(
            "#status"
        )
        rows = page.locator("#members tbody tr")
        assert rows.count() == len(members)


def test_a_click_shows_that_architecture(
    browser: Browser, address: str, place: Path
) -> None:
    """The panel tells the layers of the point that was clicked, and its commands."""
    members = front(of(place, "mixed"))
    member = members[0]
    with look(browser) as page:
        page.goto(f"{address}#study=mixed")
        ready(page)
        page.mouse.click(*place_of(page, "front's members", 0))
        page.wait_for_selector(f'#detail[data-trial="{member.trial}"]')
        told = page.inner_text("#detail")
        table = layers(member.architecture)
        assert page.locator("#detail .layer .bar").count() == sum(
            layer.num_params > 0 for layer in table
        )
        parts = [layer.description for layer in table]
        parts += [" × ".join(map(str, layer.output_shape)) for layer in table]
        for part in [*parts, f"nas show {member.trial} mixed", "--start-from"]:
            assert part in told
        page.wait_for_selector("#curve .scatterlayer")
        curves = page.evaluate("byId('curve').data.map(each => each.y.length)")
        assert curves[-1] == len(member.curve)
        assert len(curves) == 13


def test_why_a_trial_was_pruned_is_told_as_plain_text(
    browser: Browser, address: str
) -> None:
    """The reason stands there with its rung, and markup within it stays text."""
    with look(browser) as page:
        page.goto(f"{address}#study=mixed&trial=12")
        page.wait_for_selector('#detail[data-trial="12"]')
        told = page.inner_text("#detail")
        assert f"pruned: weak {EVIL}" in told
        assert "rung 1 of 3, after 1 of 4 epochs" in told
        assert page.locator("img").count() == 0


def test_a_new_trial_appears_and_zoom_and_choice_stay(
    browser: Browser, address: str, place: Path
) -> None:
    """What another process writes is drawn within seconds; the reader loses nothing."""
    zoom = "['xaxis', 'yaxis'].map(axis => byId('plot')._fullLayout[axis].range)"
    with look(browser) as page:
        page.goto(f"{address}#study=growing&trial=2")
        ready(page, 6)
        page.wait_for_selector('#detail[data-trial="2"]')
        box = page.locator("#plot .nsewdrag").first.bounding_box()
        assert box is not None
        before = page.evaluate(zoom)
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.2)
        page.mouse.down()
        page.mouse.move(
            box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.7, steps=4
        )
        page.mouse.up()
        wait_for(page, f"before => JSON.stringify({zoom}) !== before", repr(before))
        zoomed = page.evaluate(zoom)
        assert zoomed != before
        with open_study(place / "studies" / "growing") as study:
            train_made_up(study, study.ask())
        ready(page, 7)
        assert 6 in shown(page)
        assert page.evaluate(zoom) == zoomed
        assert page.get_attribute("#detail", "data-trial") == "2"
        assert page.is_visible("#detail")


def test_the_filters_filter(browser: Browser, address: str, place: Path) -> None:
    """State, size, depth and kind of block each leave the candidates they name."""
    candidates = of(place, "mixed")
    sizes = sorted(c.num_params for c in candidates)
    depths = sorted(len(c.architecture.blocks) for c in candidates)
    kinds = {c.trial: {b.kind for b in c.architecture.blocks} for c in candidates}
    with look(browser) as page:
        page.goto(f"{address}#study=mixed")
        ready(page, 15)
        page.evaluate("byId('filters').open = true")
        page.uncheck("#state-complete")
        assert shown(page) == {12, 13, 14}
        page.click("#reset")
        assert shown(page) == set(range(15))
        page.fill("#size-to", str(sizes[5]))
        assert shown(page) == {c.trial for c in candidates if c.num_params <= sizes[5]}
        assert "of 15 shown" in page.inner_text("#filtered")
        page.fill("#size-to", "")
        page.fill("#depth-from", str(depths[7]))
        assert shown(page) == {
            c.trial for c in candidates if len(c.architecture.blocks) >= depths[7]
        }
        page.fill("#depth-from", "")
        for choice, wanted in (
            ("conv", {"conv"}),
            ("separable", {"separable"}),
            ("both", {"conv", "separable"}),
        ):
            page.select_option("#kind", choice)
            assert shown(page) == {t for t, kind in kinds.items() if kind == wanted}
        page.select_option("#kind", "inception")
        assert shown(page) == {t for t, kind in kinds.items() if "inception" in kind}
        page.select_option("#kind", "shared")
        assert shown(page) == {
            c.trial
            for c in candidates
            if any(block.repeats > 1 for block in c.architecture.blocks)
        }


def test_the_axes_switch(browser: Browser, address: str, place: Path) -> None:
    """Against MACs or memory the front is that of accuracy against these."""
    candidates = of(place, "mixed")
    with look(browser) as page:
        page.goto(f"{address}#study=mixed")
        ready(page, 15)
        page.select_option("#across", "macs")
        wait_for(page, "byId('plot').layout.xaxis.title.text === 'MACs'")
        drawn = trace(page, "front's members")
        macs = {c.trial: c.macs for c in candidates}
        assert drawn["x"] == [macs[trial] for trial in drawn["trials"]]
        assert drawn["x"] == sorted(drawn["x"])
        assert drawn["y"] == sorted(drawn["y"], reverse=True)
        page.select_option("#across", "latency")
        wait_for(
            page,
            "byId('plot').layout.xaxis.title.text === 'estimated milliseconds on nrf52840'",
        )
        board = find_board("nrf52840")
        costs = {c.trial: cost(c.architecture, board) for c in candidates}
        drawn = trace(page, "front's members")
        assert drawn["x"] == pytest.approx(
            [costs[trial].latency / 1e6 for trial in drawn["trials"]], abs=1e-4
        )
        assert drawn["x"] == sorted(drawn["x"])
        page.select_option("#across", "flash")
        wait_for(page, "byId('plot').layout.xaxis.title.text.startsWith('flash')")
        drawn = trace(page, "front's members")
        assert drawn["x"] == [costs[trial].flash for trial in drawn["trials"]]
        page.select_option("#across", "macs")
        page.select_option("#up", "linear")
        wait_for(page, "byId('plot').layout.yaxis.type !== 'log'")
        accuracies = {c.trial: c.val_accuracy for c in candidates}
        linear = trace(page, "front's members")
        assert linear["y"] == pytest.approx(
            [accuracies[trial] for trial in linear["trials"]], abs=1e-6
        )
        page.select_option("#up", "error")
        wait_for(page, "byId('plot').layout.yaxis.title.text.includes('error')")
        low, high = page.evaluate("byId('plot').layout.yaxis.range")
        assert low < high
        # A reload shows the same.
        page.reload()
        ready(page, 15)
        assert page.input_value("#across") == "macs"


def test_the_keyboard_walks_along_the_front(
    browser: Browser, address: str, place: Path
) -> None:
    """Arrow keys on the plot, and buttons in the table, choose without a mouse."""
    members = [c.trial for c in front(of(place, "mixed"))]
    with look(browser) as page:
        page.goto(f"{address}#study=mixed")
        ready(page, 15)
        page.focus("#plot")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(f'#detail[data-trial="{members[0]}"]')
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(f'#detail[data-trial="{members[1]}"]')
        page.focus(f'[aria-label="show trial {members[-1]}"]')
        page.keyboard.press("Enter")
        page.wait_for_selector(f'#detail[data-trial="{members[-1]}"]')
        wait_for(page, "document.activeElement.id === 'detail'")


def test_how_the_search_goes_is_drawn(browser: Browser, address: str) -> None:
    """Hypervolume with its baseline, speed, sizes, and what pruning saved."""
    with look(browser) as page:
        page.goto(f"{address}#study=mixed&page=progress")
        page.wait_for_selector("#sizes .bars")
        wait_for(page, "byId('hypervolume-epochs').data?.length === 2")
        names = page.evaluate("byId('hypervolume-epochs').data.map(each => each.name)")
        # The first study with a random sampler on the same data and cap.
        assert names == ["this study", "growing"]
        volumes = page.evaluate("byId('hypervolume-epochs').data[0].y")
        assert volumes == sorted(volumes)
        assert sum(page.evaluate("byId('sizes').data[0].y")) == 15
        # Drawn as wide as their places, though the page began on another part.
        wait_for(page, FITTING)
        cards = page.inner_text("#cards")
        assert "13\ntrials finished" in cards
        assert "epochs saved by pruning (37 of 52 trained)" in cards
        assert "This needs 20 complete candidates" in page.inner_text(
            "#importances-note"
        )


def test_studies_are_compared(browser: Browser, address: str, place: Path) -> None:
    """All fronts in one picture, and a table with the hypervolumes and the best."""
    with look(browser) as page:
        page.goto(f"{address}#page=compare")
        page.wait_for_selector("#studies tbody tr")
        wait_for(page, "byId('fronts').data?.length === 3")
        rows = page.locator("#studies tbody tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == ["growing", "mixed", "random"]
        for row, name in zip(rows, ("growing", "mixed", "random"), strict=True):
            best = front(of(place, name))[-1].val_accuracy or 0
            assert row.split("\t")[-1] == f"{100 * best:.2f} %"
        legend = page.text_content("#fronts .legend") or ""
        assert all(name in legend for name in ("growing", "mixed", "random"))


@pytest.mark.slow
def test_optunas_own_dashboard_is_one_click_away(
    browser: Browser, address: str, place: Path
) -> None:
    """It shows the same study under the same address, and cannot delete it."""
    with look(browser) as page:
        page.goto(f"{address}#study=mixed")
        ready(page, 15)
        with page.context.expect_page() as opening:
            page.click("#optuna")
        other = opening.value
        other.wait_for_selector("text=mixed")
        status = other.evaluate(
            "fetch('/api/studies/1', {method: 'DELETE'}).then(answer => answer.status)"
        )
        assert status == 405
    assert len(of(place, "mixed")) == 15


@pytest.mark.slow
def test_the_report_opens_from_disk_without_a_network(
    browser: Browser, place: Path, tmp_path: Path
) -> None:
    """One file, the network cut: the front, a click, the progress, the comparison."""
    path = tmp_path / "report.html"
    done = run_nas("report", "mixed", "--output", path, cwd=place)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout.replace("\n", "")
    member = front(of(place, "mixed"))[0]
    with look(browser) as page:
        page.context.set_offline(True)
        page.goto(path.as_uri())
        ready(page, 15)
        page.mouse.click(*place_of(page, "front's members", 0))
        page.wait_for_selector(f'#detail[data-trial="{member.trial}"]')
        assert f"nas show {member.trial} mixed" in page.inner_text("#detail")
        page.wait_for_selector("#curve .scatterlayer")
        page.click("text=Progress")
        page.wait_for_selector("#sizes .bars")
        page.click("text=Compare")
        page.wait_for_selector("#studies tbody tr")
        assert not page.is_visible("#optuna")
        assert page.locator("img").count() == 0


@pytest.mark.slow
def test_the_token_is_required(browser: Browser, place: Path) -> None:
    """Without it there is a form and nothing else; with it the page, also next time."""
    with (
        dashboard("mixed", "--token", TOKEN, cwd=place) as address,
        look(browser) as page,
    ):
        bare = address.partition("?")[0]
        assert address == f"{bare}?token={TOKEN}"
        page.goto(bare)
        assert "mixed" not in page.content()
        page.fill("input[name=token]", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_load_state()
        assert page.locator("#plot").count() == 0
        page.fill("input[name=token]", TOKEN)
        page.keyboard.press("Enter")
        ready(page, 15)
        assert "token" not in page.url
        page.goto(bare)
        ready(page, 15)


FITTING = """() => [...document.querySelectorAll("#progress .plot:not([hidden])")]
  .every(plot => plot._fullLayout && Math.abs(plot._fullLayout.width - plot.clientWidth) <= 1)"""
CONTRAST = """() => {
  const light = text => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map(value => {
      const share = value / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const worst = [];
  const wanted = "p, span, th, td, dt, dd, code, label, button, h1, h2, h3, legend, summary, a";
  for (const element of document.querySelectorAll(wanted)) {
    if (!element.offsetParent || !element.textContent.trim()) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) worst.push([element.outerHTML.slice(0, 80), ratio]);
  }
  return worst;
}"""
UNLABELLED = """() => [...document.querySelectorAll("button, select, input, [role=img]")]
  .filter(element => element.offsetParent && !element.labels?.length
    && !element.getAttribute("aria-label") && !element.textContent.trim())
  .map(element => element.outerHTML.slice(0, 100))"""


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1600])
def test_it_reads_well_everywhere(
    browser: Browser, address: str, width: int, dark: bool
) -> None:
    """Narrow or wide, light or dark: no sideways scrolling, labels, and contrast."""
    with look(browser, width=width, dark=dark) as page:
        page.goto(f"{address}#study=mixed&trial=12")
        ready(page, 15)
        page.wait_for_selector('#detail[data-trial="12"]')
        check_reading(page, width)
        for name in ("progress", "compare"):
            page.click(f'nav [data-page="{name}"]')
            page.wait_for_selector(
                {"progress": "#sizes .bars", "compare": "#studies tbody tr"}[name]
            )
            check_reading(page, width)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(21, 24, 29)" if dark else "rgb(255, 255, 255)")
        page.click("#theme")
        other = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert other == ("rgb(255, 255, 255)" if dark else "rgb(21, 24, 29)")


def check_reading(page: Page, width: int) -> None:
    """Check what can be measured of a page that reads well."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNLABELLED) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_real_search_is_followed_from_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    """The page waits for a study, then shows each trial of a search as it comes."""
    with dashboard(cwd=tmp_path) as address, look(browser) as page:
        page.goto(address)
        page.wait_for_selector("text=No studies here yet")
        asked = ("--dataset", "digits", "--budget", 1000, "--trials", 3)
        search = subprocess.Popen(
            command("search", *asked, "--epochs", 1, "--workers", 1, "--device", "cpu"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            ready(page)
            wait_for(
                page,
                "/nas search|in training|expected|complete/.test(document.body.innerText)",
            )
            page.set_default_timeout(500_000)
            ready(page, 3)
            wait_for(page, "/ complete/.test(byId('status').textContent)")
            told, _ = search.communicate(timeout=400)
        finally:
            search.kill()
            search.communicate()
        assert search.returncode == 0, told
        wait_for(page, "!byId('status').textContent.includes('running')")
        members = front(of(tmp_path, "digits-1000"))
        assert trace(page, "front's members")["trials"] == [c.trial for c in members]
