"""Trains a tiny language model on the built-in text, so that its logits have margins.

Random weights give flat logits, on which a comparison of the most likely token
says nothing. A few hundred Adam steps give a model that knows the text's grammar.
"""

import math
import sys
import time

import numpy as np
import torch
import transformers

import checkpoint
import corpus
from fixtures import seed_of


def train(config: dict, tokenizer, seed: int, steps: int, batch: int = 8, length: int = 128, rate: float = 4e-3) -> dict[str, torch.Tensor]:
    """Weights after training from a variance-keeping start; one thread, seeded."""
    cls = getattr(transformers, config["architectures"][0])
    model = cls(transformers.AutoConfig.for_model(**config))
    tied = config["tie_word_embeddings"]
    for name, parameter in model.named_parameters():
        value = checkpoint.draw(seed, name, tuple(parameter.shape), tied, config["hidden_size"])
        if parameter.dim() == 1 and not name.endswith("bias"):
            value = torch.ones_like(value)
        parameter.data.copy_(0.1 * value if name == "lm_head.weight" or (tied and "embed" in name) else value)
    ids = np.array(tokenizer.encode(corpus.text(2, 6000), add_special_tokens=False).ids)
    rng = np.random.Generator(np.random.PCG64(seed_of(seed, "batches")))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    begun = time.monotonic()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        starts = rng.integers(0, len(ids) - length - 1, batch)
        rows = torch.from_numpy(np.stack([ids[s : s + length] for s in starts]))
        loss = model(rows, labels=rows, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            print(f"  step {step + 1}: loss {loss.item():.3f}, {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return {n: p.detach().float().clone().contiguous() for n, p in model.named_parameters()}
