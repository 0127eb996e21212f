#!/usr/bin/env python3
"""Prefill and decode speed of llama.cpp on one GGUF file, as one JSON line.

    python bench/peers/llamacpp.py MODEL.gguf [--threads 2] [--prefill 512] [--decode 128]

Through llama-cpp-python's low-level interface, KV in float16, everything else at
llama.cpp's defaults. The prompt goes in as one batch with logits for its last
token; decoding follows on it, one token a step, with given tokens instead of
sampled ones. A full run of the same shape, thrown away, warms caches and pages.
"""

import argparse
import ctypes
import importlib.metadata
import json
import time
from pathlib import Path

import llama_cpp


@llama_cpp.llama_log_callback
def silent(_level, _text, _data):
    """Drops llama.cpp's log lines."""


def peak_bytes() -> int:
    """VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class Runner:
    """One model, one context, one sequence."""

    def __init__(self, path: Path, threads: int, tokens: int, batch: int):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = tokens
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = 1  # GGML_TYPE_F16
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context for {path}")
        self.vocab_len = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(batch, 0, 1)

    def step(self, first: int, count: int) -> None:
        """Runs tokens `first..first + count`; the last one's logits are read."""
        self.batch.n_tokens = count
        for i in range(count):
            position = first + i
            # Any ids will do, spread over the vocabulary.
            self.batch.token[i] = (position * 7919 + 13) % self.vocab_len
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = i == count - 1
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        # Waits for the result, as a sampler would.
        assert llama_cpp.llama_get_logits_ith(self.context, -1)[0] is not None

    def run(self, prefill: int, decode: int) -> tuple[float, float]:
        """Seconds of both phases from an empty KV."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        begun = time.perf_counter()
        self.step(0, prefill)
        middle = time.perf_counter()
        for i in range(decode):
            self.step(prefill + i, 1)
        return middle - begun, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefill", type=int, default=512, help="prompt tokens (default: 512)")
    parser.add_argument("--decode", type=int, default=128, help="tokens after the prompt (default: 128)")
    parser.add_argument("--no-warm-up", action="store_true", help="measure the first run")
    args = parser.parse_args()
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    runner = Runner(args.model, args.threads, args.prefill + args.decode, args.prefill)
    if not args.no_warm_up:
        runner.run(args.prefill, min(args.decode, 16))
    prefill, decode = runner.run(args.prefill, args.decode)
    print(
        json.dumps(
            {
                "engine": "llama.cpp",
                "version": importlib.metadata.version("llama-cpp-python"),
                "model": args.model.name,
                "threads": args.threads,
                "kv_dtype": "f16",
                "prefill_tokens": args.prefill,
                "decode_tokens": args.decode,
                "prefill_tokens_per_second": round(args.prefill / prefill, 3),
                "decode_tokens_per_second": round(args.decode / decode, 3),
                "peak_rss_bytes": peak_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
