// What all plots share: the look, in light and dark.

const OKABE_ITO = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const narrow = () => innerWidth < 640;

function layoutOf(extra = {}) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {family: "system-ui, sans-serif", size: narrow() ? 11 : 13, color: colour("soft")},
    // At the top plotly shows its tools, and below them the label of the cap.
    margin: {l: 8, r: 12, t: 48, b: 8},
    hovermode: "closest", showlegend: false, dragmode: narrow() ? false : "zoom",
    modebar: {bgcolor: "rgba(0,0,0,0)", color: boot.colours.grey, activecolor: colour("ink")},
    hoverlabel: {align: "left", bgcolor: "#23272e", bordercolor: "#23272e",
      font: {color: "#fff", family: "system-ui, sans-serif"}},
    ...extra,
  };
}

function axisOf(title, extra = {}) {
  return {title: {text: title, standoff: 8}, gridcolor: colour("grid"), zeroline: false,
    automargin: true, rangemode: "normal", linecolor: colour("line"), ...extra};
}

function sizeAxis(title, extra = {}) {
  const ticks = narrow() ? boot.size_ticks.filter(([size]) => !/^5/.test(String(size))) : boot.size_ticks;
  return axisOf(title, {type: "log", tickmode: "array",
    tickvals: ticks.map(tick => tick[0]), ticktext: ticks.map(tick => tick[1]), ...extra});
}

const CONFIG = () => ({
  responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"],
});

// Plotly is as large as all else together: the data is asked for while it loads.
const plotly = (async () => {
  while (!window.Plotly) await pause(10);
})();

async function show(place, traces, layout) {
  await plotly;
  await Plotly.react(place, traces, layout, CONFIG());
  await fit(place);
}

// A plot keeps the size that it was first drawn with, also when its place has changed.
async function fit(place) {
  const wide = place.clientWidth;
  if (wide && place._fullLayout && Math.abs(place._fullLayout.width - wide) > 1) await Plotly.Plots.resize(place);
}

// Corners of a step line: each accuracy holds until the next size.
function stairs(points, end) {
  const corners = [];
  for (const [size, height] of points) {
    if (corners.length) corners.push([size, corners.at(-1)[1]]);
    corners.push([size, height]);
  }
  if (corners.length && end > corners.at(-1)[0]) corners.push([end, corners.at(-1)[1]]);
  return corners;
}

const columnsOf = points => ({x: points.map(point => point[0]), y: points.map(point => point[1])});
