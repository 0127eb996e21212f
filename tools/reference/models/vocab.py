"""Tiny tokenizers trained on the built-in text, as real tokenizer.json files.

Byte-level BPE in the two pre-tokenizer dialects that matter (Llama 3's and
Qwen 2's regular expressions) and WordPiece for BERT.
"""

from collections import Counter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import corpus

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LLAMA3_SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
QWEN_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def byte_bpe(dialect: str, vocab_size: int, append: str | None = None) -> Tokenizer:
    """Byte-level BPE; `dialect` is llama3 or qwen2, `append` a special token put after every text."""
    specials = LLAMA3_SPECIALS if dialect == "llama3" else QWEN_SPECIALS
    tokenizer = Tokenizer(models.BPE())
    if dialect == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    split = LLAMA3_SPLIT if dialect == "llama3" else QWEN2_SPLIT
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.lines(1, 400), trainer)
    # Like the real files: specials follow the ordinary vocabulary.
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    byte_level = processors.ByteLevel(add_prefix_space=True, trim_offsets=False)
    if dialect == "llama3":
        bos = specials[0]
        template = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, tokenizer.token_to_id(bos))],
        )
        tokenizer.post_processor = processors.Sequence([byte_level, template])
    elif append is not None:
        template = processors.TemplateProcessing(
            single=f"$A {append}",
            pair=f"$A {append} $B:1 {append}:1",
            special_tokens=[(append, tokenizer.token_to_id(append))],
        )
        tokenizer.post_processor = processors.Sequence([byte_level, template])
    else:
        tokenizer.post_processor = byte_level
    return tokenizer


def byte_bpe_config(dialect: str, **extra) -> dict:
    """tokenizer_config.json for `byte_bpe`."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096, "clean_up_tokenization_spaces": False}
    if dialect == "llama3":
        config |= {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "chat_template": LLAMA3_CHAT}
    else:
        config |= {
            "add_bos_token": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "chat_template": CHATML,
        }
    return config | extra


def wordpieces(words: Counter, vocab_size: int) -> list[str]:
    """Specials, the characters, then frequent words and word endings; the library's trainer breaks ties at random."""
    characters = Counter()
    pieces = Counter()
    for word, count in words.items():
        for i, character in enumerate(word):
            characters[character if i == 0 else f"##{character}"] += count
        if len(word) > 1:
            pieces[word] += count * len(word)
        for size in range(2, min(5, len(word))):
            pieces[f"##{word[-size:]}"] += count * size
    ordered = [t for counter in (characters, pieces) for t, _ in sorted(counter.items(), key=lambda e: (-e[1], e[0]))]
    return (BERT_SPECIALS + ordered)[:vocab_size]


def wordpiece(vocab_size: int) -> Tokenizer:
    """Lower-casing WordPiece with BERT's template and its usual five specials."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(w for line in corpus.lines(1, 400) for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line)))
    vocab = {t: i for i, t in enumerate(wordpieces(words, vocab_size))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in BERT_SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    return tokenizer


def wordpiece_config() -> dict:
    """tokenizer_config.json for `wordpiece`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": True,
        "model_max_length": 512,
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
