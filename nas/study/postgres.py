"""A study in PostgreSQL: one coordinator at a time, which survives server restarts.

The coordinator has a single connection. Whenever it is opened, at the start or after an
outage, it first takes the study's advisory lock; so nothing can be written without the
lock, and the server frees it when the connection ends, however its owner died.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Executable, event, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from nas.errors import StudyError, first_line
from nas.study.optuna_internals import (
    QuickInsertStorage,
    attribute_table,
    id_of_trial,
)

try:
    import psycopg
except ModuleNotFoundError as error:
    raise StudyError(
        "a study in PostgreSQL needs its driver: pip install 'nas-under-cap[postgres]'"
    ) from error

_T = TypeVar("_T")

TIMEOUT = 300.0
"""Seconds for which an outage is waited out; NAS_STORAGE_TIMEOUT gives another."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0

# SQLSTATE classes of an outage: connection, resources, shutdown and start of a server.
_OUTAGES = ("08", "53", "57P")

_logger = logging.getLogger("nas")


class _ConnectionLostError(Exception):
    """The connection was lost during a write that must not simply be repeated."""


class _LockStillHeldError(Exception):
    """The server has not noticed yet that our last connection is dead."""


def open_postgres(url: str, study: str, *, exclusive: bool) -> RDBStorage:
    """Return the storage at the URL, locked for this process if it is to ask.

    Neither Optuna nor SQLAlchemy is told the URL, so no message of theirs can show its
    password. Raises StudyError if another process searches the study, and the driver's
    errors if the database cannot be reached.
    """
    # It would print a traceback for each connection that a restart of the server cut.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    address = _address(url)
    # Makes the tables where they are missing and checks their version, for which it
    # uses two connections at once. None stays open: readers are not always closed.
    storage = RDBStorage(
        "postgresql+psycopg://",
        engine_kwargs={"creator": _Connector(address).connect, "poolclass": NullPool},
    )
    if not exclusive:
        return storage
    return _RetryingStorage(_Connector(address, study))


def _address(url: str) -> URL:
    try:
        address = make_url(url.replace("postgres://", "postgresql://", 1))
    except Exception:  # noqa: BLE001  # its text may hold a part of the password
        address = None
    if address is None or "@" in (address.host or ""):
        # From None: the error behind it may show the URL.
        raise StudyError(
            "the address given with --storage cannot be read: write it as "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for an @ in the "
            "password"
        ) from None
    return address.set(drivername="postgresql+psycopg")


class _Connector:
    """Opens connections, each with the study's lock where one is wanted."""

    def __init__(self, address: URL, study: str | None = None) -> None:
        self.may_connect = True
        self.place = f"{address.host or 'localhost'}/{address.database or ''}"
        self._study = study
        _, given = address.get_dialect()().create_connect_args(address)
        self._options: dict[str, Any] = {
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            **given,
        }
        # Shown to another process that finds the lock taken; 63 characters at most.
        self.name = (
            f"nas process {os.getpid()} on {socket.gethostname()[:24]} "
            f"({secrets.token_hex(4)})"
        )
        self._options["application_name"] = self.name

    def connect(self) -> Any:
        """Return a new connection of psycopg's, which holds the lock."""
        if not self.may_connect:
            raise _ConnectionLostError
        connection = psycopg.connect(**self._options)
        if self._study is None:
            return connection
        try:
            connection.autocommit = True
            self._lock(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    def _lock(self, connection: Any) -> None:
        connection.execute("SET synchronous_commit = off")
        # If this machine loses its power or network, the server notices in a minute.
        for name, value in (("idle", 30), ("interval", 10), ("count", 3)):
            connection.execute(f"SET tcp_keepalives_{name} = {value}")
        key = _lock_key(self._study or "")
        query = "SELECT pg_try_advisory_lock(%s)"
        if connection.execute(query, (key,)).fetchone()[0]:
            return
        holder = connection.execute(
            "SELECT a.pid, a.application_name FROM pg_locks AS l "
            "JOIN pg_stat_activity AS a ON a.pid = l.pid "
            "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
            "AND l.classid = %s AND l.objid = %s AND l.database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())",
            (key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF),
        ).fetchone()
        pid, name = holder or (None, "")
        if name == self.name:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
            raise _LockStillHeldError
        owner = name.removeprefix("nas ").rsplit(" (", 1)[0] if name else "another"
        raise StudyError(
            f"the study {self._study!r} is being searched by {owner}: wait for it or "
            "stop it first"
        )


def _lock_key(study: str) -> int:
    """Return the number of the study's lock in its database, 64 bits with a sign."""
    digest = hashlib.sha256(f"nas study {study}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class _RetryingStorage(QuickInsertStorage):
    """Optuna's storage with one connection; it waits while the database is away.

    What is written again after an outage may have been written before it: the end of
    a connection does not tell. So each write either may be repeated or looks first.
    """

    def __init__(self, connector: _Connector) -> None:
        self._connector = connector
        self._counts: dict[int, int] = {}
        # Written since the last write that waited for the server's disk.
        self._unflushed: list[Executable] = []
        super().__init__(
            "postgresql+psycopg://",
            engine_kwargs={
                "creator": connector.connect,
                "poolclass": QueuePool,
                "pool_size": 1,
                "max_overflow": 0,
            },
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
        # The connection does not wait for the disk; what Optuna writes does.
        event.listen(self.scoped_session, "after_begin", _wait_for_the_disk)

    def get_all_trials(self, study_id: int, *args: Any, **kw: Any) -> list[FrozenTrial]:
        """Return all trials of the study, as Optuna's does."""
        read = super().get_all_trials
        trials = self._retry(lambda _: read(study_id, *args, **kw))
        self._counts[study_id] = len(trials)
        return trials

    def create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> int:
        """Add the trial once, however often the connection is lost over it."""
        create, read = super().create_new_trial, super().get_all_trials
        attributes = {} if template_trial is None else template_trial.user_attrs

        def action(again: bool) -> int:  # noqa: FBT001
            if again:
                # Other programs may have added trials, too.
                for trial in read(study_id, deepcopy=False)[self._counts[study_id] :]:
                    if trial.user_attrs == attributes:
                        return id_of_trial(trial)
            # Optuna would try again by itself, and might so add it twice.
            self._connector.may_connect = False
            try:
                return create(study_id, template_trial)
            finally:
                self._connector.may_connect = True

        trial_id = self._retry(action)
        self._counts[study_id] += 1
        self._unflushed.clear()
        return trial_id

    def get_trial_number_from_id(self, trial_id: int) -> int:
        """Return the trial's number in its study."""
        read = super().get_trial_number_from_id
        return self._retry(lambda _: read(trial_id))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute by one statement, without waiting for the server's disk.

        The next write that waits, such as that of the trial's end, takes it to the disk,
        too. Only a server that crashes before can lose it: then it is written again.
        """
        table = attribute_table()
        new = insert(table).values(
            trial_id=trial_id, key=key, value_json=json.dumps(value)
        )
        statement = new.on_conflict_do_update(
            index_elements=[table.trial_id, table.key],
            set_={"value_json": new.excluded.value_json},
        )
        self._retry(lambda _: self._write([statement]))
        self._unflushed.append(statement)

    def _write(self, statements: Sequence[Executable]) -> None:
        if not statements:
            return
        with self.engine.connect() as connection:
            # Each by itself, in one round trip; none waits for the disk, see __init__.
            each = connection.execution_options(isolation_level="AUTOCOMMIT")
            for statement in statements:
                each.execute(statement)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an attribute of the study; the same again changes nothing."""
        write = super().set_study_user_attr
        self._retry(lambda _: write(study_id, key, value))
        self._unflushed.clear()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Write how a trial ended."""
        write = super().set_trial_state_values

        def action(again: bool) -> bool:  # noqa: FBT001
            try:
                return write(trial_id, state, values)
            except UpdateFinishedTrialError:
                if again:  # so the first attempt was written
                    return True
                raise

        done = self._retry(action)
        self._unflushed.clear()
        return done

    def _retry(self, action: Callable[[bool], _T]) -> _T:
        """Run the function; wait and repeat it while the database is away."""
        timeout = float(os.environ.get("NAS_STORAGE_TIMEOUT") or TIMEOUT)
        pause, began = _FIRST_PAUSE, None
        while True:
            try:
                if began is not None:
                    self._write(self._unflushed)
                result = action(began is not None)
            except Exception as error:
                cause = outage(error)
                if cause is None:
                    raise
                now = time.monotonic()
                if began is None:
                    began = now
                    _logger.warning(
                        "the database at %s is away (%s): trying again for %g s",
                        self._connector.place,
                        cause,
                        timeout,
                    )
                if now - began + pause > timeout:
                    raise StudyError(
                        f"the database at {self._connector.place} has been away for "
                        f"{timeout:g} s ({cause}): nothing that was written is lost; "
                        "run the same command again when it is back"
                    ) from None
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if began is not None:
                    _logger.warning(
                        "the database is back after %.0f s", time.monotonic() - began
                    )
                return result


def _wait_for_the_disk(
    _session: Any, _transaction: Any, connection: Connection
) -> None:
    connection.execute(text("SET LOCAL synchronous_commit = on"))


def outage(error: BaseException) -> str | None:
    """Return the cause of an outage in a few words; None for any other error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _ConnectionLostError):
            return "the connection was lost"
        if isinstance(seen, _LockStillHeldError):
            return "the last connection is still open"
        if isinstance(seen, DBAPIError):
            if seen.connection_invalidated:
                return first_line(seen.orig or seen)
            seen = seen.orig
            continue
        if isinstance(seen, psycopg.OperationalError | psycopg.InterfaceError):
            state = seen.sqlstate
            if state is None or state.startswith(_OUTAGES):
                return first_line(seen)
            return None
        seen = seen.__cause__
    return None
