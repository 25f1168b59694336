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
// An axis is a factor, nothing, or the design: its factors that vary, the slower ones down.
const DESIGN = "*";
const MAX_ACROSS = 12;
const state = { rows: DESIGN, columns: DESIGN, filters: {}, shown: [], open: null, opener: null };

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
  const axes = [[DESIGN, "the design"], ["", "–"], ...VARIED.map((name) => [name, name])];
  const controls = [
    select("rows", axes, state.rows, (value) => { state.rows = value; drawSheet(); }),
    select("columns", axes, state.columns, (value) => { state.columns = value; drawSheet(); }),
    ...VARIED.map((name) => select(name, [["", "all"], ...DATA.factors[name].map((level) => [level, level || "–"])], "", (value) => filter(name, value))),
  ];
  const statuses = [...new Set(DATA.stimuli.map((stimulus) => stimulus.status))];
  if (statuses.length > 1) controls.push(select("status", [["", "all"], ...statuses.map((one) => [one, one])], "", (value) => filter("·status", value)));
  const names = [...new Set(DATA.findings.filter((one) => one.stimulus_id).map((one) => one.name))];
  if (names.length) controls.push(select("finding", [["", "any or none"], ...names.map((one) => [one, one])], "", (value) => filter("·finding", value)));
  controls.push(select("verdict", [["", "any or none"], ...[...DECISIONS, "none"].map((one) => [one, one])], "", (value) => filter("·verdict", value)));
  controls.push(element("span", { class: "faint", id: "count", role: "status" }));
  $("controls").append(...controls);
}

function filter(name, value) {
  if (value) state.filters[name] = value;
  else delete state.filters[name];
  drawSheet();
}

// What is not a factor or attribute has a dot before its name.
function passes(stimulus) {
  return Object.entries(state.filters).every(([name, value]) => {
    if (name === "·verdict") return (verdicts.get(stimulus.id)?.verdict ?? "none") === value;
    if (name === "·status") return stimulus.status === value;
    if (name === "·finding") return (FINDINGS_OF.get(stimulus.id) ?? []).some((one) => one.name === value);
    return stimulus.levels[name] === value;
  });
}

// The factors on each side. Of the design, those that are not on the other side already, so that a field holds one stimulus.
function sides() {
  const chosen = (side) => (state[side] && state[side] !== DESIGN ? [state[side]] : []);
  const taken = [...chosen("rows"), ...chosen("columns")];
  const free = ["role", ...DATA.design].filter((name) => VARIED.includes(name) && !taken.includes(name));
  if (state.rows !== DESIGN || state.columns !== DESIGN) {
    return { rows: state.rows === DESIGN ? free : chosen("rows"), columns: state.columns === DESIGN ? free : chosen("columns") };
  }
  let first = free.length;
  const count = (names) => names.reduce((product, name) => product * DATA.factors[name].length, 1);
  while (first > 0 && count(free.slice(first - 1)) <= MAX_ACROSS) first -= 1;
  if (first === free.length && free.length) first -= 1;
  if (first === 0 && free.length > 1) first = 1;
  return { rows: free.slice(0, first), columns: free.slice(first) };
}

const keyOf = (stimulus, names) => JSON.stringify(names.map((name) => stimulus.levels[name]));

// The combinations of levels that are there, in the order of the design.
function keysOf(names, stimuli) {
  const place = (key) => JSON.parse(key).map((level, index) => DATA.factors[names[index]].indexOf(level));
  const before = (one, other) => {
    const [a, b] = [place(one), place(other)], at = a.findIndex((value, index) => value !== b[index]);
    return at < 0 ? 0 : a[at] - b[at];
  };
  return [...new Set(stimuli.map((stimulus) => keyOf(stimulus, names)))].sort(before);
}

const headOf = (key) => JSON.parse(key).map((level) => level || "–").join(" · ");

function drawSheet() {
  const stimuli = DATA.stimuli.filter(passes);
  const { rows, columns } = sides();
  const groups = Map.groupBy(stimuli, (one) => `${keyOf(one, rows)} ${keyOf(one, columns)}`);
  const columnKeys = keysOf(columns, stimuli);
  state.shown = [];
  const body = element("tbody");
  for (const row of keysOf(rows, stimuli)) {
    const line = element("tr");
    if (rows.length) line.append(element("th", { scope: "row" }, headOf(row)));
    for (const column of columnKeys) {
      const members = groups.get(`${row} ${column}`) ?? [];
      state.shown.push(...members);
      line.append(element("td", {}, element("div", { class: "group" }, ...members.map(thumbnail))));
    }
    body.append(line);
  }
  const names = [rows, columns].filter((side) => side.length).map((side) => side.join(" · ")).join(" \\ ");
  const head = element("tr", {}, rows.length ? element("th", {}, names) : null,
    ...columnKeys.map((key) => element("th", { scope: "col" }, columns.length ? headOf(key) : "")));
  $("sheet").style.setProperty("--side", `${Math.max(64, Math.min(160, Math.floor(1150 / Math.max(1, columnKeys.length)) - 12))}px`);
  $("sheet").replaceChildren(element("table", {}, element("thead", {}, head), body));
  $("count").textContent = `${stimuli.length} of ${DATA.stimuli.length} stimuli`;
}

function thumbnail(stimulus) {
  const flagged = (FINDINGS_OF.get(stimulus.id) ?? []).some((one) => one.severity === "error");
  const label = DATA.design.map((name) => `${name} ${stimulus.levels[name]}`).join(", ");
  const inside = stimulus.image
    ? element("img", { src: stimulus.image, alt: label, loading: "lazy", decoding: "async" })
    : element("span", { class: "none" }, stimulus.status);
  const verdict = verdicts.get(stimulus.id)?.verdict ?? "";
  return element("button", {
    class: `thumb ${stimulus.status}${flagged ? " flagged" : ""}`, type: "button", title: label, "data-id": stimulus.id, "data-verdict": verdict || null,
    onclick: (event) => open(stimulus.id, event.currentTarget),
    onmouseenter: () => mark(stimulus.id), onmouseleave: () => mark(null), onfocus: () => mark(stimulus.id), onblur: () => mark(null),
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
  const image = stimulus.image ? picture(stimulus) : element("p", {}, stimulus.status);
  const left = element("div", {}, image, element("p", { class: "hint" }, stimulus.file), curationForm(stimulus),
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

// The stimulus as wide as there is room, or (button, key 1) one of its pixels on one of the screen.
function picture(stimulus) {
  const image = element("img", { class: "large", src: stimulus.image, alt: stimulus.file });
  const words = element("span", { class: "hint" });
  const show = () => {
    image.classList.toggle("native", state.native);
    image.style.width = state.native ? `${image.naturalWidth / devicePixelRatio}px` : "";
    const full = stimulus.parameters.width_px;
    words.textContent = state.native && image.naturalWidth < full ? ` reduced from ${full} px: the file itself shows all of them` : "";
  };
  image.addEventListener("load", show);
  const button = element("button", { type: "button", id: "native", title: "key 1", onclick: () => { state.native = !state.native; show(); } }, "1:1");
  return element("div", {}, element("div", { class: "frame" }, image), button, words);
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
