"""A study in a real PostgreSQL: one coordinator, outages, passwords nobody sees."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
from cli_runner import Invoke
from databases import PASSWORD, PLAIN_PASSWORD, Server, running_server
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError
from studying import (
    command,
    environment,
    finish,
    finished,
    make_settings,
    one_line,
    report_of,
    run_python,
    searching,
    train_made_up,
)

from nas.candidates.candidate import Candidate
from nas.credentials import redact
from nas.errors import StudyError
from nas.study.folders import create, open_study, read_study
from nas.study.storages import open_storage
from nas.study.study import Study

SEARCH: list[object] = [
    *("--dataset", "digits", "--budget", "1000", "--epochs", "1"),
    *("--sampler", "random", "--device", "cpu", "--workers", 1),
]
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all tests; each has a database of its own and leaves it running."""
    with running_server() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    """Return the address of an empty database."""
    return server.database(f"test{next(_NUMBERS)}")


def elsewhere(study: Study, folder: Path) -> Path:
    """Return a copy of the study's folder, as another machine would have it."""
    copy = folder / "elsewhere" / study.folder.name
    copy.mkdir(parents=True)
    shutil.copy(study.folder / "study.toml", copy)
    return copy


@contextlib.contextmanager
def back_after(seconds: float, server: Server) -> Iterator[None]:
    """Start the server some time after the block has begun."""
    timer = threading.Timer(seconds, server.start)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_study_lives_in_the_database(url: str, tmp_path: Path) -> None:
    """Written by one, read by another, gone on with; nothing but settings on disk."""
    with create(tmp_path / "small", make_settings(), url) as study:
        train_made_up(study, study.ask())
        train_made_up(study, study.ask())
        known = study.candidates()
        assert read_study(study.folder, url).candidates() == known
    assert not (tmp_path / "small" / "journal.log").exists()
    with open_study(tmp_path / "small", url) as study:
        assert study.candidates() == known
        train_made_up(study, study.ask())
        assert [c.trial for c in study.candidates()] == [0, 1, 2]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg2"])
def test_other_ways_to_write_the_address(scheme: str, url: str, tmp_path: Path) -> None:
    """The one driver that nas brings serves them all."""
    address = url.replace("postgresql", scheme, 1)
    with create(tmp_path / "small", make_settings(), address) as study:
        assert study.ask() is not None


def test_a_second_coordinator_is_refused_while_the_first_lives(
    url: str, tmp_path: Path
) -> None:
    """From another folder, where no lock of the file system helps; it names the owner."""
    with create(tmp_path / "small", make_settings(), url) as study:
        copy = elsewhere(study, tmp_path)
        with pytest.raises(StudyError, match=f"searched by process {os.getpid()} on "):
            open_study(copy, url)
        with create(tmp_path / "other", make_settings(name="other"), url) as other:
            assert other.ask() is not None
    with open_study(copy, url) as study:
        assert study.candidates() == []


_HOLD = """
import sys, time
from pathlib import Path
from nas.study.folders import open_study
study = open_study(Path(sys.argv[1]), sys.argv[2])
print("open", flush=True)
time.sleep(600)
"""


def test_the_lock_is_freed_when_its_owner_is_killed(url: str, tmp_path: Path) -> None:
    """At once after kill -9."""
    with create(tmp_path / "small", make_settings(), url) as study:
        copy = elsewhere(study, tmp_path)
    holder = subprocess.Popen(
        [*command()[:1], "-c", _HOLD, tmp_path / "small", url],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StudyError, match=f"searched by process {holder.pid} on "):
            open_study(copy, url)
        holder.kill()
    deadline = time.monotonic() + 10
    while True:
        try:
            open_study(copy, url).close()
            break
        except StudyError:
            assert time.monotonic() < deadline, "the lock outlives its owner"
            time.sleep(0.1)


def _ask(study: Study) -> None:
    assert study.ask() is not None


def _record(study: Study) -> None:
    study.record(0, report_of(1, 0.6))


def _tell(study: Study) -> None:
    study.tell(0, "complete")


@pytest.mark.parametrize("write", [_ask, _record, _tell])
@pytest.mark.parametrize("end", ["stop", pytest.param("kill", marks=pytest.mark.slow)])
def test_an_outage_is_waited_out(
    end: str,
    write: Callable[[Study], None],
    server: Server,
    url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stopped or killed -9, started again: the write comes through, and once."""
    with create(tmp_path / "small", make_settings(), url) as study:
        study.ask()
        study.record(0, report_of(0, 0.5))
        getattr(server, end)()
        with back_after(0.5, server), caplog.at_level(logging.WARNING, "nas"):
            write(study)
        assert read_study(study.folder, url).candidates() == study.candidates()
        away, back = (record.getMessage() for record in caplog.records)
        assert "is away (" in away
        assert "is back after" in back
        assert PLAIN_PASSWORD not in caplog.text
        # The lock came back with the connection.
        with pytest.raises(StudyError, match="is being searched by"):
            open_study(elsewhere(study, tmp_path), url)


def test_the_timeout_ends_with_one_line(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that stays away ends the search; what was written is there after."""
    monkeypatch.setenv("NAS_STORAGE_TIMEOUT", "1")
    with create(tmp_path / "small", make_settings(), url) as study:
        train_made_up(study, study.ask())
        known = study.candidates()
        server.stop()
        try:
            began = time.monotonic()
            with pytest.raises(StudyError, match="has been away for 1 s") as caught:
                study.ask()
            assert time.monotonic() - began < 15
        finally:
            server.start()
    assert "nothing that was written is lost" in str(caught.value)
    assert caught.value.__cause__ is None
    with open_study(tmp_path / "small", url) as study:
        assert study.candidates() == known


def _lose_the_answer(
    monkeypatch: pytest.MonkeyPatch, method: str, server: Server
) -> None:
    """Cut the connection once, after the write was committed and before it is known."""
    write = getattr(RDBStorage, method)
    lost = []

    def lossy(self: RDBStorage, *arguments: Any) -> Any:
        result = write(self, *arguments)
        if not lost:
            lost.append(True)
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name LIKE 'nas process%'"
                )
            raise OperationalError("COMMIT", {}, psycopg.OperationalError("lost"))
        return result

    monkeypatch.setattr(RDBStorage, method, lossy)


def test_a_write_whose_answer_is_lost_is_not_done_twice(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a trial added twice, nor is the end of one an error."""
    with create(tmp_path / "small", make_settings(), url) as study:
        with monkeypatch.context() as patch:
            _lose_the_answer(patch, "create_new_trial", server)
            train_made_up(study, study.ask())
        candidate = study.ask()
        assert candidate is not None
        study.record(1, report_of(0, 0.5))
        with monkeypatch.context() as patch:
            _lose_the_answer(patch, "set_trial_state_values", server)
            study.tell(1, "complete")
        train_made_up(study, study.ask())
        known = study.candidates()
    assert [c.trial for c in known] == [0, 1, 2]
    assert read_study(tmp_path / "small", url).candidates() == known


def test_a_trial_of_another_program_is_not_taken_for_one_that_was_written(
    server: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage the trial is looked for by what is in it, not by its number."""
    with create(tmp_path / "small", make_settings(), url) as study:
        train_made_up(study, study.ask())
        foreign = RDBStorage(url.replace("postgresql", "postgresql+psycopg", 1))
        optuna.load_study(study_name="small", storage=foreign).ask()
        foreign.remove_session()
        foreign.engine.dispose()
        with monkeypatch.context() as patch:
            _lose_the_answer(patch, "create_new_trial", server)
            train_made_up(study, study.ask())
        known = study.candidates()
    assert [c.trial for c in known] == [0, 2]
    assert read_study(tmp_path / "small", url).candidates() == known


def test_whoever_lost_the_lock_writes_no_more(
    server: Server, url: str, tmp_path: Path
) -> None:
    """If another takes the study over after our connection was cut, we are refused."""
    with create(tmp_path / "small", make_settings(), url) as study:
        study.ask()
        copy = elsewhere(study, tmp_path)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'nas process%'"
            )
        time.sleep(0.5)
        with open_study(copy, url) as other:
            with pytest.raises(StudyError, match="is being searched by"):
                study.record(0, report_of(0, 0.5))
            finish(other, 0, [0.7])
        assert read_study(copy, url).candidate(0).val_accuracy == 0.7


def test_a_connection_of_ours_that_the_server_still_holds_is_ended(
    url: str, tmp_path: Path
) -> None:
    """Cut off by the network, we come back sooner than the server notices."""
    with create(tmp_path / "small", make_settings(), url) as study:
        study.ask()
        old = study._storage.engine.pool  # type: ignore[attr-defined]
        study._storage.engine.dispose(close=False)  # type: ignore[attr-defined]
        study.record(0, report_of(0, 0.5))
        old.dispose()
    assert len(read_study(tmp_path / "small", url).candidate(0).curve) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "seconds"), [("stop", 20.0), ("stop", 0.0), ("kill", 1.0)]
)
def test_a_search_outlives_its_database(
    end: str, seconds: float, server: Server, url: str, tmp_path: Path
) -> None:
    """Away for 20 s, restarted, killed -9 in the midst of a search: none lost, none twice."""
    with searching(tmp_path, *SEARCH, "--trials", 14, url=url) as search:
        search.wait_for(3)
        before = finished(search.candidates())
        getattr(server, end)()
        time.sleep(seconds)
        server.start()
        errors = search.finish()
    now = search.candidates()
    assert [c for c in now if c.trial in {b.trial for b in before}] == before
    assert [c.trial for c in now] == list(range(14))
    assert len({c.key for c in now}) == len(finished(now)) == 14
    away, back = errors.splitlines()
    assert "is away (" in away
    assert "is back after" in back
    assert PLAIN_PASSWORD not in errors


@pytest.mark.slow
def test_a_killed_coordinator_goes_on_with_the_same_command(
    url: str, tmp_path: Path
) -> None:
    """Three times kill -9 in the midst of a search in the database."""
    known: list[Candidate] = []
    for round_number in range(3):
        with searching(tmp_path, *SEARCH, "--trials", 100_000, url=url) as search:
            search.wait_for(len(finished(known)) + 2)
            search.process.kill()
        now = search.candidates()
        ended = {c.trial: c for c in known if c.state != "running"}
        assert {c.trial: c for c in now if c.trial in ended} == ended, round_number
        assert len({c.key for c in now}) == len(now)
        known = now
    total = len(finished(known)) + 2
    with searching(tmp_path, *SEARCH, "--trials", total, url=url) as search:
        search.finish()
    now = search.candidates()
    assert len(finished(now)) == total
    assert [c.trial for c in now] == list(range(len(now)))


@pytest.mark.slow
def test_no_file_and_no_output_shows_the_password(
    invoke: Invoke, url: str, tmp_path: Path
) -> None:
    """A whole search, its reports and what reads it; all that they wrote is looked at."""
    storage = ["--storage", url]
    did = [
        invoke("search", *SEARCH, "--trials", 2, *storage),
        invoke("front", *storage),
        invoke("studies", *storage),
        invoke("report", "digits-1000", *storage),
    ]
    assert [done.code for done in did] == [0] * 4, [done.err for done in did]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 4
    texts = [path.read_bytes() for path in written]
    texts += [(done.out + done.err).encode() for done in did]
    for secret in (PASSWORD, PLAIN_PASSWORD, "s3cret"):
        assert not any(secret.encode() in text for text in texts)


def bad_addresses(url: str) -> Iterator[str]:
    """Return addresses with a password that cannot be opened, each for another cause."""
    yield url.replace("s3cret", "wrong-s3cret")
    yield url.replace("127.0.0.1", "no.such.host.invalid")
    yield url.replace("%40", "@")
    yield url.rsplit(":", 1)[0] + ":1/postgres"
    yield url.rsplit(":", 1)[0] + ":port/postgres"
    yield url.replace("postgresql", "postgresqll")
    yield url.rsplit("/", 1)[0] + "/nothing"
    yield url + "?password=other-s3cret&sslmode=none"


def test_an_address_that_does_not_work_is_refused_in_one_line(
    url: str, tmp_path: Path
) -> None:
    """With a cause, and without any part of the password."""
    for address in bad_addresses(url):
        with pytest.raises(StudyError) as caught:
            open_storage(tmp_path, address, study="small", exclusive=True)
        text = str(caught.value)
        assert "--storage" in text
        assert "\n" not in text
        assert "s3cret" not in text
        assert "pass@" not in text
        # A traceback shows what an error came from, too.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_a_bug_is_logged_without_the_password(tmp_path: Path) -> None:
    """Whatever the traceback holds."""
    code = (
        "import sys\n"
        "from nas.cli import main\n"
        "import nas.study.folders\n"
        "def broken(folder, storage=None):\n"
        "    raise RuntimeError(f'a bug with {storage} and password = s3cret-too')\n"
        "nas.study.folders.read_study = broken\n"
        "sys.argv = ['nas', 'front', 'x', '--storage', sys.argv[1]]\n"
        "main()\n"
    )
    address = f"postgresql://nas:{PASSWORD}@host/db"
    done = run_python(code, address, cwd=tmp_path)
    assert done.returncode == 3
    line = one_line(done.stderr)
    log = Path(line.rsplit(" ", 1)[1])
    text = log.read_text()
    log.unlink()
    assert "a bug with postgresql://nas:***@host/db and password = ***" in text
    assert "s3cret" not in text + line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://me:pw@host/db now", "at postgresql://me:***@host/db now"),
        ("x mysql+pymysql://me:p@ss:w/d@h/d", "x mysql+pymysql://me:***@h/d"),
        ("https://host/path has none", "https://host/path has none"),
        ("postgresql://me@host/db has none", "postgresql://me@host/db has none"),
        ("host=h password=pw user=me", "host=h password=*** user=me"),
        ("host=h password='a \\' b' user=me", "host=h password=*** user=me"),
        (
            "postgresql:///db?password=pw&user=me",
            "postgresql:///db?password=***&user=me",
        ),
    ],
)
def test_redact(text: str, shown: str) -> None:
    """Of an address all stays but its password."""
    assert redact(text) == shown


@pytest.mark.slow
def test_without_the_driver_one_line_says_so(tmp_path: Path) -> None:
    """As without the extra nas-under-cap[postgres]."""
    code = (
        "import sys\n"
        "sys.modules['psycopg'] = None\n"
        "from nas.cli import main\n"
        "sys.argv = ['nas', 'search', *sys.argv[1:]]\n"
        "main()\n"
    )
    address = "postgresql://nas:pw@127.0.0.1:1/db"
    done = run_python(code, *SEARCH, "--storage", address, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "pip install 'nas-under-cap[postgres]'" in one_line(done.stderr)


def test_the_settings_tell_only_that_the_trials_are_elsewhere(
    url: str, tmp_path: Path
) -> None:
    """The address is given anew each time; without it the study is not read."""
    with create(tmp_path / "small", make_settings(), url):
        text = (tmp_path / "small" / "study.toml").read_text()
    assert "external_storage = true" in text
    assert "postgres" not in text
    with pytest.raises(StudyError, match="--storage"):
        read_study(tmp_path / "small")
