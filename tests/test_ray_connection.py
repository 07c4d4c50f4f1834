"""Why a Ray cluster cannot be reached: each cause has its own line."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.engines import ray_connection
from nas.errors import EngineError


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """Run a program that is no Ray, which answers and hangs up; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_another_program_on_the_port_is_told(answer: bytes) -> None:
    """Ray itself would wait for minutes."""
    with (
        listening(answer) as address,
        pytest.raises(EngineError, match=f"at {address} another program than Ray"),
    ):
        ray_connection.connect(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            "127.0.0.1:1",
            "cannot reach the Ray cluster at 127.0.0.1:1 .*no process listens",
        ),
        ("no-such-host.invalid:6379", "no machine has the name no-such-host.invalid"),
        ("6379", "'6379' is not HOST:PORT"),
        ("host:ray", "'host:ray' is not HOST:PORT"),
        ("host:70000", "'host:70000' is not HOST:PORT"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(address: str, words: str) -> None:
    """At once, and in one line."""
    with pytest.raises(EngineError, match=words) as caught:
        ray_connection.connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "file", "words"),
    [
        ({}, False, "copy ~/.ray/auth_token of the head node .* RAY_AUTH_MODE=token"),
        ({}, True, "the one in ~/.ray/auth_token only if told to; set RAY_AUTH_MODE"),
        ({"RAY_AUTH_MODE": "token"}, True, "auth_token is not the head node's; copy"),
        ({"RAY_AUTH_TOKEN": "x"}, False, "the one in RAY_AUTH_TOKEN only if told to"),
    ],
)
def test_a_token_that_the_cluster_wants_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    file: bool,
    words: str,
) -> None:
    """Ray does not use one in the home folder for an address unless told to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if file:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray/auth_token").write_text("x")

    def refused(**_: object) -> None:
        # As Ray does: its library says why past Python, the error does not.
        ray_connection.os.write(
            2, b"gcs_client.cc: Unauthenticated: InvalidAuthToken\n"
        )
        raise ConnectionError("Failed to connect")

    monkeypatch.setattr(ray_connection.ray, "init", refused)
    monkeypatch.setattr(ray_connection, "_check_answers", lambda _: None)
    with pytest.raises(EngineError, match=f"head:1 wants a token: .*{words}") as caught:
        ray_connection.connect("head:1")
    assert "\n" not in str(caught.value)


def test_other_causes_keep_ray_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what Ray said reaches the terminal only where it is to be read."""

    def other(**_: object) -> None:
        raise ConnectionError("Failed") from RuntimeError("Version mismatch: 1 and 2")

    monkeypatch.setattr(ray_connection, "_check_answers", lambda _: None)
    monkeypatch.setattr(ray_connection.ray, "init", other)
    with pytest.raises(EngineError, match="another version of Ray or Python"):
        ray_connection.connect("head:1")
    with pytest.raises(EngineError, match="cannot start Ray"):
        ray_connection.connect(None)
