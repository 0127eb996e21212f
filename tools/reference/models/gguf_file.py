"""GGUF files from our checkpoints, as llama.cpp's converter lays them out, and back.

The conventions that matter: rows of Q and K of the llama architecture are
permuted so that rotary pairs are neighbours, 1-D tensors stay float32, the
llama3 scaling is a tensor of frequency divisors, and WordPiece tokens carry a
leading U+2581 in place of the missing `##`.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize

PERMUTED = ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Halves of each head interleaved: row order 0, d/2, 1, d/2 + 1, ..."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `permute`."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def heads_of(config: dict, name: str) -> int:
    """Heads of the projection of that name."""
    return config["num_attention_heads"] if "q_proj" in name else config["num_key_value_heads"]


def head_dim(config: dict) -> int:
    """Given or derived."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def name_map(config: dict):
    """GGUF names for Hugging Face names."""
    arch = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3, "bert": gguf.MODEL_ARCH.BERT}
    return gguf.get_tensor_name_map(arch[config["model_type"]], config["num_hidden_layers"])


def to_gguf_name(config: dict, name: str) -> str:
    """One tensor's GGUF name."""
    found = name_map(config).get_name(name, try_suffixes=(".weight", ".bias"))
    assert found, name
    return found


def llama3_divisors(config: dict) -> np.ndarray:
    """rope_freqs.weight: what each frequency is divided by under llama3 scaling."""
    scaling = config["rope_scaling"]
    dim = head_dim(config)
    frequency = 1.0 / config["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    length = 2 * np.pi / frequency
    old = scaling["original_max_position_embeddings"]
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    smooth = (old / length - low) / (high - low)
    between = 1.0 / ((1 - smooth) / factor + smooth)
    return np.where(length < old / high, 1.0, np.where(length > old / low, factor, between)).astype(np.float32)


def write(path: Path, directory: Path, config: dict, tensors: dict[str, torch.Tensor], pooling: gguf.PoolingType | None = None) -> None:
    """A float32 GGUF of the tensors; tokenizer and template come from the checkpoint directory."""
    arch = config["model_type"]
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_type("model")
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if arch == "bert":
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        writer.add_causal_attention(False)
        tensors = {n: t for n, t in tensors.items() if n != "embeddings.position_ids" and not n.startswith("pooler.")}
        write_wordpiece(writer, directory, config)
    else:
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        write_rope(writer, config)
        writer.add_vocab_size(config["vocab_size"])
        write_byte_bpe(writer, directory, config)
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if arch == "llama" and name.endswith(PERMUTED):
            values = permute(values, heads_of(config, name))
        prefixed = name if arch == "bert" or name.startswith(("model.", "lm_head.")) else f"model.{name}"
        writer.add_tensor(to_gguf_name(config, prefixed), np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_rope(writer: gguf.GGUFWriter, config: dict) -> None:
    """Base, dimensions and scaling."""
    dim = head_dim(config)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    if config["model_type"] == "llama":
        writer.add_rope_dimension_count(dim)
    scaling = config.get("rope_parameters") or config.get("rope_scaling")
    writer.add_rope_freq_base(config.get("rope_theta") or scaling["rope_theta"])
    kind = (scaling or {}).get("rope_type") or (scaling or {}).get("type")
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    elif kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def write_byte_bpe(writer: gguf.GGUFWriter, directory: Path, config: dict) -> None:
    """Byte-level BPE vocabulary, merges and specials."""
    value = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    about = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {t["id"]: t for t in value["added_tokens"]}
    ids = {i: t for t, i in value["model"]["vocab"].items()} | {i: t["content"] for i, t in special.items()}
    assert sorted(ids) == list(range(config["vocab_size"]))
    by_name = {t: i for i, t in ids.items()}
    llama3 = "<|begin_of_text|>" in by_name
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe" if llama3 else "qwen2")
    writer.add_token_list([ids[i] for i in range(len(ids))])
    writer.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(ids))])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in value["model"]["merges"]])
    appended = json.dumps(value["post_processor"]).count("<|endoftext|>") > 0
    if llama3:
        writer.add_bos_token_id(by_name["<|begin_of_text|>"])
        writer.add_eos_token_id(by_name["<|end_of_text|>"])
        writer.add_add_bos_token(True)
    else:
        writer.add_bos_token_id(by_name["<|endoftext|>"])
        writer.add_eos_token_id(by_name["<|endoftext|>" if appended else "<|im_end|>"])
        writer.add_pad_token_id(by_name["<|endoftext|>"])
        writer.add_add_bos_token(False)
        if appended:
            writer.add_add_eos_token(True)
    if about.get("chat_template"):
        writer.add_chat_template(about["chat_template"])


def write_wordpiece(writer: gguf.GGUFWriter, directory: Path, config: dict) -> None:
    """WordPiece vocabulary in llama.cpp's spelling."""
    value = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {i: t for t, i in value["model"]["vocab"].items()}
    special = {t["id"] for t in value["added_tokens"]}
    spelt = {i: t if i in special else t.removeprefix("##") if t.startswith("##") else f"\u2581{t}" for i, t in ids.items()}
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([spelt[i] for i in range(len(ids))])
    writer.add_token_types([gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(ids))])
    by_name = value["model"]["vocab"]
    writer.add_unk_token_id(by_name["[UNK]"])
    writer.add_sep_token_id(by_name["[SEP]"])
    writer.add_pad_token_id(by_name["[PAD]"])
    writer.add_mask_token_id(by_name["[MASK]"])
    writer.add_bos_token_id(by_name["[CLS]"])
    writer.add_eos_token_id(by_name["[SEP]"])


def read(path: Path, config: dict, names: list[str]) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """The named tensors dequantised to float32 under their own names, and a count per stored type."""
    found = {t.name: t for t in gguf.GGUFReader(str(path)).tensors}
    out, types = {}, {}
    for tensor in found.values():
        types[tensor.tensor_type.name] = types.get(tensor.tensor_type.name, 0) + 1
    for name in names:
        tensor = found[to_gguf_name(config, name if config["model_type"] == "bert" or name.startswith(("model.", "lm_head.")) else f"model.{name}")]
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tuple(int(n) for n in reversed(tensor.shape)))
        if config["model_type"] == "llama" and name.endswith(PERMUTED):
            values = unpermute(values, heads_of(config, name))
        out[name] = torch.from_numpy(np.ascontiguousarray(values))
    return out, dict(sorted(types.items()))
