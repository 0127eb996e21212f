#!/usr/bin/env python3
"""Makes the embedding cases: tiny sentence-transformers directories and their vectors.

    python tools/reference/models/embedding_cases.py [--root DIR] [NAME...]

Without names, all cases. The golden vectors come from sentence-transformers in
float32 on the files just written.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

import checkpoint
import corpus
import vocab
from fixtures import Manifest, default_root, seed_of, versions, write_json, write_npy
from safetensors_cases import qwen

VOCAB = 320
BERT_VOCAB = 400
MIN_COSINE = 0.9999
MAX_ABS = 1e-5

QWEN3_QUERY = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
NOMIC_CODE_QUERY = "Represent this query for searching relevant code: "


def bert(**extra) -> dict:
    """A BERT config in the spelling real checkpoints use."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": BERT_VOCAB,
        "type_vocab_size": 2,
        "max_position_embeddings": 64,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
    } | extra


def pooling(dim: int, mode: str) -> dict:
    """1_Pooling/config.json with one mode set."""
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    flags = {f"pooling_mode_{m}": m == mode for m in modes}
    return {"word_embedding_dimension": dim} | flags | {"include_prompt": True}


# name: feature, config, pooling mode, normalize module, prompts, tokenizer, max_seq_length file, dimensions
CASES = {
    "bert-mean": dict(
        feature="BERT, mean pooling, normalised; max_seq_length 32 cuts below max_position_embeddings; I64 position_ids and a pooler to ignore",
        config=bert(),
        pooling="mean_tokens",
        normalize=True,
        prompts=None,
        max_seq_length=32,
        dimensions=None,
    ),
    "bert-cls": dict(
        feature="BERT, CLS pooling, not normalised by the model, query prompt, three layers",
        config=bert(num_hidden_layers=3),
        pooling="cls_token",
        normalize=False,
        prompts={"query": "represent this sentence for searching: "},
        max_seq_length=64,
        dimensions=None,
    ),
    "qwen3-embedding": dict(
        feature="Qwen3-Embedding: last token, EOS appended by the tokenizer and kept when truncating, names without `model.`, query prompt, dimensions",
        config=qwen(3, tie_word_embeddings=True, max_position_embeddings=112, eos_token_id=VOCAB - 3),
        pooling="lasttoken",
        normalize=True,
        prompts={"query": QWEN3_QUERY, "document": ""},
        append="<|endoftext|>",
        max_seq_length=None,
        dimensions=32,
    ),
    "nomic-embed-code": dict(
        feature="nomic-embed-code: qwen2 with attention bias, last token, nothing appended, query prompt",
        config=qwen(2, architectures=["Qwen2Model"], max_position_embeddings=96),
        pooling="lasttoken",
        normalize=True,
        prompts={"query": NOMIC_CODE_QUERY},
        append=None,
        max_seq_length=None,
        dimensions=None,
    ),
}

TEXTS = [
    "The keeper counted seven lamps at the harbour before dawn.",
    "fn grant(asked: u64, free: u64) -> bool { asked <= free }",
    "42",
    "Žluťoučký kůň 🙂 记账的人",
    "A sailor returned the old map, because nobody else would.",
    "  let x = 1;\n\n",
]
QUERIES = ["who counted the lamps?", "how is a grant decided"]


def write(directory: Path, name: str, case: dict):
    """The checkpoint with the files sentence-transformers reads."""
    config = case["config"]
    tensors = checkpoint.weights(config, seed_of("embedding", name))
    if config["model_type"] == "bert":
        tokenizer, tokenizer_config = vocab.wordpiece(BERT_VOCAB), vocab.wordpiece_config()
        assert tokenizer.get_vocab_size() == BERT_VOCAB
        # As in files written years ago, which are still the ones in use.
        tensors["embeddings.position_ids"] = torch.arange(config["max_position_embeddings"])[None]
    else:
        tokenizer = vocab.byte_bpe("qwen2", VOCAB, append=case["append"])
        assert tokenizer.get_vocab_size() == VOCAB
        tokenizer_config = vocab.byte_bpe_config("qwen2")
        tensors = {k.removeprefix("model."): v for k, v in tensors.items() if not k.startswith("lm_head.")}
    checkpoint.write(directory, config, tensors, tokenizer, tokenizer_config)

    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * case["normalize"]
    write_json(
        directory / "modules.json",
        [{"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{t}"} for i, (p, t) in enumerate(modules)],
    )
    write_json(directory / "1_Pooling" / "config.json", pooling(config["hidden_size"], case["pooling"]))
    about = {"__version__": {"sentence_transformers": "2.7.0", "transformers": "4.41.2", "pytorch": "2.3.0"}}
    if case["prompts"] is not None:
        about |= {"prompts": case["prompts"], "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(directory / "config_sentence_transformers.json", about)
    if case["max_seq_length"] is not None:
        write_json(directory / "sentence_bert_config.json", {"max_seq_length": case["max_seq_length"], "do_lower_case": False})
    return tokenizer


def make(root: Path, name: str) -> dict:
    """Writes the directory and its golden vectors; returns the manifest's case."""
    case = CASES[name]
    directory = root / "models" / name
    tokenizer = write(directory, name, case)
    model = SentenceTransformer(str(directory), device="cpu", model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    limit = model.get_max_seq_length()

    inputs = [{"text": t} for t in TEXTS]
    inputs.append({"text": corpus.text(seed_of("long", name), 12)})
    if case["prompts"] is not None:
        inputs += [{"text": t, "prompt_name": "query"} for t in QUERIES]
    vectors = []
    for item in inputs:
        prompt = case["prompts"][item["prompt_name"]] if "prompt_name" in item else ""
        item["token_ids"] = model.tokenize([prompt + item["text"]])["input_ids"][0].tolist()
        tokenizer.enable_truncation(limit)
        assert item["token_ids"] == tokenizer.encode(prompt + item["text"]).ids
        vectors.append(model.encode(item["text"], prompt=prompt or None, normalize_embeddings=False))
    vectors = np.stack(vectors)
    assert any(len(i["token_ids"]) == limit for i in inputs)
    norms = np.linalg.norm(vectors, axis=1)
    assert case["normalize"] == bool(np.allclose(norms, 1.0, atol=1e-5)), norms
    unit = vectors / norms[:, None]
    cosines = unit @ unit.T
    spread = np.abs(cosines - np.eye(len(unit))).max()
    # Far enough apart for the cosine bound to tell them from one another.
    assert spread < 0.998, spread

    embeddings = [{"file": write_npy(root, f"golden/{name}.embeddings.npy", vectors), "dimensions": vectors.shape[1], "normalized": case["normalize"]}]
    if not case["normalize"]:
        file = write_npy(root, f"golden/{name}.normalized.npy", unit)
        embeddings.append({"file": file, "dimensions": vectors.shape[1], "normalized": True})
    if case["dimensions"] is not None:
        cut = [
            model.encode(i["text"], prompt_name=i.get("prompt_name"), truncate_dim=case["dimensions"], normalize_embeddings=True)
            for i in inputs
        ]
        file = write_npy(root, f"golden/{name}.dimensions.npy", np.stack(cut))
        embeddings.append({"file": file, "dimensions": case["dimensions"], "normalized": True})

    with torch.no_grad():
        first = torch.tensor([inputs[0]["token_ids"]])
        hidden = model[0].model(input_ids=first, attention_mask=torch.ones_like(first)).last_hidden_state[0].numpy()
    print(f"{name}: {len(inputs)} texts, max_tokens {limit}, largest cosine between two {spread:.3f}", file=sys.stderr)
    return {
        "name": name,
        "kind": "embedding",
        "format": "safetensors",
        "model": f"models/{name}",
        "arch": case["config"]["model_type"],
        "feature": case["feature"],
        "stored": "float32",
        "pooling": {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}[case["pooling"]],
        "max_tokens": limit,
        "prompts": case["prompts"] or {},
        "inputs": inputs,
        "embeddings": embeddings,
        "hidden": {"file": write_npy(root, f"golden/{name}.hidden.npy", hidden), "input": 0},
        "tolerance": {"min_cosine": MIN_COSINE, "embedding_max_abs": MAX_ABS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=default_root(), help="fixtures directory (default: tests/fixtures)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases to make (default: all)")
    args = parser.parse_args()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    manifest = Manifest(args.root)
    for name in args.names or CASES:
        manifest.put(make(args.root, name))
    manifest.write(versions("torch", "transformers", "tokenizers", "sentence-transformers", "safetensors", "numpy"))


if __name__ == "__main__":
    main()
