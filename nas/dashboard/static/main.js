// Begins, follows the study, and keeps the address so that a reload shows the same.

const PAGES = {front: () => drawFront(), progress: () => drawProgress(), compare: () => drawCompare()};
// Milliseconds between two looks. At 10,000 trials each costs server and browser 0.2 s of
// a core, which may be one that the search trains on.
const every = () => (state.rows.trial?.length ?? 0) > MANY ? 5000 : 1500;

function say(trouble) {
  const status = byId("status");
  status.classList.toggle("trouble", Boolean(trouble));
  if (trouble) {
    if (!(trouble instanceof Trouble)) console.error(trouble);
    status.textContent = trouble.message;
    return;
  }
  const {about} = state;
  const best = about.fronts.num_params.at(-1);
  const counts = boot.states.map((name, place) => about.counts[place] ? `${whole(about.counts[place])} ${name}` : null).filter(Boolean);
  status.textContent = `${about.dataset}, at most ${whole(about.param_budget)} parameters. ${counts.join(", ") || "No trials yet"}.`
    + (best === undefined ? "" : ` Best: ${percent(state.rows.val_accuracy[best])} with ${whole(state.rows.num_params[best])} parameters.`);
}

function remember() {
  const kept = {study: state.study, page: state.page, across: state.across, up: state.up};
  if (state.trial !== null) kept.trial = state.trial;
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
}

function recall(names) {
  const kept = new URLSearchParams(location.hash.slice(1));
  state.study = names.includes(kept.get("study")) ? kept.get("study") : names[0];
  if (kept.get("page") in PAGES) state.page = kept.get("page");
  if (kept.get("across") in SIZE_NAMES) state.across = kept.get("across");
  if (["log", "linear", "error"].includes(kept.get("up"))) state.up = kept.get("up");
  if (/^\d{1,9}$/.test(kept.get("trial") ?? "")) state.trial = Number(kept.get("trial"));
  byId("across").value = state.across;
  byId("up").value = state.up;
}

function take(changes) {
  if (changes.since === 0) state.rows = {};
  for (const [name, values] of Object.entries(changes.rows)) {
    const column = state.rows[name] ??= [];
    for (const [place, trial] of changes.rows.trial.entries()) column[trial] = values[place];
  }
  state.version = changes.version;
  const {rows, ...about} = changes;
  const event = rows.trial.length > 0 || JSON.stringify(about) !== JSON.stringify(state.about);
  state.about = about;
  return event;
}

async function look() {
  const study = state.study;
  let changes;
  try {
    changes = await source.changes(state.version);
  } catch (error) {
    return say(error);
  }
  if (study !== state.study) return;
  if (changes === null) {
    byId("status").textContent = `Reading the study ${study}…`;
    return pause(300).then(look);
  }
  const trouble = byId("status").classList.contains("trouble");
  const began = performance.now();
  const event = take(changes);
  if (!event && !trouble) return;
  say(null);
  if (state.page === "front") await drawFront();
  else if (state.page === "progress") await drawProgress();
  byId("plot").dataset.took = Math.round(performance.now() - began);
  const chosen = state.trial;
  if (chosen !== null && changes.rows.trial.includes(chosen) && byId("detail").dataset.trial !== undefined) choose(chosen);
}

async function follow() {
  for (;;) {
    await pause(every());
    if (!document.hidden && state.study) await look();
  }
}

function turn(page) {
  reveal(page);
  remember();
  if (state.about) PAGES[page]();
}

function reveal(page) {
  state.page = page;
  for (const button of document.querySelectorAll("nav button")) {
    if (button.dataset.page === page) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  for (const name of Object.keys(PAGES)) byId(name).hidden = name !== page;
}

async function open(study, trial = null) {
  Object.assign(state, {study, trial, rows: {}, version: 0, about: null});
  byId("detail").hidden = true;
  document.querySelector(".split").classList.remove("open");
  byId("title").textContent = study;
  document.title = `${study} · nas`;
  byId("progress").replaceChildren();
  const chosen = studies.find(each => each.name === study);
  if (source.live) {
    byId("optuna").hidden = false;
    byId("optuna").href = `/dashboard/studies/${chosen.optuna}`;
  }
  // Before anything is drawn: what is hidden has no width.
  reveal(state.page);
  await look();
  remember();
  if (state.page === "compare") drawCompare();
  if (trial !== null && state.rows.trial?.[trial] !== undefined) await choose(trial);
}

let studies = [];

function startControls() {
  startFilters();
  for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => turn(button.dataset.page));
  for (const name of ["across", "up"]) {
    byId(name).addEventListener("change", () => {
      state[name] = byId(name).value;
      remember();
      drawFront();
    });
  }
  byId("goto").addEventListener("change", () => {
    if (byId("goto").value !== "") choose(Number(byId("goto").value), true);
  });
  byId("plot").addEventListener("keydown", walk);
  byId("study").addEventListener("change", () => open(byId("study").value));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const redraw = () => state.about && PAGES[state.page]();
  dark.addEventListener("change", redraw);
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    redraw();
    if (state.page === "front" && state.trial !== null) choose(state.trial);
  });
  byId("filters").open = innerWidth > 1700;
}

async function start() {
  startControls();
  source = boot.mode === "report" ? await reportSource() : liveSource();
  for (;;) {
    try {
      studies = await source.studies();
      if (studies.length) break;
      byId("status").textContent = "No studies here yet: `nas search --budget 10000` begins one, and this page shows it.";
    } catch (error) {
      say(error);
    }
    await pause(2000);
  }
  const names = studies.map(study => study.name);
  byId("study").replaceChildren(...names.map(name => element("option", {value: name}, name)));
  byId("pick").hidden = names.length < 2;
  recall(names);
  byId("study").value = state.study;
  await open(state.study, state.trial);
  if (source.live) follow();
}

start().catch(say);
