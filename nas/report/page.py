"""The front as a self-contained page, and as files of a study.

The page contains gzipped plotly.js, which the browser unpacks: 2 MB instead of 5, as it
is rewritten whenever a trial finishes. It shows the static picture until plotly is
unpacked, and if scripts do not run. The content security policy forbids every request,
so that a stray URL in a library cannot reach another host.
"""

from __future__ import annotations

import base64
import gzip
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from nas.architecture.notation import describe
from nas.candidates.candidate import Candidate, front
from nas.files import write_together
from nas.report.figure import front_figure
from nas.report.frames import format_frame, front_frame
from nas.report.labels import STATES, percent
from nas.report.svg import front_svg

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --ink: #23272e; --soft: #565c66; --paper: #fff; --line: #d9dce1;
  --button: #eef0f3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ec; --soft: #a9b0bb; --paper: #15181d; --line: #343a43;
    --button: #262b33; }
}
body {
  margin: 0 auto; max-width: 72rem; padding: 1rem; box-sizing: border-box;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif;
}
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
p { color: var(--soft); margin: .25rem 0 1rem; }
#plot.live { height: min(72vh, 36rem); min-height: 24rem; }
#plot > svg.nas { display: block; width: 100%; height: auto; max-height: 100%; }
#plot .updatemenu-item-rect { fill: var(--button) !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
thead th { border-bottom: 1px solid var(--line); color: var(--soft); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th { font-weight: 600; }
p.note { font-size: .85rem; margin-top: .75rem; max-width: 44rem; }
.text { text-align: left; }
code { font-size: .85em; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$summary</p>
<div id="plot" class="live">
$svg</div>
$table</main>
$scripts</body>
</html>
""")

_SCRIPTS = Template("""\
<script type="application/json" id="figure">$figure</script>
<script type="text/plain" id="plotly">$plotly</script>
<script>
const take = id => document.getElementById(id).textContent;
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).text();
}
async function draw() {
  const script = document.createElement("script");
  script.textContent = await unpack(take("plotly"));
  document.head.append(script);
  const {data, layout} = JSON.parse(take("figure"));
  const plot = document.getElementById("plot");
  const still = plot.firstElementChild;
  const ink = () => getComputedStyle(document.body).getPropertyValue("--soft");
  layout.font.color = ink();
  const narrow = innerWidth < 600;
  if (narrow) layout.font.size = 11;
  still.remove();
  try {
    const unused = ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"];
    const shown = {displaylogo: false,
                   modeBarButtonsToRemove: unused};
    if (narrow) shown.displayModeBar = false;
    await Plotly.newPlot(plot, data, layout, shown);
  } catch (error) {
    plot.replaceChildren(still);
    throw error;
  }
  new ResizeObserver(() => Plotly.Plots.resize(plot)).observe(plot);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.onchange = () => Plotly.relayout(plot, {"font.color": ink()});
}
draw();
</script>
""")


_TABLE = Template("""\
<h2 id="front">The front</h2>
<div class="scroll" role="region" aria-labelledby="front" tabindex="0">
<table>
<thead>$head</thead>
<tbody>
$body
</tbody>
</table>
</div>
<p class="note">In an architecture, 8c3 is a 3x3 convolution to 8 channels, 8s3 a
depthwise one followed by a 1x1 to 8 channels, v valid padding, /2 stride 2, /max and
/avg 2x2 pooling, bias no batch norm; activations are ReLU unless named, and the last
part is the head.</p>
""")


def write_front(
    folder: Path,
    candidates: Sequence[Candidate],
    *,
    title: str,
    param_budget: int | None = None,
    accuracy: str = "validation accuracy",
) -> None:
    """Write front.csv and front.html into the folder, each whole or not at all.

    Takes about 30 ms for 200 candidates and 130 ms for 2,000 on one CPU core, plus
    0.3 s the first time in a process.
    ``title`` names the study and ``accuracy`` the kind of accuracy.
    Raises StudyError if they cannot be written; the old ones are then unchanged.
    """
    page = front_html(
        candidates, title=title, param_budget=param_budget, accuracy=accuracy
    )
    write_together(
        {
            folder / "front.csv": format_frame(front_frame(candidates), "csv"),
            folder / "front.html": page,
        }
    )


def front_html(
    candidates: Sequence[Candidate],
    *,
    title: str,
    param_budget: int | None = None,
    accuracy: str = "validation accuracy",
) -> str:
    """Return the page, of about 2 MB: title, counts, plot and the front as a table."""
    figure = front_figure(candidates, param_budget=param_budget, accuracy=accuracy)
    scripts = _SCRIPTS.substitute(
        # A "</script>" in a text would end the element.
        figure=figure.to_json().replace("<", "\\u003c"),
        plotly=_packed_plotly(),
    )
    return _PAGE.substitute(
        title=escape(title),
        summary=escape(_summary(candidates, accuracy)),
        svg=front_svg(
            candidates, param_budget=param_budget, title=title, accuracy=accuracy
        ),
        table=_table(front(candidates), accuracy),
        scripts=scripts,
    )


@lru_cache(maxsize=1)
def _packed_plotly() -> str:
    return packed(get_plotlyjs())


def packed(text: str) -> str:
    """Return the text gzipped, in base64, as a script element can hold it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _summary(candidates: Sequence[Candidate], accuracy: str) -> str:
    states = Counter(candidate.state for candidate in candidates)
    counts = ", ".join(
        f"{states[state]:,} {state}" for state in STATES if states[state]
    )
    members = front(candidates)
    if not members:
        what = "on the front" if states["complete"] else "fully trained"
        return f"No candidate is {what} yet ({counts or 'none has begun'})."
    best = members[-1]
    return (
        f"{len(members)} of {len(candidates):,} candidates ({counts}) are on the front."
        f" The most accurate: trial {best.trial} with {percent(best.val_accuracy)} "
        f"{accuracy} at {best.num_params:,} parameters."
    )


def _table(members: Sequence[Candidate], accuracy: str) -> str:
    if not members:
        return ""
    head = (
        '<tr><th scope="col">trial</th><th scope="col">parameters</th>'
        f'<th scope="col">{accuracy}</th><th scope="col">MACs</th>'
        '<th scope="col">peak memory, bytes</th>'
        '<th scope="col" class="text">architecture</th>'
        '<th scope="col" class="text">key</th></tr>'
    )
    rows = [
        f'<tr><th scope="row">{c.trial}</th><td>{c.num_params:,}</td>'
        f"<td>{percent(c.val_accuracy)}</td><td>{c.macs:,}</td>"
        f"<td>{c.peak_memory:,}</td>"
        f'<td class="text"><code>{escape(describe(c.architecture))}</code></td>'
        f'<td class="text"><code>{escape(c.key)}</code></td></tr>'
        for c in members
    ]
    body = "\n".join(rows)
    return _TABLE.substitute(head=head, body=body)
