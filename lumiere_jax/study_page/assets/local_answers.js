"use strict";

// A 32-bit number that looks random; `draw` of user_study.py, which it has to equal.
function draw(...parts) {
  let value = 2166136261;
  for (const byte of new TextEncoder().encode(parts.join("/"))) {
    value = Math.imul(value ^ byte, 16777619);
  }
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

// The pairs of a rater in order; `arrange` of user_study.py, which it has to equal.
function arrange(data, rater) {
  const byChance = (pairs) =>
    pairs
      .map((pair) => [draw("order", data.seed, rater, pair.key), pair])
      .sort(([a, one], [b, two]) => a - b || (one.key < two.key ? -1 : 1))
      .map(([, pair]) => pair);
  const all = byChance(data.pairs.filter((pair) => !pair.everyRater));
  const arranged = all.slice(0, data.pairsPerRater ?? all.length);
  const checks = byChance(data.pairs.filter((pair) => pair.everyRater));
  const count = arranged.length;
  for (let i = checks.length - 1; i >= 0; i--) {
    const begin = Math.floor((i * count) / checks.length);
    const end = Math.floor(((i + 1) * count) / checks.length);
    const offset = draw("check", data.seed, rater, checks[i].key) % Math.max(1, end - begin);
    arranged.splice(begin + offset + 1, 0, checks[i]);
  }
  return arranged;
}

// Answers in this browser's localStorage, to be downloaded or sent at the end.
class LocalAnswers {
  constructor(data) {
    this.data = data;
    this.isRemote = false;
  }

  async knownRater() {
    return localStorage.getItem(this.#place("rater"));
  }

  async resume(rater) {
    const stored = localStorage.getItem(this.#place(rater));
    return stored && this.#work(rater, JSON.parse(stored));
  }

  async begin(rater) {
    const stored = localStorage.getItem(this.#place(rater)) ?? "{}";
    this.#store(this.#place(rater), stored);
    this.#store(this.#place("rater"), rater);
    return this.#work(rater, JSON.parse(stored));
  }

  async answer(rater, item, question, chosen) {
    // Read again, as another tab may have answered since.
    const stored = JSON.parse(localStorage.getItem(this.#place(rater)) ?? "{}");
    const old = stored[item.key]?.[question];
    if (old?.chosen === chosen) return;
    const answer = { chosen, left: item.left, answered_at: Date.now() };
    stored[item.key] = { ...stored[item.key], [question]: answer };
    this.#store(this.#place(rater), JSON.stringify(stored));
  }

  // What `--answers` of `python -m lumiere_jax.study --mode=results` reads.
  file(rater) {
    const stored = JSON.parse(localStorage.getItem(this.#place(rater)));
    const answers = Object.entries(stored).flatMap(([pair, byQuestion]) =>
      Object.entries(byQuestion).map(([question, answer]) => ({ pair, question, ...answer }))
    );
    const head = { format: "lumiere_jax study answers 1", study: this.data.study, rater };
    return JSON.stringify({ ...head, answers }, null, 1);
  }

  async send(rater) {
    const reply = await fetch(this.data.postUrl, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: this.file(rater),
    });
    if (!reply.ok) throw new Error(reply.statusText);
  }

  #place(name) {
    return `study ${this.data.study} ${name}`;
  }

  #store(place, text) {
    try {
      localStorage.setItem(place, text);
    } catch (error) {
      const told = new Error("this browser stores nothing; allow it to, or use another one");
      throw Object.assign(told, { isFinal: true });
    }
  }

  #work(rater, stored) {
    const items = arrange(this.data, rater).map(({ key, prompt, videos }) => {
      const first = draw("side", this.data.seed, rater, key) & 1;
      return { key, prompt, left: videos[first], right: videos[1 - first] };
    });
    const answers = {};
    for (const [pair, byQuestion] of Object.entries(stored)) {
      answers[pair] = {};
      for (const [name, { chosen }] of Object.entries(byQuestion)) answers[pair][name] = chosen;
    }
    return { items, answers };
  }
}
