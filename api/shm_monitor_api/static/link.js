// What is asked of the API. The token is in this variable and nowhere else: a reload forgets it.

const RETRY_MS = 2000;
const SILENCE_MS = 45000; // the API says something each 15 s

let token = "";

export class Locked extends Error {}

// A problem that the API tells, or that there is none to tell it.
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail || problem.title);
    this.problem = problem;
  }
}

export function useToken(given) {
  token = given;
}

async function fetched(path, { headers = {}, signal } = {}) {
  const sent = token ? { ...headers, authorization: `Bearer ${token}` } : headers;
  // Without credentials a browser does not ask for a password itself.
  const answer = await fetch(path, { headers: sent, signal, credentials: "omit", cache: "no-store" });
  if (answer.status === 401) throw new Locked();
  if (!answer.ok) throw new Refused(await answer.json());
  return answer;
}

export async function ask(path, signal) {
  return (await fetched(path, { signal })).json();
}

// Server-sent events, by fetch: an EventSource sends no token. Calls *handlers*[event](data), and `lost` in between.
export async function listen(handlers) {
  let last = "";
  for (;;) {
    const abort = new AbortController();
    try {
      const headers = { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) };
      const answer = await fetched("events", { headers, signal: abort.signal });
      for await (const event of eventsOf(answer.body, abort)) {
        if (event.id) last = event.id;
        handlers[event.name]?.(JSON.parse(event.data));
      }
    } catch (error) {
      if (error instanceof Locked) throw error;
    }
    abort.abort();
    handlers.lost();
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

async function* eventsOf(body, abort) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const silent = setTimeout(() => abort.abort(), SILENCE_MS);
    const { done, value } = await reader.read();
    clearTimeout(silent);
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.event) yield { name: fields.event, data: fields.data, id: fields.id };
    }
  }
}
