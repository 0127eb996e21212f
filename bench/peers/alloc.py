#!/usr/bin/env python3
"""Heap allocations per generated token of whole servers, counted from outside: Bursar beside llama.cpp's.

    python bench/peers/alloc.py [MODEL.gguf] [--bursar target/release/bursar] [--llama-server PROGRAM] [--llama-cpp-python]

Every server runs with `alloc_count.c` (compiled here with `cc`) preloaded, so that each call of malloc, calloc,
realloc and their kin in any of its threads is counted, whatever language it was made in. Clients keep their
connections and ask for chats, whole and as events, of differing `max_tokens`; a figure is the slope over the
tokens generated, as in bench/alloc_serve.py, which says more. Without MODEL.gguf: models/pocket-chat.gguf.
llama-server is built as bench/peers/server.py says; `--llama-cpp-python` is `python -m llama_cpp.server`, whose
interpreter takes most of its small objects from arenas of its own, which are not counted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from alloc_serve import KINDS, Asker, Client, measure, spread  # noqa: E402
from serving import Server, free_port  # noqa: E402


class Counted:
    """A server with the counter preloaded."""

    def __init__(self, folder: Path, name: str, command: list[str], port: int, ready: str):
        self.counts = folder / f"{name}.counts"
        self.counts.write_bytes(bytes(16))
        preload = ["env", f"LD_PRELOAD={folder / 'alloc_count.so'}", f"ALLOC_COUNT_FILE={self.counts}"]
        self.server = Server([*preload, *command], f"http://127.0.0.1:{port}", ready)

    def blocks(self) -> int:
        """Blocks handed out so far."""
        return int.from_bytes(self.counts.read_bytes()[:8], sys.byteorder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL.gguf", default=HERE.parents[1] / "models/pocket-chat.gguf")
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--before", metavar="PROGRAM", help="another build of bursar, to be set beside")
    parser.add_argument("--llama-server", metavar="PROGRAM")
    parser.add_argument("--llama-cpp-python", action="store_true")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--tokens", default="16,64,128,192")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write every result to this file")
    args = parser.parse_args()
    counts = [int(count) for count in args.clients.split(",")]
    lengths = [int(tokens) for tokens in args.tokens.split(",")]
    most, context, threads = max(counts), 512, str(args.threads)

    def bursar(program: str, port: int) -> list[str]:
        return [
            program, "serve", str(args.model), "--listen", f"127.0.0.1:{port}", "--parallel", str(most),
            "--context", str(context), "--threads", threads,
        ]

    programs = {"bursar": (lambda port: bursar(args.bursar, port), "/ready")}
    if args.before:
        programs["bursar before"] = (lambda port: bursar(args.before, port), "/ready")
    if args.llama_server:
        programs["llama-server"] = (lambda port: [
            args.llama_server, "-m", str(args.model), "--host", "127.0.0.1", "--port", str(port), "-t", threads,
            "-np", str(most), "-c", str(most * context), "--cache-ram", "0", "--no-webui", "--jinja",
        ], "/health")
    if args.llama_cpp_python:
        programs["llama_cpp.server"] = (lambda port: [
            sys.executable, "-m", "llama_cpp.server", "--model", str(args.model), "--port", str(port),
            "--n_threads", threads, "--n_ctx", str(context),
        ], "/v1/models")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        counter = [str(folder / "alloc_count.so"), str(HERE / "alloc_count.c")]
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", *counter, "-ldl", "-pthread"], check=True)
        for name, (command, ready) in programs.items():
            port = free_port()
            counted = Counted(folder, name.replace(" ", "-"), command(port), port, ready)
            asker = Asker(args.model.stem)
            # Who does not know `ignore_eos` ends when the model does.
            exact = name != "llama_cpp.server"
            try:
                for number in counts:
                    clients = [Client(counted.server) for _ in range(number)]
                    for kind, (stream, more) in KINDS.items():
                        ask = asker.chats(stream, more)
                        measure(counted.blocks, clients, ask, lengths, exact)
                        results[name, kind, number] = [
                            measure(counted.blocks, clients, ask, lengths, exact) for _ in range(args.rounds)
                        ]
                        print(name, kind, number, statistics.median(one["per_token"] for one in results[name, kind, number]), file=sys.stderr)
            finally:
                counted.server.stop()
    if args.json:
        rows = [{"server": name, "answer": kind, "clients": number, "rounds": rounds} for (name, kind, number), rounds in results.items()]
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{args.model.name}, max_tokens {args.tokens}, {args.threads} threads, {args.rounds} rounds\n")
    print("| answer | clients | server | allocations per generated token | per request, beside its tokens |")
    print("|---|---:|---|---:|---:|")
    for kind in KINDS:
        for number in counts:
            for name in programs:
                rounds = results[name, kind, number]
                slopes, once = ([one[figure] for one in rounds] for figure in ("per_token", "per_request"))
                print(f"| {kind} | {number} | {name} | {spread(slopes, 2)} | {spread(once, 0)} |")


if __name__ == "__main__":
    main()
