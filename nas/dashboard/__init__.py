"""The live page of a search, and the same page as a single file.

::

    columns.py    candidates as columns of numbers
    details.py    the details of one candidate
    progress.py   hypervolume, speed, epochs saved, sizes
    markers.py    the retrained winners and the references
    optuna_bridge.py times, importances and Optuna's own dashboard; imports optuna
    live.py       one study, kept up to date
    catalogue.py  all studies; their comparison
    assets.py     the page's own files
    guard.py      checks each request's method, host and token
    app.py        the server's answers
    server.py     serve: binds the address and answers
    export.py     write_report: the single file
    static/       markup, style and script
"""

from nas.dashboard.export import write_report
from nas.dashboard.server import serve

__all__ = ["serve", "write_report"]
