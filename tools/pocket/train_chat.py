"""Trains pocket-chat: documents first, then some questions among them, then half and half.

    python train_chat.py TOKENS OUT --seconds 5400 [--threads 1]

TOKENS is vocab.py's folder (train.u16, heldout.u16, chat.npz), OUT takes chat.pt and chat.csv.
Started again with the same OUT it goes on from its checkpoint.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import clock
from decoder import CHAT, Decoder

SEED = 20261121
ROWS, LENGTH = 8, 512  # of a step on documents
LONG_ROWS, LONG_LENGTH = 4, 1024  # of the last part, so that all positions are trained
LONG_FROM = 0.85  # progress from which steps are long
# (progress, every so many steps is one of questions from there on)
QUESTIONS = ((0.85, 2), (0.3, 5))
MATRIX_RATE, REST_RATE = 6e-3, 4e-3
CHUNK_ROWS = 256


class TokenLoss(torch.autograd.Function):
    """Mean cross-entropy of a tied output matrix, a few rows at a time.

    Logits of a whole step (rows x vocabulary) never exist at once: the gradient of each chunk is
    made while its logits are in cache.
    """

    @staticmethod
    def forward(ctx, hidden, table, targets):
        """hidden: rows x dim; table: vocab x dim; targets: rows, -100 where nothing is learned."""
        kept = (targets >= 0).nonzero().flatten()
        scale = 1.0 / max(1, kept.numel())
        d_hidden = torch.zeros_like(hidden)
        d_table = torch.zeros(table.shape, dtype=torch.float32)
        small = table.to(hidden.dtype)
        total = 0.0
        for rows in kept.split(CHUNK_ROWS):
            h, t = hidden[rows], targets[rows]
            logits = (h @ small.T).float()
            picked = logits.gather(1, t[:, None])
            top = logits.amax(1, keepdim=True)
            logits.sub_(top).exp_()
            sums = logits.sum(1, keepdim=True)
            total += float((sums.log() + top - picked).sum())
            logits.mul_(scale / sums)
            logits.scatter_add_(1, t[:, None], torch.full_like(picked, -scale))
            d = logits.to(hidden.dtype)
            d_hidden[rows] = d @ small
            d_table += d.T @ h
        ctx.save_for_backward(d_hidden, d_table)
        return torch.tensor(total * scale)

    @staticmethod
    def backward(ctx, grad):
        d_hidden, d_table = ctx.saved_tensors
        return d_hidden * grad, d_table * grad, None


class Documents:
    """Windows of the training text in shuffled order, shifted at each pass."""

    def __init__(self, path: Path, seed: int) -> None:
        self.ids = np.fromfile(path, dtype=np.uint16)
        self.rng = np.random.default_rng(seed)
        self.starts: dict[int, list[int]] = {}

    def batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs, targets), rows x length each."""
        starts = self.starts.setdefault(length, [])
        if len(starts) < rows:
            shift = int(self.rng.integers(length))
            fresh = np.arange(shift, len(self.ids) - length - 1, length)
            starts.extend(self.rng.permutation(fresh).tolist())
        windows = np.stack([self.ids[(s := starts.pop()) : s + length + 1] for _ in range(rows)])
        windows = torch.from_numpy(windows.astype(np.int64))
        return windows[:, :-1], windows[:, 1:]


class Questions:
    """Questions with answers, several to a row; only answers are learned."""

    def __init__(self, path: Path, seed: int) -> None:
        packed = np.load(path)
        self.ids, self.learned, self.ends = packed["ids"], packed["learned"], packed["ends"]
        self.rng = np.random.default_rng(seed)
        self.order: list[int] = []

    def batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs, targets), rows x length each; -100 where nothing is learned."""
        ids, targets = np.zeros((rows, length), np.int64), np.full((rows, length), -100, np.int64)
        for row in range(rows):
            at = 0
            while True:
                if not self.order:
                    self.order = self.rng.permutation(len(self.ends)).tolist()
                number = self.order[-1]
                start = int(self.ends[number - 1]) if number else 0
                talk = self.ids[start : int(self.ends[number])].astype(np.int64)
                learned = self.learned[start : int(self.ends[number])]
                size = len(talk) - 1
                if at + size > length:
                    if size > length:
                        self.order.pop()
                        continue
                    break
                self.order.pop()
                ids[row, at : at + size] = talk[:-1]
                targets[row, at : at + size] = np.where(learned[1:], talk[1:], -100)
                at += size
        return torch.from_numpy(ids), torch.from_numpy(targets)


def loss_of(model: Decoder, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss that is trained on, in bf16 products."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.hidden(ids, dtype=torch.bfloat16)
    rows = hidden.reshape(-1, hidden.shape[-1])
    return TokenLoss.apply(rows, model.token_embd.weight, targets.reshape(-1))


def heldout_loss(model: Decoder, ids: np.ndarray, windows: int) -> float:
    """Loss on the first windows of the held-out text, nats per token."""
    picked = torch.from_numpy(ids[: windows * LENGTH + 1].astype(np.int64))
    inputs, targets = picked[:-1].view(windows, LENGTH), picked[1:].view(windows, LENGTH)
    with torch.no_grad():
        found = [float(loss_of(model, i[None], t[None])) for i, t in zip(inputs, targets)]
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains pocket-chat.")
    parser.add_argument("tokens", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=5400.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    model = Decoder(CHAT)
    optimizers = clock.optimizers_of(model, MATRIX_RATE, REST_RATE)
    state = {"step": 0, "tokens": 0, "spent": 0.0}
    path = options.out / "chat.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        state = saved["state"]
        for optimizer, content in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(content)
    time_of = clock.Clock(options.seconds)
    time_of.spent_before = state["spent"]
    documents = Documents(options.tokens / "train.u16", SEED + state["step"])
    questions = Questions(options.tokens / "chat.npz", SEED + state["step"])
    heldout = np.fromfile(options.tokens / "heldout.u16", dtype=np.uint16)
    log = clock.Log(options.out / "chat.csv")
    saved_at, recent = time.monotonic(), []
    while (progress := time_of.progress()) < 1.0:
        clock.set_rate(optimizers, clock.rate(progress, state["step"]))
        every = next((every for start, every in QUESTIONS if progress >= start), None)
        asks = every is not None and state["step"] % every == 0
        rows, length = (LONG_ROWS, LONG_LENGTH) if progress >= LONG_FROM else (ROWS, LENGTH)
        ids, targets = (questions if asks else documents).batch(rows, length)
        loss = loss_of(model, ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        state["step"] += 1
        state["tokens"] += rows * length
        state["spent"] = time_of.spent()
        if not asks:
            recent.append(float(loss.detach()))
        if state["step"] % 20 == 0 and recent:
            log.add(state["spent"], state["step"], state["tokens"], "train", sum(recent) / len(recent))
            recent = []
        if asks and state["step"] % 20 == 1:
            log.add(state["spent"], state["step"], state["tokens"], "questions", float(loss.detach()))
        if time.monotonic() - saved_at > clock.SAVE_EVERY_S:
            log.add(state["spent"], state["step"], state["tokens"], "heldout", heldout_loss(model, heldout, 24))
            clock.save(path, CHAT.as_dict(), model, state, optimizers)
            saved_at = time.monotonic()
    log.add(state["spent"], state["step"], state["tokens"], "heldout", heldout_loss(model, heldout, 24))
    clock.save(path, CHAT.as_dict(), model, state, optimizers)


if __name__ == "__main__":
    main()
