// The ledger as a treemap (squarified: Bruls, Huizing and van Wijk, 2000). Every rectangle is an account that
// holds bytes itself; its parents are the frames around it. The leaves add up to what is granted.

import { bytes, keep, make, say, share } from "./format.js";

const HEAD = 20;
const GAP = 2;

/** Divides `box` among items of a `size`, as near to squares as can be. */
export function squarify(items, box, size) {
  const sorted = items.filter((item) => size(item) > 0).sort((a, b) => size(b) - size(a));
  const placed = [];
  let { x, y, width, height } = box;
  let left = sorted.reduce((sum, item) => sum + size(item), 0);
  let at = 0;
  while (at < sorted.length && width > 0 && height > 0) {
    const scale = (width * height) / left;
    const short = Math.min(width, height);
    let row = 0;
    let worst = Infinity;
    let end = at;
    while (end < sorted.length) {
      const sum = row + size(sorted[end]);
      const area = sum * scale;
      const most = size(sorted[at]) * scale;
      const least = size(sorted[end]) * scale;
      const ratio = Math.max((short * short * most) / (area * area), (area * area) / (short * short * least));
      if (ratio > worst) break;
      [row, worst] = [sum, ratio];
      end += 1;
    }
    const thick = (row * scale) / short;
    let offset = 0;
    for (const item of sorted.slice(at, end)) {
      const long = (size(item) / row) * short;
      placed.push(
        width >= height
          ? { item, x, y: y + offset, width: thick, height: long }
          : { item, x: x + offset, y, width: long, height: thick },
      );
      offset += long;
    }
    if (width >= height) [x, width] = [x + thick, width - thick];
    else [y, height] = [y + thick, height - thick];
    left -= row;
    at = end;
  }
  return placed;
}

/** Whether a frame has room for its name. */
function headed(box) {
  return box.height > 44 && box.width > 60;
}

/** Rectangles of an account and all below it. */
function layout(node, box, path, depth, out) {
  const children = node.children.filter((child) => child.granted_bytes > 0);
  const here = { node, path, depth, ...box };
  if (children.length === 0) {
    out.push({ ...here, leaf: true });
    return;
  }
  let inner = box;
  if (depth > 0) {
    out.push(here);
    const head = headed(box) ? HEAD : GAP;
    inner = {
      x: box.x + GAP,
      y: box.y + head,
      width: Math.max(0, box.width - 2 * GAP),
      height: Math.max(0, box.height - head - GAP),
    };
  }
  for (const { item, ...child } of squarify(children, inner, (child) => child.granted_bytes)) {
    layout(item, child, `${path}/${item.name}`, depth + 1, out);
  }
}

/** A treemap in `container` that tells of a rectangle in `detail`. */
export class Treemap {
  constructor(container, detail) {
    this.container = container;
    this.detail = detail;
    this.tree = null;
    this.told = null;
    new ResizeObserver(() => this.draw()).observe(container);
    container.addEventListener("keydown", (event) => this.move(event));
    container.addEventListener("pointerleave", () => this.tell(document.activeElement?.box ?? null));
  }

  show(tree) {
    this.tree = tree;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.container;
    if (!this.tree || width === 0) return;
    const boxes = [];
    layout(this.tree, { x: 0, y: 0, width, height }, this.tree.name, 0, boxes);
    this.container.dataset.granted = this.tree.granted_bytes;
    keep(this.container, boxes, (box) => `${box.leaf ? "leaf" : "frame"} ${box.path}`, (box) => this.create(box), fill);
    const leaves = this.leaves();
    if (!leaves.some((leaf) => leaf.tabIndex === 0) && leaves.length > 0) leaves[0].tabIndex = 0;
    if (this.told) this.tell(boxes.find((box) => box.leaf && box.path === this.told.path) ?? null);
  }

  create(box) {
    const name = make("span", { class: "name" });
    if (!box.leaf) return make("div", { class: "frame", "aria-hidden": "true" }, name);
    return make(
      "button",
      {
        type: "button",
        class: "leaf",
        tabindex: "-1",
        pointerenter: (event) => this.tell(event.currentTarget.box),
        focus: (event) => this.tell(event.currentTarget.box),
      },
      name,
      make("span", { class: "size" }),
    );
  }

  leaves() {
    return [...this.container.querySelectorAll(".leaf")];
  }

  /** To the nearest rectangle in the direction of an arrow. */
  move(event) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    const from = event.target.box;
    if (dx === undefined || !from) return;
    event.preventDefault();
    const middle = (box) => [box.x + box.width / 2, box.y + box.height / 2];
    const [fx, fy] = middle(from);
    let nearest = null;
    let least = Infinity;
    for (const leaf of this.leaves()) {
      const [x, y] = middle(leaf.box);
      const ahead = (x - fx) * dx + (y - fy) * dy;
      const aside = Math.abs((x - fx) * dy) + Math.abs((y - fy) * dx);
      const cost = ahead + 2 * aside;
      if (ahead > 0.5 && cost < least) [nearest, least] = [leaf, cost];
    }
    if (!nearest) return;
    event.target.tabIndex = -1;
    nearest.tabIndex = 0;
    nearest.focus();
  }

  tell(box) {
    this.told = box;
    if (!box) return;
    const { node, path } = box;
    const parts = [
      `${path.split("/").slice(1).join(" › ") || node.name}: ${bytes(node.granted_bytes)}`,
      `${share(node.granted_bytes, this.tree.granted_bytes)} of what is granted`,
      node.lifetime,
    ];
    if (node.measured_bytes !== null) parts.push(`measured ${bytes(node.measured_bytes)}`);
    if (node.peak_bytes !== null) parts.push(`peak ${bytes(node.peak_bytes)}`);
    if (node.ceiling_bytes !== null) parts.push(`at most ${bytes(node.ceiling_bytes)}`);
    say(this.detail, parts.join(" · "));
  }
}

function fill(element, box) {
  element.box = box;
  const { node } = box;
  const gap = box.leaf ? 1 : 0;
  element.style.left = `${box.x + gap}px`;
  element.style.top = `${box.y + gap}px`;
  element.style.width = `${Math.max(0, box.width - 2 * gap)}px`;
  element.style.height = `${Math.max(0, box.height - 2 * gap)}px`;
  const [name, size] = element.children;
  say(name, node.name === "itself" ? "own" : node.name);
  if (!box.leaf) {
    element.dataset.room = headed(box) ? "name" : "none";
    return;
  }
  element.className = `leaf ${node.lifetime}`;
  element.dataset.bytes = node.granted_bytes;
  element.dataset.room = box.width > 54 && box.height > 40 ? "both" : box.width > 44 && box.height > 20 ? "name" : "none";
  say(size, bytes(node.granted_bytes));
  const label = `${box.path.split("/").slice(1).join(", ") || node.name}, ${bytes(node.granted_bytes)}, ${node.lifetime}`;
  if (element.getAttribute("aria-label") !== label) element.setAttribute("aria-label", label);
}
