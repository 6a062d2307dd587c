"use strict";

// Answers on the server that the page came from. `local_answers.js` offers the same functions.
class ServedAnswers {
  constructor(data) {
    this.data = data;
    this.isRemote = true;
  }

  // The rater that this browser knows from an earlier visit, or null.
  async knownRater() {
    return (await this.#call("GET", "api/rater")).rater;
  }

  // {items, answers} of a rater who has begun, or null.
  async resume(rater) {
    return this.#call("GET", `api/raters/${rater}`, undefined, [404]);
  }

  async begin(rater) {
    return this.#call("PUT", `api/raters/${rater}`);
  }

  // Resolves when the answer is on the server's disk.
  async answer(rater, item, question, chosen) {
    const fields = { study: this.data.study, pair: item.key, question, chosen };
    await this.#call("PUT", `api/raters/${rater}/answers`, fields);
  }

  async #call(method, path, fields, absent = []) {
    const reply = await fetch(path, {
      method,
      cache: "no-store",
      headers: fields ? { "Content-Type": "application/json" } : {},
      body: fields && JSON.stringify(fields),
      signal: AbortSignal.timeout(15000),
    });
    if (absent.includes(reply.status)) return null;
    if (reply.ok) return reply.json();
    const error = new Error((await reply.json().catch(() => ({}))).detail || reply.statusText);
    error.isFinal = reply.status < 500; // asking again would not help
    throw error;
  }
}
