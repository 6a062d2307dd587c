"use strict";

// A study is a line of steps: every question of the first pair, of the second, and so on. The step
// that is shown is in the address (#PAIR.QUESTION), so that reload and the back button find it.

const data = JSON.parse(document.getElementById("data").textContent);
const questions = data.questions;
const answersOf = data.mode === "served" ? new ServedAnswers(data) : new LocalAnswers(data);
const SETTLE_MS = 250; // in which the second half of a double click does not count
const RETRY_MS = 1500;
const PATIENCE_MS = 8000; // before one video may start without the other

const $ = (id) => document.getElementById(id);
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let rater = null;
let items = [];
let answers = {}; // pair -> question -> chosen video
let step = -1; // what is shown; -1 before the start
let busy = false;
let shownTimes = 0;

const numSteps = () => items.length * questions.length;
const itemOf = (n) => items[Math.floor(n / questions.length)];
const questionOf = (n) => questions[n % questions.length];
const chosenAt = (n) => answers[itemOf(n).key]?.[questionOf(n).name];

function firstOpen() {
  for (let n = 0; n < numSteps(); n++) if (!chosenAt(n)) return n;
  return numSteps();
}

function hashOf(n) {
  if (n === numSteps()) return "#done";
  return `#${Math.floor(n / questions.length) + 1}.${(n % questions.length) + 1}`;
}

// The step of the address, but never beyond the first question that is open.
function stepOfAddress() {
  const open = firstOpen();
  const match = /^#(\d+)\.(\d+)$/.exec(location.hash);
  if (!match) return open;
  const n = (match[1] - 1) * questions.length + (match[2] - 1);
  return n >= 0 ? Math.min(n, open) : open;
}

function address(n) {
  const query = new URLSearchParams(location.search);
  if (answersOf.isRemote) query.set("rater", rater);
  const text = query.toString();
  return `${location.pathname}${text ? "?" + text : ""}${n === null ? "" : hashOf(n)}`;
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

function showScreen(name) {
  for (const id of ["intro", "work", "done"]) $(id).hidden = id !== name;
  if (name !== "work") for (const video of videos()) video.pause();
}

// --- Videos -------------------------------------------------------------------------------------

const videos = () => [$("left-video"), $("right-video")];
const upcoming = [document.createElement("video"), document.createElement("video")];

function setVideo(video, name) {
  const url = `videos/${name}`;
  if (video.getAttribute("src") !== url) video.src = url;
}

function showVideos(item, next) {
  const [left, right] = videos();
  const isNew = left.getAttribute("src") !== `videos/${item.left}` || left.paused;
  setVideo(left, item.left);
  setVideo(right, item.right);
  if (isNew) playTogether();
  if (!next) return;
  [next.left, next.right].forEach((name, i) => {
    upcoming[i].preload = "auto";
    setVideo(upcoming[i], name);
  });
}

const isReady = (video) =>
  video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA
    ? Promise.resolve()
    : Promise.race([
        new Promise((resolve) => video.addEventListener("canplay", resolve, { once: true })),
        wait(PATIENCE_MS),
      ]);

// Both from the first frame, as soon as both can.
async function playTogether() {
  const sources = videos().map((video) => video.src);
  for (const video of videos()) video.pause();
  await Promise.all(videos().map(isReady));
  if ($("work").hidden || videos().some((video, i) => video.src !== sources[i])) return;
  for (const video of videos()) video.currentTime = 0;
  // A phone that saves power refuses to play before a touch; "Play again" is one.
  for (const video of videos()) video.play().catch(() => {});
}

function replay() {
  say("");
  for (const video of videos()) {
    if (video.error) video.load();
    video.play().catch(() => {}); // at once, while the touch still counts
  }
  playTogether();
}

// --- Steps --------------------------------------------------------------------------------------

function show(n) {
  step = n;
  shownTimes += 1;
  say("");
  if (n === numSteps()) return showDone();
  showScreen("work");
  const item = itemOf(n);
  const number = Math.floor(n / questions.length) + 1;
  $("prompt").textContent = item.prompt;
  $("question").textContent = questionOf(n).text;
  $("progress-text").textContent =
    `${number} of ${items.length} · question ${(n % questions.length) + 1} of ${questions.length}`;
  $("bar").setAttribute("aria-valuemax", items.length);
  $("bar").setAttribute("aria-valuenow", number);
  $("bar").setAttribute("aria-valuetext", `pair ${number} of ${items.length}`);
  $("bar").firstChild.style.width = `${(100 * n) / numSteps()}%`;
  showVideos(item, items[number]);
  mark();
  settle();
  $("question").focus({ preventScroll: true });
}

function mark() {
  const chosen = chosenAt(step);
  $("left").setAttribute("aria-pressed", String(chosen === itemOf(step).left));
  $("right").setAttribute("aria-pressed", String(chosen === itemOf(step).right));
  $("back").disabled = step === 0;
  $("next").disabled = !chosen;
}

function enableChoices(enabled) {
  $("left").disabled = $("right").disabled = !enabled;
}

async function settle() {
  const mine = shownTimes;
  enableChoices(false);
  await wait(SETTLE_MS);
  if (mine === shownTimes) enableChoices(true);
}

function go(n) {
  const depth = (history.state?.depth ?? 0) + 1;
  history.pushState({ depth }, "", address(n));
  show(n);
}

function goBack() {
  if (busy || step <= 0 || step === numSteps()) return;
  if (history.state?.depth > 0) return history.back();
  history.replaceState({ depth: 0 }, "", address(step - 1));
  show(step - 1);
}

function goOn() {
  if (!busy && step >= 0 && step < numSteps() && chosenAt(step)) go(step + 1);
}

// Goes on only when the answer is stored, and asks again as long as the server is away.
async function choose(side) {
  if (busy || $("work").hidden || $("left").disabled) return;
  busy = true;
  enableChoices(false);
  const at = step;
  const item = itemOf(at);
  const question = questionOf(at).name;
  try {
    await persist(() => answersOf.answer(rater, item, question, item[side]));
    answers[item.key] = { ...answers[item.key], [question]: item[side] };
    busy = false;
    // The back button may have been used while the answer was on its way.
    if (step === at) go(at + 1);
    else if (step < numSteps()) mark();
  } catch (error) {
    busy = false;
    say(`Your answer could not be stored: ${error.message}.`);
    enableChoices(true);
  }
}

async function persist(act) {
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (error.isFinal || !answersOf.isRemote) throw error;
      say("No connection. Trying again … nothing that you answered before is lost.");
      await wait(RETRY_MS);
    }
  }
}

// --- Start and end ------------------------------------------------------------------------------

function showIntro() {
  $("num-pairs").textContent = data.numPairs;
  $("num-questions").textContent = questions.length;
  showScreen("intro");
}

async function start() {
  if (busy) return;
  busy = true;
  $("start").disabled = true;
  try {
    adopt(await persist(() => answersOf.begin(rater)));
  } catch (error) {
    say(`The study could not be started: ${error.message}.`);
  }
  busy = false;
  $("start").disabled = false;
}

function adopt(work) {
  ({ items, answers } = work);
  const n = stepOfAddress();
  const depth = history.state?.depth ?? 0;
  history.replaceState({ depth }, "", address(n));
  show(n);
}

function showDone() {
  showScreen("done");
  $("thanks").focus({ preventScroll: true });
  if (data.mode === "served") {
    $("done-text").textContent = "You can close this page.";
    return;
  }
  $("download").hidden = false;
  $("done-text").textContent = "Please download the file of your answers and send it to us.";
  if (data.postUrl) send();
}

async function send() {
  $("send").hidden = true;
  $("done-text").textContent = "Sending your answers …";
  try {
    await answersOf.send(rater);
    $("done-text").textContent = "Your answers were sent. You can close this page.";
  } catch (error) {
    $("done-text").textContent =
      "They could not be sent. Try again, or download them and send us the file.";
    $("send").hidden = false;
  }
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([answersOf.file(rater)], { type: "application/json" }));
  link.download = `answers_${rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function newRater() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function startAsOther() {
  location.assign(`${location.pathname}?rater=${newRater()}`);
}

const KEYS = {
  ArrowLeft: () => choose("left"),
  1: () => choose("left"),
  ArrowRight: () => choose("right"),
  2: () => choose("right"),
  Backspace: goBack,
  " ": replay,
};

function onKey(event) {
  const isPlain = !(event.repeat || event.ctrlKey || event.altKey || event.metaKey);
  if ($("work").hidden || !KEYS[event.key]) return;
  if (event.key === " " && event.target.closest("button")) return; // presses that button
  if (!isPlain) {
    if (event.repeat) event.preventDefault();
    return;
  }
  event.preventDefault();
  KEYS[event.key]();
}

async function open() {
  $("start").onclick = start;
  $("left").onclick = () => choose("left");
  $("right").onclick = () => choose("right");
  $("back").onclick = goBack;
  $("next").onclick = goOn;
  $("replay").onclick = replay;
  $("download").onclick = download;
  $("send").onclick = send;
  $("other-person").onclick = startAsOther;
  document.addEventListener("keydown", onKey);
  for (const video of videos()) {
    video.onloadedmetadata = () => {
      video.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`;
    };
    video.onerror = () => say("A video could not be loaded. “Play again” tries once more.");
  }
  window.addEventListener("popstate", () => (items.length ? show(stepOfAddress()) : showIntro()));
  const asked = new URLSearchParams(location.search).get("rater");
  try {
    const isName = asked && /^[A-Za-z0-9_-]{1,64}$/.test(asked); // as in page.py
    rater = isName ? asked : await persist(() => answersOf.knownRater());
    const work = rater && (await persist(() => answersOf.resume(rater)));
    say("");
    if (work) return adopt(work);
    rater ??= newRater();
    showIntro();
  } catch (error) {
    say(`The study could not be opened: ${error.message}.`);
  }
}

open();
