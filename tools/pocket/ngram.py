"""Baselines for perplexity: a unigram, and an interpolated Kneser-Ney model of order 5.

Method: Kneser and Ney 1995 as in Chen and Goodman 1999, one discount per order, n1 / (n1 + 2 n2).
Everything is arrays over the training row; a k-gram's number is its place among the sorted ones.
"""

from dataclasses import dataclass

import numpy as np

ORDER = 5


@dataclass
class Level:
    """The k-grams of one order."""

    keys: np.ndarray  # sorted: number of the (k-1)-gram before * vocab + last token
    counts: np.ndarray  # how often (highest order), or after how many different tokens
    totals: np.ndarray  # by context: sum of counts
    kinds: np.ndarray  # by context: how many k-grams begin with it
    discount: float


class KneserNey:
    """Trained on one row of ids."""

    def __init__(self, ids: np.ndarray, vocab: int) -> None:
        ids = ids.astype(np.int64)
        self.vocab = vocab
        self.levels: list[Level] = []
        firsts, numbers, keys = [], [np.zeros(len(ids), np.int64)], []
        for k in range(1, ORDER + 1):
            here = numbers[-1][: len(ids) - k + 1] * vocab + ids[k - 1 :]
            found, first, number = np.unique(here, return_index=True, return_inverse=True)
            keys.append(found)
            firsts.append(first)
            numbers.append(number)
            raw = np.bincount(number)
        for k in range(1, ORDER + 1):
            if k < ORDER:
                longer = firsts[k]
                counts = np.bincount(numbers[k][longer + 1], minlength=len(keys[k - 1]))
            else:
                counts = raw
            contexts = numbers[k - 1][firsts[k - 1]]
            size = len(keys[k - 2]) if k > 1 else 1
            once, twice = int((counts == 1).sum()), int((counts == 2).sum())
            self.levels.append(
                Level(
                    keys[k - 1],
                    counts,
                    np.bincount(contexts, weights=counts, minlength=size),
                    np.bincount(contexts, weights=counts > 0, minlength=size),
                    once / max(1, once + 2 * twice),
                )
            )

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Natural logarithm of each token's probability after those before it."""
        ids = ids.astype(np.int64)
        chance = np.full(len(ids), 1.0 / self.vocab)
        # known[i]: number of the k-gram that ends before i, or -1 where training has none.
        context = np.zeros(len(ids), np.int64)
        ends = [context]
        for level in self.levels:
            key = np.where(context >= 0, context * self.vocab + ids, -1)
            place = np.minimum(np.searchsorted(level.keys, key), len(level.keys) - 1)
            there = level.keys[place] == key
            count = np.where(there, level.counts[place], 0)
            safe = np.maximum(context, 0)
            total = np.where(context >= 0, level.totals[safe], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                own = np.maximum(count - level.discount, 0.0) / total
                left = level.discount * level.kinds[safe] / total
            chance = np.where(total > 0, own + left * chance, chance)
            # The k-gram that ends at i - 1 is the next order's context at i.
            grams = np.where(there, place, -1)
            context = np.concatenate(([-1], grams[:-1]))
            ends.append(context)
        return np.log(chance)


def unigram(train: np.ndarray, vocab: int) -> np.ndarray:
    """Log probabilities by token, one added to every count."""
    counts = np.bincount(train, minlength=vocab) + 1.0
    return np.log(counts / counts.sum())
