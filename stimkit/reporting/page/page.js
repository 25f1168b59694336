"use strict";
// The report page: draws the data of stimkit.reporting.contents.gather_contents. Text only ever enters as text.

const DATA = JSON.parse(document.getElementById("data").textContent);
const BY_ID = new Map(DATA.stimuli.map((stimulus) => [stimulus.id, stimulus]));
const FACTORS = Object.keys(DATA.factors);
const VARIED = FACTORS.filter((name) => DATA.factors[name].length > 1);
const SEVERITIES = ["error", "warning", "notice"];
const PALETTE = ["#3b78b8", "#d0772f", "#4a9a5b", "#b5504f", "#8467b0", "#8c6d46", "#c76fa9", "#7a8079", "#a8a034", "#3fa3b0"];
const MAX_COLOURS = PALETTE.length;
const PAPER_WIDTH = 680; // pixels
const FINDINGS_OF = new Map();
for (const finding of DATA.findings) {
  if (finding.stimulus_id) FINDINGS_OF.set(finding.stimulus_id, [...(FINDINGS_OF.get(finding.stimulus_id) ?? []), finding]);
}
const state = { rows: "", columns: "", filters: {}, shown: [], open: null, opener: null };

const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function select(label, options, value, change) {
  const made = element("select", { "aria-label": label, onchange: (event) => change(event.target.value) });
  for (const [key, text] of options) made.append(element("option", { value: key, selected: key === value }, text));
  return element("label", {}, `${label} `, made);
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) ? String(value) : value.toPrecision(4);
}

// --- findings ---------------------------------------------------------------------------------------------------

function drawFindings() {
  const counts = SEVERITIES.map((severity) => [severity, DATA.findings.filter((one) => one.severity === severity).length]);
  const words = counts.filter(([, count]) => count).map(([severity, count]) => `${count} ${severity}${count > 1 ? "s" : ""}`).join(", ");
  $("verdict").textContent = `${DATA.stimuli.length} stimuli: ${words || "nothing to object to"}`;
  $("verdict").className = `verdict ${counts.find(([, count]) => count)?.[0] ?? ""}`;
  const groups = Map.groupBy(DATA.findings, (finding) => `${finding.severity} ${finding.name}`);
  for (const findings of groups.values()) {
    const { severity, name, meaning } = findings[0];
    const items = findings.map((one) => element("li", {},
      one.stimulus_id ? element("button", { class: "link", type: "button", onclick: (event) => open(one.stimulus_id, event.target) }, one.stimulus_id) : "",
      ` ${[one.path, one.detail].filter(Boolean).join(": ")}`));
    const title = element("summary", {}, element("strong", { class: severity }, severity), ` ${name} (${findings.length}): ${meaning}`);
    $("finding-list").append(element("details", { class: "finding", open: severity === "error" }, title, element("ul", {}, ...items)));
  }
  if (!DATA.findings.length) $("finding-list").append(element("p", {}, "None."));
}

// --- the sheet --------------------------------------------------------------------------------------------------

function drawControls() {
  const axes = [["", "–"], ...VARIED.map((name) => [name, name])];
  const controls = [
    select("rows", axes, state.rows, (value) => { state.rows = value; drawSheet(); }),
    select("columns", axes, state.columns, (value) => { state.columns = value; drawSheet(); }),
    ...VARIED.map((name) => select(name, [["", "all"], ...DATA.factors[name].map((level) => [level, level || "–"])], "", (value) => filter(name, value))),
  ];
  const statuses = [...new Set(DATA.stimuli.map((stimulus) => stimulus.status))];
  if (statuses.length > 1) controls.push(select("status", [["", "all"], ...statuses.map((one) => [one, one])], "", (value) => filter("status", value)));
  const names = [...new Set(DATA.findings.filter((one) => one.stimulus_id).map((one) => one.name))];
  if (names.length) controls.push(select("finding", [["", "any or none"], ...names.map((one) => [one, one])], "", (value) => filter("finding", value)));
  controls.push(element("span", { class: "faint", id: "count", role: "status" }));
  $("controls").append(...controls);
}

function filter(name, value) {
  if (value) state.filters[name] = value;
  else delete state.filters[name];
  drawSheet();
}

function passes(stimulus) {
  return Object.entries(state.filters).every(([name, value]) => {
    if (name === "status") return stimulus.status === value;
    if (name === "finding") return (FINDINGS_OF.get(stimulus.id) ?? []).some((one) => one.name === value);
    return stimulus.levels[name] === value;
  });
}

function levelsOf(axis, stimuli) {
  if (!axis) return [null];
  const there = new Set(stimuli.map((stimulus) => stimulus.levels[axis]));
  return DATA.factors[axis].filter((level) => there.has(level));
}

function drawSheet() {
  const stimuli = DATA.stimuli.filter(passes);
  const { rows, columns } = state;
  const groups = Map.groupBy(stimuli, (one) => JSON.stringify([rows && one.levels[rows], columns && one.levels[columns]]));
  const columnLevels = levelsOf(columns, stimuli);
  state.shown = [];
  const body = element("tbody");
  for (const row of levelsOf(rows, stimuli)) {
    const line = element("tr");
    if (rows) line.append(element("th", { scope: "row" }, row || "–"));
    for (const column of columnLevels) {
      const members = groups.get(JSON.stringify([rows && row, columns && column])) ?? [];
      state.shown.push(...members);
      line.append(element("td", {}, element("div", { class: "group" }, ...members.map(thumbnail))));
    }
    body.append(line);
  }
  const head = element("tr", {}, rows ? element("th", {}, columns ? `${rows} \\ ${columns}` : rows) : null,
    ...columnLevels.map((level) => element("th", { scope: "col" }, columns ? level || "–" : "")));
  $("sheet").style.setProperty("--side", `${Math.max(64, Math.min(160, Math.floor(1150 / Math.max(1, columnLevels.length)) - 12))}px`);
  $("sheet").replaceChildren(element("table", {}, element("thead", {}, head), body));
  $("count").textContent = `${stimuli.length} of ${DATA.stimuli.length} stimuli`;
}

function thumbnail(stimulus) {
  const flagged = (FINDINGS_OF.get(stimulus.id) ?? []).some((one) => one.severity === "error");
  const label = DATA.design.map((name) => `${name} ${stimulus.levels[name]}`).join(", ");
  const inside = stimulus.image
    ? element("img", { src: stimulus.image, alt: label, loading: "lazy", decoding: "async" })
    : element("span", { class: "none" }, stimulus.status);
  return element("button", {
    class: `thumb ${stimulus.status}${flagged ? " flagged" : ""}`, type: "button", title: label, "data-id": stimulus.id,
    onclick: (event) => open(stimulus.id, event.currentTarget),
  }, inside);
}

// --- series -----------------------------------------------------------------------------------------------------

const MAX_STRIPS = 24;
const STEP = { width: 92, height: 90, margin: 6 }; // pixels

function drawSeries(name) {
  const series = DATA.series.find((one) => one.name === name);
  const others = DATA.design.filter((factor) => factor !== series.kind);
  const main = DATA.stimuli.filter((one) => one.levels.role === "main");
  const groups = [...Map.groupBy(main, (one) => JSON.stringify(others.map((factor) => one.levels[factor]))).values()];
  const strips = groups.map((members) => {
    const at = new Map(members.map((one) => [one.levels[series.kind], one]));
    const steps = series.steps.filter((step) => at.has(step.level)).map((step) => ({ ...step, stimulus: at.get(step.level) }));
    const words = others.filter((factor) => VARIED.includes(factor)).map((factor) => `${factor} ${members[0].levels[factor]}`).join(", ");
    return steps.length > 1 ? drawStrip(series, steps, words) : null;
  }).filter(Boolean);
  const more = strips.length > MAX_STRIPS ? element("p", { class: "faint" }, `${MAX_STRIPS} of ${strips.length} strips`) : "";
  $("strips").replaceChildren(...strips.slice(0, MAX_STRIPS), more);
}

function drawStrip(series, steps, words) {
  const distance = (step, image) => step.stimulus.distances[series.kind]?.[image] ?? null;
  const largest = Math.max(...steps.flatMap((step) => series.images.map((image) => distance(step, image) ?? 0))) || 1;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", STEP.width * steps.length);
  svg.setAttribute("height", STEP.height);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `distances to ${series.images.join(", ")}`);
  const keys = series.images.map((image, index) => {
    const points = steps.map((step, place) => [place, distance(step, image)]).filter(([, value]) => value !== null)
      .map(([place, value]) => [STEP.width * (place + 0.5), STEP.margin + (STEP.height - 2 * STEP.margin) * (1 - value / largest)]);
    const line = document.createElementNS(svg.namespaceURI, "polyline");
    line.setAttribute("points", points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" "));
    line.style.stroke = PALETTE[index % MAX_COLOURS];
    svg.append(line);
    return element("span", { class: "key", style: `color: ${PALETTE[index % MAX_COLOURS]}` }, image);
  });
  const pictures = steps.map((step) => element("div", {}, thumbnail(step.stimulus), element("br"), `${step.level} (${step.position})`));
  return element("div", { class: "strip" }, element("div", {}, words ? `${words}: ` : "", ...keys), element("div", { class: "steps" }, ...pictures), svg);
}

function drawSeriesControls() {
  if (!DATA.series.length) return;
  $("series").hidden = false;
  const names = DATA.series.map((one) => [one.name, `${one.name} (${one.images.join(" – ")}${one.closed ? " – …" : ""})`]);
  $("series-controls").append(select("series", names, names[0][0], drawSeries));
  drawSeries(names[0][0]);
}

function moveFocus(event) {
  const thumbs = [...$("sheet").querySelectorAll("button.thumb")];
  const at = thumbs.indexOf(document.activeElement);
  if (at < 0) return;
  const box = (thumb) => thumb.getBoundingClientRect();
  const here = box(thumbs[at]);
  const steps = { ArrowLeft: at - 1, ArrowRight: at + 1 };
  let next = thumbs[steps[event.key]];
  if (event.key === "ArrowUp" || event.key === "ArrowDown") {
    const down = event.key === "ArrowDown";
    const beyond = thumbs.filter((thumb) => (down ? box(thumb).top > here.top + 4 : box(thumb).top < here.top - 4));
    const nearest = (thumb) => Math.abs(box(thumb).top - here.top) * 10 + Math.abs(box(thumb).left - here.left);
    next = beyond.sort((one, other) => nearest(one) - nearest(other))[0];
  }
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

// --- one stimulus -----------------------------------------------------------------------------------------------

function open(id, opener) {
  if (!BY_ID.has(id)) return;
  if (opener) state.opener = opener;
  state.open = id;
  const stimulus = BY_ID.get(id);
  $("detail-title").textContent = `${id}  ${DATA.design.map((name) => stimulus.levels[name]).filter(Boolean).join(" · ")}`;
  $("detail-body").replaceChildren(...detail(stimulus));
  if (!$("detail").open) $("detail").showModal();
  drawTrace(stimulus);
}

function detail(stimulus) {
  const findings = FINDINGS_OF.get(stimulus.id) ?? [];
  const image = stimulus.image ? element("img", { class: "large", src: stimulus.image, alt: stimulus.file }) : element("p", {}, stimulus.status);
  const left = element("div", {}, image, element("p", { class: "hint" }, stimulus.file),
    ...findings.map((one) => element("p", { class: one.severity }, `${one.name}: ${one.detail}`)),
    element("h3", {}, "Neighbours in the design"), neighbours(stimulus), ...nearest(stimulus));
  const right = element("div", {}, element("h3", {}, "Losses, unweighted"), lossTable(stimulus),
    element("h3", {}, "Trace"), element("div", { id: "detail-trace", class: "small-plot" }),
    element("h3", {}, "Statistics"), valueTable(stimulus));
  const parameters = element("dl", {}, ...Object.entries(stimulus.parameters).flatMap(([name, value]) => [
    element("dt", { title: DATA.columns[name] }, name), element("dd", {}, number(value))]));
  const attempts = stimulus.attempts.map((one, index) => element("li", {}, `attempt ${index + 1}, seed ${one.seed}: ${one.status_reason}`));
  const more = element("div", { class: "wide" }, attempts.length ? element("ul", {}, ...attempts) : null,
    element("details", {}, element("summary", {}, "All parameters"), parameters));
  return [left, right, more];
}

function neighbours(stimulus) {
  const figures = [];
  for (const name of VARIED.filter((name) => DATA.design.includes(name))) {
    const levels = DATA.factors[name];
    for (const step of [-1, 1]) {
      const level = levels[levels.indexOf(stimulus.levels[name]) + step];
      const other = level === undefined ? null
        : DATA.stimuli.find((one) => DATA.design.every((factor) => one.levels[factor] === (factor === name ? level : stimulus.levels[factor])));
      if (other) {
        const button = thumbnail(other);
        figures.push(element("figure", {}, button, element("figcaption", {}, `${name} ${level}`)));
      }
    }
  }
  return figures.length ? element("div", { class: "neighbours" }, ...figures) : element("p", { class: "hint" }, "none");
}

function lossTable(stimulus) {
  const { losses } = stimulus;
  const rows = [];
  for (const term of ["content", "style"]) {
    for (const layer of Object.keys(losses.file[`${term}_layers`])) rows.push([`${term} ${layer}`, (stage) => losses[stage][`${term}_layers`][layer]]);
  }
  for (const term of ["content", "style", "total"]) rows.push([term, (stage) => losses[stage][term]]);
  return element("table", {},
    element("thead", {}, element("tr", {}, element("th", {}, ""), ...DATA.stages.map((stage) => element("th", {}, stage)))),
    element("tbody", {}, ...rows.filter(([, value]) => DATA.stages.some((stage) => value(stage) !== null)).map(([name, value]) =>
      element("tr", {}, element("th", {}, name), ...DATA.stages.map((stage) => element("td", { class: "number" }, number(value(stage))))))));
}

function valueTable(stimulus) {
  const rows = DATA.variables.map((variable, index) => {
    const value = stimulus.values[index];
    if (value === null) return null;
    const all = DATA.stimuli.map((one) => one.values[index]).filter((one) => one !== null);
    const below = all.filter((one) => one < value).length + all.filter((one) => one === value).length / 2;
    return element("tr", { title: variable.long_name }, element("th", {}, variable.name), element("td", { class: "number" }, number(value)),
      element("td", {}, variable.units === "1" ? "" : variable.units), element("td", { class: "number faint" }, `${Math.round((100 * below) / all.length)}`));
  });
  return element("table", {}, element("thead", {}, element("tr", {}, ...["", "", "", "percentile in the set"].map((text) => element("th", {}, text)))),
    element("tbody", {}, ...rows));
}

function step(by) {
  const order = state.shown.length ? state.shown : DATA.stimuli;
  const at = order.findIndex((one) => one.id === state.open);
  const next = order[at + by] ?? (at < 0 ? order[0] : null);
  if (next) open(next.id);
}

// --- plots ------------------------------------------------------------------------------------------------------

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
    yaxis: { title: { text: variable.long_name } } }), CONFIG).then((plot) => {
    plot.removeAllListeners("plotly_click");
    plot.on("plotly_click", (event) => open(event.points[0].text, null));
  });
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
    yaxis: { title: { text: "second dimension" }, scaleanchor: "x" } }), CONFIG).then((plot) => {
    plot.removeAllListeners("plotly_click");
    plot.on("plotly_click", (event) => open(event.points[0].text, null));
  });
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

// Paper is white, has no folded findings, and is as wide as it is.
function forPaper(on) {
  const root = document.documentElement;
  if (on) state.screen = { theme: root.dataset.theme, folded: [...document.querySelectorAll("details.finding:not([open])")] };
  for (const finding of state.screen.folded) finding.open = on;
  root.dataset.theme = on ? "light" : state.screen.theme;
  state.width = on ? PAPER_WIDTH : undefined;
  drawPlots();
}

// --- start ------------------------------------------------------------------------------------------------------

const facing = VARIED.filter((name) => name !== "replicate");
state.rows = facing.length > 1 ? facing[0] : "";
state.columns = facing.at(-1) ?? VARIED[0] ?? "";
$("theme").addEventListener("change", (event) => { document.documentElement.dataset.theme = event.target.value; drawPlots(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
addEventListener("beforeprint", () => forPaper(true));
addEventListener("afterprint", () => forPaper(false));
$("sheet").addEventListener("keydown", (event) => { if (event.key.startsWith("Arrow")) moveFocus(event); });
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
$("detail").addEventListener("close", () => { state.open = null; state.opener?.focus(); });
$("detail").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
$("copy").addEventListener("click", async () => {
  const range = document.createRange();
  range.selectNodeContents($("methods-text"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText($("methods-text").textContent);
  } catch {
    document.execCommand("copy"); // pages opened from disk have no clipboard in some browsers
  }
});

drawFindings();
drawControls();
drawSheet();
drawSeriesControls();
drawTraceControls();
drawDistributionControls();
drawEffects();
drawMapSection();
drawRecognition();
drawPlots();
