"""The live page of a search, and the same page as one file.

::

    columns.py    candidates as columns of numbers
    details.py    all about one candidate
    progress.py   hypervolume, speed, epochs saved, sizes
    markers.py    the retrained winner, beside the candidates
    optuna_bridge.py times, importances and Optuna's own dashboard; imports optuna
    live.py       one study, followed
    catalogue.py  all studies; their comparison
    assets.py     the page's own files
    guard.py      method, host, token: what stands in front of every request
    app.py        the server's answers
    server.py     serve: binds the address and answers
    export.py     write_report: the single file
    static/       markup, style and script
"""

from nas.dashboard.export import write_report
from nas.dashboard.server import DEFAULT_PORT, serve

__all__ = ["DEFAULT_PORT", "serve", "write_report"]
