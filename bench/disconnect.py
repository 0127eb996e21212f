#!/usr/bin/env python3
"""How soon the memory of a client that goes away is free again, beside clients that stay.

    python bench/disconnect.py [--bursar target/release/bursar] [--times 20]

Serves a synthetic qwen3-0.6b Q4_K_M. Seven clients keep it busy with long prompts and answers; one more
closes its connection in the middle, again and again, by turns in its prompt and in its answer. The time
is taken from the close until `GET /metrics` counts the request as cancelled. That is told at the end of
the step before which its blocks were freed, so a step that runs, the one after it, and the question
itself are all part of it. Exits 1 if any took longer than 250 ms.
"""

import argparse
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from serving import bursar, synth

ALLOWED = 0.250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    parser.add_argument("--preset", default="qwen3-0.6b:q4_k_m")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--clients", type=int, default=7, help="others that keep it busy")
    args = parser.parse_args()
    model = synth(args.bursar, args.preset, args.models)
    server = bursar(
        args.bursar, str(model), "--memory", "2GiB", "--parallel", str(args.clients + 1), "--context", "1024",
    )
    over = threading.Event()

    def body(seed: int, prompt: int, tokens: int) -> dict:
        rng = random.Random(seed)
        return {
            "model": model.stem, "prompt": [rng.randrange(1000, 30000) for _ in range(prompt)],
            "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        }

    def stay(seed: int) -> None:
        number = seed * 1000
        while not over.is_set():
            number += 1
            server.stream("/v1/completions", body(number, 96, 64))

    others = [threading.Thread(target=stay, args=(i + 1,), daemon=True) for i in range(args.clients)]
    for other in others:
        other.start()
    time.sleep(2)

    def cancelled() -> int:
        connection = socket.create_connection((server.url.hostname, server.url.port))
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b""
        while part := connection.recv(65536):
            text += part
        line = next(line for line in text.splitlines() if line.startswith(b"bursar_requests_cancelled_total{"))
        return int(float(line.split()[-1]))

    times = []
    for number in range(args.times):
        in_answer = number % 2 == 0
        asked = json.dumps({**body(-number - 1, 64 if in_answer else 900, 100), "stream": True}).encode()
        before = cancelled()
        connection = socket.create_connection((server.url.hostname, server.url.port))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(asked)}\r\n\r\n"
        connection.sendall(head.encode() + asked)
        if in_answer:
            while b'"text":"' not in connection.recv(65536):
                pass
        else:
            time.sleep(0.5)
        begun = time.perf_counter()
        connection.close()
        while cancelled() == before:
            time.sleep(0.002)
        times.append(time.perf_counter() - begun)
    over.set()
    server.stop()
    worst = max(times)
    print(f"{args.times} connections closed beside {args.clients} busy ones: free after {statistics.median(times) * 1e3:.0f} ms "
          f"(median), {worst * 1e3:.0f} ms (longest), {ALLOWED * 1e3:.0f} ms allowed")
    sys.exit(0 if worst <= ALLOWED else 1)


if __name__ == "__main__":
    main()
