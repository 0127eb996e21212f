#!/usr/bin/env python3
"""Trains a byte-level tokenizer of Qwen 2's size and configuration on whatever text is at hand.

    python large.py OUT_DIRECTORY TEXT_DIRECTORY...

Writes `large.tokenizer.json` and `sample.txt` (1 MiB of prose and code that the training did not
see), the input of the example `resident`. A few minutes; nothing of it is committed.
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from make import QWEN2, special

TRAINING_BYTES = 96 << 20
SAMPLE_BYTES = 1 << 20
SUFFIXES = {".md", ".txt", ".rst", ".rs", ".py", ".c", ".h", ".html", ".toml", ".json", ".po"}


def texts(roots, limit):
    """Files in a fixed random order, at most 64 KiB of each, up to `limit` bytes."""
    files = [
        path
        for root in roots
        for path in sorted(Path(root).rglob("*"))
        if path.suffix in SUFFIXES and path.is_file() and 200 < path.stat().st_size < 2 << 20
    ]
    random.Random(1).shuffle(files)
    seen = 0
    for path in files:
        text = path.read_bytes()[: 64 << 10].decode("utf-8", errors="ignore")
        seen += len(text.encode())
        yield path, text
        if seen > limit:
            return


def main():
    out, roots = Path(sys.argv[1]), sys.argv[2:]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=151_643,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=64,
        show_progress=False,
    )
    found = list(texts(roots, TRAINING_BYTES + 8 * SAMPLE_BYTES))
    sample, rest, prose, code = [], [], 0, 0
    for path, text in found:
        is_prose = path.suffix in {".md", ".txt", ".rst"}
        is_code = path.suffix in {".rs", ".py"}
        if is_prose and prose < SAMPLE_BYTES // 2:
            prose += len(text.encode())
            sample.append(text)
        elif is_code and code < SAMPLE_BYTES // 2:
            code += len(text.encode())
            sample.append(text)
        else:
            rest.append(text)
    tokenizer.train_from_iterator(rest, trainer)
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_tokens([special(name) for name in names])
    description = json.loads(tokenizer.to_str())
    merges = description["model"]["merges"]
    # As the model's own file spells them.
    description["model"]["merges"] = [" ".join(merge) for merge in merges]
    text = json.dumps(description, ensure_ascii=False, indent=2)
    (out / "large.tokenizer.json").write_text(text)
    (out / "sample.txt").write_text("".join(sample)[: SAMPLE_BYTES])
    print(len(description["model"]["vocab"]), "tokens,", len(merges), "merges")


if __name__ == "__main__":
    main()
