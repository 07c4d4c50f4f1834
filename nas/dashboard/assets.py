"""The page's own files: markup, style, script, and plotly.js from its package."""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import lru_cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from nas.architecture.kinds import KINDS
from nas.dashboard.columns import BITS
from nas.report import axes
from nas.report.figure import FRONT_COLOUR, GREY, GRID, MARKS
from nas.report.labels import STATES

# In order of dependency; the browser gets them as one script.
_SCRIPTS = (
    "base",
    "plots",
    "pareto",
    "filters",
    "detail",
    "progress",
    "compare",
    "main",
)

# Requests to this server only. Plotly's WebGL plots compile code at run time, hence
# unsafe-eval; its SVG plots style their elements, hence unsafe-inline for styles.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; connect-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'self'"
)


def text_of(name: str) -> str:
    """Return the text of one of the page's files."""
    place = files("nas.dashboard") / "static" / name
    return place.read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def script() -> str:
    """Return the page's script."""
    parts = [text_of(f"{name}.js") for name in _SCRIPTS]
    return '"use strict";\n' + "\n".join(parts)


@lru_cache(maxsize=1)
def assets() -> dict[str, tuple[str, bytes]]:
    """Return content type and gzipped bytes of each asset by its name.

    A name contains the digest of the content, so that browsers may cache it forever.
    """
    contents = {
        "style.css": ("text/css", text_of("style.css")),
        "app.js": ("text/javascript", script()),
        "plotly.js": ("text/javascript", get_plotlyjs()),
    }
    found = {}
    for name, (kind, text) in contents.items():
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()[:12]
        packed = gzip.compress(data, compresslevel=6, mtime=0)
        found[f"{digest}-{name}"] = (kind, packed)
    return found


def page(*, title: str, policy: str, head: str, boot: dict[str, Any], tail: str) -> str:
    """Return the page with its style and scripts given as markup.

    ``boot`` is the script's initial data. ``policy`` is the content security policy.
    """
    return Template(text_of("page.html")).substitute(
        title=escape(title),
        policy=escape(policy),
        head=head,
        boot=script_json(boot | drawing()),
        tail=tail,
    )


def live_page(boot: dict[str, Any]) -> str:
    """Return the server's page, which refers to style and scripts by address."""
    by_name = {name.partition("-")[2]: name for name in assets()}
    return page(
        title="nas dashboard",
        policy=_POLICY,
        head=f'<link rel="stylesheet" href="/nas/assets/{by_name["style.css"]}">',
        boot=boot,
        tail="".join(
            f'<script src="/nas/assets/{by_name[name]}" defer></script>'
            # Our script first: it requests the study while the browser loads plotly.
            for name in ("app.js", "plotly.js")
        ),
    )


def drawing() -> dict[str, Any]:
    """Return the marks, colours and ticks that the static and live plots share."""
    sizes = axes.one_two_five(1, 1e10)
    errors = axes.one_two_five(axes.SMALLEST_ERROR / 10, 0.9)
    return {
        "states": STATES,
        "kinds": BITS,
        "kind_names": [kind.plural for kind in KINDS.values()],
        "marks": {state: mark._asdict() for state, mark in MARKS.items()},
        "colours": {"front": FRONT_COLOUR, "grey": GREY, "grid": GRID},
        "smallest_error": axes.SMALLEST_ERROR,
        "size_ticks": [[size, axes.size_label(size)] for size in sizes],
        "error_ticks": [[error, axes.accuracy_label(error)] for error in errors],
    }


def script_json(data: Any) -> str:
    """Return JSON that is safe in a script element, which no text in it can end."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028")
