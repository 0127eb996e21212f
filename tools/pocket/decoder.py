"""The network of both pocket models: a Qwen3 decoder in plain PyTorch.

Pre-norm blocks with RMS norms, grouped-query attention, norms over each query and key head, rotary
positions in two halves (NeoX order) and a SiLU-gated MLP; the output matrix is the token embedding.
Parameter names are GGUF's, so that an export is a copy.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder."""

    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    context: int
    theta: float = 10_000.0
    eps: float = 1e-6

    def as_dict(self) -> dict:
        """The sizes as plain data, for checkpoints."""
        return asdict(self)


CHAT = Shape(vocab=8192, dim=256, layers=4, heads=4, kv_heads=2, head_dim=64, ffn=768, context=1024)
EMBED = Shape(vocab=16384, dim=384, layers=1, heads=6, kv_heads=6, head_dim=64, ffn=1024, context=512)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions. x: batch x heads x tokens x head_dim; cos, sin: tokens x head_dim."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class Block(nn.Module):
    """One layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.attn_norm = nn.Parameter(torch.ones(shape.dim))
        self.attn_q = nn.Linear(shape.dim, q, bias=False)
        self.attn_k = nn.Linear(shape.dim, kv, bias=False)
        self.attn_v = nn.Linear(shape.dim, kv, bias=False)
        self.attn_output = nn.Linear(q, shape.dim, bias=False)
        self.attn_q_norm = nn.Parameter(torch.ones(shape.head_dim))
        self.attn_k_norm = nn.Parameter(torch.ones(shape.head_dim))
        self.ffn_norm = nn.Parameter(torch.ones(shape.dim))
        self.ffn_gate = nn.Linear(shape.dim, shape.ffn, bias=False)
        self.ffn_up = nn.Linear(shape.dim, shape.ffn, bias=False)
        self.ffn_down = nn.Linear(shape.ffn, shape.dim, bias=False)

    def heads_of(self, x: torch.Tensor, heads: int, norm: torch.Tensor | None) -> torch.Tensor:
        """batch x tokens x (heads * head_dim) to batch x heads x tokens x head_dim, normed."""
        x = x.unflatten(-1, (heads, self.shape.head_dim))
        if norm is not None:
            x = F.rms_norm(x, (self.shape.head_dim,), norm.to(x.dtype), self.shape.eps)
        return x.transpose(1, 2)

    def forward(self, h, cos, sin, last: torch.Tensor | None):
        """h: batch x tokens x dim. With `last` (one position per row) only those rows go on: the
        last layer of a last-token embedding needs no others."""
        s = self.shape
        n = F.rms_norm(h, (s.dim,), self.attn_norm.to(h.dtype), s.eps)
        k = rotate(self.heads_of(self.attn_k(n), s.kv_heads, self.attn_k_norm), cos, sin)
        v = self.heads_of(self.attn_v(n), s.kv_heads, None)
        if last is None:
            q = rotate(self.heads_of(self.attn_q(n), s.heads, self.attn_q_norm), cos, sin)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=s.heads != s.kv_heads)
        else:
            rows = torch.arange(h.shape[0])
            n, h = n[rows, last].unsqueeze(1), h[rows, last].unsqueeze(1)
            q = self.heads_of(self.attn_q(n), s.heads, self.attn_q_norm)
            q = rotate(q, cos[last][:, None, None], sin[last][:, None, None])
            seen = torch.arange(k.shape[2])[None, :] <= last[:, None]
            a = F.scaled_dot_product_attention(
                q, k, v, attn_mask=seen[:, None, None, :], enable_gqa=s.heads != s.kv_heads
            )
        h = h + self.attn_output(a.transpose(1, 2).flatten(2))
        n = F.rms_norm(h, (s.dim,), self.ffn_norm.to(h.dtype), s.eps)
        return h + self.ffn_down(F.silu(self.ffn_gate(n)) * self.ffn_up(n))


class Decoder(nn.Module):
    """Tokens to normed hidden rows, or to one vector per text."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.dim)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.Parameter(torch.ones(shape.dim))
        powers = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
        angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), shape.theta**-powers)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self.start()

    def start(self) -> None:
        """Starting weights: the layers add nothing at first."""
        nn.init.normal_(self.token_embd.weight, std=0.02)
        for block in self.blk:
            for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"):
                nn.init.normal_(getattr(block, name).weight, std=self.shape.dim**-0.5)
            nn.init.zeros_(block.attn_output.weight)
            nn.init.zeros_(block.ffn_down.weight)

    def hidden(self, ids: torch.Tensor, last: torch.Tensor | None = None, dtype=torch.float32):
        """ids: batch x tokens. Returns normed rows: all, or only those at `last` (batch x 1)."""
        h = self.token_embd(ids).to(dtype)
        cos, sin = self.cos[: ids.shape[1]].to(dtype), self.sin[: ids.shape[1]].to(dtype)
        for number, block in enumerate(self.blk):
            h = block(h, cos, sin, last if number + 1 == len(self.blk) else None)
        return F.rms_norm(h, (self.shape.dim,), self.output_norm.to(h.dtype), self.shape.eps)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normed rows to one logit per token of the vocabulary."""
        return F.linear(hidden, self.token_embd.weight.to(hidden.dtype))

    def vectors(self, ids: torch.Tensor, last: torch.Tensor, dtype=torch.float32) -> torch.Tensor:
        """One vector of length 1 per text, from the token at `last`."""
        return F.normalize(self.hidden(ids, last, dtype)[:, 0].float(), dim=-1)
