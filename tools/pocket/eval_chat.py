"""Perplexity of pocket-chat beside a unigram and a 5-gram model, and its answers to fixed prompts.

    python eval_chat.py TOKENS MODEL.gguf BURSAR SEEN

Perplexity is per token of pocket-chat's own vocabulary, over the same tokens for all. One 5-gram model
is trained on the whole training row; where the network has seen fewer tokens (SEEN) than that, another
on blocks of it of as many. The network reads windows of 1,024 tokens, spread evenly, and answers for the second half
of each, so every prediction has at least 512 tokens before it; the weights are those of the file,
dequantised. "Repeated" is the share of tokens that a copy from earlier in the window would get right, which n-grams
cannot do.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import gguf_model
import ngram

WINDOW, STRIDE = 1024, 512
WINDOWS_MAX = 120  # of each split
BLOCK, SEED = 512, 20261121

PROMPTS = (
    ("raw", "/// Returns the number of elements in the"),
    ("raw", "Ownership is a set of rules that"),
    ("chat", "What does `is_empty` do?\n\n```rust\npub fn is_empty(&self) -> bool\n```"),
    ("chat", "What does error E0382 mean?"),
    ("chat", "Explain: Borrowing"),
)


def windows(ids: np.ndarray) -> range:
    """Where the windows begin."""
    apart = STRIDE * max(1, len(ids) // STRIDE // WINDOWS_MAX)
    return range(0, len(ids) - WINDOW, apart)


def repeated(ids: np.ndarray) -> float:
    """Share of the answered tokens that followed the same four tokens earlier in their window."""
    hits = tokens = 0
    for start in windows(ids):
        window, followed = ids[start : start + WINDOW + 1].tolist(), {}
        for at in range(4, WINDOW + 1):
            before = tuple(window[at - 4 : at])
            if at > WINDOW - STRIDE:
                tokens += 1
                hits += followed.get(before) == window[at]
            followed[before] = window[at]
    return hits / tokens


def network(model, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions, log probabilities) of the positions that the windows answer for."""
    places, found = [], []
    for start in windows(ids):
        window = torch.from_numpy(ids[start : start + WINDOW + 1].astype(np.int64))
        with torch.no_grad():
            hidden = model.hidden(window[None, :-1])[0, WINDOW - STRIDE :]
            logs = torch.log_softmax(model.logits(hidden), dim=-1)
        targets = window[WINDOW - STRIDE + 1 :]
        found.append(logs.gather(1, targets[:, None])[:, 0].numpy())
        places.append(np.arange(start + WINDOW - STRIDE + 1, start + WINDOW + 1))
    return np.concatenate(places), np.concatenate(found)


def part_of(train: np.ndarray, tokens: int) -> np.ndarray:
    """Blocks of the training row, drawn like the network's windows."""
    starts = np.random.default_rng(SEED).permutation(np.arange(0, len(train) - BLOCK, BLOCK))
    return np.concatenate([train[start : start + BLOCK] for start in starts[: max(1, tokens // BLOCK)]])


def perplexity(logs: np.ndarray) -> float:
    """The exponential of the mean surprise."""
    return float(np.exp(-logs.mean()))


def answer(bursar: str, model: str, kind: str, prompt: str) -> str:
    """What the program says at temperature 0, unedited."""
    command = [bursar, "run", model, prompt, "--temperature", "0", "--max-tokens", "64"]
    if kind == "raw":
        command.append("--raw")
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout


def main() -> None:
    tokens, path, bursar, seen = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    model = gguf_model.load(Path(path))
    train = np.fromfile(tokens / "train.u16", dtype=np.uint16)
    counts = ngram.unigram(train, model.shape.vocab)
    rows = [part_of(train, seen), train] if seen < len(train) else [train]
    grams = [ngram.KneserNey(row, model.shape.vocab) for row in rows]
    names = "".join(f" 5-gram, {len(row):,} tokens |" for row in rows)
    print(f"| split | tokens | repeated in the window | unigram |{names} pocket-chat |")
    print("|---|---:|---:|---:|---:|" + "---:|" * len(rows))
    for split, meaning in (("heldout", "held-out files"), ("unseen", "crates never trained on")):
        ids = np.fromfile(tokens / f"{split}.u16", dtype=np.uint16)
        places, logs = network(model, ids)
        figures = [counts[ids[places]], *(m.log_probabilities(ids)[places] for m in grams), logs]
        cells = " | ".join(f"{perplexity(f):.1f}" for f in figures)
        print(f"| {meaning} | {len(places)} | {repeated(ids):.0%} | {cells} |", flush=True)
    for kind, prompt in PROMPTS:
        print(f"\n{kind}: {prompt}\n---\n{answer(bursar, path, kind, prompt)}")


if __name__ == "__main__":
    main()
