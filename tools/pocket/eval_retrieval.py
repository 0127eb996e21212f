"""Retrieval on crates never trained on: pocket-embed beside BM25 and all-MiniLM-L6-v2.

    python eval_retrieval.py CORPUS BURSAR POCKET.gguf [MINILM]

1,000 queries (first sentences of doc comments) against the 1,000 functions under them, each given
without its comment. Both embedding models run through `bursar embed`. Figures are MRR@10 and
recall@10, for all queries and for those that share no identifier with their code, in two readings:
"no identifier" means none of the code's identifiers is a word of the query; "no part of one" means
that none of the words that identifiers are made of (`binary_search`: binary, search) is, either.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

KEYWORDS = frozenset(
    """as async await break const continue crate dyn else enum extern false fn for if impl in let loop
    match mod move mut pub ref return self static struct super trait true type unsafe use where while
    macro_rules union""".split()
)
BM25_K1, BM25_B = 1.2, 0.75


def identifiers(text: str) -> set[str]:
    """Lower-case identifiers of a text, keywords left out."""
    found = {word.lower() for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}
    return {word for word in found if word not in KEYWORDS and len(word) > 1}


def parts(text: str) -> list[str]:
    """Lower-case words of a text, identifiers split at underscores and inner capitals."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return re.findall(r"[a-z]+|[0-9]+", text.lower())


def bm25(queries: list[str], codes: list[str]) -> np.ndarray:
    """Scores, queries x codes, over split identifiers (Robertson and Zaragoza 2009)."""
    bags = [Counter(parts(code)) for code in codes]
    sizes = np.array([sum(bag.values()) for bag in bags], dtype=float)
    seen = Counter(word for bag in bags for word in bag)
    norm = BM25_K1 * (1 - BM25_B + BM25_B * sizes / sizes.mean())
    scores = np.zeros((len(queries), len(codes)))
    for row, query in enumerate(queries):
        for word in set(parts(query)):
            if word not in seen:
                continue
            weight = math.log(1 + (len(codes) - seen[word] + 0.5) / (seen[word] + 0.5))
            counts = np.array([bag.get(word, 0) for bag in bags], dtype=float)
            scores[row] += weight * counts * (BM25_K1 + 1) / (counts + norm)
    return scores


def embedded(bursar: str, model: str, texts: list[str]) -> np.ndarray:
    """One vector per text, by the program."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, text in enumerate(texts):
            name = Path(folder) / f"{number:05d}.txt"
            name.write_text(text)
            names.append(str(name))
        out = Path(folder) / "vectors.npy"
        command = [bursar, "embed", model, "--files", *names, "--format", "npy", "-o", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return np.load(out)


def places(scores: np.ndarray) -> np.ndarray:
    """The place of each query's own code, from 1; among ties the middle one."""
    own = scores.diagonal()[:, None]
    better, equal = (scores > own).sum(1), (scores == own).sum(1)
    return 1 + better + (equal - 1) / 2


def figures(found: np.ndarray) -> str:
    """MRR@10 and recall@10."""
    inside = found <= 10
    return f"{np.where(inside, 1 / found, 0).mean():.3f} | {inside.mean():.3f}"


def main() -> None:
    corpus, bursar, models = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    with open(corpus / "retrieval.jsonl") as file:
        pairs = [json.loads(line) for line in file]
    queries, codes = [p["query"] for p in pairs], [p["code"] for p in pairs]
    whole = np.array([not identifiers(q) & identifiers(c) for q, c in zip(queries, codes)])
    split = np.array(
        [not set(parts(q)) & {w for i in identifiers(c) for w in parts(i)} for q, c in zip(queries, codes)]
    )
    ranked = {"BM25": places(bm25(queries, codes))}
    for model in models:
        name = "all-MiniLM-L6-v2" if "minilm" in model.lower() else "pocket-embed"
        vectors = embedded(bursar, model, queries + codes)
        ranked[name] = places(vectors[: len(queries)] @ vectors[len(queries) :].T)
    sets = (("all", np.ones(len(pairs), bool)), ("no identifier shared", whole), ("no part of one shared", split))
    print("| queries | model | MRR@10 | recall@10 |")
    print("|---|---|---:|---:|")
    for title, chosen in sets:
        for name, found in ranked.items():
            print(f"| {title} ({chosen.sum()}) | {name} | {figures(found[chosen])} |")


if __name__ == "__main__":
    main()
