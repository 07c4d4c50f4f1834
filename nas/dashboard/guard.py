"""Checks the method, host and token of every request and sets security headers.

Optuna's dashboard does none of this and would delete a study for any web page.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_ASK = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>nas: token</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<h1>nas dashboard</h1>
<form><label>Token, as <code>nas dashboard</code> has printed it:
<input name="token" type="password" autocomplete="off" autofocus></label>
<button>Open</button></form></html>
"""

HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]


class Guard:
    """A WSGI application that only lets authorised read requests through.

    ``host`` is the address that the server is bound to. Requests that name any other
    host are refused, so that no web page can reach the server by its own host name (DNS
    rebinding). If there is a ``token``, every request must have it: as a bearer token,
    as ``?token=``, or as the cookie that a first visit with ``?token=`` sets.
    """

    def __init__(
        self, application: Application, *, host: str, port: int, token: str | None
    ) -> None:
        self._application, self._token = application, token
        # Cookies ignore the port, so two dashboards on one machine need two names.
        self._cookie = f"nas-token-{port}"
        self._names = {"localhost", host.lower()}
        self._any_address = not is_loopback(host)
        if self._any_address:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            own = {name.lower() for name, _ in headers}
            ours = [pair for pair in HEADERS if pair[0].lower() not in own]
            # With this header Optuna's artifacts would be open to every web page.
            kept = [p for p in headers if p[0].lower() != "access-control-allow-origin"]
            return start_response(status, kept + ours, *rest)

        def answer(
            status: str, text: str, *headers: tuple[str, str]
        ) -> Iterable[bytes]:
            kind = "text/html" if text.startswith("<") else "text/plain"
            body = text.encode()
            start(
                status,
                [
                    ("Content-Type", f"{kind}; charset=utf-8"),
                    ("Content-Length", str(len(body))),
                    ("Cache-Control", "no-store"),
                    *headers,
                ],
            )
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

        if not self._is_ours(environ.get("HTTP_HOST", "")):
            return answer("421 Misdirected Request", "this host is not the dashboard's")
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            allow = ("Allow", "GET, HEAD")
            return answer("405 Method Not Allowed", "the dashboard only reads", allow)
        if self._token is None:
            return self._application(environ, start)
        asked = parse_qsl(environ.get("QUERY_STRING", ""))
        given = dict(asked).get("token")
        if given is not None:
            if not self._fits(given):
                return answer("401 Unauthorized", _ASK)
            # Remove the token from the address, which browsers store and people copy.
            query = urlencode([pair for pair in asked if pair[0] != "token"])
            path = quote("/" + environ.get("PATH_INFO", "/").lstrip("/\\"))
            return answer(
                "303 See Other",
                "",
                ("Location", f"{path}?{query}" if query else path),
                (
                    "Set-Cookie",
                    f"{self._cookie}={given}; Path=/; HttpOnly; SameSite=Strict",
                ),
            )
        if not self._has_token(environ):
            return answer("401 Unauthorized", _ASK, ("WWW-Authenticate", "Bearer"))
        return self._application(environ, start)

    def _is_ours(self, header: str) -> bool:
        # Ignore the port, which differs if it is forwarded, for example over ssh.
        name = header.rpartition(":")[0] if _has_port(header) else header
        name = name.strip("[]").lower()
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # DNS rebinding needs a name; a request for an address is safe.
        return self._any_address or address.is_loopback

    def _fits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    def _has_token(self, environ: dict[str, Any]) -> bool:
        scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and self._fits(bearer.strip()):
            return True
        try:
            cookies = SimpleCookie(environ.get("HTTP_COOKIE", ""))
        except CookieError:
            return False
        return self._cookie in cookies and self._fits(cookies[self._cookie].value)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server bound to this host."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_port(header: str) -> bool:
    return ":" in header.rpartition("]")[2]
