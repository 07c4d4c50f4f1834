"""The server's answers: the page, its data as JSON, and Optuna's own dashboard."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from typing import Any

from bottle import Bottle, HTTPResponse, request

from nas.dashboard.assets import assets, live_page
from nas.dashboard.catalogue import Catalogue
from nas.dashboard.guard import Application
from nas.dashboard.optuna_bridge import optuna_page
from nas.errors import NasError

# Optuna's page requests these absolute paths, so they cannot be moved below another.
_OPTUNAS = ("/dashboard", "/api", "/static", "/csv", "/favicon.ico")
_READY_TIMEOUT = 0.3
"""Seconds to wait for a study that is being read before reporting it as not ready."""
_WORTH_PACKING = 1000


def application(catalogue: Catalogue) -> Application:
    """Return the whole dashboard as a WSGI application, without the guard."""
    ours, theirs = _our_page(catalogue), optuna_page(catalogue.places)

    def choose(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        first = "/" + environ.get("PATH_INFO", "/").strip("/").partition("/")[0]
        chosen = theirs if first in _OPTUNAS else ours
        answer: Iterable[bytes] = chosen(environ, start_response)
        return answer

    return choose


def _our_page(catalogue: Catalogue) -> Bottle:
    app = Bottle()

    @app.get("/")  # type: ignore[untyped-decorator]
    def page() -> HTTPResponse:
        text = live_page({"mode": "live"})
        return _packed(text.encode(), "text/html; charset=utf-8")

    @app.get("/nas/assets/<name>")  # type: ignore[untyped-decorator]
    def asset(name: str) -> HTTPResponse:
        if name not in assets():
            return _json({"error": "no such file"}, 404)
        kind, packed = assets()[name]
        headers = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Encoding": "gzip",
            "Cache-Control": "private, max-age=31536000, immutable",
        }
        return HTTPResponse(packed, 200, headers)

    @app.get("/nas/studies")  # type: ignore[untyped-decorator]
    def studies() -> HTTPResponse:
        names = catalogue.names()
        return _json([{"name": n, "optuna": catalogue.number(n)} for n in names])

    @app.get("/nas/compare")  # type: ignore[untyped-decorator]
    def compare() -> HTTPResponse:
        return _json(catalogue.compare())

    @app.get("/nas/studies/<name>/<what>")  # type: ignore[untyped-decorator]
    @app.get("/nas/studies/<name>/<what>/<trial:int>")  # type: ignore[untyped-decorator]
    def study(name: str, what: str, trial: int = 0) -> HTTPResponse:
        try:
            live = catalogue.live(name)
            if not live.ready(_READY_TIMEOUT):
                return _json({"reading": name}, 202)
            match what:
                case "changes":
                    return _json(live.changes(_since()))
                case "trials":
                    return _json(live.details(trial))
                case "progress":
                    baseline = catalogue.baseline(name)
                    return _json(live.progress() | {"baseline": baseline})
                case "importances":
                    return _json(live.importances())
        except NasError as error:
            if what == "changes":
                catalogue.forget(name)
            return _json({"error": str(error)}, 404)
        return _json({"error": "no such page"}, 404)

    return app


def _since() -> int:
    text = request.query.get("since", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _json(data: Any, status: int = 200) -> HTTPResponse:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return _packed(text.encode(), "application/json", status)


def _packed(body: bytes, kind: str, status: int = 200) -> HTTPResponse:
    headers = {"Content-Type": kind, "Cache-Control": "no-store"}
    accepted = request.get_header("Accept-Encoding", "")
    if len(body) > _WORTH_PACKING and "gzip" in accepted:
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return HTTPResponse(body, status, headers)
