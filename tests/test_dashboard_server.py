"""The dashboard without a browser: what it tells, and whom it refuses."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import subprocess
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults

import pytest
from cli_runner import Invoke
from hypothesis import given
from hypothesis import strategies as st
from nets import net_of
from studying import (
    big_study,
    command,
    environment,
    finish,
    make_settings,
    one_line,
    report_of,
    train_made_up,
)

from nas.architecture import Block
from nas.architecture.boards import find_board
from nas.architecture.cost import layers
from nas.candidates.candidate import Candidate, Training, front, with_training
from nas.candidates.pareto import hypervolume
from nas.dashboard.app import application
from nas.dashboard.assets import script_json
from nas.dashboard.catalogue import Catalogue
from nas.dashboard.columns import fronts, row
from nas.dashboard.details import kernel_of
from nas.dashboard.export import report_html
from nas.dashboard.guard import Guard, is_loopback
from nas.dashboard.live import LiveStudy
from nas.dashboard.markers import markers
from nas.dashboard.optuna_bridge import importances
from nas.dashboard.progress import (
    active_seconds,
    hypervolumes,
    losses_at_size,
    moments,
    progress,
    reference_point,
)
from nas.errors import NasError, StudyError
from nas.report.labels import STATES
from nas.study.folders import create, open_study, read_study

TOKEN = "a-token-of-the-tests"  # noqa: S105  # of these tests alone


class Answer(NamedTuple):
    """A status, its headers in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON."""
        return json.loads(self.body)


def ask(app: Any, path: str, *, method: str = "GET", **environ: str) -> Answer:
    """Put one request to a WSGI application; environ overrides, HTTP_HOST say."""
    path, _, query = path.partition("?")
    full: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_HOST": "127.0.0.1:8765",
    }
    full |= environ
    setup_testing_defaults(full)
    seen: list[Any] = []
    chunks = app(full, lambda status, headers, *_: seen.extend([status, headers]))
    body = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    headers = {name.lower(): value for name, value in seen[1]}
    return Answer(int(seen[0][:3]), headers, body)


def guarded(
    studies: Path, token: str | None = None, host: str = "127.0.0.1", **options: Any
) -> Guard:
    """Return the whole application over a folder of studies."""
    app = application(Catalogue(studies, **options))
    return Guard(app, host=host, port=8765, token=token)


def opened(folder: Path) -> LiveStudy:
    """Return the study, read."""
    live = LiveStudy(folder, None)
    assert live.ready(60)
    return live


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two studies, of 30 and 4 trials; tests only read it."""
    folder = tmp_path_factory.mktemp("studies")
    big_study(folder / "small", 30)
    big_study(folder / "tiny", 4)
    return folder


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8765",
        "127.0.0.1.evil.example:8765",
        "localhost.evil.example",
        "10.0.0.7:8765",
        "[::ffff:10.0.0.7]:8765",
        "",
        "127.0.0.1@evil.example",
    ],
)
@pytest.mark.parametrize("path", ["/", "/nas/studies", "/api/studies", "/static/x.js"])
def test_a_foreign_host_is_refused(studies: Path, host: str, path: str) -> None:
    """A page that has bent its own name to this machine learns nothing."""
    answer = ask(guarded(studies), path, HTTP_HOST=host)
    assert answer.status == 421
    assert b"small" not in answer.body


@pytest.mark.parametrize(
    "host", ["localhost:9", "127.0.0.1", "[::1]:8765", "LOCALHOST"]
)
def test_this_machine_is_answered(studies: Path, host: str) -> None:
    """Its usual names are known at any port, since a port may be forwarded."""
    assert ask(guarded(studies), "/nas/studies", HTTP_HOST=host).status == 200


def test_other_addresses_are_answered_only_where_bound(studies: Path) -> None:
    """Bound to all addresses it answers to any of them, but to no foreign name."""
    everywhere = guarded(studies, TOKEN, host="0.0.0.0")  # noqa: S104
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}
    for host in ("10.0.0.7:8765", f"{socket.gethostname()}:8765"):
        answer = ask(everywhere, "/nas/studies", HTTP_HOST=host, **bearer)
        assert answer.status == 200
    answer = ask(everywhere, "/nas/studies", HTTP_HOST="evil.example", **bearer)
    assert answer.status == 421
    assert not is_loopback("0.0.0.0")  # noqa: S104
    assert [is_loopback(h) for h in ("127.0.0.2", "::1", "nas.example")] == [1, 1, 0]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "X"])
@pytest.mark.parametrize(
    "path", ["/", "/api/studies", "/api/studies/0", "/nas/studies"]
)
def test_nothing_but_reading_is_let_through(
    studies: Path, method: str, path: str
) -> None:
    """Optuna's dashboard would delete a study that is asked for with DELETE."""
    app = guarded(studies)
    before = (studies / "small" / "journal.log").read_bytes()
    assert ask(app, path, method=method).status == 405
    assert (studies / "small" / "journal.log").read_bytes() == before
    assert len(ask(app, "/api/studies").json()["study_summaries"]) == 2


def test_the_storage_behind_optunas_page_cannot_write(studies: Path) -> None:
    """Even a writing request that came past the guard would change nothing."""
    unguarded = application(Catalogue(studies))
    assert ask(unguarded, "/api/studies").status == 200
    before = (studies / "small" / "journal.log").read_bytes()
    note = {"CONTENT_LENGTH": "2", "CONTENT_TYPE": "application/json"}
    for method, path in (
        ("DELETE", "/api/studies/0"),
        ("PUT", "/api/studies/0/note"),
        ("POST", "/api/trials/0/tell"),
    ):
        answer = ask(unguarded, path, method=method, **note)
        assert answer.status >= 400
    assert (studies / "small" / "journal.log").read_bytes() == before


@pytest.mark.parametrize(
    "path", ["/", "/nas/studies", "/nas/assets/x", "/api/studies", "/dashboard"]
)
def test_every_request_needs_the_token(studies: Path, path: str) -> None:
    """Without it, or with a wrong one however it is brought, nothing is told."""
    app = guarded(studies, TOKEN)
    wrong = {
        "none": {},
        "bearer": {"HTTP_AUTHORIZATION": "Bearer wrong"},
        "basic": {"HTTP_AUTHORIZATION": f"Basic {TOKEN}"},
        "cookie": {"HTTP_COOKIE": "nas-token-8765=wrong"},
        "other cookie": {"HTTP_COOKIE": f"nas-token-1={TOKEN}"},
        "broken cookie": {"HTTP_COOKIE": "=;;=\x00"},
    }
    for environ in wrong.values():
        answer = ask(app, path, **environ)
        assert answer.status == 401
        assert b"small" not in answer.body
    assert ask(app, f"{path}?token=wrong").status == 401
    assert ask(app, f"{path}?token=%C3%A4").status == 401
    good = ask(app, path, HTTP_AUTHORIZATION=f"Bearer {TOKEN}")
    assert good.status == (404 if path == "/nas/assets/x" else 200)


def test_the_first_visit_trades_the_token_for_a_cookie(studies: Path) -> None:
    """The token leaves the address, and the cookie is for this server alone."""
    app = guarded(studies, TOKEN)
    first = ask(app, f"/?a=1&token={TOKEN}")
    assert (first.status, first.headers["location"]) == (303, "/?a=1")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    kept = cookie.partition(";")[0]
    assert ask(app, "/nas/studies", HTTP_COOKIE=kept).status == 200
    # No header can be slipped in, and no other host be led to.
    led = ask(app, f"//evil.example/\r\nX: y?token={TOKEN}").headers["location"]
    assert led == "/evil.example/%0D%0AX%3A%20y"


@pytest.mark.parametrize(
    "name",
    ["..", ".", "../small", "small/..", "%2e%2e", "no-such", "", "/etc", "small\x00"],
)
def test_no_name_leads_out_of_the_folder(studies: Path, name: str) -> None:
    """A study is known only by a name that the folder itself lists."""
    inner = studies / "small"
    answer = ask(guarded(inner.parent), f"/nas/studies/{name}/changes")
    assert answer.status == 404
    with pytest.raises(StudyError, match="no study"):
        Catalogue(studies).live(name)


def test_every_answer_forbids_what_a_page_could_be_used_for(studies: Path) -> None:
    """No framing, no guessing of types, no reading from other origins."""
    app = guarded(studies)
    for path in ("/", "/nas/studies", "/nas/none", "/api/studies", "/dashboard"):
        headers = ask(app, path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_only_what_changed_is_sent(tmp_path: Path) -> None:
    """After a first look at all, an update holds the new and changed trials alone."""
    with create(tmp_path / "small", make_settings()) as study:
        for _ in range(3):
            train_made_up(study, study.ask())
        running = study.ask()
        assert running is not None
        live = opened(study.folder)
        first = live.changes(0)
        assert first["rows"]["trial"] == [0, 1, 2, 3]
        assert first["counts"] == [3, 0, 1, 0]
        assert first["fronts"]["num_params"] == [
            c.trial for c in front(study.candidates())
        ]
        study.record(running.trial, report_of(0, 0.25))
        study.tell(running.trial, "pruned", "after 1 epoch")
        train_made_up(study, study.ask())
        time.sleep(0.6)  # what was read just now is new enough for half a second
        second = live.changes(first["version"])
    assert second["rows"]["trial"] == [3, 4]
    assert [STATES[i] for i in second["rows"]["state"]] == ["pruned", "complete"]
    assert second["rows"]["val_accuracy"][0] == 0.25
    assert live.changes(second["version"])["rows"]["trial"] == []
    # A page older than the server gets everything.
    assert len(live.changes(10**6)["rows"]["trial"]) == 5


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.floats(0, 1),
            st.sampled_from(["complete", "complete", "pruned", "running"]),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_the_fronts_are_those_of_the_study(
    example: Candidate, some: list[tuple[int, float, str, bool]]
) -> None:
    """Against parameters it is the front that all of nas means."""
    candidates = [
        replace(make_candidate(example, i, *values), fully_trained=fully)
        for i, (*values, fully) in enumerate(some)
    ]
    rows = {c.trial: row(c, find_board("esp32")) for c in candidates}
    found = fronts(candidates, rows)
    assert found["num_params"] == [c.trial for c in front(candidates)]


def test_a_resting_study_is_not_read_again(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the journal is as it was, an open page costs one look at its size."""
    live = opened(studies / "small")
    version = live.changes(0)["version"]
    reads: list[int] = []
    monkeypatch.setattr(type(live._study), "refresh", lambda _: reads.append(1))
    for _ in range(3):
        live._read_at = 1.0
        assert live.changes(version)["rows"]["trial"] == []
    assert reads == []


def test_waiting_says_what_is_to_come(tmp_path: Path) -> None:
    """Before the first trial has ended the page tells what it waits for, and how long."""
    with create(tmp_path / "small", make_settings()) as study:
        live = opened(study.folder)
        assert "nas search --study small" in live.changes(0)["waiting"]
        candidate = study.ask()
        assert candidate is not None
        live._read_at = 0.0
        assert "1 candidate is in training" in live.changes(0)["waiting"]
        study.record(0, report_of(0, 0.5, epochs=1.0))  # 0.1 s for one of 4 epochs
        live._read_at = 0.0
        assert "expected in about 1 s" in live.changes(0)["waiting"]
        study.tell(0, "complete")
        live._read_at = 0.0
        assert live.changes(0)["waiting"] is None


def test_a_study_that_goes_away_is_told(tmp_path: Path) -> None:
    """Removed while its page is open it gives one clear line, not a broken server."""
    big_study(tmp_path / "small", 2)
    app = guarded(tmp_path)
    for _ in range(100):
        if ask(app, "/nas/studies/small/changes").status == 200:
            break
        time.sleep(0.1)
    (tmp_path / "small" / "journal.log").unlink()
    time.sleep(0.6)
    answer = ask(app, "/nas/studies/small/changes")
    assert answer.status == 404
    assert "is gone" in answer.json()["error"]


def test_details_tell_how_long_a_promoted_candidate_was_trained(tmp_path: Path) -> None:
    """Not the short training that it began with, whose accuracy is not the one shown."""
    with create(tmp_path / "small", make_settings(fidelities=(4, 12))) as study:
        train_made_up(study, study.ask())
        for seed_number in range(2):
            curve = (report_of(0, 0.8, 12.0),)
            study.add_training(
                Training(trial=0, epochs=12, seed_number=seed_number, curve=curve)
            )
    found = opened(tmp_path / "small").details(0)
    assert found["ended"] == "12 epochs, mean of 2 trainings, after 4 of screening"


def test_details_tell_the_layers_the_curve_and_the_commands(studies: Path) -> None:
    """The numbers of the panel are those of the cost model and of the study."""
    live = opened(studies / "small")
    candidate = read_study(studies / "small").candidate(7)
    found = live.details(7)
    rows = [row for block in found["blocks"] for row in block["layers"]]
    expected = layers(candidate.architecture)
    assert [(row[0], tuple(row[2]), row[3]) for row in rows] == [
        (layer.description, layer.output_shape, layer.num_params) for layer in expected
    ]
    assert [report[1] for report in found["curve"]] == pytest.approx(
        [report.val_accuracy for report in candidate.curve], abs=1e-6
    )
    assert found["ended"] == "rung 3 of 3, after 3 of 4 epochs"
    commands = [line for _, line in found["commands"]]
    assert any(line.startswith("nas train small:7 --seeds") for line in commands)
    assert any(line.endswith("--start-from small:7") for line in commands)
    with pytest.raises(StudyError, match="no trial 999"):
        live.details(999)


def test_the_picture_of_a_layer_shows_its_kernel() -> None:
    """Of parallel kernels the largest; poolings and linear layers have none."""
    net = net_of(
        Block(kind="inception", out_channels=6, kernel_size=5),
        Block(out_channels=8, groups=2, kernel_width=1, dilation=2, pool="max"),
        Block(kind="mobilenet", out_channels=4),
    )
    assert [kernel_of(layer) for layer in layers(net)] == [
        {"height": 5, "width": 5, "dilation": 1, "groups": 1},
        {"height": 3, "width": 1, "dilation": 2, "groups": 2},
        None,
        {"height": 3, "width": 3, "dilation": 1, "groups": 8},
        {"height": 1, "width": 1, "dilation": 1, "groups": 1},
        None,
        None,
    ]


def test_peers_are_those_nearest_in_size(studies: Path) -> None:
    """The curves behind a candidate's own are of the twelve most alike in size."""
    all_of_them = read_study(studies / "small").candidates()
    for trial in (0, 11, 29):
        mine = all_of_them[trial].num_params

        def distance(size: int, mine: int = mine) -> float:
            return round(abs(math.log(size / mine)), 9)

        others = [c for c in all_of_them if c.trial != trial]
        nearest = sorted(distance(c.num_params) for c in others)[:12]
        peers = opened(studies / "small").details(trial)["peers"]
        assert sorted(distance(p["num_params"]) for p in peers) == nearest


def make_candidate(
    like: Candidate, trial: int, size: int, accuracy: float, state: Any
) -> Candidate:
    """Return a candidate of that size and accuracy; the rest is of another one."""
    return replace(
        like, trial=trial, num_params=size, val_accuracy=accuracy, state=state
    )


@pytest.fixture(scope="module")
def example(studies: Path) -> Candidate:
    """Return some candidate."""
    return read_study(studies / "small").candidate(0)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 60),
            st.floats(0, 1),
            st.sampled_from(["complete", "complete", "pruned"]),
        ),
        max_size=25,
    )
)
def test_the_growing_hypervolume_is_that_of_all_so_far(
    example: Candidate, rows: list[tuple[int, float, str]]
) -> None:
    """The quick way agrees with computing the area anew after every trial."""
    candidates = [make_candidate(example, i, *row) for i, row in enumerate(rows)]
    bound = (50.0, 0.1)
    found = dict(hypervolumes(candidates, bound))
    area = 0.0
    for count in range(1, len(candidates) + 1):
        complete = [c for c in candidates[:count] if c.state == "complete"]
        points = [(c.num_params, c.val_accuracy or 0.0) for c in complete]
        expected = hypervolume(points, bound)
        area = found.get(count, area)
        assert area == pytest.approx(expected)
    assert not candidates or len(candidates) in found


def test_pauses_of_the_search_are_no_time(example: Candidate) -> None:
    """Two trainings at once count once, and a night between two searches not at all."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    ten = replace(report_of(2, 0.5), seconds=10.0)
    made = [replace(example, trial=i, curve=(ten,)) for i in range(3)]
    ends = [10.0, 15.0, 40_000.0]
    times = [(begin, begin + timedelta(seconds=end)) for end in ends]
    assert active_seconds(moments(made, times, make_settings())) == [10.0, 15.0, 25.0]


def test_a_promoted_net_counts_from_the_end_of_its_full_training(
    example: Candidate,
) -> None:
    """With that training's accuracy; another seed may lower it again."""
    settings = make_settings(fidelities=(4, 12))
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    start = begin.timestamp()
    made = replace(make_candidate(example, 0, 20, 0.5, "complete"), curve=())
    report = replace(report_of(0, 0.5, 4.0), seconds=10.0)
    made = replace(made, curve=(report,), fully_trained=False)
    for seed_number, (accuracy, ended) in enumerate([(0.9, 100.0), (0.7, 200.0)]):
        training = Training(
            trial=0,
            epochs=12,
            seed_number=seed_number,
            curve=(replace(report_of(0, accuracy, 12.0), seconds=30.0),),
            ended=start + ended,
        )
        made = with_training(made, training, 12)
    times = [(begin, begin + timedelta(seconds=10))]
    bound = (50.0, 0.1)
    found = progress([made], times, settings, bound)["hypervolume"]
    areas = [hypervolume([(20.0, accuracy)], bound) for accuracy in (0.9, 0.8)]
    assert found == [
        [16.0, round(40 / 60, 3), round(areas[0], 6)],
        [28.0, round(70 / 60, 3), round(areas[1], 6)],
    ]
    # A study that did not note the ends: all at the end of the first training.
    untimed = tuple(replace(t, ended=None) for t in made.trainings)
    older = [replace(made, trainings=untimed)]
    found = progress(older, times, settings, bound)["hypervolume"]
    assert [row[0] for row in found] == [28.0]


def test_progress_counts_what_pruning_saved(tmp_path: Path) -> None:
    """Two full trainings of four epochs and one pruned after one: 9 of 12 epochs."""
    with create(tmp_path / "small", make_settings()) as study:
        for trial in range(2):
            study.ask()
            for rung, epochs in enumerate((1.0, 2.0, 4.0)):
                study.record(trial, report_of(rung, 0.5 + 0.1 * rung, epochs))
            study.tell(trial, "complete")
        study.ask()
        study.record(2, report_of(0, 0.2, 1.0))
        study.tell(2, "pruned", "weak")
    live = opened(tmp_path / "small")
    settings, candidates, times = live.snapshot()
    found = progress(candidates, times, settings, reference_point([settings]))
    assert found["epochs"] == {
        "trained": 9.0,
        "without_pruning": 12.0,
        "promoted": 0,
    }
    assert found["finished"] == 3
    assert sum(found["sizes"]["counts"]) == 3
    assert found["reference_point"] == (2001.0, 0.1)
    assert live.progress()["timing"] == {}


def test_timing_is_shown_in_shares(tmp_path: Path) -> None:
    """Training is a share of the workers' time, the rest of the coordinator's."""
    big_study(tmp_path / "small", 2)
    seconds = {"sampling": 1, "storage": 2, "reporting": 3, "training": 30, "total": 20}
    runs = [{"workers": 2, "seconds": seconds}, {"workers": 2, "seconds": seconds}]
    (tmp_path / "small" / "timing.json").write_text(json.dumps(runs))
    found = opened(tmp_path / "small").progress()["timing"]
    assert found == {
        "training": 0.75,
        "sampling": 0.05,
        "storage": 0.1,
        "reporting": 0.15,
    }
    (tmp_path / "small" / "timing.json").write_text("[{")
    assert opened(tmp_path / "small").progress()["timing"] == {}


def test_importances_find_what_decides(tmp_path: Path) -> None:
    """Where the number of blocks alone decides the accuracy, it comes out on top."""
    with create(tmp_path / "small", make_settings()) as study:
        for trial in range(60):
            candidate = study.ask()
            assert candidate is not None
            depth = len(candidate.architecture.blocks)
            finish(study, trial, [0.5 + 0.04 * depth] * 3)
    live = opened(tmp_path / "small")
    found = live.importances()
    assert found[0][0] == "depth"
    assert sum(share for _, share in found) == pytest.approx(1)
    # And by the same function directly, with the losses turned around.
    losses = losses_at_size(live.snapshot().candidates)
    assert len(losses) == 60
    study = read_study(tmp_path / "small")
    turned = importances(study, {trial: -loss for trial, loss in losses.items()})
    assert set(turned) == {name for name, _ in found}


def test_losses_take_out_what_the_size_explains(example: Candidate) -> None:
    """Nets of one size differ by their loss; sizes among themselves do not."""
    rows = itertools.product(range(3), (100, 1000))
    candidates = [
        make_candidate(example, i, size + i, 0.5 if size == 100 else 0.9, "complete")
        for i, (_, size) in enumerate(rows)
    ]
    many = [
        make_candidate(example, 100 * k + c.trial, c.num_params, acc, "complete")
        for k in range(1, 30)
        for c in candidates
        if (acc := c.val_accuracy) is not None
    ]
    losses = losses_at_size(many)
    small = [losses[c.trial] for c in many if c.num_params < 110]
    assert small[:20] == [0.0] * 20


def test_two_studies_have_two_numbers_in_optunas_page(studies: Path) -> None:
    """Both are study 0 in their own journals, and yet each shows its own trials."""
    app = guarded(studies)
    found = ask(app, "/api/studies").json()["study_summaries"]
    assert {(s["study_id"], s["study_name"]) for s in found} == {
        (0, "small"),
        (1, "tiny"),
    }
    numbers = {s["name"]: s["optuna"] for s in ask(app, "/nas/studies").json()}
    assert numbers == {"small": 0, "tiny": 1}
    for number, trials in ((0, 30), (1, 4)):
        detail = ask(app, f"/api/studies/{number}").json()
        assert len(detail["trials"]) == trials
    assert ask(app, "/api/studies/2").status == 404
    assert ask(app, "/csv/1").body.count(b"COMPLETE") == 4


def test_an_unreadable_study_does_not_hide_the_others(tmp_path: Path) -> None:
    """It is named with what is wrong, in the comparison and on its own page."""
    big_study(tmp_path / "good", 2)
    big_study(tmp_path / "bad", 2)
    (tmp_path / "bad" / "study.toml").write_text("name = ")
    app = guarded(tmp_path)
    found = ask(app, "/nas/compare").json()
    assert [row["name"] for row in found["studies"]] == ["good"]
    assert "study.toml is damaged" in found["faults"][0]
    assert "is damaged" in ask(app, "/nas/studies/bad/changes").json()["error"]
    assert [
        s["study_name"] for s in ask(app, "/api/studies").json()["study_summaries"]
    ] == ["good"]


def test_a_random_study_is_the_baseline(tmp_path: Path) -> None:
    """It is found by its sampler, data and cap, and measured with the same bound."""
    big_study(tmp_path / "random", 5)
    with create(
        tmp_path / "own", make_settings(name="own", sampler="evolution")
    ) as study:
        train_made_up(study, study.ask())
    catalogue = Catalogue(tmp_path)
    found = catalogue.baseline("own")
    assert found is not None
    assert found["name"] == "random"
    assert found["hypervolume"][-1][0] == 5 * 3  # epochs
    assert catalogue.baseline("random") is None


def test_the_winner_is_a_marker(tmp_path: Path) -> None:
    """best/ and any other give a marker; a damaged or foreign report gives none."""
    digits = make_settings(dataset="digits")
    assert markers(tmp_path, digits) == []
    path = tmp_path / "best" / "report.json"
    path.parent.mkdir()
    numbers = {"trial": 3, "num_params": 9, "macs": 8, "peak_memory": 7, "seeds": 2}
    accuracies = {"test_accuracy_mean": 0.99, "test_accuracy_std": 0.01}
    path.write_text(json.dumps(numbers | accuracies))
    (found,) = markers(tmp_path, digits)
    assert (found["test_accuracy"], found["spread"], found["seeds"]) == (0.99, 0.01, 2)
    smaller = tmp_path / "best-5000" / "report.json"
    smaller.parent.mkdir()
    smaller.write_text(json.dumps(numbers | accuracies | {"trial": 5}))
    assert [net["name"] for net in markers(tmp_path, digits)] == [
        "retrained winner (trial 3)",
        "retrained winner in best-5000/ (trial 5)",
    ]
    for text in ("{", "[]", "{}", '{"trial": "x"}'):
        path.write_text(text)
        assert [net["trial"] for net in markers(tmp_path, digits)] == [5]


def test_references_are_markers(tmp_path: Path) -> None:
    """Those on the study's data set that are not far over its budget."""
    found = markers(tmp_path, make_settings(dataset="mnist", param_budget=5_000))
    assert {net["kind"] for net in found} == {"reference"}
    sizes = {net["name"]: net["num_params"] for net in found}
    assert sizes["public-9994"] == 9_994
    assert max(sizes.values()) <= 10_000
    (s2b,) = [net for net in found if net["name"] == "s2b"]
    assert s2b["test_accuracy"] == 0.9842
    assert s2b["what"] == "published, best epoch on the test set"


def test_many_threads_may_ask_at_once(studies: Path) -> None:
    """Ten threads see the same study whole."""
    app = guarded(studies)
    answers: list[Any] = []

    def look() -> None:
        while (answer := ask(app, "/nas/studies/small/changes")).status == 202:
            time.sleep(0.05)
        answers.append(len(answer.json()["rows"]["trial"]))

    threads = [threading.Thread(target=look) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [30] * 10


def test_no_text_ends_the_script_element() -> None:
    """A name with markup stays within its JSON."""
    evil = "</script><img src=x onerror=alert(1)>"
    text = script_json({"name": evil})
    assert "<" not in text
    assert json.loads(text) == {"name": evil}


def test_the_report_names_no_other_host(studies: Path) -> None:
    """Its own policy forbids every request, and its markup makes none."""
    page = report_html(Catalogue(studies, None, "small"), "small")
    head = page.partition("</head>")[0]
    assert "default-src &#x27;none&#x27;" in head
    markup = page.partition('<script type="text/plain"')[0]
    assert "http://" not in markup
    assert "https://" not in markup
    assert ' src="' not in page


def test_commands_refuse_what_cannot_be(tmp_path: Path, invoke: Invoke) -> None:
    """One line each: no such study, a taken port, a bad token, an unwritable file."""
    big_study(tmp_path / "studies" / "small", 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        attempts = {
            "no study 'none'": ["dashboard", "none"],
            "cannot be named '../small'": ["dashboard", "../small"],
            "another port with --port": ["dashboard", "--port", port],
            "8 to 200 letters": ["dashboard", "--token", "a;b c", "--port", 0],
            "no study 'other'": ["report", "other"],
            "paths? that leads through|folder": [
                "report",
                "--output",
                "studies/small/study.toml/x.html",
            ],
        }
        for expected, arguments in attempts.items():
            done = invoke(*arguments)
            assert done.code == 1, done.err
            line = one_line(done.err)
            assert any(part in line for part in expected.split("|")), line


def test_another_address_gets_a_made_up_token(tmp_path: Path) -> None:
    """The address that `nas dashboard` prints holds a token nobody can guess."""
    process = subprocess.Popen(
        command("dashboard", "--host", "0.0.0.0", "--port", 0),  # noqa: S104
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        token = line.partition("?token=")[2].split()[0]
        assert len(token) >= 20
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_the_dashboard_takes_no_lock(tmp_path: Path) -> None:
    """A search can begin while a study is open in the dashboard."""
    big_study(tmp_path / "small", 2)
    live = opened(tmp_path / "small")
    before = os.stat(tmp_path / "small" / ".lock").st_mtime_ns  # noqa: PTH116
    assert len(live.changes(0)["rows"]["trial"]) == 2
    assert os.stat(tmp_path / "small" / ".lock").st_mtime_ns == before  # noqa: PTH116
    with open_study(tmp_path / "small") as study:
        train_made_up(study, study.ask())
    time.sleep(0.6)
    assert len(live.changes(0)["rows"]["trial"]) == 3


def test_a_database_serves_as_well(tmp_path: Path) -> None:
    """A study in a database behind --storage is shown and followed, too."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    folder = tmp_path / "studies" / "small"
    with create(folder, make_settings(), url) as study:
        train_made_up(study, study.ask())
        live = LiveStudy(folder, url)
        assert live.ready(60)
        first = live.changes(0)
        train_made_up(study, study.ask())
        time.sleep(0.6)
        assert live.changes(first["version"])["rows"]["trial"] == [1]
    without = LiveStudy(folder, None)
    assert without.ready(60)
    with pytest.raises(NasError, match="--storage"):
        without.changes(0)
