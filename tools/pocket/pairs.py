"""Batches of retrieval pairs: which text asks, which code answers, and which are not negatives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

DEV_PAIRS = 1000
PARTS = 8
GROUP = 8  # neighbours in a file stay together, so that some negatives are hard


@dataclass
class Batch:
    """Texts by number; `same[i, j]` is true where query i and code j are not a negative pair."""

    queries: np.ndarray
    codes: np.ndarray
    same: torch.Tensor


@dataclass
class Parts:
    """Texts in parts of like lengths; `back` puts their vectors into the order they were asked in."""

    chunks: list[tuple[torch.Tensor, torch.Tensor]]
    back: torch.Tensor

    def tokens(self) -> int:
        """Tokens without padding."""
        return sum(int(last.sum()) + len(last) for _, last in self.chunks)


class Pairs:
    """The training pairs, a thousand functions among them kept back to watch progress."""

    def __init__(self, path: Path, seed: int) -> None:
        packed = np.load(path)
        self.ids, self.text_ends = packed["ids"], packed["text_ends"]
        self.queries, self.query_ends, self.others = packed["queries"], packed["query_ends"], packed["others"]
        functions = np.flatnonzero(packed["functions"])
        # The same pairs are kept back whatever the run's seed.
        kept = np.random.default_rng(7).permutation(functions)[:DEV_PAIRS]
        self.dev = np.sort(kept)
        # Not trained on either: pairs that share a query or a code with one kept back.
        held = set(self.first_queries(self.dev).tolist()) | set(self.others[self.dev, 0].tolist())
        shares = [
            held.isdisjoint(self.queries_of(n).tolist()) and int(self.others[n, 0]) not in held
            for n in range(len(self.others))
        ]
        self.train = np.flatnonzero(shares)
        self.rng = np.random.default_rng(seed)
        self.order: list[int] = []

    def queries_of(self, pair: int) -> np.ndarray:
        """The texts that ask for a pair's code, the best first."""
        return self.queries[self.query_ends[pair - 1] if pair else 0 : self.query_ends[pair]]

    def first_queries(self, pairs: np.ndarray) -> np.ndarray:
        """The first query of each pair."""
        return np.array([self.queries_of(pair)[0] for pair in pairs])

    def text(self, number: int) -> np.ndarray:
        """A text's ids, [CLS] and [SEP] included."""
        return self.ids[self.text_ends[number - 1] if number else 0 : self.text_ends[number]]

    def batch(self, size: int) -> Batch:
        """Draws the next pairs: mostly the first sentence for the code alone."""
        if len(self.order) < size:
            shift = int(self.rng.integers(GROUP))
            groups = np.split(self.train, np.arange(shift, len(self.train), GROUP))
            self.rng.shuffle(groups)
            self.order = np.concatenate(groups).tolist()
        picked = [self.order.pop() for _ in range(size)]
        queries, codes = [], []
        for pair in picked:
            asks = self.queries_of(pair)
            pick = 0 if self.rng.random() < 0.65 else int(self.rng.integers(len(asks)))
            queries.append(asks[pick])
            codes.append(self.others[pair, self.rng.choice(3, p=(0.7, 0.12, 0.18))])
        queries, codes, picked = np.array(queries), np.array(codes), np.array(picked)
        first, body = self.first_queries(picked), self.others[picked, 0]
        same = (queries[:, None] == queries) | (first[:, None] == first) | (body[:, None] == body)
        return Batch(queries, codes, torch.from_numpy(same))

    def padded(self, numbers: np.ndarray, tokens_max: int, drop: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids, position of each text's last token): cut to tokens_max, still ending with [SEP].

        `drop` is the share of inner tokens left out at random."""
        return stacked(self.cut(numbers, tokens_max, drop))

    def parts(self, numbers: np.ndarray, tokens_max: int, drop: float = 0.0) -> "Parts":
        """As `padded`, in parts of like lengths: a network works less on padding."""
        texts = self.cut(numbers, tokens_max, drop)
        order = np.argsort([len(text) for text in texts], kind="stable")
        chunks = [stacked([texts[n] for n in part]) for part in np.array_split(order, PARTS)]
        return Parts(chunks, torch.from_numpy(np.argsort(order, kind="stable")))

    def cut(self, numbers: np.ndarray, tokens_max: int, drop: float) -> list[np.ndarray]:
        """The texts' ids, thinned and cut."""
        texts = []
        for number in numbers:
            text = self.text(number)
            if drop:
                keep = self.rng.random(len(text)) >= drop
                keep[0] = keep[-1] = True
                text = text[keep]
            texts.append(text if len(text) <= tokens_max else np.append(text[: tokens_max - 1], text[-1]))
        return texts


def stacked(texts: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts as rows of one tensor, and the position of each one's last token."""
    ids = np.zeros((len(texts), max(len(text) for text in texts)), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
    return torch.from_numpy(ids), torch.tensor([len(text) - 1 for text in texts])


def loss_of(queries: torch.Tensor, codes: torch.Tensor, same: torch.Tensor, dims: tuple, heat: float):
    """Symmetric InfoNCE over in-batch negatives, averaged over Matryoshka widths."""
    total = 0.0
    target = torch.arange(len(queries))
    ignored = same & ~torch.eye(len(queries), dtype=torch.bool)
    for width in dims:
        q = torch.nn.functional.normalize(queries[:, :width], dim=-1)
        c = torch.nn.functional.normalize(codes[:, :width], dim=-1)
        likeness = (q @ c.T / heat).masked_fill(ignored, -1e4)
        total = total + torch.nn.functional.cross_entropy(likeness, target)
        total = total + torch.nn.functional.cross_entropy(likeness.T, target)
    return total / (2 * len(dims))


def ranks(queries: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """For each query, the place of its own code among all codes, from 1; ties count against it."""
    likeness = queries @ codes.T
    own = likeness.diagonal()[:, None]
    return (likeness >= own).sum(1)


def mrr_at_10(places: torch.Tensor) -> float:
    """Mean reciprocal rank, nothing for places past the tenth."""
    return float(torch.where(places <= 10, 1.0 / places, torch.zeros(())).mean())
