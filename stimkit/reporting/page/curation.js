// Verdicts about stimuli: kept in this browser, saved as curation.json, which [accept] curation applies.

const DECISIONS = ["keep", "reject", "unsure"];
const KEYS = { k: "keep", r: "reject", u: "unsure" };
const CURATION_PLACE = `stimkit curation ${DATA.name} ${DATA.lock}`;
const verdicts = new Map(); // by stimulus id: verdict, note, file_sha256, at
let curator = "";

// A verdict is about a file: of a stimulus that was made again since, it is not one.
function enterVerdicts(saved) {
  for (const one of saved) {
    const stimulus = BY_ID.get(one.stimulus_id);
    if (stimulus?.parameters.file_sha256 === one.file_sha256 && DECISIONS.includes(one.verdict)) verdicts.set(one.stimulus_id, one);
  }
}

function curationText() {
  return JSON.stringify({ schema: 1, set: DATA.name, curator: curator || "anonymous", verdicts: [...verdicts.values()] }, null, 1);
}

function keepCuration() {
  try {
    localStorage.setItem(CURATION_PLACE, curationText());
  } catch { /* pages opened from disk have no storage in some browsers; the file is what counts */ }
  const counts = DECISIONS.map((one) => [one, [...verdicts.values()].filter((given) => given.verdict === one).length]).filter(([, count]) => count);
  $("curation-count").textContent = counts.map(([one, count]) => `${count} ${one}`).join(", ") || "no verdicts yet";
}

// Give a verdict, or take back the same one; the note stays.
function judge(id, verdict) {
  const stimulus = BY_ID.get(id), before = verdicts.get(id);
  if (!stimulus?.parameters.file_sha256) return;
  if (before?.verdict === verdict) verdicts.delete(id);
  else verdicts.set(id, { stimulus_id: id, file_sha256: stimulus.parameters.file_sha256, verdict, note: before?.note ?? "", at: new Date().toISOString() });
  showVerdict(id);
}

function note(id, text) {
  const before = verdicts.get(id);
  if (!before) judge(id, "unsure");
  verdicts.set(id, { ...verdicts.get(id), note: text.replace(/[\u0000-\u001f\u007f]+/g, " ").trim().slice(0, 500), at: new Date().toISOString() });
  showVerdict(id);
}

function showVerdict(id) {
  const verdict = verdicts.get(id)?.verdict ?? "";
  for (const thumb of document.querySelectorAll(`.thumb[data-id="${CSS.escape(id)}"]`)) {
    if (verdict) thumb.dataset.verdict = verdict;
    else delete thumb.dataset.verdict;
  }
  for (const button of document.querySelectorAll("#curation-form button")) button.setAttribute("aria-pressed", button.value === verdict);
  keepCuration();
}

function curationForm(stimulus) {
  const verdict = verdicts.get(stimulus.id)?.verdict;
  const buttons = DECISIONS.map((one) => element("button", { type: "button", value: one, title: `key ${one[0]}`, "aria-pressed": String(verdict === one),
    onclick: () => judge(stimulus.id, one) }, one));
  const words = element("input", { type: "text", "aria-label": "note", placeholder: "note (key n)", maxlength: 500, value: verdicts.get(stimulus.id)?.note ?? "",
    onchange: (event) => note(stimulus.id, event.target.value) });
  return element("div", { id: "curation-form" }, ...buttons, words);
}

function drawCuration() {
  try {
    const saved = JSON.parse(localStorage.getItem(CURATION_PLACE) ?? "{}");
    curator = saved.curator && saved.curator !== "anonymous" ? saved.curator : "";
    enterVerdicts(saved.verdicts ?? []);
  } catch { /* as above */ }
  const name = element("input", { type: "text", id: "curator", "aria-label": "curator", placeholder: "your name", maxlength: 100, value: curator,
    onchange: (event) => { curator = event.target.value.trim(); keepCuration(); } });
  const save = element("button", { type: "button", id: "save-curation", onclick: saveCuration }, "Save curation.json");
  const load = element("input", { type: "file", accept: ".json", id: "load-curation", hidden: true, onchange: loadCuration });
  const ask = element("button", { type: "button", onclick: () => load.click() }, "Go on from a file");
  $("curation-controls").append(name, save, ask, load, element("span", { class: "faint", id: "curation-count", role: "status" }));
  keepCuration();
}

function saveCuration() {
  const link = element("a", { href: URL.createObjectURL(new Blob([curationText()], { type: "application/json" })), download: "curation.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function loadCuration(event) {
  try {
    const saved = JSON.parse(await event.target.files[0].text());
    enterVerdicts(saved.verdicts);
    curator = $("curator").value = String(saved.curator ?? "");
    drawSheet();
    keepCuration();
  } catch {
    $("curation-count").textContent = "that file is not a curation.json";
  }
  event.target.value = "";
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const id = $("detail").open ? state.open : document.activeElement?.dataset?.id;
  if (!id) return;
  if (KEYS[event.key]) judge(id, KEYS[event.key]);
  if (event.key === "n" && $("detail").open) {
    event.preventDefault();
    document.querySelector("#curation-form input").focus();
  }
});
