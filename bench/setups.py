#!/usr/bin/env python3
"""Set-ups by memory and model, as the planner finds them: the table of docs/tuning.md.

    python bench/setups.py [--bursar target/release/bursar]

For each size of memory, of which Bursar gets 80 % or all but 2 GiB, whichever is more, and each model:
the least lossy form of the weights that fits, then the most sequences of 4,096 tokens (8 at most), then
the longest context that as many may have. Sizes that change nothing for a model are left out. Every
figure is what `bursar plan --json` says; nothing is loaded, and no model file is needed.
"""

import argparse
import json
import subprocess
import sys

GIB = 1 << 30
MEMORY_GIB = [1, 2, 4, 8, 16, 32, 64]
GENERATE = ["qwen3-0.6b:q4_k_m", "llama-3.2-1b:q4_k_m", "qwen3-0.6b:bf16", "llama-3.2-1b:bf16"]
EMBED = ["all-minilm-l6-v2:f32", "qwen3-embedding-0.6b:q8_0", "nomic-embed-code:q5_k_s"]
# The first that fits is taken: as the file has them, smaller, read again in every pass.
FORMS = [("as-is", "resident"), ("q8_0", "resident"), ("q4_k", "resident"), ("as-is", "streamed")]
SEQUENCES = [8, 4, 2, 1]
CONTEXTS = [512, 1024, 2048, 4096, 8192, 16384, 32768]


def plan(args: argparse.Namespace, model: str, memory: int, form: tuple[str, str], *more: str) -> dict | None:
    """What the planner says, if it fits."""
    command = [
        args.bursar, "plan", model, "--json", "--memory", str(memory), "--threads", str(args.threads),
        "--weights-dtype", form[0], "--weights-residency", form[1], *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 2, 3):
        sys.exit(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout) if done.returncode == 0 else None


def best(args: argparse.Namespace, model: str, memory: int) -> tuple[dict, tuple[str, str]] | None:
    """The set-up for a model within so many bytes."""
    for form in FORMS:
        def fits(context: int, parallel: int) -> dict | None:
            return plan(args, model, memory, form, "--context", str(context), "--parallel", str(parallel))

        if model in EMBED:
            if found := plan(args, model, memory, form):
                return found, form
            continue
        found = next((found for parallel in SEQUENCES if (found := fits(4096, parallel))), None)
        if found:
            for context in (c for c in CONTEXTS if c > 4096):
                if not (more := fits(context, found["parallel"])):
                    break
                found = more
        else:
            found = next((found for context in reversed(CONTEXTS[:3]) if (found := fits(context, 1))), None)
        if found:
            return found, form
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--threads", type=int, default=4, help="threads planned for; each has a stack")
    args = parser.parse_args()
    print("| memory | model | weights | `--context` | `--parallel` | takes |")
    print("|---|---|---|---|---|---|")
    told = {}
    for gib in MEMORY_GIB:
        memory = max(gib * GIB * 4 // 5, (gib - 2) * GIB)
        for model in GENERATE + EMBED:
            found = best(args, model, memory)
            if found is None:
                print(f"| {gib} GiB | {model} | does not fit | | | |", flush=True)
                continue
            planned, (dtype, residency) = found
            weights = "streamed" if residency == "streamed" else "as its file has them" if dtype == "as-is" else f"`{dtype}`"
            parallel = planned["parallel"] if model in GENERATE else "texts share batches"
            taken = planned["total_bytes"] / GIB
            row = f"{model} | {weights} | {planned['context']} | {parallel} | {taken:.2f} GiB |"
            # More memory that changes nothing is no set-up of its own.
            if told.get(model) != row:
                print(f"| {gib} GiB | {row}", flush=True)
            told[model] = row


if __name__ == "__main__":
    main()
