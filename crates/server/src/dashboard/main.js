// Puts the page together: what the server tells goes to those who draw it.

import { LIFETIMES, by, bytes, keep, make, say, share } from "./format.js";
import { another, json, watch } from "./live.js";
import { CELLS, Maps } from "./kvmap.js";
import { Models } from "./models.js";
import { Chat, Compare, tabs } from "./play.js";
import { Rates, requests } from "./rates.js";
import { Timeline, sums } from "./timeline.js";
import { Treemap } from "./treemap.js";
import { WhatIf } from "./whatif.js";

const REFRESH_MS = 15_000;
const THEMES = [["auto", "Auto", "as the system"], ["light", "Light", "light"], ["dark", "Dark", "dark"]];

const treemap = new Treemap(by("treemap"), by("leaf"));
const timeline = new Timeline(by("timeline"), by("moment"), by("marks"));
const rates = new Rates(by("tiles"));
const models = new Models(by("list"), by("said"), by("cache"));
const maps = new Maps(by("maps"));
const whatIf = new WhatIf(by("wishes"), by("outlook"));
const chat = new Chat(by("chat"));
const compare = new Compare(by("compare"));

/** Everything that one report tells. */
function show(memory) {
  hero(memory);
  treemap.show(memory.tree);
  timeline.add(memory, Date.now());
  rates.show(memory.rates, Date.now());
  requests(by("rows"), by("counts"), memory);
  models.show(memory);
  maps.show(memory.kv);
  offer(memory);
}

function offer(memory) {
  whatIf.offer(models.known, memory.budget_bytes);
  chat.offer(models.known);
  compare.offer(models.known);
}

/** The budget: what is granted of it, what is resident, and how short memory is. */
function hero(memory) {
  say(by("granted"), bytes(memory.granted_bytes));
  say(by("budget"), bytes(memory.budget_bytes));
  document.title = `${share(memory.granted_bytes, memory.budget_bytes)} · Bursar`;
  const meter = by("meter");
  const part = (value) => `${Math.min(100, (100 * value) / memory.budget_bytes)}%`;
  const granted = sums(memory.tree);
  const bars = LIFETIMES.map(([name], index) => ({ name, value: granted[index] }));
  const lines = [{ name: "rss", value: memory.rss_bytes }, { name: "peak", value: memory.granted_peak_bytes }];
  keep(meter, [...bars, ...lines], (bar) => bar.name, (bar) => make("i", { class: bars.some((other) => other.name === bar.name) ? `part ${bar.name}` : `line ${bar.name}` }),
    (element, bar) => {
      if (element.classList.contains("line")) element.style.left = part(bar.value ?? 0);
      else element.style.width = part(bar.value);
    });
  meter.setAttribute("aria-label", `${bytes(memory.granted_bytes)} of ${bytes(memory.budget_bytes)} granted, ${bytes(memory.rss_bytes)} measured`);
  const facts = [
    ["Measured", bytes(memory.rss_bytes), "resident now", "rss"],
    ["Peak", bytes(memory.granted_peak_bytes), "granted at once", "peak"],
    ["Free", bytes(memory.budget_bytes - memory.granted_bytes), "of the budget", ""],
    ["Drift", bytes(memory.drift_bytes), memory.drift_bytes < 0 ? "less than is explained" : "more than is explained", ""],
    ["Pressure", memory.pressure, `${memory.pressure_detail.inside} inside, ${memory.pressure_detail.outside} around`, `pressure ${memory.pressure}`],
  ];
  keep(by("facts"), facts, ([name]) => name, () => make("div", {}, make("dt"), make("dd"), make("dd", { class: "note" })), (item, [name, value, note, kind]) => {
    item.className = kind;
    [name, value, note].forEach((text, index) => say(item.children[index], text));
  });
  const cause = memory.pressure_detail.cause;
  by("cause").hidden = !cause;
  say(by("cause"), cause ?? "");
}

function legends() {
  const entry = (kind, name, title) => make("li", { title }, make("i", { class: `swatch ${kind}` }), name);
  by("lifetimes").append(...LIFETIMES.map(([kind, name, title]) => entry(kind, name, title)));
  by("lines").append(...LIFETIMES.slice(0, 3).map(([kind, name, title]) => entry(kind, name, title)), entry("rss-line", "Measured"), entry("budget-line", "Budget"), entry("mark-sign", "Taken back"));
  by("cells").append(...Object.values(CELLS).map(([kind, name, title]) => entry(`cell-${kind}`, name, title)));
}

function theme() {
  const button = by("theme");
  const set = (index) => {
    const [name, label, words] = THEMES[index];
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    say(button, label);
    button.setAttribute("aria-label", `Colours: ${words}`);
    localStorage.setItem("bursar-theme", name);
    maps.draw();
  };
  let index = Math.max(0, THEMES.findIndex(([name]) => name === localStorage.getItem("bursar-theme")));
  set(index);
  button.addEventListener("click", () => {
    index = (index + 1) % THEMES.length;
    set(index);
  });
}

async function refresh() {
  await models.refresh();
  if (models.memory) {
    models.show(models.memory);
    offer(models.memory);
  }
}

function hear(name, data) {
  if (name === "memory") show(data);
  // What was done for memory is in the report that comes with it.
  if (name === "model") refresh().catch(() => {});
}

/** Says how the connection is; where it is new, there may be something that was not seen. */
function tell(state, why = "") {
  const live = by("live");
  live.dataset.state = state === "live" ? "live" : "off";
  live.title = why;
  say(live, state);
  if (state === "live") begin().catch(() => {});
}

async function begin() {
  const history = await json("memory/history");
  rates.begin(history);
  timeline.begin(history);
  await refresh();
}

theme();
legends();
tabs();
by("key").addEventListener("click", () => another().then(() => location.reload()));
setInterval(() => !document.hidden && refresh().catch(() => {}), REFRESH_MS);
await watch(hear, tell);
