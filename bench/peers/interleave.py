"""Runs commands in turn and compares what they measured.

Machines drift: other work comes and goes, clocks change. So the commands take
turns, in the opposite order every other round, and ratios are taken within a
round before their median is.
"""

import json
import shlex
import statistics
import subprocess
import sys


def last_json(command: list[str]) -> dict:
    """The last line of the command's stdout that is a JSON object."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}: {shlex.join(command)}")
    for line in reversed(done.stdout.splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    sys.exit(f"no JSON line from: {shlex.join(command)}")


def rounds(commands: dict[str, list[str]], count: int) -> dict[str, list[dict]]:
    """`count` results per command."""
    out = {name: [] for name in commands}
    for i in range(count):
        order = list(commands) if i % 2 == 0 else list(reversed(commands))
        for name in order:
            out[name].append(last_json(commands[name]))
            print(f"round {i + 1}/{count} {name}: {json.dumps(out[name][-1])}", file=sys.stderr)
    return out


def figure(value: float) -> str:
    """Three significant digits at least, no exponent."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(results: dict[str, list[dict]], metrics: dict[str, str], base: str) -> str:
    """Markdown: medians (range) per command, and each one's median paired ratio to `base`."""
    lines = ["| | " + " | ".join(f"{label} | ratio to {base}" for label in metrics.values()) + " |"]
    lines.append("|---|" + "---:|" * (2 * len(metrics)))
    for name, values in results.items():
        cells = []
        for metric in metrics:
            ours = [v.get(metric) for v in values]
            theirs = [v.get(metric) for v in results[base]]
            if None in ours:
                cells += ["–", "–"]
                continue
            cells.append(f"{figure(statistics.median(ours))} ({figure(min(ours))}–{figure(max(ours))})")
            if name == base or None in theirs:
                cells.append("1" if name == base else "–")
            else:
                ratios = [a / b for a, b in zip(ours, theirs)]
                cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
