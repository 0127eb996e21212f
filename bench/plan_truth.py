#!/usr/bin/env python3
"""The plan against what the kernel measured, for synthetic models in real shapes.

    python bench/plan_truth.py [--bursar target/release/bursar] [--models DIR]

For each model: `bursar synth` writes it (once, into DIR), a run fills its whole context with keys and
values (a long prompt, then generation to the end of the context) or embeds long texts in full batches,
and the plan's total is set against VmHWM. Then the same for servers, twelve of them: three models by context, sequences at
once and type of keys and values, until at least 95 % of the planned blocks have been written. Prints
Markdown tables; exits 1 if a row misses max(2 %, 16 MiB) or VmHWM passes the budget.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from serving import MIB, bursar, synth, together

GENERATE = [
    # model, context, budget, threads
    ("qwen3-0.6b:q4_k_m", 4096, 1024, 2),
    ("qwen3-0.6b:bf16", 2048, 1536, 2),
    ("llama-3.2-1b:q4_k_m", 2048, 1024, 2),
]
EMBED = [
    # model, budget
    ("all-minilm-l6-v2:f32", 160),
    ("qwen3-embedding-0.6b:q8_0", 1024),
]
SERVE = [
    # model, context, sequences at once, type of keys and values, budget
    ("qwen3-0.6b:q4_k_m", 1024, 4, "f16", 1024),
    ("qwen3-0.6b:q4_k_m", 2048, 8, "q8_0", 2048),
    ("qwen3-0.6b:q4_k_m", 4096, 2, "bf16", 2048),
    ("qwen3-0.6b:q4_k_m", 8192, 1, "f32", 3072),
    ("llama-3.2-1b:q4_k_m", 1024, 8, "f16", 2048),
    ("llama-3.2-1b:q4_k_m", 4096, 1, "q8_0", 1024),
    ("llama-3.2-1b:q4_k_m", 2048, 2, "f32", 2048),
    ("llama-3.2-1b:q4_k_m", 8192, 1, "bf16", 2048),
    ("qwen3-0.6b:bf16", 512, 8, "f16", 2048),
    ("qwen3-0.6b:bf16", 2048, 1, "q8_0", 2048),
    ("qwen3-0.6b:bf16", 1024, 2, "f32", 2048),
    ("qwen3-0.6b:bf16", 4096, 1, "f16", 2048),
]
WORDS = "the ledger grants what there is and says no in good time budget bytes model memory".split()


def run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr}")
    return done.stdout


def text(words: int) -> str:
    return " ".join(random.Random(words).choice(WORDS) for _ in range(words))


def row(name: str, what: str, figures: dict) -> bool:
    plan, peak, budget = (figures[k] for k in ("plan_bytes", "rss_peak_bytes", "budget_bytes"))
    off = peak - plan
    bound = max(plan * 0.02, 16 * MIB)
    good = abs(off) <= bound and peak <= budget
    print(
        f"| {name} | {what} | {plan / MIB:.1f} | {peak / MIB:.1f} | {off / MIB:+.1f} | {bound / MIB:.1f} "
        f"| {budget / MIB:.0f} | {'yes' if good else '**no**'} |",
        flush=True,
    )
    return good


def served(args: argparse.Namespace, name: str, context: int, parallel: int, dtype: str, budget: int) -> bool:
    """A server whose sequences are all filled: the row of the table."""
    path = synth(args.bursar, name, args.models)
    server = bursar(
        args.bursar, str(path), "--memory", f"{budget}MiB", "--context", str(context), "--parallel", str(parallel),
        "--kv-dtype", dtype,
    )

    def fill(index: int) -> None:
        pick = random.Random(index)
        prompt = [pick.randrange(1000, 30000) for _ in range(context - 4)]
        server.post("/v1/completions", {
            "model": path.stem, "prompt": prompt, "max_tokens": 4, "temperature": 0, "ignore_eos": True,
        })

    together(parallel, fill)
    memory = server.get("/memory")
    kv = memory["kv"][0]
    # Blocks that nobody holds any more are cached: they were written, and are still there.
    written = (kv["blocks_used"] + kv["blocks_cached"]) / kv["blocks_total"]
    plan = sum(child["granted_bytes"] for child in memory["tree"]["children"] if child["name"] in ("process", "pools"))
    plan += sum(entry["plan_bytes"] for entry in memory["models"])
    figures = {"plan_bytes": plan, "rss_peak_bytes": server.proc("VmHWM"), "budget_bytes": budget * MIB}
    server.stop()
    what = f"{parallel} x {context} tokens in {dtype}, {written:.1%} of KV"
    return row(name, what, figures) and written >= 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    args = parser.parse_args()
    args.models.mkdir(parents=True, exist_ok=True)

    def model(name: str) -> str:
        path = args.models / (name.replace(":", "-") + ".gguf")
        if not path.exists():
            run(args.bursar, "synth", name, "-o", str(path))
        return str(path)

    print("| model | filled with | plan, MiB | VmHWM, MiB | difference | allowed | budget, MiB | holds |")
    print("|---|---|---|---|---|---|---|---|")
    good = True
    for name, context, budget, threads in GENERATE:
        out = run(
            args.bursar, "run", model(name), "--raw", "--json", "--ignore-eos", "--temperature", "0",
            "--context", str(context), "--memory", f"{budget}MiB", "--threads", str(threads),
            stdin=text(context * 2 // 5),
        )
        figures = json.loads(out)
        filled = (figures["prompt_tokens"] + figures["completion_tokens"]) / context
        what = f"{filled:.1%} of {context} tokens of KV"
        good &= row(name, what, figures) and filled >= 0.95
    for name, budget in EMBED:
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(folder) / "lines.txt"
            # Longer than the longest that is embedded, so that batches are full.
            lines.write_text("\n".join(text(3000) for _ in range(4)) + "\n")
            out = run(
                args.bursar, "embed", model(name), str(lines), "--json", "--format", "npy",
                "-o", str(Path(folder) / "out.npy"), "--memory", f"{budget}MiB",
            )
        figures = json.loads(out)
        good &= row(name, f"{figures['texts']} texts, {figures['tokens']} tokens", figures)
    print("\n| model, served | filled with | plan, MiB | VmHWM, MiB | difference | allowed | budget, MiB | holds |")
    print("|---|---|---|---|---|---|---|---|")
    for configuration in SERVE:
        good &= served(args, *configuration)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
