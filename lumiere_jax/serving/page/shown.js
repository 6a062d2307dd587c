// The job that is shown: its progress, and its video.

import * as api from "./api.js";

function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 1);
  return whole < 90 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function described(job) {
  const { state, progress, queue_position: before } = job;
  if (state === "queued") return before ? `Waiting; ${before} ahead` : "Waiting, next in the queue";
  if (state === "failed") return `Failed: ${job.error}`;
  if (state === "cancelled") return "Cancelled";
  if (state === "done") {
    const seconds = (new Date(job.finished_at) - new Date(job.started_at)) / 1000;
    return `Done in ${duration(seconds)}`;
  }
  if (!progress) return "Starting";
  const { stage, step, total, seconds_left: left } = progress;
  if (stage === "loading") return "Loading the weights";
  if (stage === "writing") return "Writing the video";
  if (stage === "compiling") return "Compiling, since it is the first of its kind";
  const at = `step ${step} of ${total}`;
  return `${stage[0].toUpperCase()}${stage.slice(1)}: ${at}` + (left ? `, ${duration(left)} left` : "");
}

export class Shown {
  constructor(parts, { key, changed, problem }) {
    Object.assign(this, { ...parts, changed, job: null, stop: () => {} });
    this.cancel.addEventListener("click", async () => {
      this.cancel.disabled = true;
      try {
        this.#update(await api.cancel(this.job.id, key()));
      } catch (error) {
        problem(error.message);
      }
      this.cancel.disabled = false;
    });
  }

  show(job, focus = true) {
    this.stop();
    this.nothing.hidden = true;
    this.place.hidden = false;
    this.result.removeAttribute("src");
    this.preview.removeAttribute("src");
    this.#update(job);
    if (focus) this.title.focus();
    if (api.isFinished(job)) return;
    this.stop = api.follow(job.id, (state, error) => {
      if (state) this.#update(state);
      else this.state.textContent = `No update: ${error.message}`;
    });
  }

  #update(job) {
    const isDone = job.state === "done", isOver = api.isFinished(job);
    this.job = job;
    this.title.textContent = job.options.prompt;
    this.state.textContent = described(job);
    this.bar.hidden = isOver;
    if (job.state === "running") this.bar.value = job.progress?.fraction || 0;
    else this.bar.removeAttribute("value");
    this.cancel.hidden = isOver;
    this.preview.hidden = isDone || !job.preview_url;
    if (!this.preview.hidden) this.preview.src = job.preview_url;
    this.result.hidden = !isDone;
    if (isDone && !this.result.src) this.result.src = job.video_url;
    this.download.hidden = this.asInput.hidden = !isDone;
    if (isDone) {
      this.download.href = job.video_url;
      this.download.download = `lumiere-${job.id.slice(0, 8)}.mp4`;
    }
    this.details.replaceChildren();
    for (const [name, value] of Object.entries({ task: job.task, ...job.options })) {
      if (["prompt", ""].includes(name) || value === "") continue;
      const term = Object.assign(document.createElement("dt"),
                                 { textContent: name.replaceAll("_", " ") });
      const said = Object.assign(document.createElement("dd"), { textContent: String(value) });
      this.details.append(term, said);
    }
    this.changed(job);
  }
}
