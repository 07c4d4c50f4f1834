// Which candidates are shown: by state, size, depth and kind of block.

const filters = {states: new Set(boot.states), from: null, to: null, shallowest: null, deepest: null, kind: "any"};
// For each choice the bits of a candidate's kinds that are looked at, and what they have to be.
const bitOf = name => 1 << boot.kinds.indexOf(name);
const everyKind = bitOf("shared") - 1;
const KINDS = {
  any: [0, 0],
  conv: [everyKind, bitOf("conv")],
  separable: [everyKind, bitOf("separable")],
  both: [everyKind, bitOf("conv") | bitOf("separable")],
  ...Object.fromEntries(boot.kinds.slice(2).map(name => [name, [bitOf(name), bitOf(name)]])),
};

function hasKinds(mask) {
  const [bits, wanted] = KINDS[filters.kind];
  return (mask & bits) === wanted;
}

function passes(trial) {
  const rows = state.rows;
  const size = rows[state.across][trial];
  const depth = rows.depth[trial];
  return filters.states.has(boot.states[rows.state[trial]])
    && (filters.from === null || size >= filters.from)
    && (filters.to === null || size <= filters.to)
    && (filters.shallowest === null || depth >= filters.shallowest)
    && (filters.deepest === null || depth <= filters.deepest)
    && hasKinds(rows.kinds[trial]);
}

function startFilters() {
  for (const name of boot.states) {
    const box = element("input", {type: "checkbox", id: `state-${name}`, checked: true, onchange: () => {
      if (box.checked) filters.states.add(name); else filters.states.delete(name);
      drawFront();
    }});
    byId("states").append(element("label", {}, box, name, element("span", {id: `count-${name}`})));
  }
  const numbers = {"size-from": "from", "size-to": "to", "depth-from": "shallowest", "depth-to": "deepest"};
  for (const [id, name] of Object.entries(numbers)) {
    byId(id).addEventListener("input", () => {
      filters[name] = byId(id).value === "" ? null : Number(byId(id).value);
      drawFront();
    });
  }
  for (const [place, name] of boot.kind_names.entries())
    if (place > 1) byId("kind").append(element("option", {value: boot.kinds[place]}, `with ${name}`));
  byId("kind").append(element("option", {value: "shared"}, "with shared weights"));
  byId("kind").addEventListener("change", () => {
    filters.kind = byId("kind").value;
    drawFront();
  });
  byId("reset").addEventListener("click", () => {
    filters.states = new Set(boot.states);
    for (const name of boot.states) byId(`state-${name}`).checked = true;
    for (const [id, name] of Object.entries(numbers)) {
      filters[name] = null;
      byId(id).value = "";
    }
    filters.kind = byId("kind").value = "any";
    drawFront();
  });
}
