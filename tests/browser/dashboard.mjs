// Drives the dashboard while the server works: are the rectangles what is granted, is an eviction seen with its
// reason, do plans and the playground work, is nothing asked of anybody else, can it be read at any width.
//
//     node dashboard.mjs PROGRAM [FOLDER FOR PICTURES]
//
// `CHROMIUM` names the browser, /usr/bin/chromium by default.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";

import { Server } from "./server.mjs";

/** What it exits with where something is missing. */
const SKIPPED = 77;
const WAIT_MS = 60_000;
const KEY = "sk-browser-0123456789";
/** Room for the two bundled models, and not for a third of the size of `sentences` beside them. */
const ROOM = ["--memory", "84MiB", "--parallel", "2", "--pool-heaps", "1", "--min-residency", "0s"];

const [program, pictures] = process.argv.slice(2);
const browserPath = process.env.CHROMIUM ?? "/usr/bin/chromium";

function skip(why) {
  console.log(why);
  process.exit(SKIPPED);
}

if (!program) skip("no program is named");
if (!existsSync(browserPath)) skip(`there is no ${browserPath}`);
const { chromium } = await import("playwright-core").catch(() => skip("the package playwright-core is not installed"));

/** Chats that run until they are told to stop, more than may at once. */
function load(url) {
  const abort = new AbortController();
  const chat = async (index) => {
    while (!abort.signal.aborted) {
      const messages = [{ role: "user", content: `Tell me of a ledger, chapter ${index}. ${"It is a long book. ".repeat(6)}` }];
      const body = JSON.stringify({ model: "pocket-chat", messages, max_tokens: 160, ignore_eos: true, stream: true });
      await fetch(`${url}/v1/chat/completions`, { method: "POST", body, headers: { "Content-Type": "application/json" }, signal: abort.signal })
        .then((response) => response.text())
        .catch(() => {});
    }
  };
  const all = Promise.all([1, 2, 3, 4].map(chat));
  return async () => {
    abort.abort();
    await all;
  };
}

/** A page that keeps what it asks and what goes wrong. */
async function open(browser, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.asked = [];
  page.wrong = [];
  page.on("request", (request) => page.asked.push(request.url()));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.wrong.push(message.text()));
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  // The report that the page drew last, as it came.
  await page.addInitScript(() => {
    const parse = JSON.parse;
    JSON.parse = (text, ...rest) => {
      const value = parse(text, ...rest);
      if (value?.tree && value?.granted_bytes) window.lastReport = value;
      return value;
    };
  });
  page.setDefaultTimeout(WAIT_MS);
  const response = await page.goto(url);
  const policy = response.headers()["content-security-policy"];
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /frame-ancestors 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  return page;
}

const live = (page) => page.waitForSelector("#live[data-state=live]");

/** The rectangles of the treemap add up to what the report they were drawn from says is granted. */
async function leavesAddUp(page) {
  await page.waitForSelector("#treemap .leaf");
  const found = await page.evaluate(() => {
    const leaves = [...document.querySelectorAll("#treemap .leaf")];
    return {
      count: leaves.length,
      sum: leaves.reduce((sum, leaf) => sum + Number(leaf.dataset.bytes), 0),
      granted: window.lastReport.granted_bytes,
      root: window.lastReport.tree.granted_bytes,
    };
  });
  assert.ok(found.count > 5, `${found.count} rectangles`);
  assert.equal(found.sum, found.granted);
  assert.equal(found.root, found.granted);
  return found.count;
}

/** Nothing went wrong, and nobody else was asked. */
function clean(page, url) {
  assert.deepEqual(page.wrong, []);
  const elsewhere = page.asked.filter((asked) => !asked.startsWith(url) && !asked.startsWith("data:"));
  assert.deepEqual(elsewhere, []);
}

/** No text is fainter than WCAG AA allows, and nothing is wider than the page. */
async function readable(page, words) {
  const faint = await page.evaluate(() => {
    const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const parsed = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
    const over = ([r, g, b, a = 1], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
    const ground = (element) => {
      const layers = [];
      for (let at = element; at; at = at.parentElement) layers.push(parsed(getComputedStyle(at).backgroundColor));
      return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const found = [];
    const walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      const box = element.getBoundingClientRect();
      if (!walker.currentNode.textContent.trim() || box.width < 2 || box.height < 2 || element.closest("svg, .visually-hidden, option, noscript, .skip")) continue;
      const style = getComputedStyle(element);
      const [one, two] = [luminance(over(parsed(style.color), ground(element))), luminance(ground(element))];
      const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 600);
      if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${element.className} ${walker.currentNode.textContent.trim().slice(0, 30)}`);
    }
    return [...new Set(found)];
  });
  assert.deepEqual(faint, [], words);
  const [wide, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= width, `${words}: ${wide} px wide on a page of ${width}`);
  const unnamed = await page.evaluate(() =>
    [...document.querySelectorAll("button, input, select, textarea")]
      .filter((control) => control.getClientRects().length > 0)
      .filter((control) => !control.textContent.trim() && !control.getAttribute("aria-label") && !control.labels?.length)
      .map((control) => control.outerHTML));
  assert.deepEqual(unnamed, [], words);
}

async function picture(page, name, fullPage = false) {
  if (!pictures) return;
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage });
}

/** The arrow keys move over the map, and say where they are. */
async function keyboard(page) {
  await page.focus("#treemap .leaf[tabindex='0']");
  const before = await page.textContent("#leaf");
  for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"]) await page.keyboard.press(key);
  const focused = await page.evaluate(() => document.activeElement.classList.contains("leaf"));
  assert.ok(focused, "the keyboard stays in the map");
  assert.match(await page.textContent("#leaf"), /of what is granted/);
  assert.match(before, /granted/);
  await page.focus("#timeline svg");
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.textContent("#moment"), /granted .* measured/);
}

/** A model is loaded by its button; another goes for it, and the page says which and why. */
async function eviction(page) {
  await page.click("#models button[aria-label='Load sentences']");
  const mark = page.locator("#marks li", { hasText: "model unloaded" }).first();
  await mark.waitFor();
  const words = (await mark.locator("> *").allTextContents()).join(" ");
  assert.match(words, /(pocket-chat|pocket-embed): model unloaded/);
  assert.match(words, /sentences/, "the reason names who it went for");
  assert.ok((await page.locator("#timeline .mark.evict_model").count()) > 0);
  await page.locator("#models li", { hasText: "sentences" }).locator(".pill", { hasText: "loaded" }).waitFor();
  return words;
}

async function pins(page) {
  await page.click("#models button[aria-label='Pin sentences']");
  const pin = page.locator("#models li", { hasText: "sentences" }).locator(".pin");
  await pin.waitFor({ state: "visible" });
  await page.click("#models button[aria-label='Unpin sentences']");
  await pin.waitFor({ state: "hidden" });
}

/** What making a model smaller would give is told before it is done. */
async function optimise(page) {
  await page.click("#models button[aria-label='Optimise pocket-chat']");
  await page.check("#smaller input[name=drop_prefixes]");
  await page.click("#smaller button:has-text('Try')");
  await page.locator("#smaller .note", { hasText: "weights 5." }).waitFor();
  await picture(page, "optimise");
  await page.keyboard.press("Escape");
  await page.locator("#smaller").waitFor({ state: "hidden" });
}

/** More of everything does not fit, and the planner says what would. */
async function whatIf(page) {
  await page.selectOption("#if-model", "pocket-chat");
  await page.locator("#outlook.fits").waitFor();
  const [parts, total] = await page.evaluate(() => {
    const list = [...document.querySelectorAll("#outlook .parts li")].length;
    return [list, document.querySelector("#outlook .verdict").textContent];
  });
  assert.ok(parts >= 5, `${parts} parts`);
  assert.match(total, /Fits.*left/);
  await page.fill("#if-parallel", "32");
  await page.fill("#if-budget", "6");
  await page.locator("#outlook.over").waitFor();
  assert.ok((await page.locator("#outlook .remedies li").count()) > 0, "remedies are named");
  await page.fill("#if-parallel", "4");
  await page.fill("#if-budget", "6.7");
}

async function chat(page) {
  await page.selectOption("#chat-model", "pocket-chat");
  await page.fill("#chat-most", "24");
  await page.fill("#chat-text", "What is a ledger?");
  await page.click("#chat button[type=submit]");
  await page.waitForFunction(() => {
    const answer = document.querySelector("#chat .assistant");
    return answer && !answer.hasAttribute("aria-busy") && answer.textContent.length > 0;
  });
  assert.match(await page.textContent("#chat .detail"), /tokens\/s/);
  await page.fill("#chat-text", "Tell me everything about it.");
  // At once: a small model may have said all before a second click gets there.
  await page.evaluate(() => {
    document.querySelector("#chat form").requestSubmit();
    [...document.querySelectorAll("#chat button")].find((button) => button.textContent === "Stop").click();
  });
  await page.locator("#chat .detail", { hasText: "Stopped" }).waitFor();
}

async function compare(page) {
  await page.click("#tab-compare");
  await page.selectOption("#compare-model", "pocket-embed");
  await page.click("#compare button[type=submit]");
  await page.waitForSelector("#compare .matrix td.same");
  const cells = await page.$$eval("#compare .matrix td[data-step]", (all) => all.map((cell) => Number(cell.textContent)));
  assert.equal(cells.length, 16);
  for (const place of [0, 5, 10, 15]) assert.equal(cells[place], 1);
  assert.equal(cells[1], cells[4]);
  await picture(page, "compare");
  await page.click("#tab-chat");
}

const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox", "--disable-gpu"] });
const server = await Server.start(program, ROOM);
const done = [];
try {
  const unload = load(server.url);
  const desktop = { viewport: { width: 1280, height: 800 }, colorScheme: "light" };
  const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "light" };

  const page = await open(browser, `${server.url}/`, desktop);
  await live(page);
  done.push(`${await leavesAddUp(page)} rectangles add up`);
  await page.locator("#requests .request.waiting .why", { hasText: "places of those that run at once" }).first().waitFor();
  await page.waitForSelector("#requests .request.running");
  await page.waitForSelector("#kv canvas");
  await keyboard(page);
  done.push((await eviction(page)).trim());
  await pins(page);
  await leavesAddUp(page);
  await optimise(page);
  await whatIf(page);
  await picture(page, "what-if");
  await chat(page);
  await compare(page);
  done.push("chat, stop and comparison work");
  await readable(page, "desktop, light");
  clean(page, server.url);

  const dark = await open(browser, `${server.url}/`, { ...desktop, colorScheme: "dark" });
  await live(dark);
  await leavesAddUp(dark);
  assert.ok((await dark.locator("#timeline .mark.evict_model").count()) > 0, "who comes later sees the hour");
  await dark.waitForTimeout(3000);
  await readable(dark, "desktop, dark");
  await picture(dark, "desktop-dark");
  await picture(dark, "desktop-dark-all", true);
  await dark.click("#theme");
  await picture(dark, "desktop-light");
  await picture(dark, "desktop-light-all", true);
  await readable(dark, "desktop, light by its button");
  clean(dark, server.url);
  await dark.context().close();

  for (const colorScheme of ["light", "dark"]) {
    const small = await open(browser, `${server.url}/`, { ...phone, colorScheme });
    await live(small);
    await leavesAddUp(small);
    await small.waitForTimeout(3000);
    await readable(small, `phone, ${colorScheme}`);
    await picture(small, `phone-${colorScheme}`);
    await picture(small, `phone-${colorScheme}-all`, true);
    clean(small, server.url);
    await small.context().close();
  }
  done.push("desktop and phone, light and dark, can be read");
  await unload();
  // The server goes; the page says so, and asks again.
  const ended = server.stop();
  await page.waitForSelector("#live[data-state=off]");
  assert.equal(await ended, 0);

  const locked = await Server.start(program, ROOM, KEY);
  const asked = await open(browser, `${locked.url}/`, desktop);
  await asked.waitForSelector("#ask[open]");
  assert.equal(await asked.textContent("#granted"), "–", "nothing is told without a key");
  await picture(asked, "key");
  await asked.fill("#ask-key", KEY);
  await asked.keyboard.press("Enter");
  await live(asked);
  await leavesAddUp(asked);
  assert.equal(await asked.evaluate(() => localStorage.getItem("bursar-key")), null);
  done.push("a key is asked for");
  assert.equal(await locked.stop(), 0);
} catch (error) {
  console.error(server.said);
  for (const context of browser.contexts()) {
    for (const page of context.pages()) {
      console.error(page.wrong?.join("\n") ?? "");
      await picture(page, `failed-${Date.now()}`, true);
    }
  }
  server.child.kill("SIGKILL");
  throw error;
} finally {
  await browser.close();
}
console.log(done.join("; "));
