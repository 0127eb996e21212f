#!/usr/bin/env python3
"""Ten thousand short requests: does what is resident drift away from what is granted?

    python bench/serve_drift.py [--bursar target/release/bursar] [--svg docs/drift.svg] [--json FILE]

Serves a tiny model to 8 clients that ask for short texts of random lengths, a third of them streamed,
one in ten given up after its first token, and looks at RSS and granted bytes as requests end. Exits 1
if RSS less granted grows by more than 8 MiB between the 1,000th request and the last.
"""

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
from pathlib import Path

from serving import MIB, Server, bursar, synth, together

ALLOWED = 8 * MIB


def client(server: Server, model: str, seed: int, count: int, ended) -> None:
    rng = random.Random(seed)
    connection = http.client.HTTPConnection(server.url.netloc, timeout=600)
    for number in range(count):
        stream = number % 3 == 0
        body = {
            "model": model, "prompt": [rng.randrange(1, 250) for _ in range(rng.randrange(1, 40))],
            "max_tokens": rng.randrange(1, 12), "temperature": rng.choice([0, 1]), "stream": stream,
        }
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        if stream and number % 10 == 0:
            response.readline()
            connection.close()
        else:
            response.read()
        ended()


def svg(points: list[tuple[int, float]], base: int) -> str:
    """RSS less granted over the requests that have ended, in MiB, and the band that is allowed."""
    width, height, left, right, top, bottom = 720, 300, 64, 32, 28, 44
    last = points[-1][0]
    start = next(y for x, y in points if x >= base)
    low = min(min(y for _, y in points), start) - 2
    high = max(max(y for _, y in points), start + ALLOWED / MIB) + 2

    def x(value):
        return left + (width - left - right) * value / last

    def y(value):
        return top + (height - top - bottom) * (high - value) / (high - low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="18" fill="#222">RSS less granted bytes, in MiB, over {last:,} short requests</text>',
        f'<rect x="{x(base):.1f}" y="{y(start + ALLOWED / MIB):.1f}" width="{x(last) - x(base):.1f}" '
        f'height="{y(start) - y(start + ALLOWED / MIB):.1f}" fill="#e8f0fa"/>',
        f'<text x="{x(base) + 6:.1f}" y="{y(start + ALLOWED / MIB) + 14:.1f}" fill="#4a6a8a">allowed from request {base:,} on</text>',
    ]
    step = max(1, round((high - low) / 6))
    for tick in range(int(low // step) * step, int(high) + 1, step):
        if low <= tick <= high:
            out.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>')
            out.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#555">{tick}</text>')
    for tick in range(0, last + 1, max(1, last // 5)):
        out.append(f'<text x="{x(tick):.1f}" y="{height - bottom + 18}" text-anchor="middle" fill="#555">{tick:,}</text>')
    out.append(f'<text x="{(left + width - right) / 2:.1f}" y="{height - 8}" text-anchor="middle" fill="#555">requests ended</text>')
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    out.append(f'<polyline points="{path}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    parser.add_argument("--preset", default="tiny-qwen3:q8_0")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = synth(args.bursar, args.preset, args.models)
    server = bursar(args.bursar, str(model), "--memory", "256MiB", "--parallel", str(args.clients), "--context", "256")
    lock, count, points = threading.Lock(), 0, []

    def ended():
        nonlocal count
        with lock:
            count += 1
            if count % 100 == 0:
                memory = server.get("/memory")
                points.append((count, memory["rss_bytes"], memory["granted_bytes"]))

    each = args.requests // args.clients
    together(args.clients, lambda index: client(server, model.stem, index, each, ended))
    server.stop()
    base = min(1000, args.requests // 2)
    drift = {n: rss - granted for n, rss, granted in points}
    first, last = drift[next(n for n in drift if n >= base)], points[-1][1] - points[-1][2]
    if args.json:
        args.json.write_text(json.dumps([{"requests": n, "rss_bytes": r, "granted_bytes": g} for n, r, g in points]) + "\n")
    if args.svg:
        args.svg.write_text(svg([(n, (r - g) / MIB) for n, r, g in points], base))
    moved = last - first
    print(f"{points[-1][0]} requests: RSS less granted {first / MIB:+.2f} MiB at {base}, {last / MIB:+.2f} MiB at the end, "
          f"drift {moved / MIB:+.2f} MiB of {ALLOWED / MIB:.0f} allowed")
    sys.exit(0 if moved <= ALLOWED else 1)


if __name__ == "__main__":
    main()
