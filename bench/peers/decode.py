#!/usr/bin/env python3
"""Bursar beside llama.cpp on the same GGUF file, taking turns.

    python bench/peers/decode.py MODEL.gguf --bursar 'COMMAND {model} ...' [--rounds 5]

COMMAND is any command that prints a JSON line with prefill_tokens_per_second and
decode_tokens_per_second; {model}, {threads}, {prefill} and {decode} are filled in.
Without --bursar only llama.cpp is measured. The results, medians with their range
and ratios taken round by round, go to stdout as a Markdown table.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import interleave

METRICS = {
    "prefill_tokens_per_second": "prefill tokens/s",
    "decode_tokens_per_second": "decode tokens/s",
    "peak_rss_bytes": "peak RSS bytes",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--bursar", metavar="COMMAND", help="Bursar's command line, a template")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=128)
    parser.add_argument("--json", type=Path, help="write every single result to this file")
    args = parser.parse_args()
    peer = Path(__file__).resolve().with_name("llamacpp.py")
    shape = ["--threads", args.threads, "--prefill", args.prefill, "--decode", args.decode]
    commands = {"llama.cpp": [sys.executable, str(peer), str(args.model), *map(str, shape)]}
    if args.bursar:
        fill = {"model": args.model, "threads": args.threads, "prefill": args.prefill, "decode": args.decode}
        commands = {"bursar": [word.format(**fill) for word in shlex.split(args.bursar)], **commands}
    results = interleave.rounds(commands, args.rounds)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{args.model.name}, {args.threads} threads, {args.prefill} prompt and {args.decode} decoded tokens, {args.rounds} rounds\n")
    print(interleave.table(results, METRICS, "llama.cpp"))


if __name__ == "__main__":
    main()
