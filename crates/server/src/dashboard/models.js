// The models that may be asked for: what each is doing, what it holds, and having it loaded, unloaded, kept, warmed
// up, made smaller.

import { by, bytes, digits, keep, make, say, time, whole } from "./format.js";
import { Refused, json } from "./live.js";

const ABSENT = ["absent", "failed"];

export class Models {
  constructor(list, said, note) {
    Object.assign(this, { list, said, note });
    /** Those that can be loaded, from `/v1/models`. */
    this.known = [];
    this.busy = new Set();
  }

  async refresh() {
    const answer = await json("v1/models");
    this.known = answer.data;
  }

  show(memory) {
    this.memory = memory;
    const there = new Map(memory.models.map((model) => [model.id, model]));
    const all = this.known.map((model) => ({ ...model, ...(there.get(model.id) ?? { state: model.state === "failed" ? "failed" : "absent" }) }));
    for (const model of memory.models) if (!this.known.some((known) => known.id === model.id)) all.push(model);
    const cache = memory.model_cache;
    say(this.note, `${whole(cache.loads_total)} loads, ${whole(cache.evictions_total)} evictions`);
    keep(this.list, all, (model) => model.id, (model) => this.create(model), (item, model) => this.fill(item, model));
  }

  create(model) {
    const button = (word, label, title) =>
      make("button", { type: "button", "data-act": word, title, click: () => this.act(model.id, word) }, label);
    return make("li", { class: "model" },
      make("div", { class: "who" }, make("strong"), make("span", { class: "pill" }), make("span", { class: "pin" }, "pinned")),
      make("div", { class: "what" }, make("span", { class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, make("i")), make("span", { class: "figures" })),
      make("p", { class: "why" }),
      make("div", { class: "actions" },
        button("load", "Load"),
        button("unload", "Unload"),
        button("pin", "Pin"),
        button("unpin", "Unpin"),
        button("warmup", "Warm up"),
        button("optimize", "Optimise…")));
  }

  fill(item, model) {
    item.className = `model ${model.state}`;
    const find = (selector) => item.querySelector(selector);
    say(find(".who strong"), model.id);
    say(find(".pill"), model.state === "loading" ? `loading ${digits(100 * (model.loaded_ratio ?? 0), 0)} %` : model.state);
    find(".pin").hidden = !model.pinned;
    const there = model.used_bytes !== undefined && model.used_bytes !== null;
    const bar = find(".bar");
    bar.hidden = model.state !== "loading";
    bar.setAttribute("aria-valuenow", Math.round(100 * (model.loaded_ratio ?? 0)));
    bar.setAttribute("aria-label", `${model.id} is being loaded`);
    bar.firstElementChild.style.width = `${100 * (model.loaded_ratio ?? 0)}%`;
    const parts = [];
    const task = this.known.find((known) => known.id === model.id)?.task;
    if (task) parts.push(task === "embed" ? "makes vectors" : "writes text");
    if (there) parts.push(`${bytes(model.used_bytes)} held`, `weights ${bytes(model.weights_bytes)}`);
    else if (model.bytes) parts.push(`takes ${bytes(model.bytes)}`);
    if (model.inflight > 0) parts.push(`${whole(model.inflight)} in use`);
    else if (there && model.pinned) parts.push("stays");
    else if (there && typeof model.expires_seconds === "number") parts.push(`goes in ${time(model.expires_seconds)}`);
    if (typeof model.load_seconds === "number") parts.push(`loaded in ${time(model.load_seconds)}`);
    say(find(".figures"), parts.join(" · "));
    const waits = this.memory.waiting.find((waits) => waits.model === model.id);
    say(find(".why"), model.error ?? (waits && ABSENT.concat("loading").includes(model.state) ? `${whole(waits.requests)} waiting: ${waits.reason}` : ""));
    const absent = ABSENT.includes(model.state);
    const offered = { load: absent, unload: !absent, pin: !model.pinned, unpin: model.pinned, warmup: true, optimize: model.state === "loaded" };
    for (const button of item.querySelectorAll("button")) {
      button.hidden = !offered[button.dataset.act];
      button.disabled = this.busy.has(`${model.id} ${button.dataset.act}`);
      button.setAttribute("aria-label", `${button.textContent.replace("…", "")} ${model.id}`);
    }
  }

  async act(id, word, wish = {}) {
    if (word === "optimize" && Object.keys(wish).length === 0) return this.ask(id);
    const name = `${id} ${word}`;
    this.busy.add(name);
    say(this.said, `${id}: ${DOING[word]} …`);
    try {
      const answer = await json(`v1/models/${encodeURIComponent(id)}/${word}`, wish);
      say(this.said, `${id}: ${told(word, answer)}`);
      await this.refresh();
      return answer;
    } catch (error) {
      say(this.said, error instanceof Refused ? error.message : `${id}: no connection`);
      return null;
    } finally {
      this.busy.delete(name);
    }
  }

  /** What to make smaller, and what that would give. */
  ask(id) {
    const dialog = by("smaller");
    const choice = make("select", { id: "form" },
      ...[["", "as they are"], ["bf16", "bf16"], ["q8_0", "q8_0"], ["q4_k", "q4_k"]].map(([value, label]) => make("option", { value }, label)));
    const tick = (name, label) => make("label", { class: "tick" }, make("input", { type: "checkbox", name }), label);
    const result = make("p", { class: "note", role: "status" }, "Try first: it tells what would be, and changes nothing.");
    const wish = (dry) => {
      const value = { dry_run: dry };
      for (const box of dialog.querySelectorAll("input")) if (box.checked) value[box.name] = true;
      if (choice.value) value.weights_dtype = choice.value;
      return value;
    };
    const run = async (dry) => {
      say(result, "…");
      const answer = await this.act(id, "optimize", wish(dry));
      say(result, answer ? told("optimize", answer) : this.said.textContent);
    };
    dialog.replaceChildren(make("div", {},
      make("h2", { id: "smaller-title" }, `Make ${id} smaller`),
      make("div", { class: "field" }, make("label", { for: "form" }, "Hold weights"), choice),
      tick("drop_prefixes", "Forget cached prefixes"),
      tick("shrink_kv", "Promise keys and values to one sequence only"),
      result,
      make("div", { class: "actions" },
        make("button", { type: "button", click: () => run(true) }, "Try"),
        make("button", { type: "button", class: "primary", click: () => run(false) }, "Do it"),
        make("button", { type: "button", class: "quiet", click: () => dialog.close() }, "Close"))));
    dialog.showModal();
    return null;
  }
}

const DOING = { load: "loading", unload: "unloading", pin: "pinning", unpin: "unpinning", warmup: "warming up", optimize: "optimising" };

/** What came of it, in words. */
function told(word, answer) {
  if (word === "optimize") {
    const freed = Object.values(answer.reclaimed_bytes).reduce((sum, value) => sum + value, 0);
    const parts = [`weights ${bytes(answer.weights_bytes_before)} → ${bytes(answer.weights_bytes_after)}`];
    if (answer.returned_bytes + freed > 0) parts.push(`${bytes(answer.returned_bytes + freed)} given back`);
    if (answer.note) parts.push(answer.note);
    return parts.join(" · ");
  }
  if (word === "warmup") return `ran once in ${time(answer.warmup_seconds)}`;
  if (word === "pin") return answer.state === "loaded" ? "stays until it is unpinned" : "stays once it is loaded";
  if (word === "unpin") return "may go for others again";
  return answer.state;
}
