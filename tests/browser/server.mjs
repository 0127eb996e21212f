// A real server with small models, for as long as a test or a measurement takes: the two that are bundled, and
// two with random weights in a folder, one of which needs the place of others.

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const START_MS = 60_000;

/** Models with random weights: name, architecture, how they are stored. */
const SYNTHETIC = [
  ["sentences", "all-minilm-l6-v2", "q8_0"],
  ["tiny", "tiny-llama", "q8_0"],
];

export class Server {
  /** Starts `program` with more arguments; resolves when its models are there. */
  static async start(program, more = [], key = null) {
    const server = new Server();
    server.folder = mkdtempSync(join(tmpdir(), "bursar-browser-"));
    const models = join(server.folder, "models");
    mkdirSync(models);
    const environment = { PATH: process.env.PATH, HOME: server.folder };
    for (const [name, arch, quant] of SYNTHETIC) {
      const made = spawnSync(resolve(program), ["synth", arch, "-o", join(models, `${name}.gguf`), "--quant", quant], { env: environment });
      if (made.status !== 0) throw new Error(`synth ${arch}: ${made.stderr}`);
    }
    const options = ["serve", "--listen", "127.0.0.1:0", "--models-dir", models, ...more];
    if (key) {
      writeFileSync(join(server.folder, "keys"), `${key}\n`, { mode: 0o600 });
      options.push("--api-key-file", join(server.folder, "keys"));
    }
    server.child = spawn(resolve(program), options, { cwd: server.folder, env: environment, stdio: ["ignore", "ignore", "pipe"] });
    server.said = "";
    server.ended = new Promise((done) => server.child.on("exit", (code) => done(code)));
    await new Promise((ready, failed) => {
      const timer = setTimeout(() => failed(new Error(`no server after ${START_MS} ms: ${server.said}`)), START_MS);
      server.child.on("exit", (code) => failed(new Error(`exit code ${code}: ${server.said}`)));
      server.child.stderr.on("data", (bytes) => {
        server.said += bytes;
        const serving = server.said.match(/serving .* at (http:\S+) after/);
        if (!serving) return;
        server.url = serving[1];
        clearTimeout(timer);
        ready();
      });
    });
    return server;
  }

  /** The report as it is now. */
  async memory() {
    return (await fetch(`${this.url}/memory`)).json();
  }

  /** Ticks of the processor that it has used. */
  ticks() {
    const stat = readFileSync(`/proc/${this.child.pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[11]) + Number(fields[12]);
  }

  /** Asks it to end; resolves with its exit code. */
  async stop() {
    this.child.kill("SIGTERM");
    const code = await this.ended;
    rmSync(this.folder, { recursive: true });
    return code;
  }
}
