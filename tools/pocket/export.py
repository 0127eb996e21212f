"""Writes a checkpoint as GGUF: matrices as Q8_0 (or another type), norms as 32-bit floats.

    python export.py chat CHECKPOINT VOCABULARY OUT.gguf
    python export.py embed CHECKPOINT VOCABULARY OUT.gguf

The files are ordinary `qwen3` files. pocket-chat is a byte-level BPE (`gpt2`) with a ChatML template;
pocket-embed a WordPiece (`bert`), pooled at the last token, which is [SEP].
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, quants
from gguf.constants import PoolingType, TokenType

from decoder import Shape
from vocab import END_OF_TEXT, TURN_END, TURN_START

LICENCE = "MIT OR Apache-2.0"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Texts longer than those in training are cut, rather than pooled over positions never seen.
EMBED_TOKENS_MAX = 256


def settings(writer: GGUFWriter, shape: Shape, name: str, about: str) -> None:
    """What both models say of themselves."""
    writer.add_type("model")
    writer.add_name(name)
    writer.add_description(about)
    writer.add_license(LICENCE)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.theta)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(2)


def by_id(vocab: dict[str, int]) -> list[str]:
    """Token texts in order of their ids."""
    return [text for text, _ in sorted(vocab.items(), key=lambda entry: entry[1])]


def chat_vocabulary(writer: GGUFWriter, tokenizer: dict) -> None:
    """A byte-level BPE."""
    tokens = by_id(tokenizer["model"]["vocab"])
    control = {END_OF_TEXT, TURN_START, TURN_END}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if t in control else TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(tokens.index(END_OF_TEXT))
    writer.add_eos_token_id(tokens.index(END_OF_TEXT))
    writer.add_eot_token_id(tokens.index(TURN_END))
    writer.add_pad_token_id(tokens.index(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(TEMPLATE)
    # So small a model repeats itself and wanders: stay near the likeliest words, and away from old ones.
    writer.add_float32("general.sampling.temp", 0.4)
    writer.add_uint32("general.sampling.top_k", 20)
    writer.add_float32("general.sampling.penalty_repeat", 1.15)


def embed_vocabulary(writer: GGUFWriter, tokenizer: dict) -> None:
    """A WordPiece, in GGUF's spelling: a mark begins a word, nothing marks what continues one."""
    mark = "\u2581"
    texts, kinds = [], []
    tokens = by_id(tokenizer["model"]["vocab"])
    for number, token in enumerate(tokens):
        special = number < 5
        texts.append(token if special else token[2:] if token.startswith("##") else mark + token)
        kinds.append(TokenType.UNKNOWN if token == "[UNK]" else TokenType.CONTROL if special else TokenType.NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_uint32("tokenizer.ggml.cls_token_id", 2)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_pooling_type(PoolingType.LAST)
    writer.add_uint32("bursar.embedding.max_tokens", EMBED_TOKENS_MAX)


def tensor_name(parameter: str) -> str:
    """GGUF's name: norms are parameters themselves, not modules with a weight."""
    return parameter if parameter.endswith(".weight") else parameter + ".weight"


def write(kind: str, checkpoint: Path, vocabulary: Path, out: Path) -> None:
    """Writes one model."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    shape = Shape(**saved["shape"])
    tokenizer = json.loads(vocabulary.read_text())
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(str(out), "qwen3")
    if kind == "chat":
        settings(writer, shape, "pocket-chat", "A tiny language model of Rust documentation and code")
        chat_vocabulary(writer, tokenizer)
    else:
        settings(writer, shape, "pocket-embed", "A tiny embedding model for searching code by what it does")
        embed_vocabulary(writer, tokenizer)
    for name, tensor in saved["model"].items():
        array = tensor.float().numpy()
        if array.ndim == 2:
            packed = quants.quantize(array, GGMLQuantizationType.Q8_0)
            writer.add_tensor(tensor_name(name), packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(tensor_name(name), array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{out}: {out.stat().st_size} bytes, {sum(t.numel() for t in saved['model'].values())} parameters")


if __name__ == "__main__":
    write(sys.argv[1], *(Path(argument) for argument in sys.argv[2:5]))
