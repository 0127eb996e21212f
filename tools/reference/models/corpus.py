"""The built-in text: a small grammar that yields as many sentences as wanted.

The tokenizers of the tiny models are trained on it, the tiny language models of
the GGUF cases learn it, and the prompts of the golden runs are drawn from it.
Everything is seeded, so the text is the same wherever it is made.
"""

import random

PLACES = ["harbour", "library", "mill", "station", "orchard", "market", "tower", "bridge"]
PEOPLE = ["the keeper", "a sailor", "the baker", "an engineer", "the clerk", "her brother", "the miller"]
THINGS = ["a ledger", "seven lamps", "the old map", "a box of nails", "three letters", "a copper coin", "the budget"]
VERBS = ["counted", "carried", "returned", "measured", "borrowed", "mended", "wrote down"]
WHEN = ["before dawn", "at noon", "after the storm", "on Monday", "in winter", "every evening"]
REASONS = [
    "because nobody else would",
    "so that nothing was lost",
    "and then the rain began",
    "although it was late",
    "which pleased the others",
]
CODE = [
    "fn grant(asked: u64, free: u64) -> bool {{ asked <= free }}",
    "let total = {a} + {b}; // {c}",
    "for i in 0..{a} {{ sum += bytes[i]; }}",
    "assert_eq!(used({a}), {b});",
    "if free < {a} {{ return Err(Refusal); }}",
]
OTHER = [
    "Žluťoučký kůň úpěl ďábelské ódy.",
    "Der Müller zählt 12 Säcke Mehl.",
    "记账的人每天晚上数铜钱。",
    "Что записано, то не потеряно.",
    "Budget: 64 MiB 🙂 — done!",
]


def sentence(rng: random.Random) -> str:
    """One line of the language: mostly prose, some sums, code and other scripts."""
    kind = rng.random()
    if kind < 0.60:
        text = f"{rng.choice(PEOPLE)} {rng.choice(VERBS)} {rng.choice(THINGS)}"
        if rng.random() < 0.7:
            text += f" at the {rng.choice(PLACES)}"
        if rng.random() < 0.6:
            text += f" {rng.choice(WHEN)}"
        if rng.random() < 0.4:
            text += f", {rng.choice(REASONS)}"
        return text[0].upper() + text[1:] + "."
    if kind < 0.78:
        a, b = rng.randint(1, 60), rng.randint(1, 60)
        return f"{a} and {b} make {a + b}."
    if kind < 0.92:
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        return rng.choice(CODE).format(a=a, b=b, c=a + b)
    return rng.choice(OTHER)


def lines(seed: int, count: int) -> list[str]:
    """`count` lines, the same for the same seed."""
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)]


def text(seed: int, count: int) -> str:
    """`count` lines joined by newlines."""
    return "\n".join(lines(seed, count)) + "\n"
