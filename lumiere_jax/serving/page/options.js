// The fields of a task's options: which there are is said by the server.

const percent = { kind: "range", min: 0, max: 1, step: "any" };

// Order is that of the page; `main` ones are not hidden under "More options".
const FIELDS = {
  style: { label: "Style", kind: "select", main: true },
  alpha: { label: "Share of the style", ...percent, value: 0.5, main: true },
  strength: { label: "Strength of the change", ...percent, min: 0.05, value: 0.6, main: true },
  zoom: { label: "Size of the video", ...percent, min: 0.1, value: 0.7, main: true },
  num_frames: { label: "Frames", kind: "number", min: 1, main: true },
  seed: { label: "Seed", kind: "seed", main: true },
  steps: { label: "Steps", kind: "number", min: 1, main: true },
  fit: { label: "Fit of the picture", kind: "select", values: { crop: "crop", pad: "keep all" } },
  paste: { label: "Known pixels", kind: "select",
           values: { "": "as usual", true: "put back", false: "as they are made" } },
  feather: { label: "Soft border, pixels", kind: "number", min: 0, max: 64 },
  context: { label: "Frames shown", kind: "number", min: 1 },
  negative_prompt: { label: "Not like", kind: "text" },
  guidance_scale: { label: "Guidance", kind: "number", min: 0, max: 100, step: "any" },
  guidance_from: { label: "Guidance from time", kind: "number", min: 0, max: 1, step: "any" },
  guidance_to: { label: "Guidance to time", kind: "number", min: 0, max: 1, step: "any" },
  sampler: { label: "Sampler", kind: "select" },
  time_power: { label: "Power of time", kind: "number", min: 0.1, max: 10, step: "any" },
  base_only: { label: "Size", kind: "select" },
};

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function settings(name, task, info) {
  const field = { ...FIELDS[name] };
  if (name === "style") field.values = Object.fromEntries(info.styles.map((s) => [s, s]));
  if (name === "num_frames") {
    field.max = info.limits.frames;
    field.placeholder = task.files.includes("video") ? "" : task.frames;
  }
  if (name === "steps") Object.assign(field, { max: info.limits.steps, placeholder: task.steps });
  if (name === "guidance_scale") field.placeholder = task.guidance_scale;
  if (name === "sampler") {
    field.values = Object.fromEntries(task.samplers.map((s) => [s, s]));
    field.value = task.sampler;
  }
  if (name === "base_only") {
    const [small, large] = [task.sizes[0], task.sizes.at(-1)];
    field.values = { false: `${large} × ${large}`, true: `${small} × ${small}, quicker` };
  }
  return field;
}

function control(name, field) {
  const common = { id: `option-${name}`, name };
  if (field.kind === "select") {
    const select = element("select", common);
    for (const [value, text] of Object.entries(field.values)) {
      select.append(element("option", { value, textContent: text }));
    }
    if (field.value !== undefined) select.value = field.value;
    return [select];
  }
  if (field.kind === "text") return [element("input", { ...common, type: "text" })];
  const type = field.kind === "range" ? "range" : "number";
  const input = element("input", { ...common, type });
  if (field.kind === "seed") {
    Object.assign(input, { min: 0, max: 2 ** 32 - 1, step: 1, placeholder: "any" });
    const dice = element("button", { type: "button", textContent: "New", title: "A seed by chance" });
    dice.addEventListener("click", () => {
      input.value = crypto.getRandomValues(new Uint32Array(1))[0];
    });
    return [element("div", { className: "with" }, input, dice)];
  }
  for (const key of ["min", "max", "step", "placeholder"]) {
    if (field[key] !== undefined) input[key] = field[key];
  }
  if (field.value !== undefined) input.value = field.value;
  if (type === "number") return [input];
  const output = element("output", { htmlFor: common.id, textContent: input.value });
  input.addEventListener("input", (event) => {
    if (event.isTrusted) input.value = Math.round(100 * input.value) / 100; // moved by hand
    output.textContent = input.value;
  });
  return [element("div", { className: "with" }, input, output)];
}

// Makes the fields of a task; some of what was set before stays, unless they are to be `fresh`.
export function show(task, info, main, more, fresh = false) {
  const before = fresh ? {} : values(main, more);
  main.replaceChildren();
  more.replaceChildren();
  for (const name of Object.keys(FIELDS)) {
    if (!task.options.includes(name)) continue;
    if (name === "base_only" && task.sizes.length < 2) continue;
    const field = settings(name, task, info);
    const label = element("label", { htmlFor: `option-${name}`, textContent: field.label });
    const place = field.main ? main : more;
    place.append(element("div", { className: "option" }, label, ...control(name, field)));
  }
  const kept = ["seed", "steps", "negative_prompt", "base_only"];
  fill(Object.fromEntries(kept.filter((n) => n in before).map((n) => [n, before[n]])), main, more);
}

const inputs = (...places) => places.flatMap((p) => [...p.querySelectorAll("input, select")]);

// What is set; a field that is left empty is not sent, and the server's own value holds.
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
