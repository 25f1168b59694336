// Verdicts about stimuli: kept in this browser, saved as curation.json, which [accept] curation applies.

const DECISIONS = ["keep", "reject", "unsure"];
const KEYS = { k: "keep", r: "reject", u: "unsure" };
const CURATION_PLACE = `stimkit curation ${DATA.name}`;
const verdicts = new Map(); // by stimulus id: verdict, note, file_sha256, at
let curator = "";

// Text as curation.json may hold it: nothing that cannot be seen.
function plain(text, most) {
  return [...String(text ?? "").replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]+/gu, " ").trim()].slice(0, most).join("");
}

// A verdict is about a file: of a stimulus that was made again since, it is not one. How many were taken.
function enterVerdicts(saved) {
  const ours = (Array.isArray(saved) ? saved : []).filter((one) =>
    BY_ID.get(one?.stimulus_id)?.parameters.file_sha256 === one.file_sha256 && DECISIONS.includes(one.verdict)
    && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/.test(one.at));
  for (const { stimulus_id, file_sha256, verdict, note, at } of ours) verdicts.set(stimulus_id, { stimulus_id, file_sha256, verdict, note: plain(note, 500), at });
  return ours.length;
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

// Give a verdict, or take back the same one with its note.
function judge(id, verdict) {
  const stimulus = BY_ID.get(id), before = verdicts.get(id);
  if (!stimulus?.parameters.file_sha256) return;
  if (before?.verdict === verdict) verdicts.delete(id);
  else verdicts.set(id, { stimulus_id: id, file_sha256: stimulus.parameters.file_sha256, verdict, note: before?.note ?? "", at: new Date().toISOString() });
  showVerdict(id);
}

function note(id, text) {
  if (!verdicts.has(id)) judge(id, "unsure");
  if (!verdicts.has(id)) return; // there is no file
  verdicts.set(id, { ...verdicts.get(id), note: plain(text, 500), at: new Date().toISOString() });
  showVerdict(id);
}

function showVerdict(id) {
  const verdict = verdicts.get(id)?.verdict ?? "";
  for (const thumb of document.querySelectorAll(`.thumb[data-id="${CSS.escape(id)}"]`)) {
    if (verdict) thumb.dataset.verdict = verdict;
    else delete thumb.dataset.verdict;
  }
  for (const button of document.querySelectorAll("#curation-form button")) button.setAttribute("aria-pressed", button.value === verdict);
  const words = document.querySelector("#curation-form input");
  if (words && state.open === id) words.value = verdicts.get(id)?.note ?? "";
  keepCuration();
}

function curationForm(stimulus) {
  if (!stimulus.parameters.file_sha256) return null;
  const verdict = verdicts.get(stimulus.id)?.verdict;
  const buttons = DECISIONS.map((one) => element("button", { type: "button", value: one, title: `key ${one[0]}`, "aria-pressed": String(verdict === one),
    onclick: () => judge(stimulus.id, one) }, one));
  const words = element("input", { type: "text", "aria-label": "note", placeholder: "note (key n)", maxlength: 500, value: verdicts.get(stimulus.id)?.note ?? "",
    onchange: (event) => note(stimulus.id, event.target.value) });
  return element("div", { id: "curation-form" }, ...buttons, words);
}

// Go on from what this browser has, or from what the protocol applied already.
function drawCuration() {
  let saved = {};
  try {
    saved = JSON.parse(localStorage.getItem(CURATION_PLACE) ?? "{}");
  } catch { /* as above */ }
  const applied = DATA.curations.find((one) => one.curator === saved.curator) ?? (DATA.curations.length === 1 && !saved.curator ? DATA.curations[0] : null);
  curator = saved.curator && saved.curator !== "anonymous" ? plain(saved.curator, 100) : applied?.curator ?? "";
  enterVerdicts(applied?.verdicts);
  enterVerdicts(saved.verdicts);
  const name = element("input", { type: "text", id: "curator", "aria-label": "curator", placeholder: "your name", maxlength: 100, value: curator,
    onchange: (event) => { curator = event.target.value = plain(event.target.value, 100); keepCuration(); } });
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
  let words = "that file is not a curation.json";
  try {
    const saved = JSON.parse(await event.target.files[0].text());
    if (saved.schema === 1 && saved.set !== DATA.name) words = `that file is about the set ${plain(saved.set, 100)}`;
    else if (saved.schema === 1 && curator && saved.curator !== curator) words = `that file is ${plain(saved.curator, 100)}'s: clear the name to go on from it`;
    else if (saved.schema === 1) {
      const taken = enterVerdicts(saved.verdicts);
      curator = $("curator").value = plain(saved.curator, 100);
      drawSheet();
      keepCuration();
      words = `${$("curation-count").textContent}; ${taken} of ${saved.verdicts.length} taken from the file`;
    }
  } catch { /* the words stay */ }
  $("curation-count").textContent = words;
  event.target.value = "";
}

addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const id = $("detail").open ? state.open : document.activeElement?.dataset?.id;
  if (!id) return;
  if (KEYS[event.key]) judge(id, KEYS[event.key]);
  if (event.key === "n" && $("detail").open) {
    event.preventDefault();
    document.querySelector("#curation-form input").focus();
  }
});
