#!/usr/bin/env python3
"""Eight clients at once whose prompts begin alike: Bursar beside llama.cpp's server.

    python bench/peers/shared_prefix.py MODEL.gguf --bursar target/release/bursar \\
        --llama-server llama-server [--rounds 3]

Each server is started cold, with 2 threads and 8,192 tokens of context in all. Eight
clients then ask at the same moment to continue 528 tokens each, of which the first 512
are common, by 64 tokens. The same load follows once more, warm. After it one client at a
time asks to continue a prompt that nobody has sent before, and one that begins with the
512 tokens but ends in others.

Times to the first token are what clients measure, medians; tokens of prompts computed are
what the servers count; peak RSS is the kernel's VmHWM. The results go to stdout as a
Markdown table, servers taking turns. Without --llama-server only Bursar is measured.
"""

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CLIENTS = 8
COMMON = 512
OWN = 16
GENERATED = 64
CONTEXT = 8192
PATIENCE_SECONDS = 300
# Ids below this are ordinary tokens in every vocabulary of the models meant.
VOCABULARY = 30_000


def tokens(seed: int, count: int) -> list[int]:
    """Token ids that differ from seed to seed (a linear congruential generator)."""
    state, out = seed * 2_654_435_761 % 2**32, []
    for _ in range(count):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        out.append(1000 + (state >> 8) % (VOCABULARY - 1000))
    return out


class Server:
    """A server process that listens, until it is ended."""

    def __init__(self, command: list[str], port: int, ready: str) -> None:
        self.port = port
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.status(ready) != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                sys.exit(f"{command[0]} did not start:\n{self.log.read().decode(errors='replace')}")
            time.sleep(0.05)

    def status(self, path: str) -> int:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0

    def text(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def memory(self, name: str) -> int:
        """A line of /proc/PID/status, in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


class Bursar:
    ready = "/ready"

    def __init__(self, program: str, extra: list[str]) -> None:
        self.program, self.extra = program, extra

    def command(self, model: Path, threads: int, port: int) -> list[str]:
        each = CONTEXT // CLIENTS
        return [self.program, "serve", str(model), "--listen", f"127.0.0.1:{port}", "--threads", str(threads),
                "--parallel", str(CLIENTS), "--context", str(each), *self.extra]

    def request(self, model: Path, prompt: list[int]) -> tuple[str, dict]:
        return "/v1/completions", {"model": model.stem, "prompt": prompt, "max_tokens": GENERATED, "temperature": 0,
                                   "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}

    def computed(self, server: Server, _events: list[dict]) -> int | None:
        """All that the server has computed so far."""
        for line in server.text("/metrics").splitlines():
            if line.startswith("bursar_prefill_tokens_total{"):
                return int(float(line.split()[-1]))
        return None


class LlamaServer:
    ready = "/health"

    def __init__(self, program: str) -> None:
        self.program = program
        self.sum = 0

    def command(self, model: Path, threads: int, port: int) -> list[str]:
        self.sum = 0
        return [self.program, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-t", str(threads),
                "-tb", str(threads), "--parallel", str(CLIENTS), "-c", str(CONTEXT)]

    def request(self, model: Path, prompt: list[int]) -> tuple[str, dict]:
        return "/completion", {"prompt": prompt, "n_predict": GENERATED, "temperature": 0, "ignore_eos": True,
                               "stream": True, "cache_prompt": True}

    def computed(self, _server: Server, events: list[dict]) -> int | None:
        """The last event of each answer tells how much of its prompt was computed."""
        self.sum += sum(event.get("timings", {}).get("prompt_n", 0) for event in events)
        return self.sum


def ask(engine, server: Server, model: Path, prompt: list[int], out: list) -> None:
    """One request; appends when it began, when its first token came, when it ended, its last event."""
    path, body = engine.request(model, prompt)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    connection.connect()
    begun = time.monotonic()
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    first, last = None, {}
    if response.status != 200:
        sys.exit(f"{response.status}: {response.read().decode()}")
    for line in response:
        if line.startswith(b"data: {"):
            first = first or time.monotonic()
            last = json.loads(line[6:])
    out.append((begun, first, time.monotonic(), last))


def load(engine, server: Server, model: Path, prompts: list[list[int]]) -> dict:
    """All prompts at the same moment."""
    before = engine.computed(server, []) or 0
    out: list = []
    barrier = threading.Barrier(len(prompts))

    def client(prompt: list[int]) -> None:
        barrier.wait()
        ask(engine, server, model, prompt, out)

    clients = [threading.Thread(target=client, args=(prompt,)) for prompt in prompts]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    if len(out) != len(prompts):
        sys.exit(f"{len(prompts) - len(out)} of {len(prompts)} clients got no answer")
    begun = min(begun for begun, *_ in out)
    after = engine.computed(server, [last for *_, last in out]) or 0
    return {
        "first": statistics.median(first - began for began, first, _, _ in out),
        "all": max(end for _, _, end, _ in out) - begun,
        "computed": after - before,
    }


def measure(engine, model: Path, threads: int) -> dict:
    """A whole course: cold, warm, one alone without and with a prefix hit."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(engine.command(model, threads, port), port, engine.ready)
    try:
        idle = server.memory("VmRSS")
        common = tokens(1, COMMON)
        prompts = [common + tokens(100 + client, OWN) for client in range(CLIENTS)]
        cold = load(engine, server, model, prompts)
        after = server.memory("VmRSS")
        warm = load(engine, server, model, prompts)
        missed, hit = [], []
        for turn in range(3):
            missed.append(load(engine, server, model, [tokens(1000 + turn, COMMON + OWN)])["first"])
            hit.append(load(engine, server, model, [common + tokens(2000 + turn, OWN)])["first"])
        return {
            "first token cold, s": cold["first"],
            "all done cold, s": cold["all"],
            "prompt tokens computed cold": cold["computed"],
            "first token warm, s": warm["first"],
            "all done warm, s": warm["all"],
            "prompt tokens computed warm": warm["computed"],
            "one alone, no prefix hit: first token, s": statistics.median(missed),
            "one alone, prefix hit: first token, s": statistics.median(hit),
            "RSS idle, MiB": idle / 2**20,
            "RSS after the cold load, MiB": after / 2**20,
            "peak RSS, MiB": server.memory("VmHWM") / 2**20,
        }
    finally:
        server.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--bursar", required=True, metavar="PROGRAM")
    parser.add_argument("--bursar-flags", default="", metavar="FLAGS", help="more flags for bursar serve")
    parser.add_argument("--llama-server", metavar="PROGRAM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every single result to this file")
    args = parser.parse_args()
    engines = {"bursar": Bursar(args.bursar, args.bursar_flags.split())}
    if args.llama_server:
        engines["llama.cpp"] = LlamaServer(args.llama_server)
    results: dict[str, list[dict]] = {name: [] for name in engines}
    for turn in range(args.rounds):
        for name in list(engines) if turn % 2 == 0 else list(reversed(engines)):
            results[name].append(measure(engines[name], args.model, args.threads))
            print(f"round {turn + 1}/{args.rounds} {name}: {json.dumps(results[name][-1])}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    names = list(engines)
    print(f"{args.model.name}, {args.threads} threads, {args.rounds} rounds: medians (range)\n")
    print("| | " + " | ".join(names) + (" | ratio |" if len(names) > 1 else " |"))
    print("|---|" + "---:|" * (len(names) + (len(names) > 1)))
    for metric in results[names[0]][0]:
        values = {name: [result[metric] for result in results[name]] for name in names}
        cells = [f"{statistics.median(v):.4g} ({min(v):.4g}–{max(v):.4g})" for v in values.values()]
        if len(names) > 1:
            ratios = [ours / theirs for ours, theirs in zip(*values.values()) if theirs]
            cells.append(f"{statistics.median(ratios):.3g}" if ratios else "–")
        print(f"| {metric} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
