// The keys and values of each model as a map: a tile for every slab, a square for every block in it. Tiles that
// empty and go are compaction at work.

import { bytes, keep, make, say, share, whole } from "./format.js";

/** What letters of a map mean: style, word, meaning. */
export const CELLS = {
  u: ["used", "Used", "held by one sequence"],
  s: ["shared", "Shared", "held by several"],
  c: ["cached", "Cached", "kept for what it stores"],
  f: ["unused", "Free", "memory that stores nothing"],
  ".": ["vacant", "Vacant", "no memory yet"],
};

/** The cells of a map, written as runs. */
export function unrolled(runs) {
  const cells = [];
  for (const [, count, letter] of runs.matchAll(/(\d+)(.)/g)) {
    for (let index = 0; index < Number(count); index += 1) cells.push(letter);
  }
  return cells;
}

export class Maps {
  constructor(container) {
    this.container = container;
    this.shown = [];
    new ResizeObserver(() => this.draw()).observe(container);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(models) {
    this.shown = models.length > 0 ? models : [{ none: true }];
    keep(this.container, this.shown, (kv) => kv.model ?? "", (kv) => create(kv), fill);
  }

  /** Draws all again: sizes or colours have changed. */
  draw() {
    for (const item of this.container.children) item.paint?.();
  }
}

function create(kv) {
  if (kv.none) return make("p", { class: "empty" }, "No model that writes is loaded.");
  const item = make("div", { class: "map" },
    make("div", { class: "title" }, make("h3"), make("p", { class: "note" })),
    make("canvas", { role: "img" }),
    make("p", { class: "detail" }));
  item.paint = () => item.kv?.map && paint(item.querySelector("canvas"), item.kv);
  return item;
}

function fill(item, kv) {
  if (kv.none) return;
  item.kv = kv;
  say(item.querySelector("h3"), kv.model);
  say(item.querySelector(".note"), `${bytes(kv.committed_bytes)} of ${bytes(kv.capacity_bytes)} in ${whole(kv.slabs)} of ${whole(kv.slabs_total)} slabs`);
  const parts = [
    `${whole(kv.blocks_used)} used`,
    `${whole(kv.shared_blocks)} shared`,
    `${whole(kv.blocks_cached)} cached`,
    `${whole(kv.blocks_free)} free`,
  ];
  const text = `${whole(kv.blocks_total)} blocks of ${kv.block_tokens} tokens: ${parts.join(", ")}`;
  const canvas = item.querySelector("canvas");
  if (canvas.getAttribute("aria-label") !== text) canvas.setAttribute("aria-label", text);
  const compacted = kv.compactions_total > 0 ? ` · compacted ${whole(kv.compactions_total)} times, ${bytes(kv.compaction_returned_bytes_total)} back` : "";
  const hits = kv.prefix_hit_tokens_total > 0 ? ` · ${whole(kv.prefix_hit_tokens_total)} tokens found cached` : "";
  say(item.querySelector(".detail"), `${text} · ${share(kv.fragmentation_ratio, 1)} fragmented${compacted}${hits}`);
  const key = `${kv.map?.cells} ${canvas.clientWidth}`;
  if (item.painted !== key) {
    item.painted = key;
    item.paint();
  }
}

/** Draws the tiles as large as they can be side by side, and no larger than looks well. */
function paint(canvas, kv) {
  const cells = unrolled(kv.map.cells);
  const perSlab = Math.max(1, Math.round(kv.map.blocks_per_slab / kv.map.blocks_per_cell));
  const width = canvas.parentElement.clientWidth;
  if (width === 0) return;
  const slabs = Math.ceil(cells.length / perSlab);
  const shape = (size) => {
    // As wide as the page for one large slab, else nearly square.
    const most = Math.max(1, Math.floor((width - 4) / size));
    const columns = Math.min(most, slabs === 1 ? perSlab : Math.ceil(Math.sqrt(perSlab * 2)));
    const rows = Math.ceil(perSlab / columns);
    const across = Math.max(1, Math.floor(width / (columns * size + 5)));
    return { size, columns, rows, across, height: Math.ceil(slabs / across) * (rows * size + 5) };
  };
  let best = shape(3);
  for (let size = 14; size >= 3; size -= 1) {
    const found = shape(size);
    if (found.height <= 170) {
      best = found;
      break;
    }
  }
  const { size, columns, rows, across, height } = best;
  const scale = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const style = getComputedStyle(canvas);
  const colours = Object.fromEntries(
    Object.entries(CELLS).map(([letter, [name]]) => [letter, style.getPropertyValue(`--${name}`).trim()]),
  );
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const gap = size > 5 ? 1 : 0.5;
  cells.forEach((letter, index) => {
    const slab = Math.floor(index / perSlab);
    const inside = index % perSlab;
    const x = (slab % across) * (columns * size + 5) + (inside % columns) * size;
    const y = Math.floor(slab / across) * (rows * size + 5) + Math.floor(inside / columns) * size;
    context.fillStyle = colours[letter];
    context.fillRect(x, y, size - gap, size - gap);
    if (letter === "s" && size > 5) {
      // Not by colour alone.
      context.fillStyle = style.getPropertyValue("--page").trim();
      context.fillRect(x + size / 2 - 1.5, y + size / 2 - 1.5, 2, 2);
    }
  });
}
