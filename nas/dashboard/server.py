"""Binds the address and serves the dashboard until it is interrupted."""

from __future__ import annotations

import re
import secrets
import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

from waitress.server import create_server

from nas.dashboard.app import application
from nas.dashboard.catalogue import Catalogue
from nas.dashboard.guard import Guard, is_loopback
from nas.errors import NasError

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,200}")


def serve(
    studies: Path,
    study: str | None,
    *,
    storage: str | None,
    host: str,
    port: int,
    token: str | None,
    open_browser: bool,
    say: Callable[[str], None],
) -> None:
    """Serve the dashboard of one study, or of all in the folder, until Ctrl-C.

    ``port`` 0 takes any free port. An address that other machines can reach needs a
    token; if none is given, a random one is used. ``say`` is called with the address to
    open.
    Raises NasError if the address cannot be bound, StudyError if the study is missing.
    """
    catalogue = Catalogue(studies, storage, study)
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(16)
    if token is not None and not _TOKEN.fullmatch(token):
        raise NasError(
            "the token needs 8 to 200 letters, digits, '.', '_', '~' and '-': "
            "others do not go into an address"
        )
    bound = _bind(host, port)
    port = bound.getsockname()[1]
    guard = Guard(application(catalogue), host=host, port=port, token=token)
    server = create_server(guard, sockets=[bound], threads=6, ident="nas")
    shown = "localhost" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    if token is not None:
        address += f"?token={token}"
    # Start reading now, so that the study is ready when the page opens.
    for name in catalogue.names()[:1]:
        catalogue.live(name)
    try:
        say(address)
        if open_browser:
            webbrowser.open(address)
        server.run()
    except KeyboardInterrupt:
        # Ctrl-C is the normal way to end, even before the server has started.
        return
    finally:
        server.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise NasError(
            f"cannot serve at {host} port {port} ({error.strerror or error}): give "
            "another port with --port, or 0 for any free one"
        ) from error
    return bound
