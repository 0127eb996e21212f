#!/usr/bin/env python3
"""Three models in a budget for two: 500 mixed requests from 8 clients, and what the books say after it.

    python bench/several_models.py [--bursar target/release/bursar] [--models DIR] [--cgroup]
    python bench/several_models.py --tiny --runs 20 --requests 40 --cgroup

Serves a folder of synthetic models (a 0.6B and a 1B chat model and a BERT; with --tiny three tiny ones) in a
budget that does not hold all of them. With --cgroup the server lives in a memory cgroup whose limit is the
budget and 5 %. Exits 1 if an answer was anything but whole or a 429 or 503 with figures, VmHWM
passed the budget, the books do not add up, nothing was evicted, or anybody was killed for want of memory.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from cgroup import MemoryCgroup, Unavailable
from mixed_load import Model, Outcome, run
from serving import MIB, bursar, leaves, synth

REAL = {"qwen3-0.6b:q4_k_m": 0.4, "llama-3.2-1b:q4_k_m": 0.3, "all-minilm-l6-v2:f32": 0.3}
TINY = {"tiny-qwen3": 0.4, "tiny-llama": 0.3, "tiny-bert": 0.3}


def flags(args: argparse.Namespace) -> list[str]:
    if args.tiny:
        return ["--context", "512", "--parallel", "4", "--kv-memory", "2MiB"]
    return ["--context", "1024", "--parallel", "4", "--kv-memory", "112MiB"]


def once(args: argparse.Namespace, folder: Path, models: list[Model], seed: int) -> tuple[Outcome, dict, dict]:
    """One server's life: what clients saw, the checks, the figures."""
    budget = args.memory * MIB
    group = MemoryCgroup("bursar-several", budget + budget // 20) if args.cgroup else nullcontext()
    with group:
        server = bursar(
            args.bursar, str(folder / models[0].name) + ".gguf", "--models-dir", str(folder), "--memory", f"{args.memory}MiB",
            *flags(args), *args.flag, enter=group.enter if args.cgroup else None,
        )
        out = run(server, models, args.requests, args.clients, seed)
        memory = server.get("/memory")
        peak, rss = server.proc("VmHWM"), server.proc("VmRSS")
        alive = server.process.poll() is None
        kills, cache = (group.kills(), group.cache()) if args.cgroup else (0, 0)
        server.stop()
    cache_of_models = memory["model_cache"]
    total = leaves(memory["tree"])
    checks = {
        "every answer is whole, or a 429 or 503 with figures": not out.faults,
        "VmHWM is within the budget": peak <= budget,
        "grants never passed the budget": memory["granted_peak_bytes"] <= budget,
        "the leaves add up to what is granted": total == memory["granted_bytes"],
        "RSS is within max(2 %, 32 MiB) of the leaves": abs(rss - total) <= max(total * 0.02, 32 * MIB),
        f"at least {args.evictions} evictions": cache_of_models["evictions_total"] >= args.evictions,
        "the server lived": alive,
    }
    if args.cgroup:
        checks["nobody was killed for want of memory"] = kills == 0
    figures = {
        "peak": peak, "rss": rss, "granted_peak": memory["granted_peak_bytes"], "loads": cache_of_models["loads_total"],
        "evictions": cache_of_models["evictions_total"], "load_seconds": cache_of_models["load_seconds"], "cache": cache,
    }
    return out, checks, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--memory", type=int, help="MiB; the default holds two of the three models")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--evictions", type=int, default=5)
    parser.add_argument("--cgroup", action="store_true")
    parser.add_argument("--flag", action="append", default=[], help="one more flag for the server, as --flag=--x=y")
    args = parser.parse_args()
    args.memory = args.memory or (54 if args.tiny else 1100)
    presets = TINY if args.tiny else REAL
    folder = args.models / ("several-tiny" if args.tiny else "several")
    paths = {synth(args.bursar, preset, folder): share for preset, share in presets.items()}
    models = [Model(path.stem, "minilm" not in path.stem and "bert" not in path.stem, share) for path, share in paths.items()]
    print(
        "| run | 200 | refused | cancelled | tokens | vectors | s | median wait, s | loads | evictions | load, s "
        "| VmHWM, MiB | granted at most | budget | page cache |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    good = True
    for seed in range(args.runs):
        try:
            out, checks, figures = once(args, folder, models, seed)
        except Unavailable as why:
            sys.exit(f"skipped: {why}")
        refused = sum(count for status, count in out.statuses.items() if status != 200)
        print(
            f"| {seed + 1} | {out.statuses[200]} | {refused} | {out.cancelled} | {out.tokens} | {out.vectors} | {out.seconds:.1f} "
            f"| {statistics.median(out.waits or [0]):.2f} | {figures['loads']} | {figures['evictions']} | {figures['load_seconds']:.1f} "
            f"| {figures['peak'] / MIB:.1f} | {figures['granted_peak'] / MIB:.1f} | {args.memory} | {figures['cache'] / MIB:.1f} |",
            flush=True,
        )
        for words, holds in checks.items():
            if not holds:
                print(f"FAILS in run {seed + 1}: {words}", *out.faults[:5], sep="\n  ")
            good &= holds
    print("\nall checks hold" if good else "\nsome checks fail")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
