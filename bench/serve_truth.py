#!/usr/bin/env python3
"""A serving process against its plan: VmHWM, RSS and the leaves of `GET /memory`.

    python bench/serve_truth.py [--bursar target/release/bursar] [--models DIR]

Serves a synthetic qwen3-0.6b Q4_K_M to 8 clients within 1 GiB, 256 MiB of it for keys and values,
until all blocks have been held at once (at least 95 % must be), and sets what the kernel measured
beside what was planned and granted. Exits 1 if VmHWM misses the plan by more than max(2 %, 16 MiB) or
passes the budget, the leaves do not add up to what is granted, or RSS is further than max(2 %, 32 MiB)
from them.
"""

import argparse
import random
import sys
import tempfile
import threading
from pathlib import Path

from serving import MIB, bursar, leaves, synth, together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    parser.add_argument("--preset", default="qwen3-0.6b:q4_k_m")
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--kv-memory", default="256MiB")
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args()
    model = synth(args.bursar, args.preset, args.models)
    server = bursar(
        args.bursar, str(model), "--memory", args.memory, "--kv-memory", args.kv_memory,
        "--parallel", str(args.clients),
    )
    before = server.get("/memory")
    kv = before["kv"][0]
    blocks, block = kv["blocks_total"], kv["block_tokens"]

    def client(index: int) -> None:
        # All begin with little and end together, each with its share of the blocks.
        share = blocks // args.clients + (index < blocks % args.clients)
        prompt = [random.Random(index).randrange(1000, 30000) for _ in range(block // 2)]
        server.post("/v1/completions", {
            "model": model.stem, "prompt": prompt, "max_tokens": share * block - len(prompt),
            "temperature": 0, "ignore_eos": True,
        })

    held, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            held.append(server.get("/memory")["kv"][0]["blocks_used"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    together(args.clients, client)
    over.set()
    watcher.join()
    memory = server.get("/memory")
    plan = sum(child["granted_bytes"] for child in memory["tree"]["children"] if child["name"] in ("process", "pools"))
    plan += sum(entry["plan_bytes"] for entry in memory["models"])
    peak, rss = server.proc("VmHWM"), server.proc("VmRSS")
    granted, budget = memory["granted_bytes"], memory["budget_bytes"]
    total = leaves(memory["tree"])
    written = max(held) / blocks
    server.stop()

    def allowed(bytes_: int, least: int) -> float:
        return max(bytes_ * 0.02, least * MIB)

    checks = {
        "at least 95 % of the blocks were held at once": written >= 0.95,
        "VmHWM is within max(2 %, 16 MiB) of the plan": abs(peak - plan) <= allowed(plan, 16),
        "VmHWM is within the plan": peak <= plan,
        "VmHWM is within the budget": peak <= budget,
        "the leaves add up to what is granted": total == granted,
        "RSS is within max(2 %, 32 MiB) of the leaves": abs(rss - total) <= allowed(total, 32),
    }
    rows = [
        ("budget", budget, None), ("plan", plan, None), ("granted", granted, granted - plan),
        ("leaves", total, total - granted), ("VmHWM", peak, peak - plan), ("VmRSS", rss, rss - total),
    ]
    print(f"{model.stem}, {args.clients} clients, {written:.1%} of {blocks} blocks of {block} tokens held at once\n")
    print("| | MiB | difference, MiB | from |\n|---|---|---|---|")
    beside = {"granted": "plan", "leaves": "granted", "VmHWM": "plan", "VmRSS": "leaves"}
    for name, value, off in rows:
        off = "" if off is None else f"{off / MIB:+.1f}"
        print(f"| {name} | {value / MIB:.1f} | {off} | {beside.get(name, '')} |")
    print()
    for words, holds in checks.items():
        print(f"{'holds' if holds else 'FAILS'}: {words}")
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
