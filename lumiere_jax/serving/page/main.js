// The page: its form, and what happens when something is clicked.

import * as api from "./api.js";
import { GivenFile } from "./files.js";
import { History } from "./history.js";
import * as options from "./options.js";
import { Painter } from "./painter.js";
import { Shown } from "./shown.js";

const NAMES = {
  text_to_video: "Text to video", stylize: "Stylize", animate: "Animate", inpaint: "Inpaint",
  cinemagraph: "Cinemagraph", outpaint: "Outpaint", extend: "Extend",
  video_to_video: "Video to video",
};
const $ = (id) => document.getElementById(id);

function problem(message) {
  $("problem").textContent = message || "";
  $("problem").hidden = !message;
}

const places = [$("options"), $("more-options")];
const key = () => $("key").value.trim();
let info, task;

const painter = new Painter($("canvas"), (share) => {
  $("covered").textContent = `${(100 * share).toFixed(share && share < 0.1 ? 1 : 0)}% is covered`;
});
$("brush").addEventListener("input", () => { painter.brush = Number($("brush").value); });
$("erase").addEventListener("click", () => {
  painter.erases = !painter.erases;
  $("erase").setAttribute("aria-pressed", painter.erases);
});
$("invert").addEventListener("click", () => painter.invert());
$("clear").addEventListener("click", () => painter.clear());

function setTask(name, fresh = false) {
  task = name;
  const about = info.tasks[name];
  const radio = document.querySelector(`#tasks input[value="${name}"]`);
  if (radio) radio.checked = true;
  $("about").textContent = about.about;
  given.setKind(["image", "video"].find((kind) => about.files.includes(kind)) || null);
  $("painter").hidden = !about.files.includes("mask");
  $("painter-legend").textContent =
    name === "cinemagraph" ? "Region to move" : "Region to inpaint";
  options.show(about, info, ...places, fresh);
}

// What a link can share: everything but files.
function settings() {
  return { task, prompt: $("prompt").value.trim(), ...options.values(...places) };
}

function use(wanted) {
  if (!(wanted.task in info.tasks)) {
    problem(`The weights of this server cannot do ${wanted.task}.`);
    return;
  }
  setTask(wanted.task, true);
  if (typeof wanted.prompt === "string") $("prompt").value = wanted.prompt;
  options.fill(wanted, ...places);
}

function fromLink() {
  const text = location.hash.slice(1);
  if (!text) return null;
  try {
    return Object.fromEntries(new URLSearchParams(text));
  } catch {
    return null;
  }
}

async function submit(event) {
  event.preventDefault();
  problem("");
  const about = info.tasks[task], files = {};
  for (const name of about.files) {
    if (name !== "mask" && !given.file) {
      problem(name === "image" ? "Choose a picture first." : "Choose a video first.");
      $("file").focus();
      return;
    }
    if (name === "mask" && !painter.share) {
      problem("Paint the region on the frame first.");
      $("canvas").focus();
      return;
    }
    files[name] = name === "mask" ? await painter.file() : given.file;
  }
  $("submit").disabled = true;
  try {
    const job = await api.submit(settings(), files, key());
    history.add(job);
    choose(job);
  } catch (error) {
    problem(`Not accepted: ${error.message}`);
  }
  $("submit").disabled = false;
}

async function share() {
  const link = new URL(location.href);
  link.hash = new URLSearchParams(settings()).toString();
  window.history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link.href);
    $("shared").textContent = "The link is copied" + (given.file ? ", without the files." : ".");
  } catch { // a browser may forbid it without https
    $("shared").textContent = "The link is in the address bar.";
  }
}

function choose(job, focus = true) {
  history.choose(job.id);
  shown.show(job, focus);
}

async function asInput() {
  const job = shown.job;
  const wanted = ["video_to_video", "inpaint", "extend"].find((name) => name in info.tasks);
  if (!wanted) {
    problem("The weights of this server have no task that takes a video.");
    return;
  }
  const video = await (await fetch(job.video_url)).blob();
  if (!info.tasks[task].files.includes("video")) setTask(wanted);
  given.take(new File([video], `${job.id.slice(0, 8)}.mp4`, { type: "video/mp4" }));
  $("prompt").focus();
}

async function showHealth() {
  const health = await api.health();
  const waiting = health.queued ? `, ${health.queued} waiting` : "";
  $("health").textContent = health.ready ? `Ready${waiting}` : `Not ready: ${health.reason}`;
  await history?.refresh(api.isFinished).catch(() => {}); // the line above says it
  setTimeout(showHealth, 10000);
}

let given, history, shown;

async function start() {
  showHealth();
  try {
    info = await api.info();
  } catch (error) {
    problem(`${error.message}; reload the page to try again.`);
    return;
  }
  const parts = { place: $("upload"), input: $("file"), label: $("file-label"),
                  note: $("file-note"), picture: $("picture"), clip: $("clip") };
  given = new GivenFile(parts, painter, info.limits);
  shown = new Shown(
    { place: $("shown"), nothing: $("nothing"), title: $("job-prompt"), state: $("state"),
      bar: $("bar"), preview: $("preview"), result: $("result"), cancel: $("cancel"),
      download: $("download"), asInput: $("as-input"), details: $("details") },
    { key, problem, changed: (job) => history.update(job) },
  );
  history = new History($("list"), $("history-note"), $("forget"), api.jobs, choose);
  for (const name of Object.keys(NAMES).filter((name) => name in info.tasks)) {
    const radio = Object.assign(document.createElement("input"),
                                { type: "radio", name: "task", value: name });
    radio.addEventListener("change", () => setTask(name));
    const text = Object.assign(document.createElement("span"), { textContent: NAMES[name] });
    const label = document.createElement("label");
    label.append(radio, text);
    document.querySelector("#tasks .choices").append(label);
  }
  $("prompt").maxLength = info.limits.prompt;
  $("key-place").hidden = !info.needs_key;
  $("program").textContent = info.program;
  $("license").textContent = info.license ? `Weights: ${info.license}` : "";
  $("form").addEventListener("submit", submit);
  // A browser can only point at a visible field.
  $("form").addEventListener("invalid", (event) => {
    event.target.closest("details")?.setAttribute("open", "");
  }, true);
  $("share").addEventListener("click", share);
  $("again").addEventListener("click", () => {
    use({ task: shown.job.task, ...shown.job.options });
    $("prompt").focus();
  });
  $("as-input").addEventListener("click", () => asInput().catch((e) => problem(e.message)));
  setTask(Object.keys(NAMES).find((name) => name in info.tasks));
  const wanted = fromLink();
  if (wanted) use(wanted);
  $("form").hidden = false;
  try {
    await history.load();
    const running = [...history.jobs.values()].find((job) => !api.isFinished(job));
    // As before the page was reloaded, unless something else was started since.
    if (running && !shown.job) choose(running, false);
  } catch (error) {
    problem(error.message);
  }
}

start();
