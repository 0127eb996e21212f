// What if the budget, the context, the sequences or the form of keys and values were others: planned by the
// server, which loads nothing for it.

import { by, bytes, keep, make, say, whole } from "./format.js";
import { Refused, json } from "./live.js";

const PAUSE_MS = 200;
const MIB = 1024 * 1024;
const DTYPES = ["f32", "f16", "bf16", "q8_0"];

export class WhatIf {
  constructor(form, outlook) {
    Object.assign(this, { form, outlook });
    this.models = [];
    this.touched = false;
    this.model = make("select", { id: "if-model", change: () => this.ask() });
    this.budget = slider("if-budget", 6, 18, 0.05, 10, () => this.ask());
    this.context = slider("if-context", 8, 17, 1, 12, () => this.ask());
    this.parallel = slider("if-parallel", 1, 32, 1, 4, () => this.ask());
    this.dtype = make("select", { id: "if-dtype", change: () => this.ask() }, ...DTYPES.map((name) => make("option", { value: name, selected: name === "f16" }, name)));
    const field = (id, label, control, output) => make("div", { class: "field" }, make("label", { for: id }, label), output, control);
    this.outputs = { budget: make("output", { for: "if-budget" }), context: make("output", { for: "if-context" }), parallel: make("output", { for: "if-parallel" }) };
    form.append(
      field("if-model", "Model", this.model, null),
      field("if-budget", "Budget", this.budget, this.outputs.budget),
      field("if-context", "Longest sequence", this.context, this.outputs.context),
      field("if-parallel", "Sequences at once", this.parallel, this.outputs.parallel),
      field("if-dtype", "Keys and values in", this.dtype, null));
    form.addEventListener("submit", (event) => event.preventDefault());
    this.outlook.append(
      make("p", { class: "verdict" }, make("strong"), make("span")),
      make("div", { class: "meter plan-meter", role: "img" }),
      make("ul", { class: "parts" }),
      make("ul", { class: "remedies" }));
  }

  /** Offers these models, the budget of the server to begin with. */
  offer(models, budget) {
    const names = models.map((model) => model.id);
    if (names.join() === this.models.join()) return;
    this.models = names;
    const chosen = this.model.value;
    this.model.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    if (names.includes(chosen)) this.model.value = chosen;
    if (!this.touched) this.budget.value = Math.log2(budget / MIB);
    this.touched = true;
    this.ask();
  }

  wish() {
    const budget = Math.round(2 ** Number(this.budget.value)) * MIB;
    return { budget_bytes: budget, context: 2 ** Number(this.context.value), parallel: Number(this.parallel.value), kv_dtype: this.dtype.value };
  }

  ask() {
    const wish = this.wish();
    const set = (name, text) => {
      say(this.outputs[name], text);
      this[name].setAttribute("aria-valuetext", text);
    };
    set("budget", bytes(wish.budget_bytes));
    set("context", `${whole(wish.context)} tokens`);
    set("parallel", whole(wish.parallel));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.plan(wish), PAUSE_MS);
  }

  async plan(wish) {
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    if (!this.model.value) return;
    try {
      this.show(await json(`v1/models/${encodeURIComponent(this.model.value)}/plan`, wish, signal));
    } catch (error) {
      if (signal.aborted) return;
      const [verdict, why] = this.outlook.querySelector(".verdict").children;
      this.outlook.className = "outlook refused";
      say(verdict, "Cannot be planned");
      say(why, error instanceof Refused ? error.message : "no connection");
    }
  }

  show(plan) {
    const [verdict, meter, parts, remedies] = this.outlook.children;
    const over = plan.total_bytes - plan.budget_bytes;
    this.outlook.className = `outlook ${plan.fits ? "fits" : "over"}`;
    say(verdict.children[0], plan.fits ? "Fits" : "Does not fit");
    say(verdict.children[1], plan.fits ? `${bytes(plan.total_bytes)} of ${bytes(plan.budget_bytes)}, ${bytes(-over)} left` : `${bytes(plan.total_bytes)} is ${bytes(over)} more than ${bytes(plan.budget_bytes)}`);
    const all = Math.max(plan.total_bytes, plan.budget_bytes);
    const shown = plan.parts.filter((part) => part.bytes > 0).sort((a, b) => b.bytes - a.bytes);
    keep(meter, [...shown, { name: "budget-line" }], (part) => part.name,
      (part) => make("i", { class: part.name === "budget-line" ? "line" : `part part-${part.name}` }),
      (element, part) => {
        if (part.name === "budget-line") element.style.left = `${(100 * plan.budget_bytes) / all}%`;
        else element.style.width = `${(100 * part.bytes) / all}%`;
      });
    meter.setAttribute("aria-label", `${verdict.textContent}: ${shown.map((part) => `${part.name} ${bytes(part.bytes)}`).join(", ")}`);
    keep(parts, shown, (part) => part.name,
      (part) => make("li", {}, make("i", { class: `swatch part-${part.name}` }), make("strong"), make("span", { class: "size" }), make("span", { class: "note" })),
      (item, part) => {
        say(item.children[1], part.name);
        say(item.children[2], bytes(part.bytes));
        say(item.children[3], part.note);
      });
    const context = plan.context < this.wish().context ? [`${plan.model} takes ${whole(plan.context)} tokens at most`] : [];
    keep(remedies, [...context, ...(plan.remedies ?? [])], (text) => text, () => make("li"), say);
  }
}

function slider(id, min, max, step, value, input) {
  return make("input", { id, type: "range", min, max, step, value, input });
}
