"""A bag of words that becomes a decoder: the cheap first stage of pocket-embed.

A text's vector is the sum of its tokens' vectors, weighted by softmax of one learned score per token.
That is one attention layer whose query is constant, so `into_decoder` writes it into the decoder's
last layer exactly, but for rounding: training goes on from there instead of from noise. The bag
costs a lookup per token where a layer costs matrix products, so it sees each pair many times.
"""

import torch
import torch.nn.functional as F
from torch import nn

from decoder import Decoder, Shape

# A key is (score, STEADY, 0, ...) before its norm: the larger STEADY is beside scores, the less the
# norm bends them.
STEADY = 40.0
# [SEP]'s number: the last token, whose own row is added to what it pools.
LAST = 3


class Bag(nn.Module):
    """Token vectors and the direction along which they are scored."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(shape.vocab, shape.dim - 1) * 0.3)
        self.score = nn.Parameter(torch.zeros(shape.dim - 1))

    def rows(self) -> torch.Tensor:
        """Every token's vector with mean square 1, less the constant first value."""
        return F.normalize(self.table, dim=-1) * self.table.shape[1] ** 0.5

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """One score per token."""
        return rows @ self.score

    def vectors(self, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """One vector per text, not yet of length 1. ids: texts x tokens."""
        rows = self.rows()
        weights = self.scores(rows).exp()
        inside = torch.arange(ids.shape[1])[None, :] <= last[:, None]
        flat = ids[inside]
        starts = torch.cat((torch.zeros(1, dtype=torch.int64), (last + 1).cumsum(0)[:-1]))
        sums = F.embedding_bag(flat, rows * weights[:, None], starts, mode="sum")
        totals = F.embedding_bag(flat, weights[:, None], starts, mode="sum")
        return sums / totals


def into_decoder(bag: Bag, shape: Shape) -> Decoder:
    """A decoder whose vectors are the bag's."""
    model = Decoder(shape)
    with torch.no_grad():
        # The first value of each row is the constant 1.
        table = torch.cat((torch.ones(shape.vocab, 1), bag.rows()), dim=1)
        # Norms undo a row's scale wherever it is read; a small one adds nothing where it is added.
        table[LAST] *= 1e-2
        model.token_embd.weight.copy_(table)
        block = model.blk[-1]
        width, heads = shape.head_dim, shape.heads
        # The slowest pair of a head turns by 1e-4 a token: as good as no position.
        slow = width // 2 - 1
        for weight in (block.attn_q.weight, block.attn_k.weight):
            weight.mul_(0.02)
        for head in range(heads):
            block.attn_q.weight[head * width + slow] = 0.0
            block.attn_q.weight[head * width + slow, 0] = 1.0
            block.attn_k.weight[head * width + slow, 1:] = bag.score
            block.attn_k.weight[head * width + slow, 0] = 0.0
            block.attn_k.weight[head * width + slow - 1] = 0.0
            block.attn_k.weight[head * width + slow - 1, 0] = STEADY
        block.attn_k_norm.fill_(STEADY / width**0.5)
        block.attn_v.weight.copy_(torch.eye(shape.dim))
        block.attn_v.weight[0, 0] = 0.0
        block.attn_output.weight.copy_(torch.eye(shape.dim))
    return model
