// Requests to the server.

const BASE = "/api/v1";

export class Refused extends Error {}

async function answer(response) {
  if (response.ok) return response;
  let detail = `the server answered with ${response.status}`;
  try {
    detail = (await response.json()).detail || detail;
  } catch { /* not JSON: a proxy in front of the server answered */ }
  throw new Refused(detail);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(BASE + path, options);
  } catch {
    throw new Refused("the server cannot be reached");
  }
  return answer(response);
}

function withKey(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

export const info = async () => (await ask("/info")).json();

export async function health() {
  try { // not ready is an answer too
    return await (await fetch(`${BASE}/health`)).json();
  } catch {
    return { ready: false, reason: "the server cannot be reached" };
  }
}

export async function submit(fields, files, key) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  for (const [name, file] of Object.entries(files)) form.append(name, file, name);
  return (await ask("/jobs", { method: "POST", body: form, headers: withKey(key) })).json();
}

export const job = async (id) => (await ask(`/jobs/${id}`)).json();

export async function jobs(ids) {
  if (!ids.length) return [];
  const query = ids.map((id) => `ids=${encodeURIComponent(id)}`).join("&");
  return (await ask(`/jobs?${query}`)).json();
}

export async function cancel(id, key) {
  return (await ask(`/jobs/${id}`, { method: "DELETE", headers: withKey(key) })).json();
}

export const isFinished = (job) => ["done", "failed", "cancelled"].includes(job.state);

// Calls `tell` with the job whenever it changes. Returns a function that ends that.
export function follow(id, tell) {
  let source = null, timer = null, ended = false;
  const stop = () => { ended = true; source?.close(); clearTimeout(timer); };
  const take = (state) => {
    if (ended) return;
    tell(state);
    if (isFinished(state)) stop();
  };
  const poll = async () => { // if streams are refused, or a proxy holds them back
    try {
      take(await job(id));
    } catch (error) {
      if (!ended) tell(null, error);
    }
    if (!ended) timer = setTimeout(poll, 2000);
  };
  source = new EventSource(`${BASE}/jobs/${id}/events`);
  source.addEventListener("job", (event) => take(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (!ended && source.readyState === EventSource.CLOSED) poll();
  });
  return stop;
}
