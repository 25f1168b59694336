// Plots, tables of effects, and what is marked in all of them.

function layout(changes) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
  const { xaxis, yaxis, ...rest } = changes;
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), size: 12 }, margin: { t: 12, r: 12, b: 44, l: 60 },
    hovermode: "closest", xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, width: state.width, ...rest };
}

const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };

function drawTrace(stimulus) {
  const { evaluation } = stimulus.trace;
  const lines = ["content", "style", "total"].map((term, index) => ({ x: evaluation, y: stimulus.trace[term], name: term, mode: "lines", line: { color: PALETTE[index] } }));
  Plotly.react("detail-trace", lines, layout({ xaxis: { title: { text: "evaluation" } }, yaxis: { type: "log", exponentformat: "power", dtick: 1 } }), CONFIG);
}

function quantile(sorted, share) {
  const at = (sorted.length - 1) * share;
  return sorted[Math.floor(at)] + (sorted[Math.ceil(at)] - sorted[Math.floor(at)]) * (at - Math.floor(at));
}

// Loss relative to that of the initial image; a stimulus that has ended keeps its last one.
function relativeLoss(trace, evaluation) {
  const later = trace.evaluation.findIndex((one) => one > evaluation);
  const place = later < 0 ? trace.evaluation.length - 1 : later - 1;
  return place < 0 ? NaN : trace[traces.term][place] / trace[traces.term][0];
}

const traces = { term: "total", factor: "" };

function drawTraces() {
  const groups = traces.factor ? Map.groupBy(DATA.stimuli, (one) => one.levels[traces.factor]) : new Map([["all stimuli", DATA.stimuli]]);
  const lines = [];
  [...groups].slice(0, MAX_COLOURS).forEach(([level, stimuli], index) => {
    const at = new Map();
    const grid = [...new Set(stimuli.flatMap((one) => one.trace.evaluation))];
    for (const evaluation of grid) at.set(evaluation, stimuli.map(({ trace }) => relativeLoss(trace, evaluation)).filter((share) => share > 0));
    const points = [...at].filter(([, shares]) => shares.length).sort(([one], [other]) => one - other).map(([evaluation, shares]) => [evaluation, shares.sort((a, b) => a - b)]);
    const x = points.map(([evaluation]) => evaluation);
    const line = (share) => points.map(([, shares]) => quantile(shares, share));
    const hidden = { mode: "lines", line: { width: 0 }, showlegend: false, hoverinfo: "skip", legendgroup: level };
    lines.push({ x, y: line(0.1), ...hidden }, { x, y: line(0.9), ...hidden, fill: "tonexty", fillcolor: `${PALETTE[index]}33` },
      { x, y: line(0.5), name: level || "–", legendgroup: level, mode: "lines", line: { color: PALETTE[index] } });
  });
  lines.push({ x: [], y: [], mode: "lines", showlegend: false, hoverinfo: "skip", line: { width: 2 } }); // the marked one
  Plotly.react("trace-plot", lines, layout({ xaxis: { title: { text: "evaluation" }, type: "log" },
    yaxis: { title: { text: `${traces.term} loss / that of the initial image` }, type: "log", exponentformat: "power", dtick: 1 }, showlegend: groups.size > 1 }), CONFIG);
}

function drawTraceControls() {
  const factors = [["", "none"], ...VARIED.filter((name) => DATA.factors[name].length <= MAX_COLOURS).map((name) => [name, name])];
  $("trace-controls").append(
    select("loss", ["total", "content", "style"].map((term) => [term, term]), traces.term, (value) => { traces.term = value; drawTraces(); }),
    select("by", factors, traces.factor, (value) => { traces.factor = value; drawTraces(); }),
    element("span", { class: "faint" }, "median and the range from 10 to 90 %; ended optimizations keep their last loss"));
}

const distribution = { variable: 0, factor: VARIED[0] ?? FACTORS[0] };

function drawDistribution() {
  if (!DATA.variables.length) return;
  const variable = DATA.variables[distribution.variable];
  const boxes = DATA.factors[distribution.factor].map((level, index) => {
    const members = DATA.stimuli.filter((one) => one.levels[distribution.factor] === level && one.values[distribution.variable] !== null);
    return { type: "box", name: level || "–", y: members.map((one) => one.values[distribution.variable]), text: members.map((one) => one.id), boxpoints: "all",
      jitter: 0.4, pointpos: 0, marker: { size: 4, opacity: 0.6, color: PALETTE[index % MAX_COLOURS] }, line: { width: 1 }, fillcolor: "rgba(0,0,0,0)", hoverinfo: "y+text" };
  });
  Plotly.react("distribution-plot", boxes, layout({ showlegend: false, xaxis: { title: { text: distribution.factor }, type: "category" },
    yaxis: { title: { text: variable.long_name } } }), CONFIG).then(whilePointed);
}

function drawDistributionControls() {
  $("distribution-controls").append(
    select("variable", DATA.variables.map((one, index) => [String(index), one.name]), "0", (value) => { distribution.variable = Number(value); drawDistribution(); }),
    select("factor", (VARIED.length ? VARIED : FACTORS).map((name) => [name, name]), distribution.factor, (value) => { distribution.factor = value; drawDistribution(); }));
}

function drawEffects() {
  const alone = DATA.effects.filter((one) => one.model === "alone");
  const factors = [...new Set(alone.map((one) => one.factor))];
  const over = new Set(DATA.findings.filter((one) => one.name === "confound").map((one) => one.detail));
  const isOver = (one) => [...over].some((detail) => detail.startsWith(`${one.factor} explains`) && detail.includes(` of the variance of ${one.variable};`));
  const cell = (variable, factor) => {
    const one = alone.find((row) => row.variable === variable && row.factor === factor);
    if (!one || one.omega_squared === null) return element("td", {}, "–");
    const share = Math.max(0, one.omega_squared);
    return element("td", { class: isOver(one) ? "over" : "", title: `η² ${number(one.eta_squared)}, p ${number(one.p)}; by permutation p ${number(one.p_permutation)}, chance reaches ω² ${number(one.omega_squared_chance)} in 5 %; the least that is found in 4 of 5 cases is ω² ${number(one.omega_squared_detectable)}`,
      style: `background: color-mix(in srgb, var(--accent) ${Math.round(60 * share)}%, transparent)` }, share.toFixed(2));
  };
  const variables = [...new Set(alone.map((one) => one.variable))];
  if (!variables.length) return $("effect-table").append(element("p", {}, "Nothing varies with a factor."));
  $("effect-table").append(element("table", { class: "heat" },
    element("thead", {}, element("tr", {}, element("th", {}, ""), ...factors.map((name) => element("th", {}, name)))),
    element("tbody", {}, ...variables.map((variable) => element("tr", {}, element("th", {}, variable), ...factors.map((factor) => cell(variable, factor)))))));
}

// --- map and recognition ----------------------------------------------------------------------------------------

// At first in the colours of the factor that explains most of the distances.
const explaining = (DATA.distances?.explained ?? []).filter((one) => one.layer === "all" && (DATA.factors[one.factor]?.length ?? Infinity) <= MAX_COLOURS);
const map = { factor: explaining.sort((one, other) => other.omega_squared - one.omega_squared)[0]?.factor ?? "" };

function drawMap() {
  if (!DATA.distances) return;
  const [x, y] = ["map_x", "map_y"].map((name) => DATA.variables.findIndex((one) => one.name === name));
  const placed = x < 0 ? [] : DATA.stimuli.filter((one) => one.values[x] !== null);
  const groups = map.factor ? Map.groupBy(placed, (one) => one.levels[map.factor]) : new Map([["", placed]]);
  const points = [...groups].map(([level, members], index) => ({
    type: "scatter", mode: "markers", name: level || "–", x: members.map((one) => one.values[x]), y: members.map((one) => one.values[y]),
    text: members.map((one) => one.id), hoverinfo: "text+name", marker: { size: 8, opacity: 0.8, color: PALETTE[index % MAX_COLOURS] },
  }));
  Plotly.react("map-plot", points, layout({ showlegend: groups.size > 1, xaxis: { title: { text: "first dimension" } },
    yaxis: { title: { text: "second dimension" }, scaleanchor: "x" } }), CONFIG).then(whilePointed);
}

function drawMapSection() {
  if (!DATA.distances) return;
  $("map").hidden = $("map-link").hidden = false;
  const { layers, form, observer, mapped, explained } = DATA.distances;
  const factors = [["", "none"], ...VARIED.map((name) => [name, name])];
  $("map-controls").append(select("colour", factors, map.factor, (value) => { map.factor = value; drawMap(); }));
  $("map-words").textContent = `Classical scaling of distances between ${form === "gram" ? "Gram matrices" : form === "mean" ? "mean responses" : "responses"}`
    + ` of ${layers.join(", ")}${observer ? ` of ${observer}` : ""}; the plane holds ${Math.round(100 * mapped)} % of their variance.`;
  const names = [...new Set(explained.map((one) => one.factor))];
  const rows = [...new Set(explained.map((one) => one.layer))];
  const cell = (layer, factor) => {
    const one = explained.find((row) => row.layer === layer && row.factor === factor);
    if (!one || one.omega_squared === null) return element("td", {}, "–");
    const share = Math.max(0, one.omega_squared);
    return element("td", { title: `p ${number(one.p_permutation)} by permutation`,
      style: `background: color-mix(in srgb, var(--accent) ${Math.round(60 * share)}%, transparent)` }, share.toFixed(2));
  };
  $("distance-table").append(element("table", { class: "heat" },
    element("thead", {}, element("tr", {}, element("th", {}, ""), ...names.map((name) => element("th", {}, name)))),
    element("tbody", {}, ...rows.map((layer) => element("tr", {}, element("th", {}, layer), ...names.map((name) => cell(layer, name)))))));
}

function nearest(stimulus) {
  const found = (DATA.distances?.neighbours?.[stimulus.id] ?? []).filter(([id]) => BY_ID.has(id));
  if (!found.length) return [];
  return [element("h3", {}, "Most similar stimuli"), element("div", { class: "neighbours" }, ...found.map(([id, distance]) =>
    element("figure", {}, thumbnail(BY_ID.get(id)), element("figcaption", {}, `${number(distance)} of the median distance`))))];
}

function drawRecognition() {
  if (!DATA.images.length && !DATA.cues) return;
  $("recognition").hidden = $("recognition-link").hidden = false;
  if (DATA.cues) {
    const { content, style, others, shape_bias } = DATA.cues;
    $("cue-words").textContent = `Of ${content + style + others} stimuli whose content and style are of different categories, ${content} are taken`
      + ` for their content, ${style} for their style, ${others} for neither: shape bias ${shape_bias === null ? "–" : shape_bias.toFixed(2)}.`;
  }
  const columns = ["kind", "name", "category", "recognized_as", "rank", "probability"];
  if (DATA.images.length) $("image-table").append(element("table", {},
    element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", {}, name.replace("_", " "))))),
    element("tbody", {}, ...DATA.images.map((row) => element("tr", {}, ...columns.map((name) => element("td", {}, number(row[name]))))))));
}

function drawPlots() {
  drawTraces();
  drawDistribution();
  drawMap();
  if (state.open && $("detail").open) drawTrace(BY_ID.get(state.open));
}

// The stimulus under the pointer, in the sheet and in all plots.
let marked = null;
function mark(id) {
  if (id === marked) return;
  marked = id;
  for (const thumb of document.querySelectorAll(".thumb.marked")) thumb.classList.remove("marked");
  for (const thumb of id ? document.querySelectorAll(`.thumb[data-id="${CSS.escape(id)}"]`) : []) thumb.classList.add("marked");
  requestAnimationFrame(() => { if (marked === id) markPlots(id && BY_ID.get(id)); });
}

function markPlots(stimulus) {
  const line = { color: getComputedStyle(document.documentElement).getPropertyValue("--ink").trim(), width: 2 };
  const circle = (x, y) => ({ type: "circle", xsizemode: "pixel", ysizemode: "pixel", xanchor: x, yanchor: y, x0: -8, x1: 8, y0: -8, y1: 8, line });
  const drawn = (name) => $(name).data;
  if (drawn("distribution-plot")) {
    const value = stimulus?.values[distribution.variable] ?? null;
    const at = stimulus ? DATA.factors[distribution.factor].indexOf(stimulus.levels[distribution.factor]) : -1;
    const shapes = value === null || at < 0 ? [] : [{ type: "line", x0: at - 0.45, x1: at + 0.45, y0: value, y1: value, line }];
    Plotly.relayout("distribution-plot", { shapes });
  }
  if (drawn("trace-plot")) {
    const { evaluation } = stimulus?.trace ?? { evaluation: [] };
    const last = drawn("trace-plot").length - 1;
    Plotly.restyle("trace-plot", { x: [evaluation], y: [evaluation.map((one) => relativeLoss(stimulus.trace, one))], "line.color": line.color }, [last]);
  }
  if (drawn("map-plot")) {
    const [x, y] = ["map_x", "map_y"].map((name) => stimulus?.values[DATA.variables.findIndex((one) => one.name === name)] ?? null);
    Plotly.relayout("map-plot", { shapes: x === null || y === null ? [] : [circle(x, y)] });
  }
}

function whilePointed(plot) {
  for (const name of ["plotly_click", "plotly_hover", "plotly_unhover"]) plot.removeAllListeners(name);
  const idOf = (event) => event.points[0]?.text;
  plot.on("plotly_click", (event) => open(idOf(event), null));
  plot.on("plotly_hover", (event) => mark(BY_ID.has(idOf(event)) ? idOf(event) : null));
  plot.on("plotly_unhover", () => mark(null));
}

// Paper is white, as wide as it is, and findings are folded to their first lines.
function forPaper(on) {
  const root = document.documentElement;
  if (on) state.screen = { theme: root.dataset.theme, folded: [...document.querySelectorAll("details.finding:not([open])")] };
  for (const finding of state.screen.folded) finding.open = on;
  root.dataset.theme = on ? "light" : state.screen.theme;
  state.width = on ? PAPER_WIDTH : undefined;
  drawPlots();
}
