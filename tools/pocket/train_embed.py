"""Trains pocket-embed: a bag of words first, which then goes on as a decoder.

    python train_embed.py TOKENS OUT --seconds 5400 [--threads 1]

TOKENS is vocab.py's folder (embed.npz), OUT takes embed.pt (the state to go on from), embed-best.pt (to
export) and embed.csv. Started again with the same OUT it goes on from its checkpoint. Progress is
watched, and the best state chosen, on pairs kept back from the training crates; the retrieval test's
crates are not looked at.
"""

import argparse
import time
from pathlib import Path

import torch

import bag
import clock
import pairs
from decoder import EMBED, Decoder

SEED = 20261121
HEAT = 0.05
BAG_STEPS, BAG_PAIRS, BAG_RATE = 400, 1024, 0.02
QUERY_TOKENS = 48
# (longest code, pairs): most steps are short and broad, some are long enough to train all positions.
MENU = ((64, 384), (112, 256), (112, 256), (256, 128))
MATRIX_RATE, REST_RATE = 3e-4, 1e-3
DROP = 0.1  # share of tokens left out of training texts
WIDTHS = (EMBED.dim, 128)
WATCH_EVERY_S = 180.0


def vectors(model: Decoder, parts: pairs.Parts) -> torch.Tensor:
    """One vector per text, not yet of length 1, with bf16 products."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [model.hidden(ids, last, torch.bfloat16)[:, 0].float() for ids, last in parts.chunks]
    return torch.cat(found)[parts.back]


def dev_mrr(encode, data: pairs.Pairs) -> float:
    """MRR@10 on the pairs kept back, each against all others; `encode` makes vectors of texts."""
    with torch.no_grad():
        sides = []
        for numbers in (data.first_queries(data.dev), data.others[data.dev, 0]):
            sides.append(torch.nn.functional.normalize(encode(numbers), dim=-1))
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
        if step % 20 == 19:
            log.add(time_of.spent(), step + 1, 0, "bag", float(loss.detach()))
        if step % 100 == 99:
            log.add(time_of.spent(), step + 1, 0, "bag mrr", dev_mrr(lambda texts: model.vectors(*data.padded(texts, 256)), data))
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

    def watch() -> None:
        """Measures, saves, and keeps the state if it is the best so far."""
        found = dev_mrr(lambda texts: vectors(model, data.parts(texts, 256)), data)
        log.add(state["spent"], state["step"], state["tokens"], "dev mrr", found)
        if found > state.get("best", 0.0):
            state["best"] = found
            clock.save(options.out / "embed-best.pt", EMBED.as_dict(), model, state, [])
        clock.save(path, EMBED.as_dict(), model, state, optimizers)

    if not saved:
        watch()
    saved_at = watched_at = time.monotonic()
    recent = []
    while (progress := time_of.progress()) < 1.0:
        clock.set_rate(optimizers, clock.rate(progress, state["step"]))
        code_tokens, size = MENU[state["step"] % len(MENU)]
        drawn = data.batch(size)
        asked = data.parts(drawn.queries, QUERY_TOKENS, DROP)
        answered = data.parts(drawn.codes, code_tokens, DROP)
        loss = pairs.loss_of(vectors(model, asked), vectors(model, answered), drawn.same, WIDTHS, HEAT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        state["step"] += 1
        state["tokens"] += asked.tokens() + answered.tokens()
        state["spent"] = time_of.spent()
        if code_tokens == 112:
            recent.append(float(loss.detach()))
        if state["step"] % 8 == 0:
            log.add(state["spent"], state["step"], state["tokens"], "train", sum(recent) / len(recent))
            recent = []
        if time.monotonic() - watched_at > WATCH_EVERY_S:
            watch()
            saved_at = watched_at = time.monotonic()
        elif time.monotonic() - saved_at > clock.SAVE_EVERY_S:
            clock.save(path, EMBED.as_dict(), model, state, optimizers)
            saved_at = time.monotonic()
    watch()


if __name__ == "__main__":
    main()
