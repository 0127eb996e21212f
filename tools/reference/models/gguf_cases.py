#!/usr/bin/env python3
"""Makes the GGUF cases: float files per feature, and one file per quantised type.

    python tools/reference/models/gguf_cases.py [--root DIR] [--bases DIR] [NAME...]

Without names, all cases. Files are quantised by llama.cpp. The golden logits come
from transformers in float32 on the dequantised weights of the very file, and
beside them stand the figures of llama.cpp's own run of that file. The embedding
cases need those of embedding_cases.py, whose weights they share. `--bases` keeps
the trained float32 models between runs (default: made anew each time).
"""

import argparse
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

import checkpoint
import corpus
import embedding_cases
import gguf_file
import llamacpp
import train
import vocab
from fixtures import Manifest, default_root, seed_of, versions, write_npy
from safetensors_cases import TOLERANCE, llama, prompt, qwen

# Not a multiple of 16: the last panel of the output matrix is a partial one.
VOCAB = 324
POSITIONS = 520
ROW_FIRST, ROW_STEP = 7, 8
MAX_NMSE = 1e-3

WIDE = dict(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2, vocab_size=VOCAB, max_position_embeddings=1024)
SMALL = dict(vocab_size=VOCAB, max_position_embeddings=1024, intermediate_size=160)
LLAMA_IDS = dict(bos_token_id=VOCAB - 5, eos_token_id=VOCAB - 4)
QWEN_IDS = dict(bos_token_id=VOCAB - 3, eos_token_id=VOCAB - 1)
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}

# Trained float32 models: config, tokenizer dialect, steps.
BASES = {
    "llama-wide": (llama(**WIDE, **LLAMA_IDS), "llama3", 300),
    "qwen3-wide": (
        qwen(3, **{**WIDE, "intermediate_size": 256, "head_dim": 128, "num_key_value_heads": 1}, **QWEN_IDS, tie_word_embeddings=True),
        "qwen2",
        250,
    ),
    "llama-small": (llama(**SMALL, **LLAMA_IDS, num_hidden_layers=3), "llama3", 400),
    "llama-small-llama3": (llama(**SMALL, **LLAMA_IDS, rope_scaling=LLAMA3_SCALING, tie_word_embeddings=True), "llama3", 400),
    "qwen2-small": (qwen(2, **SMALL, **QWEN_IDS), "qwen2", 400),
    "qwen3-small-yarn": (qwen(3, **SMALL, **QWEN_IDS, rope_scaling=YARN, tie_word_embeddings=True), "qwen2", 400),
}

F = gguf.LlamaFileType
# Cases of kind logits are short: they compare float32 runs, whose rotary angles
# differ by rounding in proportion to the position.
SHORT = {"llama-rope-freqs": 192, "qwen2-bias": 192, "qwen3-yarn": 192}
# name: base, stored, llama.cpp file type, pure, feature
CASES = {
    "llama-q4_0": ("llama-wide", "Q4_0", F.MOSTLY_Q4_0, True, "every matrix Q4_0"),
    "llama-q4_1": ("llama-wide", "Q4_1", F.MOSTLY_Q4_1, True, "every matrix Q4_1"),
    "llama-q5_0": ("llama-wide", "Q5_0", F.MOSTLY_Q5_0, True, "every matrix Q5_0"),
    "llama-q5_1": ("llama-wide", "Q5_1", F.MOSTLY_Q5_1, True, "every matrix Q5_1"),
    "llama-q8_0": ("llama-wide", "Q8_0", F.MOSTLY_Q8_0, True, "every matrix Q8_0"),
    "llama-q4_k": ("llama-wide", "Q4_K", F.MOSTLY_Q4_K_S, True, "every matrix Q4_K"),
    "llama-q5_k": ("llama-wide", "Q5_K", F.MOSTLY_Q5_K_S, True, "every matrix Q5_K"),
    "llama-q6_k": ("llama-wide", "Q6_K", F.MOSTLY_Q6_K, True, "every matrix Q6_K"),
    "llama-q4_k_m": ("llama-wide", "Q4_K_M", F.MOSTLY_Q4_K_M, False, "the mix Q4_K_M"),
    "llama-q5_k_s": ("llama-wide", "Q5_K_S", F.MOSTLY_Q5_K_S, False, "the mix Q5_K_S"),
    "qwen3-q4_k_m": ("qwen3-wide", "Q4_K_M", F.MOSTLY_Q4_K_M, False, "the mix Q4_K_M, QK norm, tied output, one KV head of 128"),
    "llama-f16": ("llama-small", "F16", F.MOSTLY_F16, False, "every matrix F16, three layers"),
    "llama-bf16": ("llama-small", "BF16", F.MOSTLY_BF16, False, "every matrix BF16, three layers"),
    "llama-rope-freqs": ("llama-small-llama3", "F32", F.ALL_F32, False, "llama3 RoPE scaling as rope_freqs.weight, tied output"),
    "qwen2-bias": ("qwen2-small", "F32", F.ALL_F32, False, "bias on Q, K and V"),
    "qwen3-yarn": ("qwen3-small-yarn", "F16", F.MOSTLY_F16, False, "YaRN from rope.scaling.*, default betas, QK norm"),
}
# name: embedding case whose weights are used, pooling
EMBEDDINGS = {
    "bert-mean": gguf.PoolingType.MEAN,
    "bert-cls": gguf.PoolingType.CLS,
    "qwen3-embedding": gguf.PoolingType.LAST,
}


class Base:
    """A trained float32 checkpoint and its GGUF."""

    def __init__(self, bases: Path, name: str):
        self.config, dialect, steps = BASES[name]
        self.directory = bases / name
        self.gguf = bases / f"{name}.gguf"
        self.tokenizer = vocab.byte_bpe(dialect, VOCAB)
        assert self.tokenizer.get_vocab_size() == VOCAB
        if not (self.directory / "model.safetensors").exists():
            print(f"training {name}", file=sys.stderr)
            tensors = train.train(self.config, self.tokenizer, seed_of("train", name), steps)
            checkpoint.write(self.directory, self.config, tensors, self.tokenizer, vocab.byte_bpe_config(dialect))
        self.tensors = load_file(self.directory / "model.safetensors")
        gguf_file.write(self.gguf, self.directory, self.config, self.tensors)


def make(root: Path, base: Base, name: str) -> dict:
    """Quantises, runs both references, and returns the manifest's case."""
    _, stored, file_type, pure, feature = CASES[name]
    model = root / "models" / f"{name}.gguf"
    model.parent.mkdir(parents=True, exist_ok=True)
    if file_type == F.ALL_F32:
        model.write_bytes(base.gguf.read_bytes())
    else:
        llamacpp.quantize(base.gguf, model, int(file_type), pure)
    text, ids = prompt(base.tokenizer, seed_of("held out"), SHORT.get(name, POSITIONS))
    assert len(ids) >= 512 or name in SHORT

    with tempfile.TemporaryDirectory() as scratch:
        tensors, types = gguf_file.read(model, base.config, list(base.tensors))
        directory = Path(scratch)
        checkpoint.write(directory, base.config, tensors, base.tokenizer, {})
        logits = checkpoint.logits(checkpoint.load(directory), ids)
        noise = checkpoint.noise(directory, ids, logits)
    assert noise < TOLERANCE / 3, noise

    figures = {}
    for label, kv_type, flash in (("kv_f32", llamacpp.GGML_F32, False), ("kv_f16", llamacpp.GGML_F16, True)):
        session = llamacpp.Session(model, kv_type, flash=flash)
        assert session.tokenize(text) == ids
        figures[label] = llamacpp.compare(session.logits(ids), logits)
        session.close()
    best = np.sort(logits, axis=1)
    margin = best[:, -1] - best[:, -2]
    figures["positions_with_margin_over_twice_max_abs"] = float((margin > 2 * figures["kv_f32"]["max_abs"]).mean())
    figures = rounded(figures)
    print(f"{name}: {types} {len(ids)} tokens, logits std {logits.std():.2f}, noise {noise:.1e}, median margin {np.median(margin):.2f}, {figures}", file=sys.stderr)

    case = {
        "name": f"{name}-gguf",
        "kind": "logits" if name in SHORT else "quantized",
        "format": "gguf",
        "model": f"models/{name}.gguf",
        "arch": base.config["model_type"],
        "feature": feature,
        "stored": stored,
        "tensor_types": types,
        "text": text,
        "token_ids": ids,
        "logits": {
            "file": write_npy(root, f"golden/{name}-gguf.logits.npy", logits[ROW_FIRST::ROW_STEP]),
            "first_position": ROW_FIRST,
            "position_step": ROW_STEP,
        },
        "argmax": write_npy(root, f"golden/{name}-gguf.argmax.npy", logits.argmax(axis=1).astype("<u4")),
        "margin": write_npy(root, f"golden/{name}-gguf.margin.npy", margin.astype("<f4")),
        "tolerance": {"logits_max_abs": TOLERANCE},
        "reference_noise": noise,
        "llama_cpp": figures,
    }
    if name not in SHORT:
        case["tolerance"]["nmse"] = MAX_NMSE
    return case


def rounded(value):
    """Four significant digits, so that the table can be read."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return float(f"{value:.4g}")


def make_embedding(root: Path, name: str) -> dict:
    """A float32 GGUF of an embedding case; it knows no prompts, and normalised vectors are golden."""
    source = embedding_cases.CASES[name]
    config = source["config"]
    directory = root / "models" / name
    model = root / "models" / f"{name}.gguf"
    model.parent.mkdir(parents=True, exist_ok=True)
    gguf_file.write(model, directory, config, load_file(directory / "model.safetensors"), EMBEDDINGS[name])
    limit = config["max_position_embeddings"]
    reference = SentenceTransformer(str(directory), device="cpu", model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    reference.max_seq_length = limit
    session = llamacpp.Session(model, context=256, embedding=True)
    inputs, vectors, cosines = [], [], []
    for text in [*embedding_cases.TEXTS, corpus.text(seed_of("long", name), 12)]:
        ids = reference.tokenize([text])["input_ids"][0].tolist()
        if len(ids) < limit:
            assert session.tokenize(text) == ids, (text, session.tokenize(text), ids)
        inputs.append({"text": text, "token_ids": ids})
        vectors.append(reference.encode(text, prompt="", normalize_embeddings=True))
        theirs = session.embedding(ids)
        cosines.append(float(vectors[-1] @ theirs / np.linalg.norm(theirs)))
    session.close()
    print(f"{name}: {len(inputs)} texts, llama.cpp's lowest cosine {min(cosines):.6f}", file=sys.stderr)
    vectors = np.stack(vectors)
    return {
        "name": f"{name}-gguf",
        "kind": "embedding",
        "format": "gguf",
        "model": f"models/{name}.gguf",
        "arch": config["model_type"],
        "feature": f"{EMBEDDINGS[name].name.lower()} pooling from GGUF metadata",
        "stored": "F32",
        "pooling": EMBEDDINGS[name].name.lower(),
        "max_tokens": limit,
        "prompts": {},
        "inputs": inputs,
        "embeddings": [
            {"file": write_npy(root, f"golden/{name}-gguf.embeddings.npy", vectors), "dimensions": vectors.shape[1], "normalized": True}
        ],
        "tolerance": {"min_cosine": embedding_cases.MIN_COSINE, "embedding_max_abs": embedding_cases.MAX_ABS},
        "llama_cpp": {"min_cosine": round(min(cosines), 6)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=default_root(), help="fixtures directory (default: tests/fixtures)")
    parser.add_argument("--bases", type=Path, help="where trained models are kept (default: a temporary directory)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"cases to make: {', '.join([*CASES, *EMBEDDINGS])} (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = args.names or [*CASES, *EMBEDDINGS]
    manifest = Manifest(args.root)
    with tempfile.TemporaryDirectory() as scratch:
        bases = args.bases or Path(scratch)
        bases.mkdir(parents=True, exist_ok=True)
        made = {}
        for name in names:
            if name in EMBEDDINGS:
                manifest.put(make_embedding(args.root, name))
                continue
            base = CASES[name][0]
            made[base] = made.get(base) or Base(bases, base)
            manifest.put(make(args.root, made[base], name))
    manifest.write(versions("torch", "transformers", "tokenizers", "sentence-transformers", "gguf", "llama-cpp-python", "numpy"))


if __name__ == "__main__":
    main()
