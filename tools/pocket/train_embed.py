"""Trains pocket-embed: a bag of words first, which then goes on as a decoder.

    python train_embed.py TOKENS OUT --seconds 5400 [--threads 1]

TOKENS is vocab.py's folder (embed.npz), OUT takes embed.pt and embed.csv. Started again with the same
OUT it goes on from its checkpoint. Progress is watched on pairs kept back from the training crates;
the retrieval test's crates are not looked at.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import bag
import clock
import pairs
from decoder import EMBED, Decoder

SEED = 20261121
HEAT = 0.05
BAG_STEPS, BAG_PAIRS, BAG_RATE = 900, 1024, 0.02
QUERY_TOKENS = 48
# (longest code, pairs): most steps are short and broad, some are long enough to train all positions.
MENU = ((64, 384), (112, 256), (112, 256), (256, 128))
MATRIX_RATE, REST_RATE = 1.5e-3, 6e-4
DROP = 0.1  # share of tokens left out of training texts
WIDTHS = (EMBED.dim, 128)


def vectors(model: Decoder, found: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Vectors with bf16 products."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model.hidden(*found, dtype=torch.bfloat16)[:, 0].float()


def dev_mrr(encode, data: pairs.Pairs) -> float:
    """MRR@10 on the pairs kept back, each against all others."""
    with torch.no_grad():
        sides = []
        for numbers in (data.first_queries(data.dev), data.others[data.dev, 0]):
            parts = [encode(data.padded(part, 256)) for part in np.array_split(numbers, 16)]
            sides.append(torch.nn.functional.normalize(torch.cat(parts), dim=-1))
    return pairs.mrr_at_10(pairs.ranks(*sides))


def train_bag(data: pairs.Pairs, log: clock.Log, time_of: clock.Clock) -> Decoder:
    """The first stage, of a fixed number of steps."""
    model = bag.Bag(EMBED)
    optimizer = torch.optim.Adam(model.parameters(), lr=BAG_RATE, betas=(0.9, 0.99), fused=True)
    for step in range(BAG_STEPS):
        optimizer.param_groups[0]["lr"] = BAG_RATE * (1.0 - step / BAG_STEPS)
        drawn = data.batch(BAG_PAIRS)
        queries = model.vectors(*data.padded(drawn.queries, QUERY_TOKENS, DROP))
        codes = model.vectors(*data.padded(drawn.codes, 256, DROP))
        loss = pairs.loss_of(queries, codes, drawn.same, WIDTHS, HEAT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            log.add(time_of.spent(), step + 1, 0, "bag", float(loss.detach()))
        if step % 300 == 299:
            log.add(time_of.spent(), step + 1, 0, "bag mrr", dev_mrr(lambda f: model.vectors(*f), data))
    return bag.into_decoder(model, EMBED)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains pocket-embed.")
    parser.add_argument("tokens", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=5400.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    path = options.out / "embed.pt"
    state = {"step": 0, "tokens": 0, "spent": 0.0}
    saved = torch.load(path, weights_only=True) if path.exists() else None
    if saved:
        state = saved["state"]
    time_of = clock.Clock(options.seconds)
    time_of.spent_before = state["spent"]
    data = pairs.Pairs(options.tokens / "embed.npz", SEED + state["step"])
    log = clock.Log(options.out / "embed.csv")
    if saved:
        model = Decoder(EMBED)
        model.load_state_dict(saved["model"])
    else:
        model = train_bag(data, log, time_of)
    optimizers = clock.optimizers_of(model, MATRIX_RATE, REST_RATE)
    if saved:
        for optimizer, content in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(content)
    else:
        log.add(time_of.spent(), 0, 0, "dev mrr", dev_mrr(lambda f: vectors(model, f), data))
        clock.save(path, EMBED.as_dict(), model, state, optimizers)
    saved_at, recent = time.monotonic(), []
    while (progress := time_of.progress()) < 1.0:
        clock.set_rate(optimizers, clock.rate(progress, state["step"]))
        code_tokens, size = MENU[state["step"] % len(MENU)]
        drawn = data.batch(size)
        asked = data.padded(drawn.queries, QUERY_TOKENS, DROP)
        answered = data.padded(drawn.codes, code_tokens, DROP)
        loss = pairs.loss_of(vectors(model, asked), vectors(model, answered), drawn.same, WIDTHS, HEAT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        state["step"] += 1
        state["tokens"] += int(asked[1].sum() + answered[1].sum()) + 2 * size
        state["spent"] = time_of.spent()
        if code_tokens == 112:
            recent.append(float(loss.detach()))
        if state["step"] % 20 == 0:
            log.add(state["spent"], state["step"], state["tokens"], "train", sum(recent) / len(recent))
            recent = []
        if time.monotonic() - saved_at > clock.SAVE_EVERY_S:
            log.add(state["spent"], state["step"], state["tokens"], "dev mrr", dev_mrr(lambda f: vectors(model, f), data))
            clock.save(path, EMBED.as_dict(), model, state, optimizers)
            saved_at = time.monotonic()
    log.add(state["spent"], state["step"], state["tokens"], "dev mrr", dev_mrr(lambda f: vectors(model, f), data))
    clock.save(path, EMBED.as_dict(), model, state, optimizers)


if __name__ == "__main__":
    main()
