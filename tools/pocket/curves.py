"""Draws the loss logs as SVG, without any library.

    python curves.py RUN OUT

Reads RUN/chat.csv and RUN/embed.csv, writes OUT/pocket-chat.svg and OUT/pocket-embed.svg.
"""

import csv
import math
import sys
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 320, 56, 40, 34, 16
COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#8250df")


def read(path: Path, x: str) -> dict[str, list[tuple[float, float]]]:
    """Points by series."""
    found: dict[str, list[tuple[float, float]]] = {}
    with open(path) as file:
        for row in csv.DictReader(file):
            found.setdefault(row["series"], []).append((float(row[x]), float(row["value"])))
    return found


def ticks(low: float, high: float) -> list[float]:
    """About five round values."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 6)
    first = math.ceil(low / step)
    return [n * step for n in range(first, int(high / step) + 1)]


def draw(title: str, series: dict[str, list[tuple[float, float]]], x_title: str, y_title: str) -> str:
    """A line chart."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    x_max, y_low, y_high = max(xs) or 1.0, min(ys), max(ys)
    y_low, y_high = y_low - 0.04 * (y_high - y_low), y_high + 0.04 * (y_high - y_low)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / x_max
        up = (y - y_low) / (y_high - y_low)
        return across, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * up

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-size="13">{escape(title)}</text>',
    ]
    for value in ticks(y_low, y_high):
        _, y = place(0, value)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(0, x_max):
        x, _ = place(value, y_low)
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_title)}</text>')
    out.append(f'<text x="6" y="{TOP - 6}">{escape(y_title)}</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<text x="{WIDTH - RIGHT - 4}" y="{TOP + 14 + 15 * number}" text-anchor="end" fill="{colour}">{escape(name)}</text>')
    return "\n".join(out) + "\n</svg>\n"


def main() -> None:
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    chat = read(run / "chat.csv", "tokens")
    chat = {name: [(x / 1e6, y) for x, y in points] for name, points in chat.items()}
    page = draw("pocket-chat: loss, nats per token", chat, "million tokens seen", "loss")
    (out / "pocket-chat.svg").write_text(page)
    embed = read(run / "embed.csv", "step")
    loss = {name: embed[name] for name in ("bag", "train") if name in embed}
    page = draw("pocket-embed: contrastive loss, as a bag of words and then as a decoder", loss, "steps", "loss")
    (out / "pocket-embed.svg").write_text(page)
    watch = {name: embed[name] for name in ("bag mrr", "dev mrr") if name in embed}
    page = draw("pocket-embed: MRR@10 on 1,000 pairs kept back", watch, "steps", "MRR@10")
    (out / "pocket-embed-mrr.svg").write_text(page)


if __name__ == "__main__":
    main()
