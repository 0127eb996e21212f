#!/usr/bin/env python3
"""Makes the safetensors language-model cases: one tiny checkpoint per feature.

    python tools/reference/models/safetensors_cases.py [--root DIR] [NAME...]

Without names, all cases. The golden logits come from transformers in float32 on
the files just written.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

import checkpoint
import corpus
import vocab
from fixtures import Manifest, default_root, seed_of, versions, write_npy

TOLERANCE = 1e-4
VOCAB = 320


def llama(**extra) -> dict:
    """A Llama config in the spelling real checkpoints use."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": VOCAB - 5,
        "eos_token_id": VOCAB - 4,
        "torch_dtype": "float32",
        "use_cache": True,
    } | extra


def qwen(version: int, **extra) -> dict:
    """A Qwen 2 or Qwen 3 config; its sliding_window is a trap, for use_sliding_window is false."""
    config = llama() | {
        "architectures": [f"Qwen{version}ForCausalLM"],
        "model_type": f"qwen{version}",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 8,
        "use_sliding_window": False,
        "max_window_layers": 2,
        "bos_token_id": VOCAB - 3,
        "eos_token_id": VOCAB - 1,
    }
    del config["mlp_bias"]
    if version == 2:
        del config["attention_bias"]
    else:
        config["head_dim"] = 32
    return config | extra


def mistral(**extra) -> dict:
    """A Mistral config."""
    config = llama() | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 16}
    del config["attention_bias"], config["mlp_bias"]
    return config | extra


# name: (feature, config, tokenizer dialect, tokens in the golden run, stored dtype, shards)
CASES = {
    "llama": ("grouped-query attention, untied output", llama(), "llama3", 64, torch.float32, 1),
    "qwen3": ("QK norm, head_dim other than hidden_size / heads, tied output", qwen(3, tie_word_embeddings=True), "qwen2", 64, torch.float32, 1),
    "llama-tied": (
        "tied output, eos_token_id a list, head_dim given",
        llama(tie_word_embeddings=True, eos_token_id=[VOCAB - 4, VOCAB - 3], head_dim=16),
        "llama3",
        48,
        torch.float32,
        1,
    ),
    "llama-rope-linear": ("linear RoPE scaling, spelt `type`", llama(rope_scaling={"type": "linear", "factor": 4.0}), "llama3", 64, torch.float32, 1),
    "llama-rope-llama3": (
        "llama3 RoPE scaling with frequencies in all three ranges",
        llama(
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        ),
        "llama3",
        96,
        torch.float32,
        1,
    ),
    "llama-rope-yarn": (
        "YaRN with beta_fast and beta_slow given, head_dim 32",
        llama(
            head_dim=32,
            rope_scaling={
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "beta_fast": 4.0,
                "beta_slow": 1.0,
            },
            max_position_embeddings=256,
        ),
        "llama3",
        96,
        torch.float32,
        1,
    ),
    "qwen3-rope-yarn": (
        "YaRN with default betas, written as rope_parameters without rope_theta and rope_scaling",
        {
            k: v
            for k, v in qwen(
                3,
                rope_parameters={
                    "rope_type": "yarn",
                    "rope_theta": 10000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 512,
                },
                max_position_embeddings=2048,
            ).items()
            if k != "rope_theta"
        },
        "qwen2",
        64,
        torch.float32,
        1,
    ),
    "mistral-sliding-window": ("sliding window of 12 in a run of 72", mistral(sliding_window=12), "llama3", 72, torch.float32, 1),
    "llama-bias": ("attention_bias and mlp_bias", llama(attention_bias=True, mlp_bias=True), "llama3", 64, torch.float32, 1),
    "qwen2": ("bias on Q, K and V; unused sliding_window", qwen(2), "qwen2", 64, torch.float32, 1),
    "llama-sharded": ("three safetensors shards with an index, three layers", llama(num_hidden_layers=3), "llama3", 40, torch.float32, 3),
    "llama-bf16": ("weights stored as BF16", llama(torch_dtype="bfloat16"), "llama3", 64, torch.bfloat16, 1),
    "qwen2-f16": ("weights stored as F16, biases too", qwen(2, torch_dtype="float16"), "qwen2", 64, torch.float16, 1),
}


def make(root: Path, name: str) -> dict:
    """Writes the checkpoint and its golden run; returns the manifest's case."""
    feature, config, dialect, tokens, dtype, shards = CASES[name]
    directory = root / "models" / name
    tokenizer = vocab.byte_bpe(dialect, VOCAB)
    assert tokenizer.get_vocab_size() == VOCAB
    tensors = {k: v.to(dtype) for k, v in checkpoint.weights(config, seed_of("safetensors", name)).items()}
    generation = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"], "temperature": 0.6, "top_p": 0.9, "do_sample": True}
    checkpoint.write(directory, config, tensors, tokenizer, vocab.byte_bpe_config(dialect), generation, shards)

    text, ids = prompt(tokenizer, seed_of("prompt", name), tokens)
    logits = checkpoint.logits(checkpoint.load(directory), ids)
    noise = checkpoint.noise(directory, ids, logits)
    assert noise < TOLERANCE / 5, noise
    if name in OFF:
        change = difference_when_off(directory, config, OFF[name], ids, logits)
        assert change > 0.2, change
    print(f"{name}: {len(ids)} tokens, logits std {logits.std():.2f} max {np.abs(logits).max():.2f}, float32 noise {noise:.1e}", file=sys.stderr)
    return {
        "name": name,
        "kind": "logits",
        "format": "safetensors",
        "model": f"models/{name}",
        "arch": "llama" if config["model_type"] == "mistral" else config["model_type"],
        "feature": feature,
        "stored": str(dtype).removeprefix("torch."),
        "text": text,
        "token_ids": ids,
        "logits": {
            "file": write_npy(root, f"golden/{name}.logits.npy", logits),
            "first_position": 0,
            "position_step": 1,
        },
        "tolerance": {"logits_max_abs": TOLERANCE},
        "reference_noise": noise,
    }


# What to change in the config so that the case's feature is off. The logits must
# then be far from the golden ones, or the case would not test the feature.
OFF = {
    "llama-rope-linear": {"rope_scaling": None},
    "llama-rope-llama3": {"rope_scaling": None},
    "llama-rope-yarn": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "qwen3-rope-yarn": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "mistral-sliding-window": {"sliding_window": None},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 0},
}


def difference_when_off(directory: Path, config: dict, off: dict, ids: list[int], logits: np.ndarray) -> float:
    """Largest change of a logit when the feature is off."""
    changed = checkpoint.logits(checkpoint.load(directory, config=config | off), ids)
    return float(np.abs(changed - logits).max())


def prompt(tokenizer, seed: int, tokens: int) -> tuple[str, list[int]]:
    """A text of whole characters that encodes to about that many tokens, and its ids."""
    text = corpus.text(seed, 200)
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(tokenizer.encode(text[:middle]).ids) <= tokens:
            low = middle
        else:
            high = middle - 1
    return text[:low], tokenizer.encode(text[:low]).ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=default_root(), help="fixtures directory (default: tests/fixtures)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to make (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    manifest = Manifest(args.root)
    for name in args.names or CASES:
        manifest.put(make(args.root, name))
    manifest.write(versions("torch", "transformers", "tokenizers", "safetensors", "numpy"))


if __name__ == "__main__":
    main()
