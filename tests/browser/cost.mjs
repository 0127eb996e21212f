// What the dashboard costs: bytes over the wire until it shows the first report, and the server's share of a core
// while one page watches it and nobody asks anything.
//
//     node cost.mjs PROGRAM [SECONDS]
//
// The server's time is utime + stime of its process, in ticks of a hundredth of a second.

import { chromium } from "playwright-core";

import { Server } from "./server.mjs";

const [program, given] = process.argv.slice(2);
const seconds = Number(given ?? 60);
const TICKS_PER_SECOND = 100;
const SETTLE_MS = 5000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function share(server) {
  const [before, begun] = [server.ticks(), performance.now()];
  await pause(seconds * 1000);
  const used = (server.ticks() - before) / TICKS_PER_SECOND;
  return (100 * used) / ((performance.now() - begun) / 1000);
}

const server = await Server.start(program, ["--memory", "256MiB"]);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
try {
  await pause(SETTLE_MS);
  const alone = await share(server);
  const page = await browser.newPage();
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  let bytes = 0;
  let files = 0;
  session.on("Network.responseReceived", () => (files += 1));
  session.on("Network.dataReceived", (data) => (bytes += data.encodedDataLength));
  await page.goto(`${server.url}/`);
  await page.waitForSelector("#treemap .leaf");
  const loaded = bytes;
  await pause(SETTLE_MS);
  const [sent, begun] = [bytes, performance.now()];
  const watched = await share(server);
  const stream = (bytes - sent) / ((performance.now() - begun) / 1000);
  console.log(JSON.stringify({
    loaded_bytes: loaded,
    loaded_files: files,
    stream_bytes_per_second: Math.round(stream),
    cpu_percent_alone: Number(alone.toFixed(2)),
    cpu_percent_watched: Number(watched.toFixed(2)),
    seconds,
  }, null, 2));
} finally {
  await browser.close();
  await server.stop();
}
