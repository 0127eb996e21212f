#!/usr/bin/env python3
"""A model larger than its memory: streamed, resident, and llama.cpp, in a memory cgroup.

    python bench/streamed.py [--bursar target/release/bursar] [--models DIR] [--memory 1.5GiB] [--no-peer]

Writes `bursar synth nomic-embed-code:q5_k_s` (4.9 GB) into DIR once, and 64 snippets of at most 32
tokens. Then, each in a process of its own and with the file dropped from the page cache before:

- `bursar embed` with all weights resident, no limit: the vectors and the speed to compare with;
- `bursar embed --memory 1.5GiB` in a memory cgroup of 1.5 GiB + 5 %: the same vectors, by digest;
- llama.cpp (through llama-cpp-python, if it is installed) on the same token counts, its file mapped as
  it does by default, in the same cgroup and without one; and in the cgroup in batches of 256 tokens.

Prints a Markdown table and exits 1 if a digest differs, a process was killed, or the peak of resident
memory passed the budget. Needs root and the memory controller of cgroups (or says why it skips the
limit), Linux, and no other package than llama-cpp-python for the peer.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from cgroup import MemoryCgroup, Unavailable

MODEL = "nomic-embed-code:q5_k_s"
TEXTS = 64
MIB = 1 << 20
WORDS = "fn let mut return match self plan bytes budget index row key value token block page".split()


def drop_cache(path: Path) -> None:
    """So that the disk is measured, not the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def measured(command: list[str], model: Path, limit: int | None) -> dict:
    """Runs a command in a cgroup with a limit, if any; what its last line of JSON says, and more."""
    drop_cache(model)
    before = open("/proc/diskstats").read()
    begun = time.perf_counter()
    figures = {}
    if limit:
        with MemoryCgroup("bursar-streamed", limit) as group:
            done = subprocess.run(command, capture_output=True, text=True, preexec_fn=group.enter)
            figures = {"group_peak_bytes": group.peak(), "oom_kill": group.kills()}
    else:
        done = subprocess.run(command, capture_output=True, text=True)
    wall = time.perf_counter() - begun
    print(f"{Path(command[0]).name}: {wall:.1f} s, exit {done.returncode}, {done.stdout.strip()[-400:]}", file=sys.stderr)
    if done.returncode != 0:
        return {"failed": f"exit {done.returncode}: {done.stderr.strip()[-300:]}", **figures}
    notes = [line for line in done.stderr.splitlines() if line.startswith("note:")]
    text = done.stdout[done.stdout.index("{") :]
    read = sectors(open("/proc/diskstats").read()) - sectors(before)
    return {**json.loads(text), **figures, "wall_seconds": wall, "notes": notes, "disk_bytes": read * 512}


def sectors(text: str) -> int:
    """Sectors read by whole disks so far."""
    disks = [line.split() for line in text.splitlines()]
    return sum(int(fields[5]) for fields in disks if re.fullmatch(r"(vd|sd|xvd)[a-z]+|nvme\d+n\d+", fields[2]))


def snippets(path: Path) -> None:
    draw = random.Random(7)
    lines = (" ".join(draw.choices(WORDS, k=draw.randint(5, 12))) for _ in range(TEXTS))
    path.write_text("\n".join(lines) + "\n")


def bytes_of(text: str) -> int:
    number, unit = re.fullmatch(r"([0-9.]+) *(GiB|MiB)", text).groups()
    return int(float(number) * (1 << 30 if unit == "GiB" else MIB))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", type=Path, default=Path("target/release/bursar"))
    parser.add_argument("--models", type=Path, default=Path("target/bench-models"))
    parser.add_argument("--memory", default="1.5GiB")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-peer", action="store_true", help="leave llama.cpp out")
    parser.add_argument("--no-resident", action="store_true", help="leave the resident run out: it needs 5.5 GB")
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON too")
    args = parser.parse_args()
    args.models.mkdir(parents=True, exist_ok=True)
    model = args.models / "nomic-embed-code-q5_k_s.gguf"
    if not model.exists():
        subprocess.run([args.bursar, "synth", MODEL, "-o", model], check=True)
    texts = args.models / "snippets.txt"
    snippets(texts)
    limit = bytes_of(args.memory) * 105 // 100
    try:
        with MemoryCgroup("bursar-streamed", limit):
            pass
    except Unavailable as why:
        print(f"no limit is set: {why}", file=sys.stderr)
        limit = None

    def embed(name: str, limit: int | None, *more: str) -> dict:
        out = args.models / f"{name}.npy"
        out.unlink(missing_ok=True)
        command = [args.bursar, "embed", model, texts, "-o", out, "--json", "--restart"]
        command += ["--threads", str(args.threads), "--context", "32", *more]
        figures = measured([str(part) for part in command], model, limit)
        if out.exists():
            figures["digest"] = hashlib.sha256(out.read_bytes()).hexdigest()[:16]
            out.unlink()
        return figures

    runs = {}
    if not args.no_resident:
        runs["Bursar, resident, no limit"] = embed("resident", None, "--weights-residency", "resident")
    runs[f"Bursar, {args.memory}, in the group"] = embed("streamed", limit, "--memory", args.memory)
    if not args.no_peer and importlib.util.find_spec("llama_cpp"):
        peer = Path(__file__).parent / "peers" / "llamacpp_embed.py"
        command = [sys.executable, str(peer), str(model), "--threads", str(args.threads)]
        tokens = next((run["tokens"] for run in runs.values() if "tokens" in run), TEXTS * 24)
        command += ["--texts", str(TEXTS), "--tokens", str(tokens)]
        if not args.no_resident:
            runs["llama.cpp, no limit"] = measured(command, model, None)
        runs["llama.cpp, in the group"] = measured(command, model, limit)
        # All tokens in one batch take more memory than the group has, whatever the weights take.
        small = [*command, "--as-mapped", "--batch", "256"]
        runs["llama.cpp, mapped only, 256 tokens a batch, in the group"] = measured(small, model, limit)

    print("| run | tokens/s | seconds | whole process, s | peak RSS | peak of the group | read from disk | vectors |")
    print("|---|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        if "failed" in run:
            print(f"| {name} | {run['failed']} | | | | | | |")
            continue
        group = f"{run['group_peak_bytes'] / MIB:,.0f} MiB" if "group_peak_bytes" in run else ""
        print(
            f"| {name} | {run['tokens_per_second']:.1f} | {run['seconds']:.1f} | {run['wall_seconds']:.1f} "
            f"| {run['rss_peak_bytes'] / MIB:,.0f} MiB | {group} | {run['disk_bytes'] / 1e9:.1f} GB "
            f"| {run.get('digest', '')} |"
        )
    for name, run in runs.items():
        for note in run.get("notes", []):
            print(f"\n{name}: {note}")
        if run.get("streaming"):
            spent = ", ".join(f"{key} {value:.2f}" for key, value in run["streaming"].items())
            print(f"\n{name}: {spent}")
    if args.json:
        print(json.dumps(runs, indent=1))
    streamed = runs[f"Bursar, {args.memory}, in the group"]
    bad = [name for name, run in runs.items() if name.startswith("Bursar") and "failed" in run]
    digests = {run["digest"] for name, run in runs.items() if "digest" in run}
    if bad or len(digests) != 1 or streamed.get("oom_kill") or streamed["rss_peak_bytes"] > bytes_of(args.memory):
        sys.exit(f"not as it should be: failed {bad}, digests {digests}, {streamed}")


if __name__ == "__main__":
    main()
