// The experiment: settings.json says what is asked, where things are and how long they last; lists/ has the trials.
//
//   index.html?participant=p001              shows that list; without it the page asks
//   index.html?participant=p001&save=json    saves JSON instead of CSV
//   index.html?participant=p001&ppd=44.1     pixels of this screen per degree, where [screen] does not say it
//
// Everything is placed from the middle of the window, whatever else is on the page: one pixel of an image on one pixel
// of the display, or resampled to the degrees that were asked for where the screen is known and another than the images
// were made for. Times are those of frames. Answers are kept in the browser after every trial, until they are saved.

import { makeMethod } from "./adaptive.js";

const parameters = new URLSearchParams(window.location.search);
const settings = await (await fetch("settings.json")).json();
const { words } = settings;
const GAP = 40; // pixels between stimuli without places in degrees
const MARK = 0.25; // length of an arm of the fixation mark, degrees

// --- the screen -----------------------------------------------------------------------------------------------

let screenPpd = Number(parameters.get("ppd")) || settings.screen?.ppd || settings.image_ppd;
let viewingDistance = settings.screen?.viewing_distance ?? null; // cm
const REPETITIONS = 5; // measurements of the blind spot
const imageScale = () => {
  const scale = screenPpd && settings.image_ppd ? screenPpd / settings.image_ppd : 1;
  return Math.abs(scale - 1) < settings.same_scale ? 1 : scale;
};

// Measure pixels per degree with a card and the blind spot (Li, Joo, Yeatman & Reinecke 2020).
async function calibrate() {
  const instance = initJsPsych();
  await instance.run([{
    type: jsPsychVirtualChinrest,
    blindspot_reps: REPETITIONS,
    adjustment_prompt: `<p>${escaped(words.card)}</p>`,
    adjustment_button_prompt: escaped(words.card_done),
    blindspot_prompt: `<p>${escaped(words.blind_spot)}</p>`,
    blindspot_measurements_prompt: escaped(words.measurements),
    viewing_distance_report: `<p>${escaped(words.distance)} <b id="distance-estimate"></b></p>`,
    redo_measurement_button_label: escaped(words.distance_wrong),
    blindspot_done_prompt: escaped(words.distance_right),
  }]);
  const found = instance.data.get().values()[0];
  screenPpd = found.px2deg * window.devicePixelRatio;
  viewingDistance = found.view_dist_mm / 10;
}

// Whether all that is on the stage is in the window.
function fitsWindow() {
  return [...stage.children].every((element) => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return Math.min(left, top, window.innerWidth - right, window.innerHeight - bottom) > -0.5;
  });
}
const stage = document.createElement("div");
stage.id = "stage";
document.body.before(stage);

// Put an element of a size, in pixels of the display, with its middle at a place right of and above the window's.
function put(element, x, y, ...size) {
  const ratio = window.devicePixelRatio;
  const [width, height] = size.map(Math.round);
  const left = Math.round((window.innerWidth * ratio) / 2 + x - width / 2);
  const top = Math.round((window.innerHeight * ratio) / 2 - y - height / 2);
  Object.assign(element.style, {
    left: `${left / ratio}px`,
    top: `${top / ratio}px`,
    width: `${width / ratio}px`,
    height: `${height / ratio}px`,
  });
}

const mark = ["across", "up"].map(() => {
  const arm = document.createElement("div");
  arm.className = "mark";
  return arm;
});

function showMark() {
  const [x, y] = settings.fixation_deg.map((value) => value * (screenPpd || 0));
  const arm = Math.max(9, Math.round(2 * MARK * (screenPpd || 40)) | 1);
  const width = Math.max(3, Math.round(arm / 7) | 1);
  put(mark[0], x, y, arm, width);
  put(mark[1], x, y, width, arm);
  stage.append(...mark);
}

const pictures = new Map();

async function load(list) {
  const series = Object.values(settings.series).flat().map((step) => step.stim_file);
  const wanted = [...new Set([...series, ...list.flatMap((trial) => [...files(trial), ...masks(trial)])])];
  const waiting = wanted.map(async (file) => {
    const image = new Image();
    image.src = address(file);
    await image.decode();
    pictures.set(file, image);
  });
  await Promise.all(waiting);
}

function ends(trial) {
  return Object.keys(trial).filter((name) => name.startsWith("stim_file")).map((name) => name.slice("stim_file".length));
}

function files(trial) {
  return ends(trial).map((end) => trial[`stim_file${end}`]);
}

// What a participant moves along: steps with files, in their order.
function steps(trial) {
  return settings.series[trial.series] ?? [];
}

function masks(trial) {
  return settings.mask_s > 0 ? files(trial).map((file) => file.replace(/^stimuli\//, "masks/")) : [];
}

function address(file) {
  return file.split("/").map(encodeURIComponent).join("/");
}

// Elements of the images of a trial, ready to be painted: a stimulus can be there twice.
async function prepare(trial) {
  const elements = (names) => Promise.all(names.map(async (name) => {
    const image = pictures.get(name).cloneNode();
    await image.decode();
    return image;
  }));
  return { stimuli: await elements(files(trial)), masks: await elements(masks(trial)) };
}

// Where images in lines are, from the top and each from the left: their middles right of and above that of the window.
function inLines(lines, scale) {
  const sizes = lines.map((line) => line.map((image) => [image.naturalWidth * scale, image.naturalHeight * scale]));
  const heights = sizes.map((line) => Math.max(...line.map(([, height]) => height)));
  let top = (heights.reduce((sum, height) => sum + height) + GAP * (lines.length - 1)) / 2;
  return sizes.flatMap((line, index) => {
    let left = -(line.reduce((sum, [width]) => sum + width, 0) + GAP * (line.length - 1)) / 2;
    const y = top - heights[index] / 2;
    top -= heights[index] + GAP;
    return line.map(([width]) => {
      left += width + GAP;
      return [left - GAP - width / 2, y];
    });
  });
}

// Images of a trial at their places, which are those of its stimuli: all, or some of them.
function draw(trial, images, some = images.map((_, index) => index)) {
  const scale = imageScale();
  const lines = settings.lines.map((line) => line.filter((index) => some.includes(index))).filter((line) => line.length);
  const places = inLines(lines.map((line) => line.map((index) => images[index])), scale);
  lines.flat().forEach((index, nth) => {
    const [image, end] = [images[index], ends(trial)[index]];
    let [x, y] = places[nth];
    if (`x_deg${end}` in trial) {
      [x, y] = [0, 1].map((axis) => (settings.fixation_deg[axis] + trial[`${"xy"[axis]}_deg${end}`]) * screenPpd);
    }
    paint(image, x, y, scale);
  });
}

function paint(image, x, y, scale) {
  image.className = scale === 1 ? "stimulus exact" : "stimulus";
  put(image, x, y, image.naturalWidth * scale, image.naturalHeight * scale);
  stage.append(image);
}

function clear({ keepMark = false } = {}) {
  stage.replaceChildren(...(keepMark ? mark : []));
}

// --- time -----------------------------------------------------------------------------------------------------

// Waits for the next frame; its time. What is drawn next, before anything else is waited for, is shown in that frame.
const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
const rounded = (milliseconds) => Math.round(100 * milliseconds) / 100;

async function frameInterval() {
  const times = [];
  for (let index = 0; index < 20; index += 1) {
    times.push(await frame());
  }
  const steps = times.slice(1).map((time, index) => time - times[index]);
  return steps.sort((one, other) => one - other)[Math.floor(steps.length / 2)];
}

let interval = 1000 / 60;

// Wait for the first frame that is nearer to `milliseconds` after `start` than the next one would be.
async function until(start, milliseconds, isOver = () => false) {
  let now = await frame();
  while (now - start < milliseconds - interval / 2 && !isOver()) {
    now = await frame();
  }
  return now;
}

// --- answers --------------------------------------------------------------------------------------------------

const STORE = "stimkit";
let rows = [];
let replies = {}; // to the questions of pages, by their names

function key(participant) {
  return `${STORE} ${settings.name} ${participant}`;
}

function stored(participant, list) {
  try {
    const found = JSON.parse(localStorage.getItem(key(participant)));
    const fits = found?.rows.every((row, index) => row.trial === list[index]?.trial && row.block === list[index].block);
    return fits ? found : null;
  } catch {
    return null;
  }
}

function keep(participant) {
  try {
    localStorage.setItem(key(participant), JSON.stringify({ rows, replies }));
  } catch {
    // A browser without storage: the download at the end is all there is.
  }
}

function cell(value) {
  const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function answersFile() {
  const whole = rows.map((row) => ({ ...row, ...replies }));
  if (parameters.get("save") === "json") {
    return ["json", JSON.stringify(whole, null, 1)];
  }
  const names = [...new Set(whole.flatMap(Object.keys))];
  return ["csv", [names, ...whole.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n")];
}

function download(participant) {
  const [format, text] = answersFile();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = `${settings.name}_${participant}.${format}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

// Send answers where settings.json says; the download is made in any case.
async function send(participant) {
  const [format, text] = answersFile();
  if (settings.save.jatos && window.jatos) {
    await window.jatos.submitResultData(text);
  }
  if (settings.save.datapipe) {
    const filename = `${settings.name}_${participant}_${new Date().toISOString().replaceAll(":", "-")}.${format}`;
    const reply = await fetch("https://pipe.jspsych.org/api/data/", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "*/*" },
      body: JSON.stringify({ experimentID: settings.save.datapipe, filename, data: text }),
    });
    if (!reply.ok) {
      throw new Error(`DataPipe answers with ${reply.status}`);
    }
  }
}

// --- pages ----------------------------------------------------------------------------------------------------

function escaped(text) {
  const element = document.createElement("span");
  element.textContent = text;
  return element.innerHTML;
}

function paragraphs(text) {
  return text.split(/\n\s*\n/).filter((one) => one.trim()).map((one) => `<p>${escaped(one.trim())}</p>`).join("");
}

// A page of HTML with buttons, outside of the trials; which of them was pressed, from 0, and the values of its fields.
async function ask(html, buttons) {
  const shown = buttons.map((text, index) => `<button class="jspsych-btn"${index ? " formnovalidate" : ""}>${escaped(text)}</button>`);
  document.body.innerHTML = `<form class="start">${html}<p>${shown.join(" ")}</p></form>`;
  const form = document.querySelector("form.start");
  form.querySelector("input, select, button").focus(); // space and return press a button that has it
  const pressed = await new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      resolve([...form.querySelectorAll("button")].indexOf(event.submitter));
    });
  });
  const values = Object.fromEntries(new FormData(form));
  document.body.innerHTML = "";
  return [Math.max(0, pressed), values];
}

function field({ name, text, kind, choices, required }) {
  const must = required ? "required" : "";
  const options = choices.map((one) => `<option>${escaped(one)}</option>`).join("");
  const input = kind === "choice"
    ? `<select name="${name}" ${must}><option value=""></option>${options}</select>`
    : `<input name="${name}" type="${kind}" ${kind === "number" ? 'step="any"' : ""} ${must}>`;
  return `<p><label>${escaped(text)} ${input}</label></p>`;
}

// The pages before or after the trials; whether the participant agreed to all of them.
async function showPages(when) {
  for (const page of settings.pages.filter((one) => one.when === when)) {
    const buttons = page.consent ? [words.agree, words.decline] : [words.continue];
    const [button, values] = await ask(paragraphs(page.text) + page.questions.map(field).join(""), buttons);
    if (button === 1) {
      return false;
    }
    for (const { name, kind } of page.questions) {
      const value = values[name].trim();
      replies[name] = value === "" ? null : kind === "number" ? Number(value) : value;
    }
  }
  return true;
}

async function chosenParticipant() {
  if (settings.lists.includes(parameters.get("participant"))) {
    return parameters.get("participant");
  }
  const known = settings.lists.map((one) => `<option>${escaped(one)}</option>`).join("");
  const html = `<label>${escaped(words.participant)} <select name="participant">${known}</select></label>`;
  return (await ask(html, [words.start]))[1].participant;
}

// What was answered before the page was closed, where the participant goes on from there; else null.
async function earlierAnswers(participant, list) {
  const before = stored(participant, list);
  if (!before?.rows.length) {
    return null;
  }
  const done = before.rows.length === list.length;
  const text = done ? words.all_answered : `${words.answered} ${before.rows.length} / ${list.length}`;
  const [button] = await ask(`<p>${escaped(text)}</p>`, [done ? words.save_answers : words.go_on, words.start_anew]);
  return button === 0 ? before : null;
}

// Keys for pages: space and return press the first button.
function pressFirst(event) {
  if ([" ", "Enter"].includes(event.key) && !event.repeat) {
    event.preventDefault();
    answerButtons()[0]?.click();
  }
}

function message(text, buttons, onButton = () => {}) {
  return {
    type: jsPsychHtmlButtonResponse,
    stimulus: text,
    choices: buttons,
    on_load: () => document.addEventListener("keydown", pressFirst),
    on_finish(data) {
      document.removeEventListener("keydown", pressFirst);
      onButton(data.response);
    },
  };
}

// --- adaptive levels ------------------------------------------------------------------------------------------

const methods = new Map();

function methodOf(trial) {
  if (!methods.has(trial.series)) {
    const levels = steps(trial).map((step) => step.level);
    methods.set(trial.series, makeMethod(levels, settings.adaptive));
  }
  return methods.get(trial.series);
}

// The end of the columns of what is adapted: of the only stimulus, or of the one that is right.
const adaptedEnd = (trial) => (settings.form === "2afc" ? `_${trial.answer_index}` : "");

// Put the step that comes next into a trial.
function adapt(trial) {
  const step = steps(trial)[methodOf(trial).next];
  const values = { ...step.columns, stimulus_id: step.stimulus_id, stim_file: step.stim_file };
  for (const [name, value] of Object.entries(values)) {
    trial[`${name}${adaptedEnd(trial)}`] = value;
  }
}

// Take an answer into account; what the answers say so far. No answer raises the level, as a wrong one does.
function learn(row) {
  const method = methodOf(row);
  const lowers = settings.form === "2afc" ? row.correct : row.response === 2;
  method.learn(steps(row).findIndex((step) => step.stimulus_id === row[`stimulus_id${adaptedEnd(row)}`]), Boolean(lowers));
  return method.estimate;
}

// --- trials ---------------------------------------------------------------------------------------------------

function fixation(trial, images, jsPsych) {
  return {
    type: jsPsychHtmlKeyboardResponse,
    stimulus: "",
    choices: "NO_KEYS",
    async on_load() {
      clear();
      if (settings.adaptive) {
        adapt(trial);
      }
      Object.assign(images, await prepare(trial));
      images.fixated = await frame();
      showMark();
      await until(images.fixated, 1000 * settings.fixation_s - interval); // the mark stays until the next frame
      jsPsych.finishTrial();
    },
  };
}

// A key of settings.json, as PsychoPy names it, answers like a click on the button in its place.
function press(event) {
  const names = { " ": "space", Enter: "return" };
  const name = names[event.key] ?? event.key.replace(/^Arrow/, "").toLowerCase();
  const place = settings.keys.indexOf(name);
  if (place >= 0 && !event.repeat) {
    event.preventDefault();
    answerButtons()[place]?.click();
  }
}

// Show the stimuli that come before the last ones, one after the other, from a frame on; the frame of the last ones.
async function showEarlier(trial, images, measured, start) {
  let now = start;
  for (const some of settings.stages.slice(0, -1)) {
    const onset = now;
    clear({ keepMark: settings.fixation_stays });
    draw(trial, images.stimuli, some);
    now = await until(onset, 1000 * settings.sample_s);
    measured.sample_ms ??= now - onset;
    if (settings.delay_s > 0) {
      clear({ keepMark: settings.fixation_stays });
      now = await until(now, 1000 * settings.delay_s);
    }
  }
  return now;
}

const answerButtons = () => document.querySelectorAll("#jspsych-html-button-response-btngroup button");

// Buttons, and keys that press them, answer only while the stimuli are asked about.
function allowAnswers(allowed) {
  answerButtons().forEach((button) => { button.disabled = !allowed; });
}

// What is the same in the data of all trials.
function circumstances(data) {
  return {
    frame_ms: Math.round(1000 * interval) / 1000,
    device_pixel_ratio: window.devicePixelRatio,
    window_width_px: window.innerWidth,
    window_height_px: window.innerHeight,
    viewing_distance_cm: viewingDistance,
    image_scale: imageScale(),
    pixels_per_degree: screenPpd ?? null,
    time_elapsed: data.time_elapsed,
    trial_index: data.trial_index,
    trial_type: data.trial_type,
  };
}

const DRAG = 12; // pixels of the page for a step
const WHEEL = 50; // units of a wheel for a step, half of a notch of most mice

// The participant moves along a series until it matches the sample on the left.
function adjusted(trial, images, participant) {
  const series = steps(trial);
  const closed = settings.closed;
  let at = trial.start - 1;
  let [moves, turned, onset, dragged] = [0, 0, 0, null];
  const listeners = [];

  function show() {
    const scale = imageScale();
    const picture = pictures.get(series[at].stim_file);
    const [left, right] = inLines([[images.stimuli[0], picture]], scale);
    stage.replaceChildren();
    paint(images.stimuli[0], ...left, scale);
    paint(picture, ...right, scale);
  }

  function move(by) {
    const wanted = at + by;
    const next = closed ? (wanted + series.length) % series.length : Math.min(series.length - 1, Math.max(0, wanted));
    moves += next === at ? 0 : Math.abs(by);
    at = next;
    show();
  }

  // Whole steps of what was turned or dragged; the rest is kept for later.
  function moveBy(amount, unit) {
    turned += amount / unit;
    const whole = Math.trunc(turned);
    turned -= whole;
    if (whole) {
      move(whole);
    }
  }

  function listen(name, handler, options) {
    document.addEventListener(name, handler, options);
    listeners.push([name, handler, options]);
  }

  return {
    type: jsPsychHtmlButtonResponse,
    stimulus: "",
    choices: [escaped(words.adjust_done)],
    prompt: `<p class="prompt">${escaped(settings.prompt || words.adjust)}</p>`,
    post_trial_gap: 1000 * settings.interval_s,
    async on_load() {
      document.body.classList.add("dragging");
      allowAnswers(false);
      onset = await frame();
      show();
      allowAnswers(true);
      trial.fixation_ms = rounded(onset - images.fixated);
      listen("keydown", (event) => {
        const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
        if (by) {
          event.preventDefault();
          move(by);
        } else if (event.key === "Enter" && !event.repeat) {
          event.preventDefault();
          answerButtons()[0]?.click();
        }
      });
      listen("wheel", (event) => {
        event.preventDefault();
        moveBy(event.deltaY, WHEEL);
      }, { passive: false });
      listen("pointerdown", (event) => { dragged = event.target.closest("button") ? null : event.clientX; });
      listen("pointermove", (event) => {
        if (dragged !== null) {
          moveBy(event.clientX - dragged, DRAG);
          dragged = event.clientX;
        }
      });
      listen("pointerup", () => { dragged = null; });
      listen("pointercancel", () => { dragged = null; });
    },
    on_finish(data) {
      const rt = performance.now() - onset;
      for (const [name, handler, options] of listeners) {
        document.removeEventListener(name, handler, options);
      }
      const fits = fitsWindow();
      document.body.classList.remove("dragging");
      clear();
      rows.push({
        participant,
        ...trial,
        rt: Math.round(rt),
        response: at + 1,
        chosen: series[at].level,
        chosen_id: series[at].stimulus_id,
        moves,
        fits_window: fits,
        ...circumstances(data),
      });
      keep(participant);
    },
  };
}

function shown(trial, images, participant, jsPsych) {
  const measured = {};
  let fits = null;
  let over = false;
  let began = 0;

  // The time to answer counts from the stimuli that are asked about.
  async function endInTime(onset) {
    if (settings.response_s > 0) {
      await until(onset, 1000 * settings.response_s, () => over);
      if (!over) {
        jsPsych.finishTrial({ rt: null, response: null });
      }
    }
  }

  return {
    type: jsPsychHtmlButtonResponse,
    stimulus: "",
    choices: settings.choices.map(escaped),
    prompt: settings.prompt ? `<p class="prompt">${escaped(settings.prompt)}</p>` : "",
    post_trial_gap: 1000 * settings.interval_s,
    async on_load() {
      began = performance.now();
      document.addEventListener("keydown", press);
      allowAnswers(false);
      const last = settings.stages.at(-1);
      const start = await frame();
      measured.fixation_ms = start - images.fixated;
      const onset = await showEarlier(trial, images, measured, start);
      clear({ keepMark: settings.fixation_stays });
      draw(trial, images.stimuli, last);
      allowAnswers(true);
      measured.onset_ms = onset;
      fits = fitsWindow();
      endInTime(onset);
      if (settings.stimulus_s > 0) {
        const offset = await until(onset, 1000 * settings.stimulus_s, () => over);
        if (!over) {
          measured.stimulus_ms = offset - onset;
          clear({ keepMark: settings.fixation_stays });
        }
        if (!over && settings.mask_s > 0) {
          draw(trial, images.masks, last);
          const end = await until(offset, 1000 * settings.mask_s, () => over);
          if (!over) {
            measured.mask_ms = end - offset;
            clear({ keepMark: settings.fixation_stays });
          }
        }
      }
    },
    on_finish(data) {
      over = true;
      const lasted = performance.now();
      document.removeEventListener("keydown", press);
      clear({ keepMark: settings.fixation_stays });
      measured.stimulus_ms ??= lasted - measured.onset_ms;
      const answer = data.response;
      const onset = measured.onset_ms;
      for (const name of Object.keys(measured)) {
        measured[name] = rounded(measured[name]);
      }
      const row = {
        participant,
        ...trial,
        rt: answer === null ? null : Math.max(0, Math.round(data.rt - (onset - began))),
        response: answer === null ? null : answer + 1,
        choice: answer === null ? null : settings.choices[answer],
        correct: trial.answer_index === null || answer === null ? null : trial.answer_index === answer + 1,
        ...measured,
        fits_window: fits,
        ...circumstances(data),
      };
      rows.push(settings.adaptive ? { ...row, estimate: learn(row) } : row);
      keep(participant);
    },
  };
}

const feedback = {
  type: jsPsychHtmlKeyboardResponse,
  stimulus: () => `<p class="feedback">${escaped(rows.at(-1).correct ? words.right : words.wrong)}</p>`,
  choices: "NO_KEYS",
  trial_duration: 800,
};

function timeline(list, participant, jsPsych) {
  const left = list.slice(rows.length);
  const parts = [];
  if (left.length > 0) {
    const text = `<p>${escaped(settings.prompt || (settings.form === "adjust" ? words.adjust : words.look))}</p>`;
    parts.push({ type: jsPsychInstructions, pages: [text], show_clickable_nav: true, allow_keys: true });
  }
  let block = rows.at(-1)?.block ?? null;
  for (const trial of left) {
    if (block !== null && trial.block !== block) {
      parts.push(message(`<p>${escaped(words.rest)}</p>`, [words.continue, words.save_so_far].map(escaped), (button) => button === 1 && download(participant)));
    }
    block = trial.block;
    const images = {};
    const asked = settings.form === "adjust" ? adjusted : shown;
    parts.push(fixation(trial, images, jsPsych), asked(trial, images, participant, jsPsych));
    if (settings.feedback && trial.kind === "practice" && trial.answer_index !== null) {
      parts.push(feedback);
    }
  }
  return parts;
}

const grey = Math.round(255 * settings.background);
document.documentElement.style.setProperty("--grey", String(grey));
document.documentElement.style.setProperty("--text", grey > 110 ? "black" : "white");
document.title = settings.name;
const participant = await chosenParticipant();
const list = await (await fetch(`lists/${encodeURIComponent(participant)}.json`)).json();
const earlier = await earlierAnswers(participant, list);
({ rows, replies } = earlier ?? { rows, replies });
if (settings.adaptive) {
  rows.forEach(learn);
}
if (earlier || (await showPages("before"))) {
  if (settings.screen?.calibrate && !Number(parameters.get("ppd")) && rows.length < list.length) {
    await calibrate();
  }
  await load(list);
  interval = await frameInterval();
  if (rows.length < list.length) {
    const jsPsych = initJsPsych();
    await jsPsych.run(timeline(list, participant, jsPsych));
    clear();
  }
  await showPages("after");
  keep(participant);
  await ask(paragraphs(words.thanks), [words.continue]);
  download(participant);
  const sent = await send(participant).then(() => "", () => words.not_sent);
  document.body.innerHTML = `<p class="done">${escaped(`${words.saved} ${sent}`)}</p>`;
} else {
  document.body.innerHTML = `<p class="done">${escaped(words.declined)}</p>`;
}
