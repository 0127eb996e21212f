#!/usr/bin/env python3
"""Speed of llama.cpp at embedding short texts with one GGUF file, as one JSON line.

    python bench/peers/llamacpp_embed.py MODEL.gguf [--texts 64] [--tokens 1500] [--threads 2]

As `bench/streamed.py` has it measured: the texts (any ids, as many tokens in all as asked for) are
sequences of one batch, so that the weights are gone through once (or of as many batches as `--batch`
tokens make), pooled at the last token; the file is mapped, as llama.cpp does by default. The only pass is
the measured one: where the file does not fit into memory there is nothing to warm up.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=1500, help="tokens of all texts (default: 1500)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="most tokens of a batch (default: all)")
    parser.add_argument(
        "--as-mapped", action="store_true", help="no second copy of the weights in another layout (use_extra_bufts off)"
    )
    args = parser.parse_args()
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = not args.as_mapped
    model = llama_cpp.llama_model_load_from_file(str(args.model).encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.model}")
    each = [args.tokens // args.texts + (i < args.tokens % args.texts) for i in range(args.texts)]
    params = llama_cpp.llama_context_default_params()
    most = min(args.batch or args.tokens, args.tokens)
    params.n_ctx = params.n_batch = params.n_ubatch = most
    params.n_seq_max = args.texts
    params.n_threads = params.n_threads_batch = args.threads
    params.embeddings = True
    params.pooling_type = 3  # LLAMA_POOLING_TYPE_LAST
    params.kv_unified = True
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise SystemExit(f"llama.cpp cannot make a context for {args.model}")
    vocab_len = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(most, 0, 1)
    begun = time.perf_counter()
    rest = list(each)
    while rest:
        batch.n_tokens = texts = 0
        while rest and batch.n_tokens + rest[0] <= most:
            for position in range(rest.pop(0)):
                i = batch.n_tokens
                batch.token[i] = (i * 7919 + 13) % vocab_len
                batch.pos[i] = position
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = texts
                batch.logits[i] = 1
                batch.n_tokens += 1
            texts += 1
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        vectors = [llama_cpp.llama_get_embeddings_seq(context, text)[0] for text in range(texts)]
        assert all(value == value for value in vectors), "a vector is not a number"
    seconds = time.perf_counter() - begun
    print(
        json.dumps(
            {
                "engine": "llama.cpp",
                "version": importlib.metadata.version("llama-cpp-python"),
                "model": args.model.name,
                "threads": args.threads,
                "texts": args.texts,
                "tokens": args.tokens,
                "batch": most,
                "seconds": seconds,
                "tokens_per_second": args.tokens / seconds,
                "rss_peak_bytes": peak_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
