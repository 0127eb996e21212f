// The last hour as a stacked chart: what was granted, by lifetime; what was measured; the budget; and marks
// where memory was taken back, with their reasons beside it.

import { LIFETIMES, bytes, clock, keep, make, say, whole } from "./format.js";

const HEIGHT = 260;
const PAD = { left: 8, right: 8, top: 26, bottom: 24 };
const HOUR_MS = 3_600_000;
const LEAST_MS = 300_000;
const POINTS_MAX = 720;
const MARKS_MAX = 256;

/** What is done for memory, as people say it. */
export const RUNGS = {
  trim_pools: "idle memory given back",
  drop_prefixes: "cached prefixes dropped",
  compact: "blocks moved together",
  shrink_kv: "keys and values shrunk",
  shrink_prefill: "prompts read in shorter pieces",
  evict_model: "model unloaded",
  preempt: "sequences made to wait",
  queue: "request waits for memory",
  refuse: "request refused",
};

export class Timeline {
  constructor(container, detail, list) {
    Object.assign(this, { container, detail, list });
    this.points = [];
    this.marks = [];
    this.budget = 0;
    this.interval = 5000;
    this.at = null;
    this.svg = make("svg:svg", {
      tabindex: "0",
      role: "img",
      "aria-label": "Granted, measured and budget over the last hour",
      pointermove: (event) => this.point(event.offsetX),
      pointerleave: () => this.point(null),
      keydown: (event) => this.step(event),
    });
    container.append(this.svg);
    new ResizeObserver(() => this.draw()).observe(container);
  }

  /** Takes the hour before, as the server knows it. */
  begin(history) {
    this.budget = history.budget_bytes;
    this.interval = history.interval_seconds * 1000;
    this.points = history.unix_ms.map((unixMs, index) => ({
      unixMs,
      granted: LIFETIMES.map(([name]) => history.granted_bytes[name][index]),
      rss: history.rss_bytes[index],
    }));
    for (const mark of history.marks) this.mark(mark);
    this.sort();
    this.draw();
  }

  /** Takes what is reported now. */
  add(memory, unixMs) {
    this.budget = memory.budget_bytes;
    const point = { unixMs, granted: sums(memory.tree), rss: memory.rss_bytes ?? 0 };
    const last = this.points.at(-1);
    const before = this.points.at(-2);
    // The last point moves with what is reported, until it is as far from the one before as all are.
    if (last && before && unixMs - before.unixMs < this.interval) this.points[this.points.length - 1] = point;
    else this.points.push(point);
    while (this.points.length > POINTS_MAX || unixMs - this.points[0].unixMs > HOUR_MS) this.points.shift();
    for (const event of memory.reclaim.recent) this.mark(event);
    this.sort();
    this.draw();
  }

  /** Takes an event; one that is known already is counted on. */
  mark(event) {
    const same = (other) =>
      other.rung === event.rung && other.model === event.model && other.reason === event.reason &&
      (other.unix_ms === event.unix_ms || (other.times < event.times && event.unix_ms - other.unix_ms < 60_000));
    const known = this.marks.find(same);
    if (known) Object.assign(known, event);
    else this.marks.push({ ...event });
  }

  sort() {
    this.marks.sort((a, b) => a.unix_ms - b.unix_ms);
    this.marks.splice(0, Math.max(0, this.marks.length - MARKS_MAX));
  }

  draw() {
    const width = this.container.clientWidth;
    if (width === 0 || this.points.length === 0) return;
    this.end = this.points.at(-1).unixMs;
    this.span = Math.min(HOUR_MS, Math.max(LEAST_MS, this.end - this.points[0].unixMs));
    const most = Math.max(...this.points.map((point) => Math.max(point.rss, point.granted.reduce((a, b) => a + b, 0))));
    // Where little of a large budget is used, the chart shows what is used, and says where the budget is.
    const inView = this.budget <= 3 * most;
    this.top = inView ? this.budget * 1.04 : most * 1.35;
    const x = (unixMs) => PAD.left + (1 - (this.end - unixMs) / this.span) * (width - PAD.left - PAD.right);
    const y = (value) => HEIGHT - PAD.bottom - (value / this.top) * (HEIGHT - PAD.top - PAD.bottom);
    this.x = x;
    const parts = [];
    const clear = (value) => !inView || Math.abs(y(value) - y(this.budget)) > 24;
    const levels = ticks(this.top).filter(clear);
    for (const value of levels) {
      parts.push(make("svg:line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }));
    }
    let below = this.points.map(() => 0);
    LIFETIMES.forEach(([name], index) => {
      const above = this.points.map((point, at) => below[at] + point.granted[index]);
      if (above.some((value, at) => value > below[at])) {
        const up = this.points.map((point, at) => `${x(point.unixMs).toFixed(1)},${y(above[at]).toFixed(1)}`);
        const down = this.points.map((point, at) => `${x(point.unixMs).toFixed(1)},${y(below[at]).toFixed(1)}`).reverse();
        parts.push(make("svg:path", { class: `area ${name}`, d: `M${up.join("L")}L${down.join("L")}Z` }));
      }
      below = above;
    });
    const line = (of) => `M${this.points.map((point) => `${x(point.unixMs).toFixed(1)},${y(of(point)).toFixed(1)}`).join("L")}`;
    parts.push(make("svg:path", { class: "rss", d: line((point) => point.rss) }));
    if (inView) {
      parts.push(make("svg:line", { class: "budget", x1: PAD.left, x2: width - PAD.right, y1: y(this.budget), y2: y(this.budget) }));
    }
    parts.push(make("svg:text", { class: "tick", x: PAD.left, y: inView ? y(this.budget) - 6 : 12 },
      inView ? `budget ${bytes(this.budget)}` : `budget ${bytes(this.budget)}, far above`));
    for (const value of levels) parts.push(make("svg:text", { class: "tick", x: PAD.left, y: y(value) - 4 }, bytes(value)));
    const minutes = this.span / 60_000;
    const every = [1, 2, 5, 10, 20, 30].find((every) => (minutes / every) * 110 <= width) ?? 60;
    for (let minute = 0; minute <= minutes; minute += every) {
      const at = x(this.end - minute * 60_000);
      const anchor = minute === 0 ? "tick end" : minute * 60_000 >= this.span * 0.98 ? "tick" : "tick middle";
      parts.push(make("svg:text", { class: anchor, x: at, y: HEIGHT - 6 }, minute === 0 ? "now" : `−${minute} min`));
    }
    for (const mark of this.shown()) {
      const at = x(mark.unix_ms).toFixed(1);
      parts.push(make("svg:g", { class: `mark ${mark.rung}` },
        make("svg:line", { x1: at, x2: at, y1: PAD.top - 6, y2: HEIGHT - PAD.bottom }),
        make("svg:path", { d: `M${at - 5},${PAD.top - 14}h10l-5,9z` }),
        make("svg:title", {}, `${clock(mark.unix_ms)} ${RUNGS[mark.rung] ?? mark.rung}: ${mark.reason}`)));
    }
    this.cross = make("svg:line", { class: "cross", y1: PAD.top - 10, y2: HEIGHT - PAD.bottom });
    parts.push(this.cross);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
    this.read();
    this.tell();
  }

  shown() {
    return this.marks.filter((mark) => mark.unix_ms >= this.end - this.span);
  }

  /** The events in words, the latest first. */
  tell() {
    const marks = this.shown().slice(-8).reverse();
    const fill = (item, mark) => {
      const [when, what, why] = item.children;
      say(when, clock(mark.unix_ms));
      const times = mark.times > 1 ? ` × ${whole(mark.times)}` : "";
      const back = mark.returned_bytes > 0 ? `, ${bytes(mark.returned_bytes)} back` : "";
      say(what, `${mark.model ? `${mark.model}: ` : ""}${RUNGS[mark.rung] ?? mark.rung}${times}${back}`);
      say(why, mark.reason);
    };
    const create = (mark) =>
      mark.none
        ? make("li", { class: "none" }, "Nothing: there was room for all.")
        : make("li", {}, make("time"), make("strong"), make("span"));
    const items = marks.length > 0 ? marks : [{ none: true }];
    keep(this.list, items, (mark) => (mark.none ? "none" : `${mark.unix_ms} ${mark.rung} ${mark.model}`), create,
      (item, mark) => mark.none || fill(item, mark));
  }

  point(x) {
    if (x === null) this.at = null;
    else if (this.x) {
      const away = (point) => Math.abs(this.x(point.unixMs) - x);
      this.at = this.points.reduce((best, point) => (away(point) < away(best) ? point : best)).unixMs;
    }
    this.read();
  }

  step(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12, Home: -POINTS_MAX, End: POINTS_MAX }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const here = this.points.findIndex((point) => point.unixMs === this.at);
    const from = here < 0 ? this.points.length - 1 : here;
    this.at = this.points[Math.min(this.points.length - 1, Math.max(0, from + by))].unixMs;
    this.read();
  }

  /** Reads the moment that is pointed at. */
  read() {
    const point = this.points.find((point) => point.unixMs === this.at);
    this.cross?.setAttribute("visibility", point ? "visible" : "hidden");
    if (!point) return;
    const x = this.x(point.unixMs);
    this.cross.setAttribute("x1", x);
    this.cross.setAttribute("x2", x);
    const granted = point.granted.reduce((a, b) => a + b, 0);
    const parts = LIFETIMES.map(([name], index) => [name, point.granted[index]]).filter(([, value]) => value > 0);
    say(this.detail, `${clock(point.unixMs)} · granted ${bytes(granted)} (${parts
      .map(([name, value]) => `${name} ${bytes(value)}`)
      .join(", ")}) · measured ${bytes(point.rss)}`);
  }
}

/** What accounts hold themselves, by lifetime. */
export function sums(node, found = LIFETIMES.map(() => 0)) {
  const below = node.children.reduce((sum, child) => sum + child.granted_bytes, 0);
  const index = LIFETIMES.findIndex(([name]) => name === node.lifetime);
  if (index >= 0) found[index] += node.granted_bytes - below;
  for (const child of node.children) sums(child, found);
  return found;
}

/** Round numbers of bytes below `top`. */
function ticks(top) {
  let step = 1024;
  while (top / step > 4) step *= 2;
  const found = [];
  for (let value = step; value < top * 0.93; value += step) found.push(value);
  return found;
}
