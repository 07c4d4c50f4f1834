// One candidate: its architecture block by block, its curve, why it ended, what to do.

let asked = 0;

async function choose(trial, jump = false) {
  state.trial = trial;
  remember();
  const mine = ++asked;
  drawFront();
  const panel = byId("detail");
  if (trial === null) {
    panel.hidden = true;
    document.querySelector(".split").classList.remove("open");
    return fit(byId("plot"));
  }
  let found;
  try {
    found = await source.details(trial);
  } catch (error) {
    return say(error);
  }
  // The reader has chosen another one since.
  if (mine !== asked) return;
  panel.hidden = false;
  const split = document.querySelector(".split");
  split.classList.add("open");
  panel.replaceChildren(...detailParts(found));
  panel.dataset.trial = trial;
  panel.scrollTop = 0;
  await Promise.all([fit(byId("plot")), drawCurve(found)]);
  if (jump || narrow()) panel.focus();
}

function detailParts(found) {
  const facts = [
    [found.accuracy, percent(found.val_accuracy)], ["parameters", whole(found.num_params)],
    ["MACs", whole(found.macs)], ["peak memory", `${whole(found.peak_memory)} B`],
    ["state", found.state], ["ended at", found.ended],
  ];
  const parts = [
    element("div", {class: "head"}, element("h2", {}, `Trial ${found.trial}`),
      element("button", {type: "button", "aria-label": "close", onclick: () => choose(null)}, "✕")),
    element("dl", {class: "facts"}, ...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
  ];
  if (found.reason) parts.push(element("p", {class: "why"}, element("b", {}, `${found.state}: `), found.reason));
  parts.push(element("h3", {}, "Architecture"), chain(found),
    element("h3", {}, "Learning curve"),
    element("div", {id: "curve", class: "plot", role: "img", "aria-label": curveInWords(found)}),
    element("p", {class: "note"}, found.peers.length
      ? `Grey: the ${found.peers.length} candidates nearest in size, ${sizeSpan(found.peers)} parameters.`
      : "No other candidate has reported yet."),
    element("h3", {}, "Commands"), ...found.commands.map(command),
    command(["its architecture as JSON", JSON.stringify(found.architecture)]),
    element("details", {}, element("summary", {}, "Settings of its training"),
      element("dl", {class: "facts"}, ...[...Object.entries(found.settings), ["key", found.key]].map(([name, value]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))))));
  return parts;
}

function sizeSpan(peers) {
  const sizes = peers.map(peer => peer.num_params);
  return `${whole(Math.min(...sizes))} to ${whole(Math.max(...sizes))}`;
}

function curveInWords(found) {
  return `learning curve: ${found.curve.map(([epochs, accuracy]) => `${percent(accuracy)} after ${epochs} epochs`).join(", ") || "no report yet"}`;
}

// The feature map as a plate: its side by height, its depth by channels, cut into groups;
// the kernel on it, of dilated ones each tap. Beside it a plus where a shortcut is added, a cross where it is multiplied with gates.
function plate(shape, input, kernel, mark = "") {
  const side = Math.max(5, 28 * Math.sqrt(shape[1] / input[1]));
  const deep = Math.min(16, 2 + 2.2 * Math.log2(shape[0]));
  const x = 1, y = 34 - side;
  const picture = drawn("svg", {width: 54, height: 38, viewBox: "0 -3 54 38", "aria-hidden": "true"});
  const line = {class: "plate", "stroke-width": 1, "stroke-linejoin": "round"};
  const lift = deep * 0.5;
  picture.append(
    drawn("path", {...line, d: `M${x} ${y}l${deep} ${-lift}h${side}l${-deep} ${lift}z`}),
    drawn("path", {...line, d: `M${x + side} ${y}l${deep} ${-lift}v${side}l${-deep} ${lift}z`}),
    drawn("rect", {...line, x, y, width: side, height: side}));
  const cuts = kernel ? Math.min(kernel.groups, Math.floor(deep / 1.6)) : 1;
  for (let cut = 1; cut < cuts; cut++) {
    const [right, up] = [deep * cut / cuts, lift * cut / cuts];
    picture.append(drawn("path", {class: "stroke", "stroke-width": 1, fill: "none", d: `M${x + right} ${y - up}h${side}v${side}`}));
  }
  if (mark) picture.append(drawn("path", {class: "stroke", d: mark, "stroke-width": 1.5, fill: "none"}));
  if (kernel) {
    for (const across of placesOf(kernel.width, kernel.dilation, side, shape[1]))
      for (const down of placesOf(kernel.height, kernel.dilation, side, shape[1]))
        picture.append(drawn("rect", {class: "kernel", x: x + across[0], y: y + down[0], width: across[1], height: down[1]}));
  }
  return picture;
}

// Start and length of what a kernel covers of a side: in one piece, or dilated each tap.
function placesOf(taps, dilation, side, pixels) {
  const pieces = dilation > 1 ? taps : 1;
  const extent = dilation * (taps - 1) + 1;
  const whole = Math.min(side - 1, Math.max(2.5 * pieces, side * extent / Math.max(pixels, extent)));
  const piece = pieces > 1 ? Math.max(1.4, whole / extent) : whole;
  const apart = pieces > 1 ? (whole - piece) / (pieces - 1) : 0;
  return Array.from({length: pieces}, (_, place) => [(side - whole) / 2 + place * apart, piece]);
}

function markOf(what) {
  if (what.includes(", + ")) return "M50 17v7M46.5 20.5h7";
  return what.includes(", times ") ? "M47.5 18l5 5M52.5 18l-5 5" : "";
}

function chain(found) {
  const most = Math.max(1, ...found.blocks.flatMap(block => block.layers.map(layer => layer[3])));
  const line = (picture, what, shape, params) => element("div", {class: "layer"}, picture,
    element("div", {class: "what"}, what, element("span", {class: "shape"}, shape.join(" × "))),
    element("div", {class: "amount"}, params ? whole(params) : "",
      params ? element("div", {class: "bar", style: `width: ${100 * params / most}%`}) : null));
  const input = found.input_shape;
  return element("ol", {class: "chain"},
    element("li", {}, line(plate(input, input, null), "input", input, null)),
    ...found.blocks.map(block => element("li", {},
      element("div", {class: "name"}, block.name, element("code", {}, block.notation)),
      ...block.layers.map(([what, kernel, shape, params]) => line(plate(shape, input, kernel, markOf(what)), what, shape, params)))),
    element("li", {}, element("div", {class: "layer"}, element("span"), element("span", {}, "all"),
      element("div", {class: "amount"}, element("b", {}, whole(found.num_params))))));
}

function command([what, text]) {
  const button = element("button", {type: "button", "aria-label": `copy: ${what}`, onclick: async () => {
    await copy(text);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }}, "copy");
  return element("div", {class: "command"}, element("div", {}, element("span", {}, what), element("code", {tabindex: "0"}, text)), button);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Where the address is neither https nor this machine there is no clipboard to ask.
    const area = element("textarea", {style: "position: fixed; opacity: 0"});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

async function drawCurve(found) {
  const traces = found.peers.map(peer => ({
    x: peer.curve.map(report => report[0]), y: peer.curve.map(report => errorOf(report[1])),
    mode: "lines+markers", type: "scatter", line: {color: boot.colours.grey, width: 1}, opacity: 0.5,
    marker: {size: 3.5, symbol: boot.marks[peer.state].symbol, color: boot.colours.grey},
    text: peer.curve.map(report => `trial ${peer.trial}, ${peer.state}<br>${percent(report[1])} after ${report[0]} epochs`), hoverinfo: "text",
  }));
  traces.push({
    x: found.curve.map(report => report[0]), y: found.curve.map(report => errorOf(report[1])),
    mode: "lines+markers", type: "scatter", line: {color: colour("mark"), width: 2.5}, marker: {size: 8, color: colour("mark")},
    text: found.curve.map(report => `<b>trial ${found.trial}</b><br>${percent(report[1])} after ${report[0]} epochs<br>loss ${report[2]}, ${report[3]} s`), hoverinfo: "text",
  });
  await show(byId("curve"), traces, layoutOf({
    xaxis: axisOf("epochs", {rangemode: "tozero"}),
    yaxis: axisOf("accuracy", {type: "log", autorange: "reversed", tickmode: "array",
      tickvals: boot.error_ticks.map(tick => tick[0]), ticktext: boot.error_ticks.map(tick => tick[1])}),
    margin: {l: 8, r: 8, t: 8, b: 8},
  }));
}
