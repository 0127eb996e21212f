#!/usr/bin/env python3
"""A model is loaded, used and dropped, again and again: does the memory go back to the system?

    python bench/dropped_models.py [--bursar target/release/bursar] [--preset qwen3-0.6b:q4_k_m] [--times 50] [--json FILE]

Serves a tiny model, and beside it has another loaded by `POST /v1/models/x/load`, asked by 4 clients at
once, and dropped by `POST /v1/models/x/unload`. After each time it looks at the process's RSS. Prints
what it was before, the first, last and largest after, and what the model took; exits 1 if any is more
than 16 MiB above what it was before, or the last ten are on average more than 4 MiB above the first ten.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from serving import MIB, Server, bursar, synth, together

ALLOWED = 16 * MIB
DRIFT = 4 * MIB


def use(server: Server, model: str, prompt: int, answer: int) -> None:
    """Four clients with prompts of their own."""
    def client(index: int):
        tokens = [3 + (index * 31 + i * 7) % 900 for i in range(prompt)]
        body = {"model": model, "prompt": tokens, "max_tokens": answer, "ignore_eos": True, "temperature": 0}
        return server.post("/v1/completions", body)

    for reply in together(4, client):
        assert reply["usage"]["completion_tokens"] == answer, reply


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    parser.add_argument("--preset", default="qwen3-0.6b:q4_k_m")
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--prompt", type=int, default=48)
    parser.add_argument("--answer", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tiny = synth(args.bursar, "tiny-llama:q8_0", args.models)
    model = synth(args.bursar, args.preset, args.models)
    server = bursar(
        args.bursar, str(tiny), "--models-dir", str(args.models), "--memory", args.memory,
        "--parallel", "4", "--context", "512", "--models-wait", "10m",
    )
    use(server, tiny.stem, args.prompt, args.answer)
    before, held, after, granted = server.proc("VmRSS"), 0, [], []
    for _ in range(args.times):
        server.post(f"/v1/models/{model.stem}/load", {})
        use(server, model.stem, args.prompt, args.answer)
        held = max(held, server.proc("VmRSS"))
        server.post(f"/v1/models/{model.stem}/unload", {})
        after.append(server.proc("VmRSS"))
        granted.append(server.get("/memory")["granted_bytes"])
    server.stop()
    ten = min(10, args.times // 2)
    drift = statistics.mean(after[-ten:]) - statistics.mean(after[:ten])
    if args.json:
        figures = {"before_bytes": before, "held_bytes": held, "after_bytes": after, "granted_bytes": granted}
        args.json.write_text(json.dumps(figures) + "\n")
    print(f"{args.times} times {model.stem}: RSS {before / MIB:.1f} MiB before, {held / MIB:.1f} MiB with it, after dropping "
          f"{after[0] / MIB:.1f} MiB the first time, {after[-1] / MIB:.1f} MiB the last, {max(after) / MIB:.1f} MiB at most; "
          f"drift {drift / MIB:+.2f} MiB; granted {granted[0] / MIB:.1f} MiB the first time, {granted[-1] / MIB:.1f} MiB the last")
    sys.exit(0 if max(after) <= before + ALLOWED and drift <= DRIFT else 1)


if __name__ == "__main__":
    main()
