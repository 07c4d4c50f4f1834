// The first thing seen: accuracy against size, and the front.

const MANY = 2000;  // beyond, WebGL draws ten times as fast as SVG
const hasWebGL = (() => {
  try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
})();
let seen = null;  // the ranges for this choice of axes: they stay while points come

const errorOf = accuracy => Math.max(1 - accuracy, boot.smallest_error);
const heightOf = accuracy => state.up === "linear" ? accuracy : errorOf(accuracy);

function pointText(trial) {
  const rows = state.rows;
  const blocks = plain(rows.summary[trial]).split(" - ");
  const lines = [""];
  for (const block of blocks) {
    if (lines.at(-1).length + block.length > 52) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) ? " - " : "") + block;
  }
  return `<b>trial ${trial}, ${boot.states[rows.state[trial]]}</b><br>${whole(rows.num_params[trial])} parameters, `
    + `${whole(rows.macs[trial])} MACs<br>${percent(rows.val_accuracy[trial])} after ${rows.epochs[trial]} epochs<br>${lines.join("<br>")}`;
}

function pointsOf(trials, extra) {
  const rows = state.rows;
  return {
    x: trials.map(trial => rows[state.across][trial]),
    y: trials.map(trial => heightOf(rows.val_accuracy[trial] ?? 0)),
    customdata: trials, text: trials.map(pointText), hoverinfo: "text", mode: "markers", ...extra,
  };
}

function tracesOf() {
  const {rows, about} = state;
  const members = about.fronts[state.across];
  const onFront = new Set(members);
  const groups = new Map(boot.states.map(name => [name, []]));
  const blind = [];
  let shown = 0;
  for (let trial = 0; trial < rows.trial.length; trial++) {
    if (!passes(trial)) continue;
    shown++;
    if (onFront.has(trial)) continue;
    if (rows.val_accuracy[trial] !== null) groups.get(boot.states[rows.state[trial]]).push(trial);
    else if (boot.states[rows.state[trial]] === "failed") blind.push(trial);
  }
  byId("filtered").textContent = shown < rows.trial.length ? `(${whole(shown)} of ${whole(rows.trial.length)} shown)` : "";
  // One kind for all: WebGL's points would lie above SVG's.
  const many = rows.trial.length > MANY;
  const kind = many && hasWebGL ? "scattergl" : "scatter";
  const traces = [];
  for (const [name, trials] of groups) {
    const mark = boot.marks[name];
    traces.push(pointsOf(trials, {
      name, type: kind,
      marker: {symbol: mark.symbol, size: many ? 4.5 : 7, opacity: many ? mark.opacity / 2 : mark.opacity,
        color: boot.colours.grey, line: {width: 1.3, color: boot.colours.grey}},
    }));
  }
  const mark = boot.marks.failed;
  traces.push({...pointsOf(blind, {name: "failed, without a report", type: kind, yaxis: "y2",
    marker: {symbol: mark.symbol, size: 7, color: boot.colours.grey, line: {width: 1.3, color: boot.colours.grey}}}),
    y: blind.map(() => 0.015)});
  const cap = capOf();
  const accuracies = members.map(trial => [rows[state.across][trial], heightOf(rows.val_accuracy[trial])]);
  const corners = stairs(accuracies, cap ?? 0);
  traces.push({...columnsOf(corners), name: "front", mode: "lines", type: kind, hoverinfo: "skip",
    line: {color: colour("mark"), width: 2}});
  traces.push(pointsOf(members.filter(passes), {name: "front's members", type: kind,
    marker: {symbol: "circle", size: 10, color: colour("mark"), line: {width: 1.5, color: colour("paper")}}}));
  traces.push(referenceTrace(about.markers.filter(net => net.kind === "reference"), kind));
  for (const net of about.markers) if (net.kind === "winner") traces.push(winnerTrace(net, kind));
  const chosen = state.trial !== null && rows.trial[state.trial] !== undefined && rows.val_accuracy[state.trial] !== null ? [state.trial] : [];
  traces.push({...pointsOf(chosen, {name: "chosen", type: kind, hoverinfo: "skip",
    marker: {symbol: "circle-open", size: 18, color: colour("ink"), line: {width: 2.5}}})});
  return traces;
}

// Test accuracies are another kind of number: other colour, other shapes, their spread.
function winnerTrace(net, kind) {
  const low = heightOf(Math.max(net.test_accuracy - net.spread, 0));
  const high = heightOf(Math.min(net.test_accuracy + net.spread, 1));
  const middle = heightOf(net.test_accuracy);
  const over = net.seeds > 1 ? `mean of ${net.seeds} trainings, standard deviation ${percent(net.spread)}` : "one training";
  return {
    x: [net[state.across]], y: [middle], name: net.name, type: kind, mode: "markers", customdata: [net.trial ?? null],
    error_y: {type: "data", symmetric: false, array: [Math.abs(Math.max(low, high) - middle)],
      arrayminus: [Math.abs(middle - Math.min(low, high))], color: colour("winner"), thickness: 2, width: 6, visible: net.spread > 0},
    marker: {symbol: "star", size: 18, color: colour("winner"), line: {width: 1.5, color: colour("paper")}},
    text: [`<b>${plain(net.name)}</b><br>${percent(net.test_accuracy)} of the <b>test set</b><br>${over}<br>${whole(net.num_params)} parameters`],
    hoverinfo: "text",
  };
}

function referenceTrace(nets, kind) {
  return {
    x: nets.map(net => net[state.across]), y: nets.map(net => heightOf(net.test_accuracy)), name: "hand-made nets", type: kind,
    mode: "markers", customdata: nets.map(() => null), hoverinfo: "text",
    marker: {symbol: "square-open", size: 10, color: colour("winner"), line: {width: 2}},
    text: nets.map(net => `<b>${plain(net.name)}</b>, made by hand<br>${percent(net.test_accuracy)} of the <b>test set</b> (${plain(net.what)})<br>${whole(net.num_params)} parameters, ${net.epochs} epochs`),
  };
}

const capOf = () => ({num_params: state.about.param_budget, macs: state.about.max_macs, peak_memory: state.about.max_memory, flash: state.about.max_flash, latency: state.about.max_latency})[state.across];

const sizeName = () => SIZE_NAMES[state.across] + (state.across === "latency" ? ` on ${state.about.board}` : "");

function rangesOf() {
  const {rows, about} = state;
  const choice = [state.study, state.across, state.up].join(" ");
  const sizes = [], errors = [];
  for (let trial = 0; trial < rows.trial.length; trial++) {
    if (rows.trial[trial] === undefined) continue;  // another program's
    sizes.push(rows[state.across][trial]);
    if (rows.val_accuracy[trial] !== null) errors.push(errorOf(rows.val_accuracy[trial]));
  }
  for (const net of about.markers) {
    if (net[state.across] === undefined) continue;
    sizes.push(net[state.across]);
    errors.push(errorOf(net.test_accuracy - net.spread), errorOf(Math.min(net.test_accuracy + net.spread, 1)));
  }
  const cap = capOf();
  if (cap) sizes.push(cap);
  const least = values => values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values => values.reduce((a, b) => Math.max(a, b), -Infinity);
  let [left, right] = sizes.length ? [least(sizes), most(sizes)] : [100, 10000];
  let [best, worst] = errors.length ? [least(errors), most(errors)] : [0.01, 0.5];
  if (left === right) left = Math.max(left / 10, 1);
  const inside = seen?.choice === choice && left >= seen.left && right <= seen.right && best >= seen.best && worst <= seen.worst;
  // Only when a point would be out of view: a picture that breathes is hard to read.
  if (!inside) seen = {choice, left, right, best, worst};
  ({left, right, best, worst} = seen);
  const air = (right / left) ** 0.03 * 1.03;
  const tall = (worst / best) ** 0.05 * 1.05;
  const x = [Math.log10(left / air), Math.log10(right * air)];
  if (state.up === "linear") {
    const middle = errors.slice().sort((a, b) => a - b)[Math.floor(errors.length * 0.75)] ?? 0.5;
    const room = Math.max((middle - best) * 0.08, 0.001);
    return {x, y: [1 - middle - room, 1 - best + room]};
  }
  const y = [Math.log10(Math.min(worst * tall, 1.1)), Math.log10(best / tall)];
  return {x, y: state.up === "log" ? y : y.slice().reverse()};
}

// What was drawn last. Plotly keeps the reader's zoom only where the ranges that it is
// given stay the same, so a new trial beyond them must not change them.
let lastRanges = {};

function heldRanges(revision, ranges) {
  const full = byId("plot")._fullLayout;
  if (lastRanges.revision === revision && full?.xaxis && full?.yaxis) {
    const zoomed = ["x", "y"].some(axis => full[`${axis}axis`].range.some((end, i) => Math.abs(end - lastRanges[axis][i]) > 1e-6));
    if (zoomed) return {x: [...lastRanges.x], y: [...lastRanges.y]};
  }
  // Copies: plotly writes the zoom into the arrays that it is given.
  lastRanges = {revision, x: [...ranges.x], y: [...ranges.y]};
  return ranges;
}

function frontLayout() {
  const revision = [state.study, state.across, state.up].join(" ");
  const ranges = heldRanges(revision, rangesOf());
  const cap = capOf();
  const titles = {log: `${state.about.accuracy} (by log error)`, linear: state.about.accuracy, error: "validation error (log)"};
  const ticks = boot.error_ticks;
  const up = state.up === "linear"
    ? {tickformat: ".4~p"}
    : {type: "log", tickmode: "array", tickvals: ticks.map(tick => tick[0]),
      ticktext: ticks.map(tick => state.up === "log" ? tick[1] : `${+(100 * tick[0]).toPrecision(3)} %`)};
  return layoutOf({
    // The same as before: plotly then keeps the reader's zoom.
    uirevision: revision,
    xaxis: sizeAxis(sizeName(), {range: ranges.x}),
    yaxis: axisOf(titles[state.up], {...up, range: ranges.y}),
    yaxis2: {overlaying: "y", range: [0, 1], visible: false, fixedrange: true},
    shapes: cap ? [{type: "line", x0: cap, x1: cap, y0: 0, y1: 1, yref: "paper", line: {color: colour("soft"), width: 1.5, dash: "dash"}}] : [],
    annotations: cap ? [{text: `cap ${whole(cap)}`, x: Math.log10(cap), xanchor: "right", y: 1, yref: "paper", yanchor: "bottom", showarrow: false}] : [],
  });
}

async function drawFront() {
  if (!state.about || state.page !== "front") return;
  const empty = byId("empty");
  empty.hidden = !state.about.waiting;
  empty.textContent = state.about.waiting ?? "";
  byId("size-name").textContent = sizeName();
  for (const [place, name] of boot.states.entries()) byId(`count-${name}`).textContent = whole(state.about.counts[place]);
  drawNote();
  drawMembers();
  const plot = byId("plot");
  const first = !plot.on;
  await show(plot, tracesOf(), frontLayout());
  if (first) {
    plot.on("plotly_click", event => {
      const trial = event.points[0].customdata;
      if (trial !== null && trial !== undefined) choose(trial);
    });
  }
  plot.dataset.points = state.rows.trial.length;
}

function drawNote() {
  const words = {complete: "● complete", pruned: "▽ pruned", running: "◇ in training", failed: "✕ failed"};
  const parts = boot.states.filter((_, place) => state.about.counts[place]).map(name => words[name]);
  let text = `${parts.join("   ")}   `;
  const note = byId("note");
  note.replaceChildren(text, element("span", {style: "color: var(--accent)"}, "⬤ the front"), ": fully trained nets that no other beats. These accuracies are of the validation split.");
  const markers = state.about.markers;
  for (const net of markers.filter(net => net.kind === "winner")) {
    note.append(" ", element("span", {style: "color: var(--winner)"}, `★ ${net.name}`),
      `: test accuracy ${percent(net.test_accuracy)}${net.seeds > 1 ? ` ± ${percent(net.spread)} over ${net.seeds} seeds` : ""}.`);
  }
  if (markers.some(net => net.kind === "reference")) {
    note.append(" ", element("span", {style: "color: var(--winner)"}, "□ hand-made nets"), ": published, on the test set.");
  }
}

function drawMembers() {
  const {rows, about} = state;
  const members = about.fronts[state.across];
  if (!members.length) return byId("members").replaceChildren();
  const headings = ["trial", "parameters", about.accuracy, "MACs", "peak memory", {text: "architecture"}];
  const lines = members.map(trial => ({
    className: trial === state.trial ? "chosen" : null,
    cells: [
      element("button", {type: "button", onclick: () => choose(trial, true), "aria-label": `show trial ${trial}`}, String(trial)),
      whole(rows.num_params[trial]), percent(rows.val_accuracy[trial]), whole(rows.macs[trial]),
      whole(rows.peak_memory[trial]), element("code", {}, rows.summary[trial]),
    ],
  }));
  // Not while a reader is in it: the focus would be lost.
  const place = byId("members");
  const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  place.replaceChildren(element("h2", {}, `The front: ${members.length} ${members.length === 1 ? "net" : "nets"}`), table(headings, lines, {label: "the front"}));
  if (focused) place.querySelector(`[aria-label="${focused}"]`)?.focus();
}

// Arrow keys walk along the front.
function walk(event) {
  const step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
  const members = state.about?.fronts[state.across] ?? [];
  if (!step || !members.length) return;
  event.preventDefault();
  const place = members.indexOf(state.trial);
  choose(members[place < 0 ? (step > 0 ? 0 : members.length - 1) : Math.min(Math.max(place + step, 0), members.length - 1)]);
}
