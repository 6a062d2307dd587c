// The history: ids in this browser, everything else on the server.

const PLACE = "lumiere_jax.jobs";
const MOST = 60;

function read(otherwise = []) {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE) || "[]");
    return Array.isArray(found) ? found.filter((id) => typeof id === "string") : [];
  } catch {
    return otherwise; // this browser stores nothing
  }
}

function write(ids) {
  try {
    localStorage.setItem(PLACE, JSON.stringify(ids.slice(0, MOST)));
  } catch { /* as above: the list lasts as long as the page */ }
}

export class History {
  constructor(list, note, forget, ask, chosen) {
    Object.assign(this, { list, note, forget, ask, chosen, ids: read(), jobs: new Map() });
    this.current = null;
    forget.addEventListener("click", () => {
      this.ids = [];
      write(this.ids);
      this.#draw();
    });
  }

  async load() {
    // Ids that this server does not know stay: another server may have the same address.
    for (const job of await this.ask(this.ids)) {
      if (!this.jobs.has(job.id)) this.jobs.set(job.id, job);
    }
    this.#draw();
  }

  // Events report only the job that is shown; the others must be asked for.
  async refresh(isFinished) {
    const waiting = [...this.jobs.values()].filter((job) => !isFinished(job));
    const ids = waiting.map((job) => job.id).filter((id) => id !== this.current);
    if (!ids.length) return;
    for (const job of await this.ask(ids)) this.jobs.set(job.id, job);
    this.#draw();
  }

  add(job) {
    const others = read(this.ids); // another tab may have added some, or cleared the list
    this.ids = [...new Set([job.id, ...others])].slice(0, MOST);
    write(this.ids);
    this.update(job);
  }

  update(job) {
    this.jobs.set(job.id, job);
    this.#draw();
  }

  choose(id) {
    this.current = id;
    this.#draw();
  }

  #draw() {
    const focused = document.activeElement?.dataset?.job;
    this.list.replaceChildren(...this.ids.filter((id) => this.jobs.has(id)).map((id) => {
      const job = this.jobs.get(id);
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.dataset.job = id;
      if (id === this.current) button.setAttribute("aria-current", "true");
      const what = document.createElement("small");
      const time = new Date(job.created_at).toLocaleString();
      what.textContent = `${job.task.replaceAll("_", " ")}, ${job.state}, ${time}`;
      button.append(job.options.prompt, what);
      button.addEventListener("click", () => this.chosen(this.jobs.get(id)));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }));
    this.forget.hidden = !this.list.children.length;
    if (focused) this.list.querySelector(`[data-job="${focused}"]`)?.focus();
  }
}
