"""The page of one study as a single file that needs neither server nor network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from nas.dashboard.assets import page, script, script_json, text_of
from nas.dashboard.catalogue import Catalogue
from nas.dashboard.details import Peers, details
from nas.files import write_atomically
from nas.report.page import packed

# Forbids every request, to any host.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)


def write_report(
    studies: Path, study: str, output: Path, storage: str | None = None
) -> None:
    """Write the study's page as one HTML file, whole or not at all.

    Raises StudyError if the study cannot be read or the file cannot be written.
    """
    catalogue = Catalogue(studies, storage, study)
    write_atomically(output, report_html(catalogue, study))


def report_html(catalogue: Catalogue, study: str) -> str:
    """Return the page with all its data and scripts, gzipped, for any browser.

    It contains every candidate with its layers and curve, about 60 bytes each gzipped.
    """
    data = script_json(_everything(catalogue, study))
    return page(
        title=f"{study}: nas report",
        policy=_POLICY,
        head=f"<style>{text_of('style.css')}</style>",
        boot={"mode": "report"},
        tail=f'<script type="text/plain" id="data">{packed(data)}</script>'
        f'<script type="text/plain" id="plotly">{packed(get_plotlyjs())}</script>'
        f"<script>{script()}</script>",
    )


def _everything(catalogue: Catalogue, study: str) -> dict[str, Any]:
    live = catalogue.live(study)
    settings, candidates, _ = live.snapshot()
    peers = Peers(candidates)
    changes = live.changes(0)
    return {
        "studies": [{"name": study}],
        "changes": changes,
        "details": [details(c, settings, peers.of(c)) for c in candidates],
        "progress": live.progress() | {"baseline": catalogue.baseline(study)},
        "importances": live.importances(),
        "compare": catalogue.compare(),
    }
