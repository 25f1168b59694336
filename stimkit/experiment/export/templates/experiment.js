// The experiment: settings.json says what is asked and how long things last, lists/ has the trials of each participant.
//
//   index.html?participant=p001              shows that list; without it the page asks
//   index.html?participant=p001&save=json    saves JSON instead of CSV
//
// `save` is the place for an upload to a server of your own.

const parameters = new URLSearchParams(window.location.search);
const settings = await (await fetch("settings.json")).json();

function save(jsPsych, participant) {
  const format = parameters.get("save") === "json" ? "json" : "csv";
  answers(jsPsych).localSave(format, `${settings.name}_${participant}.${format}`);
}

function answers(jsPsych) {
  return jsPsych.data.get().filterCustom((row) => row.stimkit_trial === true);
}

function escaped(text) {
  const element = document.createElement("span");
  element.textContent = text;
  return element.innerHTML;
}

function files(trial) {
  return Object.keys(trial).filter((name) => name.startsWith("stim_file")).map((name) => trial[name]);
}

function address(file) {
  return file.split("/").map(encodeURIComponent).join("/");
}

function images(trial) {
  const shown = files(trial).map((file) => `<img src="${address(file)}" alt="">`);
  return `<div class="stimuli">${shown.join("")}</div>`;
}

async function chosenParticipant() {
  if (settings.lists.includes(parameters.get("participant"))) {
    return parameters.get("participant");
  }
  const known = settings.lists.map((one) => `<option>${escaped(one)}</option>`).join("");
  document.body.innerHTML =
    `<form class="start"><label>Participant <select name="participant">${known}</select></label>` +
    ` <button class="jspsych-btn">Start</button></form>`;
  const form = document.querySelector("form.start");
  const chosen = await new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      resolve(form.elements.participant.value);
    });
  });
  document.body.innerHTML = "";
  return chosen;
}

function message(text) {
  return { type: jsPsychHtmlButtonResponse, stimulus: text, choices: ["Continue"] };
}

const fixation = {
  type: jsPsychHtmlKeyboardResponse,
  stimulus: '<div class="fixation">+</div>',
  choices: "NO_KEYS",
  trial_duration: 1000 * settings.fixation_s,
};

// A key of settings.json, as PsychoPy names it, answers like a click on the button in its place.
function press(event) {
  const names = { " ": "space", Enter: "return" };
  const key = names[event.key] ?? event.key.replace(/^Arrow/, "").toLowerCase();
  const place = settings.keys.indexOf(key);
  if (place >= 0 && !event.repeat) {
    event.preventDefault();
    document.querySelectorAll("#jspsych-html-button-response-btngroup button")[place]?.click();
  }
}

function shown(trial) {
  const limited = settings.stimulus_s > 0 ? { stimulus_duration: 1000 * settings.stimulus_s } : {};
  return {
    type: jsPsychHtmlButtonResponse,
    stimulus: images(trial),
    choices: settings.choices.map(escaped),
    prompt: settings.prompt ? `<p>${escaped(settings.prompt)}</p>` : "",
    data: { stimkit_trial: true, ...trial },
    ...limited,
    on_load() {
      document.addEventListener("keydown", press);
    },
    on_finish(data) {
      document.removeEventListener("keydown", press);
      delete data.stimulus;
      data.choice = settings.choices[data.response];
      data.correct = trial.answer_index === null ? null : trial.answer_index === data.response + 1;
    },
  };
}

function timeline(list, finish) {
  const parts = [
    { type: jsPsychPreload, images: [...new Set(list.flatMap(files))].map(address) },
    { type: jsPsychInstructions, pages: [`<p>${escaped(settings.prompt || "Look at the images.")}</p>`], show_clickable_nav: true },
  ];
  let block = null;
  for (const trial of list) {
    if (block !== null && trial.block !== block) {
      parts.push(message("<p>You can rest now.</p>"));
    }
    block = trial.block;
    parts.push(fixation, shown(trial));
  }
  parts.push({ ...message("<p>Thank you. Your answers are saved when you continue.</p>"), on_finish: finish });
  return parts;
}

const grey = Math.round(255 * settings.background);
document.documentElement.style.setProperty("--grey", String(grey));
document.documentElement.style.setProperty("--text", grey > 110 ? "black" : "white");
document.title = settings.name;
const participant = await chosenParticipant();
const list = await (await fetch(`lists/${encodeURIComponent(participant)}.json`)).json();
const jsPsych = initJsPsych({
  on_finish() {
    document.body.innerHTML = `<p class="done">The answers are in your folder for downloads.</p>`;
  },
});
jsPsych.data.addProperties({ participant });
await jsPsych.run(timeline(list, () => save(jsPsych, participant)));
