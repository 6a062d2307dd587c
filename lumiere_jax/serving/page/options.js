// The fields of a task's options; the server says which there are, and their limits.

const LABELS = {
  num_frames: "Frames", alpha: "Style strength", paste: "Original pixels", base_only: "Size",
  context: "Context frames",
};
const RANGES = { alpha: 0.5, strength: 0.6, zoom: 0.7 }; // sliders, and where they begin
const COMMON_MAIN = ["seed", "steps"]; // not under "More options", like a task's own options

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function label(name) {
  const words = name.replaceAll("_", " ");
  return LABELS[name] || words[0].toUpperCase() + words.slice(1);
}

function choicesOf(name, task, info) {
  if (name === "style") return Object.fromEntries(info.styles.map((s) => [s, s]));
  if (name === "sampler") return Object.fromEntries(task.samplers.map((s) => [s, s]));
  if (name === "paste") return { "": "default", true: "put back", false: "leave out" };
  if (name === "base_only") {
    const [small, large] = [task.sizes[0], task.sizes.at(-1)];
    return { false: `${large} × ${large}`, true: `${small} × ${small}, quicker` };
  }
  const { choices } = info.options[name];
  return choices.length ? Object.fromEntries(choices.map((c) => [c, c])) : null;
}

function placeholder(name, task) {
  if (name === "seed") return "any";
  if (name === "num_frames") return task.files.includes("video") ? "" : task.frames;
  return task[name] ?? "";
}

function control(name, task, info) {
  const common = { id: `option-${name}`, name };
  const values = choicesOf(name, task, info);
  if (values) {
    const select = element("select", common);
    for (const [value, text] of Object.entries(values)) {
      select.append(element("option", { value, textContent: text }));
    }
    if (name === "sampler") select.value = task.sampler;
    return select;
  }
  const option = info.options[name];
  if (option.type === "string") return element("input", { ...common, type: "text" });
  const input = element("input", { ...common, type: name in RANGES ? "range" : "number" });
  input.min = option.minimum ?? (option.above === null ? "" : option.above + 0.05);
  input.max = option.maximum ?? "";
  input.step = option.type === "integer" ? 1 : "any";
  input.placeholder = placeholder(name, task);
  if (name === "seed") return withDice(input);
  return name in RANGES ? withOutput(input, RANGES[name]) : input;
}

function withDice(input) {
  const dice = element("button", { type: "button", textContent: "New", title: "A random seed" });
  dice.addEventListener("click", () => {
    input.value = crypto.getRandomValues(new Uint32Array(1))[0];
  });
  return element("div", { className: "with" }, input, dice);
}

function withOutput(input, value) {
  input.value = value;
  const output = element("output", { htmlFor: input.id, textContent: input.value });
  input.addEventListener("input", (event) => {
    if (event.isTrusted) input.value = Math.round(100 * input.value) / 100; // moved by hand
    output.textContent = input.value;
  });
  return element("div", { className: "with" }, input, output);
}

// Makes the fields of a task; some values that were set before stay, unless they are to be `fresh`.
export function show(task, info, main, more, fresh = false) {
  const before = fresh ? {} : values(main, more);
  const isCommon = (name) => Object.values(info.tasks).every((t) => t.options.includes(name));
  const [own, shared] = [[], []];
  for (const name of task.options.filter((n) => n in info.options)) {
    if (name === "base_only" && task.sizes.length < 2) continue;
    const text = element("label", {
      htmlFor: `option-${name}`, textContent: label(name), title: info.options[name].help,
    });
    const row = element("div", { className: "option" }, text, control(name, task, info));
    (isCommon(name) && !COMMON_MAIN.includes(name) ? shared : own).push(row);
  }
  main.replaceChildren(...own);
  more.replaceChildren(...shared);
  const kept = ["seed", "steps", "negative_prompt", "base_only"];
  fill(Object.fromEntries(kept.filter((n) => n in before).map((n) => [n, before[n]])), main, more);
}

const inputs = (...places) => places.flatMap((p) => [...p.querySelectorAll("input, select")]);

// What is set; an empty field is not sent, and the server's default holds.
export function values(...places) {
  const set = inputs(...places).map((input) => [input.name, input.value.trim()]);
  return Object.fromEntries(set.filter(([, value]) => value !== ""));
}

export function fill(given, ...places) {
  for (const input of inputs(...places)) {
    if (given[input.name] === undefined || given[input.name] === null) continue;
    input.value = String(given[input.name]);
    input.dispatchEvent(new Event("input"));
  }
}
