"""Training by the clock: how far a run is, what its learning rate is, checkpoints and the loss log.

A run has a length in seconds, not in steps, so that a slow or shared machine still ends with a
learning rate that has come down to nothing. Only time spent running counts: a run that was stopped goes on
where its last checkpoint left it.
"""

import csv
import math
import os
import time
from pathlib import Path

import torch

SAVE_EVERY_S = 180.0
WARMUP_STEPS = 50


class Clock:
    """Progress from 0 to 1 over a run's seconds, or up to a time of day if one is given."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.spent_before = 0.0
        self.started = time.monotonic()

    def spent(self) -> float:
        """Seconds of training so far, earlier runs included."""
        return self.spent_before + time.monotonic() - self.started

    def progress(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.spent() / self.seconds)


def rate(progress: float, step: int) -> float:
    """The share of the peak learning rate: a short warm-up, then a cosine down to a fiftieth."""
    cosine = 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress))
    return cosine * min(1.0, (step + 1) / WARMUP_STEPS)


class Log:
    """A CSV of (seconds, step, tokens, series, value), which `curves.py` draws."""

    def __init__(self, path: Path) -> None:
        fresh = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "a", newline="")
        self.writer = csv.writer(self.file)
        if fresh:
            self.writer.writerow(["seconds", "step", "tokens", "series", "value"])

    def add(self, seconds: float, step: int, tokens: int, series: str, value: float) -> None:
        """Appends a point and prints it."""
        self.writer.writerow([f"{seconds:.0f}", step, tokens, series, f"{value:.4f}"])
        self.file.flush()
        print(f"{seconds:6.0f} s  step {step:5d}  {tokens:9d} tokens  {series} {value:.4f}", flush=True)


def save(path: Path, shape: dict, model: torch.nn.Module, state: dict, optimizers: list) -> None:
    """Writes a checkpoint, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "shape": shape,
        "model": model.state_dict(),
        "state": state,
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    torch.save(content, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def optimizers_of(model: torch.nn.Module, matrix_rate: float, rest_rate: float) -> list:
    """Muon for the layers' matrices, AdamW for embeddings and norms; peak rates in each group."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "token_embd" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "token_embd" in name]
    muon = torch.optim.Muon(
        matrices, lr=matrix_rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(rest, lr=rest_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]


def set_rate(optimizers: list, share: float) -> None:
    """Sets every group to its share of its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
