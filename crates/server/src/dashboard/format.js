// Figures as people read them, and elements without markup in strings: what a server says is text, whatever
// it holds.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Bytes in three digits: `412 MiB`. */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = Math.abs(count);
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const sign = count < 0 ? "−" : "";
  return `${sign}${digits(value, unit === 0 ? 0 : undefined)} ${UNITS[unit]}`;
}

/** A number in three digits. */
export function digits(value, fraction) {
  const places = fraction ?? (value >= 100 || value === 0 ? 0 : value >= 10 ? 1 : 2);
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

/** A whole number with its thousands apart. */
export function whole(count) {
  return count === null || count === undefined ? "–" : Math.round(count).toLocaleString("en");
}

/** Seconds as a length of time: `45 ms`, `3.2 s`, `5 min`. */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${digits(seconds * 1e6, 0)} µs`;
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 100) return `${digits(seconds)} s`;
  if (seconds < 6000) return `${digits(seconds / 60, 0)} min`;
  return `${digits(seconds / 3600, 1)} h`;
}

/** A rate: `12.3/s`. */
export function rate(value) {
  return value === null || value === undefined ? "–" : digits(value, value >= 100 || value === 0 ? 0 : 1);
}

/** A share as a percentage. */
export function share(part, all) {
  return all > 0 ? `${digits((100 * part) / all)} %` : "–";
}

/** A moment as the clock shows it. */
export function clock(unixMs) {
  return new Date(unixMs).toLocaleTimeString("en-GB");
}

/** An element with attributes (functions are listeners) and children (texts or elements). */
export function make(name, attributes = {}, ...children) {
  const svg = name.startsWith("svg:");
  const element = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element of an id. */
export const by = (id) => document.getElementById(id);

/** Sets a text where it has changed, so that readers are not told it again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Keeps one child of `parent` for each item, by key: made once, filled each time, gone with its item. */
export function keep(parent, items, key, create, fill) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = there.get(name);
    if (child) there.delete(name);
    else {
      child = create(item);
      child.dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    fill(child, item);
  }
  for (const child of there.values()) child.remove();
}

/** The lifetimes of accounts, in the order in which they are stacked, and what they mean. */
export const LIFETIMES = [
  ["semantic", "Semantic", "shared knowledge: weights, vocabularies"],
  ["episodic", "Episodic", "of requests: keys and values, bodies"],
  ["procedural", "Procedural", "as long as the program runs: code, scratch, pools"],
  ["emotional", "Emotional", "pinned by someone"],
];
