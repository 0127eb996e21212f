#!/usr/bin/env python3
"""Heap allocations of a whole server, HTTP included: per generated token and per request.

    python bench/alloc_serve.py [--bursar target/release/bursar] [--json FILE] [SERVE-OPTIONS...]

Starts `bursar serve` (the bundled pocket-chat unless `--model` names a file), warms it up, and asks it for
chats, whole and as events, by 1 and by 8 clients at once and with differing `max_tokens`. Allocations are
those that the process allocator counted (`bursar_heap_allocations_total` of `GET /metrics`), in all threads;
what reading the counter itself takes is measured and taken off. The figure per token is the slope of a
straight line through the allocations per request over the tokens generated, so that what a request takes
once (its body, its prompt, its seat) stays out of it; the figure per request is the line's other end.
Medians of the rounds; the smallest and the largest in brackets.
"""

import argparse
import http.client
import itertools
import json
import re
import statistics
import sys
from pathlib import Path

from serving import Server, bursar, together

WORDS = "The miller mended a ledger beside the river while the baker counted loaves and the cat slept.".split()


def allocations(server: Server) -> int:
    """Blocks that the process allocator has handed out so far."""
    connection = http.client.HTTPConnection(server.url.netloc, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return int(re.search(r"^bursar_heap_allocations_total (\d+)$", text, re.M)[1])


def body(model: str, seed: int, tokens: int, more: dict) -> dict:
    """A chat whose prompt nobody has asked before."""
    words = [WORDS[(seed * 7 + i * (seed % 5 + 1)) % len(WORDS)] for i in range(12)]
    return {
        "model": model, "messages": [{"role": "user", "content": f"{seed} " + " ".join(words)}],
        "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more,
    }


class Client:
    """One connection, which is kept: what a client needs once is not a request's."""

    def __init__(self, server: Server):
        self.connection = http.client.HTTPConnection(server.url.netloc, timeout=600)

    def ask(self, asked: dict, stream: bool) -> int:
        """Tokens generated."""
        if stream:
            asked = {**asked, "stream": True, "stream_options": {"include_usage": True}}
        try:
            response = self.send(asked)
        except (http.client.RemoteDisconnected, ConnectionError):
            # Some servers close a connection after so many requests.
            self.connection.close()
            response = self.send(asked)
        text = response.read().decode()
        if response.status != 200:
            sys.exit(f"{response.status} {text[:500]}")
        if not stream:
            return json.loads(text)["usage"]["completion_tokens"]
        events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
        usage = events[-1].get("usage")
        # Other servers do not all tell it, but send a token at a time.
        return usage["completion_tokens"] if usage else sum(told(event) for event in events)

    def send(self, asked: dict) -> http.client.HTTPResponse:
        """Sends a request; its answer."""
        self.connection.request(
            "POST", "/v1/chat/completions", json.dumps(asked), {"Content-Type": "application/json"}
        )
        return self.connection.getresponse()


def told(event: dict) -> bool:
    """Whether an event has a part of an answer's text."""
    return any(choice.get("delta", {}).get("content") for choice in event.get("choices", []))


def line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope and value at nothing of the straight line of least squares."""
    x, y = (statistics.mean(axis) for axis in zip(*points))
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return slope, y - slope * x


def measure(count, clients: list[Client], ask, lengths: list[int], exact: bool = True) -> dict:
    """One round: `ask(client, tokens)` for every length, and what `count()` grew by meanwhile. Answers are as
    long as was asked for, unless they need not be `exact`."""
    points = []
    for tokens in lengths:
        first = count()
        reading = count() - first
        before = count()
        made = together(len(clients), lambda i: ask(clients[i], tokens))
        taken = count() - before - reading
        if exact and set(made) != {tokens}:
            sys.exit(f"{made} tokens generated instead of {tokens}")
        points.append((statistics.mean(made), taken / len(clients)))
    slope, once = line(points)
    return {"per_token": slope, "per_request": once, "points": points}


class Asker:
    """Chats that nobody has asked before, one after the other."""

    def __init__(self, model: str):
        self.model, self.seeds = model, itertools.count(1)

    def chats(self, stream: bool, more: dict):
        return lambda client, tokens: client.ask(body(self.model, next(self.seeds), tokens, more), stream)


def spread(values: list[float], digits: int) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


KINDS = {
    "plain": (False, {}),
    "streamed": (True, {}),
    "streamed, log-probabilities of 5": (True, {"logprobs": True, "top_logprobs": 5}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--model", help="a GGUF file; the bundled pocket-chat otherwise")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--tokens", default="16,64,128,192", help="values of max_tokens that the slope is taken over")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, help="exit 1 if a token of a plain or streamed answer takes more")
    parser.add_argument("--json", type=Path, help="write every result to this file")
    args, options = parser.parse_known_args()
    counts = [int(count) for count in args.clients.split(",")]
    lengths = [int(tokens) for tokens in args.tokens.split(",")]
    command = [*([args.model] if args.model else []), "--parallel", str(max(counts)), *options]
    server = bursar(args.bursar, *command)
    model = Path(args.model).stem if args.model else "pocket-chat"
    asker, results = Asker(model), {}
    try:
        for number in counts:
            clients = [Client(server) for _ in range(number)]
            for name, (stream, more) in KINDS.items():
                ask = asker.chats(stream, more)
                # Pools fill and tables grow to their size before anything is counted.
                measure(lambda: allocations(server), clients, ask, lengths)
                results[name, number] = [
                    measure(lambda: allocations(server), clients, ask, lengths) for _ in range(args.rounds)
                ]
        heap = server.get("/memory")["heap"]
    finally:
        server.stop()
    if args.json:
        rows = [{"answer": name, "clients": count, "rounds": rounds} for (name, count), rounds in results.items()]
        args.json.write_text(json.dumps({"model": model, "tokens": lengths, "results": rows, "heap": heap}, indent=1) + "\n")
    print(f"{model}, max_tokens {args.tokens}, {args.rounds} rounds\n")
    print("| answer | clients | allocations per generated token | per request, beside its tokens |")
    print("|---|---:|---:|---:|")
    over = False
    for (name, count), rounds in results.items():
        slopes = [one["per_token"] for one in rounds]
        print(f"| {name} | {count} | {spread(slopes, 2)} | {spread([one['per_request'] for one in rounds], 0)} |")
        over |= args.limit is not None and name in ("plain", "streamed") and statistics.median(slopes) > args.limit
    print(f"\nlive on the small heap at the end: {heap['allocated_bytes'] / 1024:.0f} KiB, at most {heap['allocated_peak_bytes'] / 1024:.0f} KiB")
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
