#!/usr/bin/env python3
"""Records what the buffers of a server's pools did under three loads, for `bursar bench pool --membranes`.

    python bench/pool_traces.py [--bursar target/release/bursar] [--out bench/traces]

Three servers with the bundled models, one after the other: `chat` (completions of many lengths, half of them
streamed), `embed` (batches of texts), `mixed` (both at once). The requests follow from a seed; the times of a trace
are those of this machine. A trace is cut off behind the last event that fits 150 KiB.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

from mixed_load import text
from serving import bursar, together

LONGEST_BYTES = 150 << 10
CLIENTS = 6


def chat(pick: random.Random) -> tuple[str, dict]:
    return "/v1/chat/completions", {
        "model": "pocket-chat", "messages": [{"role": "user", "content": text(pick, int(pick.lognormvariate(3, 1)) + 1)}],
        "max_tokens": pick.randint(8, 96), "seed": pick.randrange(1000), "stream": pick.random() < 0.5,
        "logprobs": pick.random() < 0.1,
    }


def embed(pick: random.Random) -> tuple[str, dict]:
    texts = [text(pick, int(pick.lognormvariate(2.5, 0.9)) + 1) for _ in range(int(pick.lognormvariate(1.5, 1)) + 1)]
    return "/v1/embeddings", {
        "model": "pocket-embed", "input": texts, "encoding_format": pick.choice(["float", "base64"]),
    }


LOADS = {"chat": ([chat], 300), "embed": ([embed], 2400), "mixed": ([chat, embed], 480)}


def client(server, kinds: list, requests: int, seed: int) -> None:
    pick = random.Random(seed)
    for _ in range(requests):
        path, body = pick.choice(kinds)(pick)
        if body.get("stream"):
            server.stream(path, body)
        else:
            server.post(path, body)


def cut(trace: dict) -> str:
    """As much of a trace as may be committed."""

    def first(events: int) -> str:
        block = trace["events"]["block"][:events]
        blocks = max(block, default=-1) + 1
        return json.dumps({
            **trace,
            "blocks": {name: column[:blocks] for name, column in trace["blocks"].items()},
            "events": {"after_us": trace["events"]["after_us"][:events], "block": block},
        }, separators=(",", ":"))

    fits, too_many = 0, len(trace["events"]["block"]) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if len(first(middle)) < LONGEST_BYTES else (fits, middle)
    return first(fits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--out", type=Path, default=Path("bench/traces"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, (kinds, requests) in LOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            server = bursar(options.bursar, "--pool-record", str(file))
            together(CLIENTS, lambda seed: client(server, kinds, requests // CLIENTS, seed))
            server.stop()
            trace = json.loads(file.read_text())
        short = cut(trace)
        (options.out / f"{name}.json").write_text(short + "\n")
        kept = len(json.loads(short)["events"]["block"])
        events = len(trace["events"]["block"])
        print(f"{name}: {kept} of {events} events, {len(short) / 1024:.0f} KiB, {len(trace['places'])} places")


if __name__ == "__main__":
    main()
