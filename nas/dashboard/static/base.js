// What all parts share: the elements, the state, where the data comes from.

const boot = JSON.parse(document.getElementById("boot").textContent);
const byId = id => document.getElementById(id);
const SIZE_NAMES = {num_params: "parameters", macs: "MACs", peak_memory: "peak memory, bytes", flash: "flash of the C code, bytes", latency: "estimated milliseconds"};

const state = {
  study: null, page: "front", trial: null, across: "num_params", up: "log",
  // The study's candidates as columns; the place in a column is the trial's number.
  rows: {}, version: 0, about: null,
};

// Every text from a study goes through here or into textContent, never into innerHTML.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Plotly takes some markup in its texts; a study's text is to be shown as it is.
const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
// Made once: 20,000 calls of toLocaleString take a second.
const english = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const whole = number => english.format(number);
const percent = share => share === null || share === undefined ? "–" : `${(100 * share).toFixed(2)} %`;
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function table(headings, rows, options = {}) {
  const head = headings.map(name => element("th", {scope: "col", class: name.text && "text"}, name.text || name));
  const body = rows.map(row => element("tr", {class: row.className}, ...row.cells.map((cell, place) =>
    element(place ? "td" : "th", {scope: place ? null : "row", class: headings[place].text && "text"}, cell))));
  return element("div", {class: "scroll", role: "region", tabindex: "0", "aria-label": options.label},
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)));
}

class Trouble extends Error {}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, {credentials: "same-origin"});
  } catch {
    throw new Trouble("The dashboard has stopped: start `nas dashboard` again. This page then goes on by itself.");
  }
  if (answer.status === 401) throw new Trouble("The token has changed: open the address that `nas dashboard` has printed.");
  const data = await answer.json().catch(() => ({error: `the server answered ${answer.status}`}));
  if (data.error) throw new Trouble(data.error);
  return answer.status === 202 ? null : data;
}

const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));

// Two sources with the same questions: the server, or what a report holds itself.
function liveSource() {
  const of = what => `/nas/studies/${encodeURIComponent(state.study)}/${what}`;
  const patiently = async path => {
    for (;;) {
      const data = await ask(path);
      if (data !== null) return data;
      await pause(400);
    }
  };
  return {
    live: true,
    studies: () => ask("/nas/studies"),
    changes: since => ask(of(`changes?since=${since}`)),
    details: trial => patiently(of(`trials/${trial}`)),
    progress: () => patiently(of("progress")),
    importances: () => patiently(of("importances")),
    compare: () => ask("/nas/compare"),
  };
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function reportSource() {
  const script = element("script");
  script.textContent = await unpacked("plotly");
  document.head.append(script);
  const data = JSON.parse(await unpacked("data"));
  return {
    live: false,
    studies: async () => data.studies,
    changes: async () => data.changes,
    details: async trial => {
      const of = number => data.details.find(one => one.trial === number);
      const found = of(trial);
      if (!found) throw new Trouble(`The study has no trial ${trial}.`);
      return {...found, peers: found.peers.map(of)};
    },
    progress: async () => data.progress,
    importances: async () => data.importances,
    compare: async () => data.compare,
  };
}

let source;
