"""Trains the two vocabularies and turns the corpus into token ids.

    python vocab.py CORPUS OUT

pocket-chat has a byte-level BPE with GPT-2's pre-tokenizer. pocket-embed has a lower-case WordPiece:
it splits identifiers at punctuation, so that `binary_search` in code and "binary search" in a
question are the same tokens, which a tiny model could not learn for every word.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CHAT_VOCAB = 8192
EMBED_VOCAB = 16384
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_SPECIALS = [END_OF_TEXT, TURN_START, TURN_END]
EMBED_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def read_jsonl(path: Path) -> list[dict]:
    """The objects of a JSON-lines file."""
    with open(path) as file:
        return [json.loads(line) for line in file]


def train_chat(texts: list[str]) -> Tokenizer:
    """Byte-level BPE over documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CHAT_VOCAB,
        special_tokens=CHAT_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_embed(texts: list[str]) -> Tokenizer:
    """Lower-case WordPiece over what is searched and asked."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=EMBED_VOCAB,
        special_tokens=EMBED_SPECIALS,
        limit_alphabet=256,
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return tokenizer


def encode_documents(tokenizer: Tokenizer, texts: list[str], path: Path) -> int:
    """Writes documents as one row of ids, each after an end-of-text token."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids = []
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        ids.append(end)
        ids.extend(encoding.ids)
    np.array(ids, dtype=np.uint16).tofile(path)
    return len(ids)


def encode_questions(tokenizer: Tokenizer, lines: list[dict], path: Path) -> None:
    """Writes talks of one question and one answer: ids, which of them are learned, and their ends."""
    head, turn = f"{TURN_START}user\n", f"{TURN_END}\n{TURN_START}assistant\n"
    asked = tokenizer.encode_batch([head + line["question"] + turn for line in lines], add_special_tokens=False)
    answered = tokenizer.encode_batch([line["answer"] + TURN_END for line in lines], add_special_tokens=False)
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    ids, learned, ends = [], [], []
    for question, answer in zip(asked, answered):
        ids += question.ids + answer.ids + newline
        learned += [False] * len(question.ids) + [True] * len(answer.ids) + [False] * len(newline)
        ends.append(len(ids))
    np.savez(path, ids=np.array(ids, np.uint16), learned=np.array(learned), ends=np.array(ends, np.int64))


def encode_pairs(tokenizer: Tokenizer, pairs: list[dict], path: Path) -> None:
    """Writes retrieval pairs: all texts in one row of ids, each with its [CLS] and [SEP], and for
    each pair which texts are its queries, code, signature and commented code. Equal texts get equal
    numbers, so that a batch can tell them apart from negatives."""
    numbers: dict[str, int] = {}

    def number(text: str) -> int:
        return numbers.setdefault(text, len(numbers))

    queries, ends, others = [], [], []
    for pair in pairs:
        queries += [number(query) for query in pair["queries"] if query]
        ends.append(len(queries))
        code = pair["code"]
        commented = "\n".join("/// " + line for line in pair["doc"].split("\n")) + "\n" + code if pair["doc"] else code
        others.append([number(code), number(pair["signature"] or code), number(commented)])
    flat, text_ends = [], []
    for encoding in tokenizer.encode_batch(list(numbers)):
        flat += encoding.ids
        text_ends.append(len(flat))
    functions = np.array([pair["kind"] == "fn" for pair in pairs])
    np.savez(
        path,
        ids=np.array(flat, np.uint16),
        text_ends=np.array(text_ends, np.int64),
        queries=np.array(queries, np.int64),
        query_ends=np.array(ends, np.int64),
        others=np.array(others, np.int64),
        functions=functions,
    )


def main() -> None:
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    documents = {split: read_jsonl(corpus / f"{split}.jsonl") for split in ("train", "heldout", "unseen")}
    chat_lines = read_jsonl(corpus / "chat.jsonl")
    chat = train_chat([d["text"] for d in documents["train"]])
    chat.save(str(out / "chat.json"))
    for split, found in documents.items():
        count = encode_documents(chat, [d["text"] for d in found], out / f"{split}.u16")
        print(f"{split}: {count} tokens")
    encode_questions(chat, chat_lines, out / "chat.npz")
    print(f"chat: {len(chat_lines)} questions")

    pairs = read_jsonl(corpus / "pairs.jsonl")
    texts = [text for pair in pairs for text in (pair["queries"][0], pair["code"], pair["doc"])]
    embed = train_embed(texts)
    embed.save(str(out / "embed.json"))
    encode_pairs(embed, pairs, out / "embed.npz")
    lengths = [len(e.ids) for e in embed.encode_batch([p["code"] for p in pairs[:4000]])]
    queries = [len(e.ids) for e in embed.encode_batch([p["queries"][0] for p in pairs[:4000]])]
    print("code tokens, quartiles:", np.percentile(lengths, [25, 50, 75, 90]))
    print("query tokens, quartiles:", np.percentile(queries, [25, 50, 75, 90]))


if __name__ == "__main__":
    main()
