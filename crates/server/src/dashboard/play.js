// A place to try: a chat that is written as it comes, and how alike some texts are to a model.

import { by, digits, make, say, time } from "./format.js";
import { Refused, events, json, send } from "./live.js";

const TEXTS_MAX = 8;
const TEXTS = ["The bank refused the loan.", "The credit was not approved.", "The river burst its banks.", "A heron stood by the water."];

/** Switches between the two by click and arrow keys. */
export function tabs() {
  const all = [by("tab-chat"), by("tab-compare")];
  const choose = (tab) => {
    for (const other of all) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", chosen);
      other.tabIndex = chosen ? 0 : -1;
      by(other.getAttribute("aria-controls")).hidden = !chosen;
    }
  };
  all.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = all[(index + 1) % all.length];
      choose(other);
      other.focus();
    });
  });
}

/** Offers the models of one task in a select. */
function offer(select, models, task) {
  const names = models.filter((model) => model.task === task || !model.task).map((model) => model.id);
  if (names.join() === [...select.options].map((option) => option.value).join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}

export class Chat {
  constructor(panel) {
    this.messages = [];
    this.model = make("select", { id: "chat-model" });
    this.most = make("input", { id: "chat-most", type: "number", min: "1", max: "4096", value: "200" });
    this.warmth = make("input", { id: "chat-warmth", type: "number", min: "0", max: "2", step: "0.1", value: "0.7" });
    this.log = make("div", { class: "log", role: "log", "aria-live": "polite", "aria-label": "Conversation", tabindex: "0" });
    this.text = make("textarea", { id: "chat-text", rows: "2", placeholder: "Ask something", keydown: (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        this.ask();
      }
    } });
    this.go = make("button", { type: "submit", class: "primary" }, "Send");
    this.stop = make("button", { type: "button", hidden: true, click: () => this.abort?.abort() }, "Stop");
    this.note = make("p", { class: "detail", role: "status" });
    const field = (id, label, control) => make("div", { class: "field" }, make("label", { for: id }, label), control);
    panel.append(
      make("div", { class: "settings" }, field("chat-model", "Model", this.model), field("chat-most", "Most tokens", this.most), field("chat-warmth", "Temperature", this.warmth),
        make("button", { type: "button", class: "quiet", click: () => this.clear() }, "Start over")),
      this.log,
      make("form", { class: "say", submit: (event) => {
        event.preventDefault();
        this.ask();
      } }, make("label", { class: "visually-hidden", for: "chat-text" }, "Message"), this.text, this.go, this.stop),
      this.note);
  }

  offer(models) {
    offer(this.model, models, "generate");
  }

  clear() {
    this.abort?.abort();
    this.messages = [];
    this.log.replaceChildren();
    say(this.note, "");
  }

  async ask() {
    const content = this.text.value.trim();
    if (!content || this.abort) return;
    this.messages.push({ role: "user", content });
    this.log.append(make("p", { class: "user" }, content));
    this.text.value = "";
    const answer = make("p", { class: "assistant", "aria-busy": "true" });
    this.log.append(answer);
    this.abort = new AbortController();
    [this.go.hidden, this.stop.hidden] = [true, false];
    const begun = performance.now();
    let first = null;
    let tokens = 0;
    let text = "";
    try {
      const body = JSON.stringify({ model: this.model.value, messages: this.messages, stream: true, max_tokens: Number(this.most.value), temperature: Number(this.warmth.value), stream_options: { include_usage: true } });
      const response = await send("v1/chat/completions", { method: "POST", body, signal: this.abort.signal });
      await events(response, (_, data) => {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refused(200, event);
        const piece = event.choices?.[0]?.delta?.content ?? "";
        if (piece) {
          first ??= performance.now();
          text += piece;
          answer.textContent = text;
          this.log.scrollTop = this.log.scrollHeight;
        }
        tokens = event.usage?.completion_tokens ?? tokens;
      });
      const took = (performance.now() - (first ?? begun)) / 1000;
      say(this.note, `${tokens} tokens · first after ${time(((first ?? performance.now()) - begun) / 1000)} · ${digits(tokens / Math.max(took, 1e-3), 0)} tokens/s`);
    } catch (error) {
      if (this.abort.signal.aborted) say(this.note, "Stopped: the server lets go of it at once.");
      else {
        say(this.note, error instanceof Refused ? error.message : "no connection");
        if (!text) answer.remove();
      }
    }
    answer.removeAttribute("aria-busy");
    if (text) this.messages.push({ role: "assistant", content: text });
    else this.messages.pop();
    this.abort = null;
    [this.go.hidden, this.stop.hidden] = [false, true];
    this.text.focus();
  }
}

export class Compare {
  constructor(panel) {
    this.model = make("select", { id: "compare-model" });
    this.text = make("textarea", { id: "compare-text", rows: "5" });
    this.text.value = TEXTS.join("\n");
    this.go = make("button", { type: "submit", class: "primary" }, "Compare");
    this.table = make("div", { class: "matrix" });
    this.note = make("p", { class: "detail", role: "status" });
    panel.append(make("form", { class: "texts", submit: (event) => {
      event.preventDefault();
      this.ask();
    } },
      make("div", { class: "field" }, make("label", { for: "compare-model" }, "Model"), this.model),
      make("div", { class: "field grow" }, make("label", { for: "compare-text" }, `Texts, one on each line, ${TEXTS_MAX} at most`), this.text),
      this.go), this.table, this.note);
  }

  offer(models) {
    offer(this.model, models, "embed");
  }

  async ask() {
    const input = this.text.value.split("\n").map((line) => line.trim()).filter(Boolean).slice(0, TEXTS_MAX);
    if (input.length < 2) return say(this.note, "Give two texts at least, one on each line.");
    this.go.disabled = true;
    const begun = performance.now();
    try {
      const answer = await json("v1/embeddings", { model: this.model.value, input });
      const vectors = answer.data.map((entry) => entry.embedding);
      this.show(input, vectors);
      say(this.note, `${vectors.length} vectors of ${vectors[0].length} values from ${answer.usage.prompt_tokens} tokens in ${time((performance.now() - begun) / 1000)}; 1 is the same direction, 0 is none in common.`);
    } catch (error) {
      say(this.note, error instanceof Refused ? error.message : "no connection");
    } finally {
      this.go.disabled = false;
    }
  }

  show(texts, vectors) {
    const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    const label = (index) => String.fromCharCode(65 + index);
    const cell = (row, column) => {
      const value = cosine(vectors[row], vectors[column]);
      const element = make("td", { class: row === column ? "same" : "" }, digits(value, 2));
      // Nine steps of a tint, so that it needs no style of its own.
      element.dataset.step = Math.max(0, Math.min(8, Math.round(value * 8)));
      return element;
    };
    this.table.replaceChildren(make("table", {},
      make("caption", { class: "visually-hidden" }, "Cosine of each pair of texts"),
      make("thead", {}, make("tr", {}, make("td"), ...texts.map((_, index) => make("th", { scope: "col" }, label(index))))),
      make("tbody", {}, ...texts.map((text, row) =>
        make("tr", {}, make("th", { scope: "row" }, make("b", {}, label(row)), make("span", {}, text)), ...texts.map((_, column) => cell(row, column)))))));
  }
}

function dot(a, b) {
  let sum = 0;
  for (let index = 0; index < a.length; index += 1) sum += a[index] * b[index];
  return sum;
}
