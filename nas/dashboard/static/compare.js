// Several studies in one picture.

async function drawCompare() {
  const place = byId("compare");
  if (!place.childElementCount) {
    place.append(element("p", {class: "empty", id: "compare-empty"}, "Reading all studies…"),
      element("div", {id: "fronts", class: "plot tall", role: "img", "aria-label": "the fronts of all studies"}),
      element("div", {id: "studies"}));
  }
  let found;
  try {
    found = await source.compare();
  } catch (error) {
    return say(error);
  }
  const note = byId("compare-empty");
  note.hidden = found.studies.length > 1 && !found.faults.length;
  note.textContent = found.faults.length ? `Not shown: ${found.faults.join("; ")}` : "There is only one study here. `nas search --study NAME` begins a second one to compare it with.";
  const traces = found.studies.map((study, place) => {
    const look = OKABE_ITO[place % OKABE_ITO.length];
    return {...columnsOf(study.front.map(([size, accuracy]) => [size, errorOf(accuracy)])),
      name: plain(study.name), type: "scatter", mode: "lines+markers",
      line: {shape: "hv", color: look, width: 2, dash: DASHES[place % DASHES.length]},
      marker: {size: 8, symbol: SYMBOLS[place % SYMBOLS.length], color: look},
      text: study.front.map(member => `<b>${plain(study.name)}</b>, trial ${member[2]}<br>${whole(member[0])} parameters<br>${percent(member[1])}`), hoverinfo: "text"};
  });
  await show(byId("fronts"), traces, layoutOf({
    showlegend: true, legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom"}, uirevision: 1,
    xaxis: sizeAxis("parameters"),
    yaxis: axisOf("validation accuracy (by log error)", {type: "log", autorange: "reversed", tickmode: "array",
      tickvals: boot.error_ticks.map(tick => tick[0]), ticktext: boot.error_ticks.map(tick => tick[1])}),
  }));
  const headings = ["study", {text: "data set"}, {text: "sampler"}, {text: "metric"}, "trials", "cap", "hypervolume", ...found.sizes.map(size => `best ≤ ${whole(size)}`)];
  const rows = found.studies.map(study => ({cells: [study.name, study.dataset, study.sampler, study.metric, whole(study.trials), whole(study.param_budget),
    study.hypervolume ? study.hypervolume.toFixed(4) : "–", ...study.best.map(percent)]}));
  byId("studies").replaceChildren(element("h2", {}, "Hypervolumes, and the best at given sizes"), table(headings, rows, {label: "studies compared"}),
    element("p", {class: "note"}, "Validation accuracies. The hypervolume counts fully trained nets only. Studies of one data set share the hypervolume's reference point (the largest cap, chance); across data sets the numbers cannot be compared."));
}
