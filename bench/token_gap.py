#!/usr/bin/env python3
"""The time between a chat's tokens, alone and while 10,000 texts are embedded beside it.

    python bench/token_gap.py [--bursar target/release/bursar] [--models DIR]

Serves a synthetic qwen3-0.6b Q4_K_M and all-MiniLM-L6-v2 together. One client streams answers; then the same
again while four clients embed 10,000 texts in requests of 100, for eight such answers. Says the gaps between tokens (median, p99,
longest), the embedding rate beside and without the chat, and the longest batch of the embedding model
alone, which is what a chat may have to wait for. Exits 1 if the p99 beside is more than twice the p99 alone and one
such batch.
"""

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from mixed_load import text
from serving import Server, bursar, synth, together

TEXTS, EACH, CLIENTS = 10_000, 100, 4
TOKENS = 256
# Streams measured beside the job, which is then ended.
STREAMS = 8


def gaps(server: Server, model: str, seed: int) -> list[float]:
    """Seconds between one token and the next of one streamed answer."""
    pick = random.Random(seed)
    body = {"model": model, "prompt": [pick.randrange(1000, 30000) for _ in range(32)], "max_tokens": TOKENS,
            "temperature": 0, "ignore_eos": True, "stream": True}
    connection = http.client.HTTPConnection(server.url.netloc, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    at, found = None, []
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            now = time.perf_counter()
            if at is not None:
                found.append(now - at)
            at = now
    return found


def embed(server: Server, model: str, stop: threading.Event) -> tuple[int, float]:
    """Texts embedded, seconds."""
    done = [0] * CLIENTS

    def client(index: int) -> None:
        pick = random.Random(index)
        for _ in range(TEXTS // EACH // CLIENTS):
            if stop.is_set():
                return
            server.post("/v1/embeddings", {"model": model, "input": [text(pick, pick.randint(4, 24)) for _ in range(EACH)]})
            done[index] += EACH

    begun = time.perf_counter()
    together(CLIENTS, client)
    return sum(done), time.perf_counter() - begun


def batch_span(server: Server) -> float:
    """The longest embedding batch so far, in seconds, as /metrics tells."""
    connection = http.client.HTTPConnection(server.url.netloc, timeout=60)
    connection.request("GET", "/metrics")
    for line in connection.getresponse().read().decode().splitlines():
        if line.startswith('bursar_span_max_seconds{span="embed.forward"'):
            return float(line.split()[-1])
    return 0.0


def longest_batch(server: Server, model: str) -> float:
    """The longest batch of an embedding model while it alone has work."""
    pick = random.Random(99)
    for _ in range(5):
        server.post("/v1/embeddings", {"model": model, "input": [text(pick, pick.randint(4, 24)) for _ in range(EACH)]})
    return batch_span(server)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    parser.add_argument("--memory", default="1GiB")
    args = parser.parse_args()
    chat = synth(args.bursar, "qwen3-0.6b:q4_k_m", args.models)
    bert = synth(args.bursar, "all-minilm-l6-v2:f32", args.models)
    server = bursar(args.bursar, str(chat), str(bert), "--memory", args.memory, "--context", "2048", "--parallel", "2")
    gaps(server, chat.stem, 0)
    alone = sum((gaps(server, chat.stem, seed) for seed in range(1, 4)), [])
    batch = longest_batch(server, bert.stem)
    stop, job = threading.Event(), []
    worker = threading.Thread(target=lambda: job.append(embed(server, bert.stem, stop)))
    worker.start()
    time.sleep(1)
    beside, streams = [], 0
    while worker.is_alive() and streams < STREAMS:
        beside += gaps(server, chat.stem, 10 + streams)
        streams += 1
    stop.set()
    worker.join()
    texts, seconds = job[0]
    server.stop()
    print("| | gaps | median, ms | p99, ms | longest, ms |\n|---|---|---|---|---|")
    for name, values in (("alone", alone), ("beside an embedding job", beside)):
        print(f"| {name} | {len(values)} | {statistics.median(values) * 1e3:.1f} | {quantile(values, 0.99) * 1e3:.1f} "
              f"| {max(values) * 1e3:.1f} |")
    print(f"\n{texts} texts embedded beside the chat in {seconds:.1f} s ({texts / seconds:.0f} texts/s)")
    allowed = 2 * quantile(alone, 0.99) + batch
    holds = quantile(beside, 0.99) <= allowed
    print(f"longest batch of the embedding model: {batch * 1e3:.0f} ms; p99 allowed: {allowed * 1e3:.0f} ms: "
          f"{'holds' if holds else 'FAILS'}")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
