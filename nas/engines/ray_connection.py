"""Connects to a Ray cluster and reports the cause if that fails.

Ray itself reports "failed to connect", after a minute or never, for every cause: an
address where another program listens, a missing or wrong token, other versions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from nas.errors import EngineError

try:
    import ray
except ModuleNotFoundError as error:
    raise EngineError(
        "--engine ray needs Ray: pip install 'nas-under-cap[ray]'"
    ) from error

# A head node speaks HTTP/2. This is a client's first message, with no settings; a
# server answers at once with its own settings, in a frame of type 4.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4
_SECONDS_TO_ANSWER = 10.0


def connect(address: str | None) -> None:
    """Connect to a cluster, or start one here; silence Ray, keep our signal handlers.

    Raises EngineError with the cause and the remedy.
    """
    # Ray would send usage statistics to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers without GPUs must not see those of others; this is Ray's new behaviour.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    if address is not None:
        _check_answers(address)
    said = ""

    def hear(text: str) -> None:
        nonlocal said
        said = text

    try:
        with _own_signals(), _heard(hear):
            ray.init(
                # "local" starts a new cluster whatever else runs on this machine.
                address=address or "local",
                configure_logging=True,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                **options,
            )
    except Exception as error:
        if address is None:
            sys.stderr.write(said)
        raise EngineError(_cause(address, error, said)) from error
    sys.stderr.write(said)


def _cause(address: str | None, error: Exception, said: str) -> str:
    """Return in one line why Ray did not connect, and the remedy."""
    behind = error.__cause__ or error
    if address is None:
        return f"cannot start Ray ({last_line(behind)}): look at the messages above"
    text = f"{behind}\n{said}"
    if isinstance(behind, ray.exceptions.AuthenticationError) or "Auth" in said:
        return f"the Ray cluster at {address} wants a token: {_token_remedy()}"
    if "ersion mismatch" in text:
        return (
            f"the Ray cluster at {address} has another version of Ray or Python "
            f"({last_line(behind)}): install the same on all nodes"
        )
    return (
        f"cannot reach the Ray cluster at {address} ({last_line(behind)}): is this "
        "machine a node of that cluster, and the address that of its head node?"
    )


def _token_remedy() -> str:
    """Return the remedy for a token that is missing or that the cluster rejected."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token")
    if os.environ.get("RAY_AUTH_TOKEN"):
        token = "the one in RAY_AUTH_TOKEN"  # noqa: S105 - where it is
    elif file.expanduser().exists():
        token = f"the one in {file}"
    else:
        return (
            f"copy {file} of the head node to this machine and set RAY_AUTH_MODE=token"
        )
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return f"{token} is not the head node's; copy that"
    return f"Ray uses {token} only if told to; set RAY_AUTH_MODE=token"


def _check_answers(address: str) -> None:
    """Raise EngineError if no head node listens; Ray itself would try for minutes.

    "auto" and addresses with a scheme are left to Ray.
    """
    if address == "auto" or "//" in address:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise EngineError(
            f"--address {address!r} is not HOST:PORT: give that of the head node, such as "
            "10.0.0.5:6379"
        )
    try:
        with socket.create_connection(
            (host, int(port)), timeout=_SECONDS_TO_ANSWER
        ) as connection:
            answers = _speaks_http2(connection)
    except socket.gaierror:
        raise EngineError(
            f"cannot reach the Ray cluster at {address}: no machine has the name {host}"
        ) from None
    except TimeoutError:
        raise EngineError(
            f"cannot reach the Ray cluster at {address}: the machine does not answer; is "
            "it up, and the port open to this one?"
        ) from None
    except OSError as error:
        raise EngineError(
            f"cannot reach the Ray cluster at {address} ({error.strerror or error}): "
            "no process listens there; is it the port of `ray start --head` (6379)?"
        ) from None
    if not answers:
        raise EngineError(
            f"at {address} another program than Ray listens: give the port of the head "
            "node, which `ray start --head` tells (not the dashboard's, 8265); where "
            "the port was in use, start it with another --port"
        )


def _speaks_http2(connection: socket.socket) -> bool:
    try:
        connection.sendall(_GREETING)
        head = b""
        while len(head) < 9:
            part = connection.recv(9 - len(head))
            if not part:
                return False
            head += part
    except OSError:  # closed the connection or timed out
        return False
    return head[3] == _SETTINGS


@contextlib.contextmanager
def _heard(hear: Callable[[str], None]) -> Iterator[None]:
    """Capture stderr of Ray's native libraries and pass the text to ``hear``.

    Only these lines say why a cluster refuses; they bypass Python's streams.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        terminal = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            hear(_text(file))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the signal handlers of nas, which Ray replaces when it starts.

    Also block Ctrl-C in Ray's processes, which inherit the blocked signal: the terminal
    sends it to all its processes, but only the coordinator handles it.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with contextlib.suppress(ValueError):  # not in the main thread: Ray set none
            for number, handler in before.items():
                signal.signal(number, handler)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text, or its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
