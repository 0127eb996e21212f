#!/usr/bin/env python3
"""Peak memory of one mixed load over three models: Bursar, Bursar with its savings off, llama.cpp.

    python bench/peers/mixed_memory.py [--bursar target/release/bursar] [--models DIR] [--rounds 3]

The load is that of `bench/several_models.py`: a 0.6B and a 1B chat model and a BERT, requests from 8 clients,
sequences of up to 1,024 tokens. Bursar runs in a budget that holds two of the three models; with savings off it
holds all three, with keys and values reserved in one piece for four longest sequences and nothing shared. llama.cpp is
`llama-cpp-python`'s server, one process per model, each with a context of 1,024 tokens (it answers one
request at a time). Engines take turns; memory is the highest sum of RSS over an engine's processes, sampled
every 20 ms, and the highest part of it that is anonymous (without mapped files).
"""

import argparse
import re
import statistics
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mixed_load import Model, run
from serving import MIB, Server, bursar, free_port, synth

MODELS = {"qwen3-0.6b:q4_k_m": 0.4, "llama-3.2-1b:q4_k_m": 0.3, "all-minilm-l6-v2:f32": 0.3}
COMMON = ["--context", "1024", "--parallel", "4"]
OFF = ["--kv-contiguous", "--no-prefix-cache", "--keep-alive", "-1"]


class Watch:
    """The highest sum of RSS, and of its anonymous part, over processes."""

    def __init__(self, servers: list[Server]) -> None:
        self.pids = [server.process.pid for server in servers]
        self.rss = self.anonymous = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.over.wait(0.02):
            rss = anonymous = 0
            for pid in self.pids:
                text = Path(f"/proc/{pid}/status").read_text()
                rss += int(re.search(r"^VmRSS:\s+(\d+)", text, re.M)[1]) * 1024
                anonymous += int(re.search(r"^RssAnon:\s+(\d+)", text, re.M)[1]) * 1024
            self.rss, self.anonymous = max(self.rss, rss), max(self.anonymous, anonymous)

    def end(self) -> None:
        self.over.set()
        self.thread.join()


def llama(path: Path, embeds: bool) -> Server:
    port = free_port()
    return Server(
        [sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--host", "127.0.0.1", "--port", str(port),
         "--n_ctx", "1024", "--n_threads", "2", "--n_threads_batch", "2", "--embedding", str(embeds).lower(),
         # Else a request that comes cuts off the stream that another client is reading.
         "--interrupt_requests", "false"],
        f"http://127.0.0.1:{port}", "/v1/models",
    )


def measure(name: str, args: argparse.Namespace, paths: list[Path], models: list[Model]) -> tuple[float, float, float]:
    """Peak RSS, peak anonymous memory, seconds."""
    if name == "llama.cpp":
        servers = [llama(path, not model.chats) for path, model in zip(paths, models)]
        where = {model.name: server.url.netloc for model, server in zip(models, servers)}
    else:
        flags = ["--memory", f"{args.memory}MiB", "--kv-memory", "112MiB", "--models-dir", str(paths[0].parent), str(paths[0])]
        if name == "savings off":
            flags = ["--memory", "6GiB", *OFF, *map(str, paths)]
        servers = [bursar(args.bursar, *COMMON, *flags)]
        where = servers[0]
    watch = Watch(servers)
    out = run(where, models, args.requests, 8, 0)
    watch.end()
    peak = sum(server.proc("VmHWM") for server in servers)
    for server in servers:
        server.stop()
    if out.statuses[200] + out.cancelled < args.requests and name != "llama.cpp":
        print(f"{name}: {dict(out.statuses)} {out.faults[:3]}", file=sys.stderr)
    # One process: the kernel's own high-water mark is exact.
    return (peak if len(servers) == 1 else watch.rss), watch.anonymous, out.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursar", default="target/release/bursar")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "bursar-models")
    parser.add_argument("--memory", type=int, default=1100, help="MiB")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    folder = args.models / "several"
    paths = [synth(args.bursar, preset, folder) for preset in MODELS]
    models = [Model(path.stem, "minilm" not in path.stem, share) for path, share in zip(paths, MODELS.values())]
    names = ["Bursar", "savings off", "llama.cpp"]
    seen: dict[str, list] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            seen[name].append(measure(name, args, paths, models))
            rss, _, seconds = seen[name][-1]
            print(f"{name}: {rss / MIB:.0f} MiB after {seconds:.1f} s", file=sys.stderr, flush=True)
    print("| | peak RSS, MiB | of it anonymous, at most | Bursar's peak is | s for all requests |\n|---|---|---|---|---|")
    for name in names:
        rss, anonymous, seconds = (statistics.median(values) for values in zip(*seen[name]))
        share = statistics.median(own[0] / other[0] for own, other in zip(seen["Bursar"], seen[name]))
        print(f"| {name} | {rss / MIB:.0f} | {anonymous / MIB:.0f} | {share:.2f} of it | {seconds:.1f} |")


if __name__ == "__main__":
    main()
