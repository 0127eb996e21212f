// How fast requests are answered, with a small picture of the last minutes each; and the requests one by one,
// with why those wait that do.

import { bytes, digits, keep, make, rate, say, time, whole } from "./format.js";

const KEPT = 120;
/** Time between two points of a line, as in the history. */
const INTERVAL_MS = 5000;
const LEAST = 24;

/** Those with a `sum` are drawn from how it grows, others as they are told. */
const TILES = [
  { key: "out", label: "Tokens out", unit: "/s", of: (rates) => rates.tokens_out_per_second, text: rate, sum: "tokens_out_total" },
  { key: "in", label: "Tokens in", unit: "/s", of: (rates) => rates.tokens_in_per_second, text: rate, sum: "tokens_in_total" },
  { key: "vectors", label: "Vectors", unit: "/s", of: (rates) => rates.vectors_per_second, text: rate, sum: "vectors_total" },
  { key: "requests", label: "Requests", unit: "/s", of: (rates) => rates.requests_per_second, text: rate, sum: "requests_total" },
  { key: "first", label: "First token", unit: "", of: (rates) => rates.first_token_seconds.p50, text: time, kept: "first_token_seconds",
    more: (rates) => `p95 ${time(rates.first_token_seconds.p95)}` },
  { key: "between", label: "Between tokens", unit: "", of: (rates) => rates.between_tokens_seconds.p50, text: time, kept: "between_tokens_seconds",
    more: (rates) => `p95 ${time(rates.between_tokens_seconds.p95)}` },
];

export class Rates {
  constructor(container) {
    this.container = container;
    this.past = new Map(TILES.map((tile) => [tile.key, []]));
    /** The last report that was drawn, and when that was. */
    this.last = null;
  }

  /** Takes what there was before, as the server knows it. */
  begin(history) {
    const times = history.unix_ms;
    for (const { key, sum, kept } of TILES) {
      if (kept) {
        this.past.set(key, history[kept].slice(-KEPT).map((value) => value ?? 0));
        continue;
      }
      const sums = history[sum];
      const grown = sums.slice(1).map((value, index) => growth(sums[index], value, times[index + 1] - times[index]));
      this.past.set(key, grown.slice(-KEPT));
    }
    this.last = null;
  }

  show(rates, unixMs) {
    const due = !this.last || unixMs - this.last.unixMs >= INTERVAL_MS;
    keep(this.container, TILES, (tile) => tile.key, create, (element, tile) => {
      const value = tile.of(rates);
      const [, number, note] = element.children;
      say(number, value === null ? "–" : `${tile.text(value)}${tile.unit}`);
      say(note, value === null ? "none yet" : tile.more?.(rates) ?? "");
      const past = this.past.get(tile.key);
      if (due && !tile.sum) past.push(value ?? 0);
      if (due && tile.sum && this.last) past.push(growth(this.last.rates[tile.sum], rates[tile.sum], unixMs - this.last.unixMs));
      if (past.length > KEPT) past.shift();
      if (due) spark(element.querySelector("path"), past);
    });
    if (due) this.last = { rates, unixMs };
  }
}

/** How fast a sum grew, a second; it begins again with the server. */
function growth(before, after, ms) {
  return Math.max(0, (1000 * (after - before)) / Math.max(1, ms));
}

function create(tile) {
  return make("div", { class: `tile ${tile.key}` },
    make("span", { class: "label" }, tile.label),
    make("strong", { class: "value" }),
    make("span", { class: "note" }),
    make("svg:svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, make("svg:path", { class: "spark" })));
}

function spark(path, values) {
  const most = Math.max(...values, 1e-9);
  const step = 100 / Math.max(LEAST, values.length - 1);
  const from = 100 - (values.length - 1) * step;
  const points = values.map((value, index) => `${(from + index * step).toFixed(1)},${(22 - (20 * value) / most).toFixed(1)}`);
  path.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
}

/** The requests inside, as rows. */
export function requests(container, counts, memory) {
  const running = memory.requests.filter((request) => request.state === "running").length;
  const waiting = memory.requests.length - running + memory.requests_left_out;
  // Who waits for a model that is not there is no request of an engine yet.
  const loading = memory.waiting.filter((waits) => !memory.requests.some((request) => request.model === waits.model));
  const unloaded = loading.reduce((sum, waits) => sum + waits.requests, 0);
  say(counts, `${whole(running)} running, ${whole(waiting + unloaded)} waiting`);
  const rows = [
    ...memory.requests.map((request, index) => ({ ...request, key: `${index}` })),
    ...loading.map((waits) => ({ ...waits, state: "waiting", kind: "model", key: `model ${waits.model}` })),
  ];
  if (rows.length === 0) rows.push({ key: "none" });
  keep(container, rows, (row) => (row.key === "none" ? "none" : `${row.key}`), createRow, fillRow);
}

function createRow(row) {
  if (row.key === "none") return make("p", { class: "empty" }, "Nobody asks anything at the moment.");
  return make("div", { class: "request" },
    make("span", { class: "pill" }),
    make("strong", { class: "model" }),
    make("span", { class: "work" }, make("span", { class: "bar", "aria-hidden": "true" }, make("i")), make("span")),
    make("span", { class: "figures" }),
    make("span", { class: "why" }));
}

function fillRow(element, row) {
  if (row.key === "none") return;
  element.className = `request ${row.state}`;
  const [state, model, work, figures, why] = element.children;
  say(state, row.state);
  say(model, row.model);
  let [done, all, unit] = [0, 0, ""];
  if (row.kind === "model") {
    work.hidden = true;
    say(figures, `${whole(row.requests)} ${row.requests === 1 ? "request" : "requests"}`);
  } else {
    work.hidden = false;
    if (row.kind === "embed") [done, all, unit] = [row.vectors_done, row.vectors_total, "vectors"];
    else if (row.generated_tokens === 0) [done, all, unit] = [row.stored_tokens, row.prompt_tokens, "prompt tokens read"];
    else [done, all, unit] = [row.generated_tokens, row.max_tokens, "tokens"];
    work.querySelector("i").style.width = `${all > 0 ? Math.min(100, (100 * done) / all) : 0}%`;
    say(work.lastElementChild, `${whole(done)} of ${whole(all)} ${unit}`);
    const parts = [`prompt ${whole(row.prompt_tokens)}`];
    if (row.kv_bytes > 0) parts.push(bytes(row.kv_bytes));
    parts.push(`for ${time(row.age_seconds)}`);
    if (row.priority !== 0) parts.push(`priority ${digits(row.priority, 0)}`);
    say(figures, parts.join(" · "));
  }
  say(why, row.reason ? `Waits: ${row.reason}` : "");
}
