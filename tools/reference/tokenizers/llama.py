"""What llama.cpp makes of the corpus, from GGUF files with the same vocabularies."""

import ctypes
import json

import gguf
import llama_cpp

from corpus import NASTY

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

# The fixture's name → GGUF's model and pre-tokenizer, and the tokens with a role.
KINDS = {
    "qwen2": ("gpt2", "qwen2", {"eos": "<|im_end|>"}),
    "llama3": ("gpt2", "llama-bpe", {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"}),
    "gpt2": ("gpt2", "gpt-2", {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}),
    "default": ("gpt2", "default", {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}),
    "llama2": ("llama", "default", {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}),
    "bert": (
        "bert",
        "jina-v2-en",
        {"bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]"},
    ),
}


def phantom(token):
    """BERT's tokens as GGUF writes them: a mark begins a word, nothing continues one."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


def vocabulary(tokenizer, model):
    """Tokens, types and scores by id."""
    added = {id: token for id, token in tokenizer.get_added_tokens_decoder().items()}
    tokens, types, scores = [], [], []
    ordered = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    for token, id in ordered:
        kind = NORMAL
        if id in added:
            kind = CONTROL if added[id].special else USER_DEFINED
        if model == "llama":
            kind = UNKNOWN if token == "<unk>" else BYTE if token.startswith("<0x") else kind
        tokens.append(phantom(token) if model == "bert" else token)
        types.append(kind)
        scores.append(-float(id))
    return tokens, types, scores


def write_gguf(path, tokenizer, name):
    model, pre, roles = KINDS[name]
    tokens, types, scores = vocabulary(tokenizer, model)
    writer = gguf.GGUFWriter(path, "llama" if model != "bert" else "bert")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if model == "llama":
        writer.add_token_scores(scores)
        writer.add_add_space_prefix(True)
    if model == "gpt2":
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        writer.add_token_merges([" ".join(merge) for merge in merges])
    ids = {role: tokenizer.token_to_id(token) for role, token in roles.items()}
    for role, id in ids.items():
        getattr(writer, f"add_{role}_token_id")(id)
    # llama.cpp reads these even of a file without weights.
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    if model == "bert":
        writer.add_causal_attention(False)
        writer.add_token_type_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    # The tokens themselves are in the fixture that this was made from.
    return {"model": model, "pre": pre, "roles": ids}


def detokenize(model, ids, whole):
    """The text of `ids`: of the whole, or of a byte-level vocabulary the pieces joined.

    Of those, llama.cpp removes spaces before punctuation from the whole for some pre-tokenizers,
    which is no property of the vocabulary. The binding's own method cuts long pieces.
    """
    vocab = llama_cpp.llama_model_get_vocab(model.model)
    buffer = ctypes.create_string_buffer(16 * 1024)
    if whole:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        length = llama_cpp.llama_detokenize(
            vocab, tokens, len(ids), buffer, len(buffer), False, True
        )
        assert length >= 0, length
        return buffer.raw[:length]
    text = b""
    for id in ids:
        length = llama_cpp.llama_token_to_piece(vocab, id, buffer, len(buffer), 0, True)
        assert length >= 0, length
        text += buffer.raw[:length]
    return text


def golden(tokenizer, name, scratch):
    """Per text: ids with everything, ids of plain text, and what the latter decode to."""
    path = scratch / f"{name}.gguf"
    vocab = write_gguf(path, tokenizer, name)
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    cases = []
    for text in NASTY:
        data = text.encode()
        full = model.tokenize(data, add_bos=True, special=True)
        bare = model.tokenize(data, add_bos=False, special=False)
        # The bytes may end in half a character, which UTF-8 cannot say but Latin-1 can.
        text = detokenize(model, bare, whole=vocab["model"] == "llama").decode("latin-1")
        cases.append({"full": full, "bare": bare, "text": text})
    return {"vocab": vocab, "cases": cases}
