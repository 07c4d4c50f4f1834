// How the search goes.

async function drawProgress() {
  const place = byId("progress");
  let found;
  try {
    found = await source.progress();
  } catch (error) {
    return say(error);
  }
  if (!place.childElementCount) {
    place.append(
      element("div", {class: "cards", id: "cards"}),
      element("div", {class: "grid"},
        panel("hypervolume-epochs", "Hypervolume over epochs"),
        panel("hypervolume-time", "Hypervolume over time"),
        panel("speed", "Epochs a minute"),
        panel("sizes", "Sizes sampled"),
        panel("importances", "Which choices matter")));
  }
  drawCards(found);
  const [unit, scale] = found.minutes < 3 ? ["seconds", 60] : found.minutes < 180 ? ["minutes", 1] : ["hours", 1 / 60];
  drawVolumes(found, unit, scale);
  await bars("speed", found.speed.minutes.map(minute => scale * minute), found.speed.per_minute, `${unit} in training`, "epochs a minute");
  const {edges, counts} = found.sizes;
  const centres = counts.map((_, i) => Math.sqrt(edges[i] * edges[i + 1]));
  await show(byId("sizes"), [{type: "bar", x: centres, y: counts, width: counts.map((_, i) => (edges[i + 1] - edges[i]) * 0.92),
    marker: {color: boot.colours.grey}, text: counts.map((count, i) => `${count} candidates of ${whole(edges[i])} to ${whole(edges[i + 1])} parameters`),
    textposition: "none", hoverinfo: "text"}],
  layoutOf({xaxis: sizeAxis("parameters"), yaxis: axisOf("candidates"), uirevision: 1}));
  const [words, point] = [byId("hypervolume-epochs-note"), found.reference_point];
  words.textContent = `The area that the front dominates: accuracy above ${percent(point[1])} (chance) times the natural logarithm of the size below the cap. `
    + (found.baseline ? `Dashed: the random search ${found.baseline.name}.` : "If there is a study with --sampler random on the same data under the same cap, its curve is drawn, too.");
  byId("hypervolume-time-note").textContent = "Pauses of the search are left out. Fully trained nets count, from the end of their full training.";
  byId("sizes-note").textContent = "Equal widths on the logarithmic axis; every candidate, however it ended.";
  drawImportances();
}

const panel = (id, title) => element("div", {}, element("h2", {}, title),
  element("div", {id, class: "plot", role: "img", "aria-label": title}), element("p", {class: "note", id: `${id}-note`}));

function drawCards(found) {
  const {trained, without_pruning: all} = found.epochs;
  const {counts} = state.about;
  const share = value => value === undefined ? "–" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
  const speed = found.minutes ? (found.finished / found.minutes) : 0;
  const cards = [
    [whole(found.finished), "trials finished"],
    [speed ? speed.toFixed(speed < 10 ? 1 : 0) : "–", "trials a minute"],
    [all ? share(1 - trained / all) : "–", `epochs saved by pruning (${whole(trained)} of ${whole(all)} trained)`],
    [share(found.timing.training), "of the workers' time in training"],
    [found.timing.sampling === undefined ? "–" : share(found.timing.sampling + found.timing.storage), "of the search's time in sampling and storage"],
    [whole(counts[boot.states.indexOf("failed")]), "trials failed"],
  ];
  byId("cards").replaceChildren(...cards.map(([number, words]) => element("div", {class: "card"}, element("b", {}, number), element("span", {}, words))));
}

function drawVolumes(found, unit, scale) {
  const draw = (id, column, factor, title) => {
    const trace = (series, look, name) => ({x: series.map(row => factor * row[column]), y: series.map(row => row[2]), name,
      type: "scatter", mode: "lines", line: {shape: "hv", ...look}});
    const traces = [trace(found.hypervolume, {color: colour("mark"), width: 2.5}, "this study")];
    if (found.baseline) traces.push(trace(found.baseline.hypervolume, {color: colour("soft"), width: 2, dash: "dash"}, plain(found.baseline.name)));
    return show(byId(id), traces, layoutOf({xaxis: axisOf(title, {rangemode: "tozero"}), yaxis: axisOf("hypervolume"), uirevision: 1}));
  };
  draw("hypervolume-epochs", 0, 1, "epochs trained, of all candidates");
  draw("hypervolume-time", 1, scale, `${unit} in training`);
}

const bars = (id, x, y, across, up) => show(byId(id), [{type: "bar", x, y, marker: {color: boot.colours.grey}}],
  layoutOf({xaxis: axisOf(across, {rangemode: "tozero"}), yaxis: axisOf(up, {rangemode: "tozero"}), bargap: 0.08, uirevision: 1}));

async function drawImportances() {
  const note = byId("importances-note");
  let found;
  try {
    found = await source.importances();
  } catch (error) {
    return say(error);
  }
  note.textContent = found.length
    ? "Share of what decides the accuracy at a given size (PED-ANOVA of Optuna over the complete candidates, for choices that at least half of them have; what the size itself explains is taken out)."
    : "This needs 20 complete candidates. It then shows which of the sampler's choices decide the accuracy at a given size.";
  byId("importances").hidden = !found.length;
  if (!found.length) return;
  const shown = found.slice(0, 12).reverse();
  await show(byId("importances"), [{type: "bar", orientation: "h", x: shown.map(row => row[1]),
    y: shown.map(row => plain(row[0].replace(/_/g, " "))), marker: {color: boot.colours.grey}, hovertemplate: "%{y}: %{x:.1%}<extra></extra>"}],
  layoutOf({xaxis: axisOf("importance", {tickformat: ".0%"}), yaxis: axisOf(""), bargap: 0.25, uirevision: 1}));
}
