// The way to the server: the key, plain requests, and what it streams. The key is kept for this tab only, and
// travels in a header, which is why the stream is read by fetch and not by EventSource.

import { by } from "./format.js";

const KEY = "bursar-key";
const PAUSE_MS = [500, 1000, 2000, 5000];
/** What it is to be refused, in a word or two. */
const STATES = { 429: "too many watch", 503: "shutting down" };

let asking = null;

/** Asks for the key, once however many need it. */
function ask(why) {
  asking ??= new Promise((resolve) => {
    const dialog = by("ask");
    const input = by("ask-key");
    by("ask-why").textContent = why;
    input.value = "";
    dialog.addEventListener(
      "close",
      () => {
        sessionStorage.setItem(KEY, input.value.trim());
        input.value = "";
        asking = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

/** Forgets the key and asks for another. */
export function another() {
  sessionStorage.removeItem(KEY);
  return ask("It is kept for this tab only.");
}

/** Something that the server refused, in its words. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.memory = body?.error?.memory;
  }
}

/** Sends a request with the key; asks for it where it is wanted. */
export async function send(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...options.headers };
    if (key) headers.Authorization = `Bearer ${key}`;
    if (options.body) headers["Content-Type"] = "application/json";
    const response = await fetch(path, { ...options, headers, cache: "no-store" });
    if (response.status === 401) {
      by("key").hidden = false;
      await ask(key ? "That key is not known here; it is kept for this tab only." : "It is kept for this tab only.");
      continue;
    }
    if (key) by("key").hidden = false;
    if (!response.ok) throw new Refused(response.status, await response.json().catch(() => null));
    return response;
  }
}

/** Gets JSON, or posts a value and gets JSON. */
export async function json(path, value, signal) {
  const options = value === undefined ? { signal } : { method: "POST", body: JSON.stringify(value), signal };
  return (await send(path, options)).json();
}

/** Reads server-sent events: `hear` is called with each event's name and data. */
export async function events(response, hear) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const data = field("data");
      if (data !== undefined) hear(field("event") ?? "message", data);
    }
  }
}

/** Watches the server for as long as the page is seen. `hear` gets events, `tell` how the connection is. */
export async function watch(hear, tell) {
  let failures = 0;
  for (;;) {
    await seen();
    const abort = new AbortController();
    const hide = () => document.hidden && abort.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const response = await send("memory/events", { signal: abort.signal });
      failures = 0;
      tell("live");
      await events(response, (name, data) => hear(name, JSON.parse(data)));
      tell("ended");
    } catch (error) {
      if (!abort.signal.aborted) tell(error instanceof Refused ? STATES[error.status] ?? "refused" : "no connection", error.message);
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    if (!document.hidden) {
      const pause = PAUSE_MS[Math.min(failures, PAUSE_MS.length - 1)];
      failures += 1;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

/** Waits until the page is seen. */
function seen() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}
