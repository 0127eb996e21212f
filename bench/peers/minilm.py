#!/usr/bin/env python3
"""Embedding speed of all-MiniLM-L6-v2: Bursar beside sentence-transformers and onnxruntime.

    python bench/peers/minilm.py lines TEXTS [--count 20000]
    python bench/peers/minilm.py onnx  MODEL_DIR OUT.onnx
    python bench/peers/minilm.py run   MODEL_DIR TEXTS --engine st-f32|st-bf16|onnx-f32|bursar [--onnx FILE] [--program BURSAR]
    python bench/peers/minilm.py table MODEL_DIR TEXTS [--onnx FILE] [--program BURSAR]
    python bench/peers/minilm.py resume MODEL_DIR TEXTS --program BURSAR

MODEL_DIR is a sentence-transformers directory with BERT, mean pooling and
normalisation; TEXTS has one text per line. `lines` makes such a file from the
documentation and comments of Python's standard library, always the same for one
version of Python. `onnx` exports the encoder once. `run` measures one engine and
prints one JSON line with texts_per_second: tokenisation and pooling are part of
it (Bursar's reading and writing of files too), loading and a warm-up with some
of the texts are not. `table` runs the engines in turn, each in its own process,
prints a Markdown table and how far each engine's vectors are from the first's.
`resume` embeds the texts in one go, then again, killed (SIGKILL) at a third and at
two thirds and started again each time, and compares the files.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import io
import json
import random
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
import tokenize
from pathlib import Path

import interleave

# Texts embedded before the clock starts.
WARM_UP = 256
METRICS = {"texts_per_second": "texts/s", "tokens_per_second": "tokens/s", "peak_rss_bytes": "peak RSS bytes"}
ENGINES = ["st-f32", "st-bf16", "onnx-f32", "bursar"]
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def read_texts(path: Path) -> list[str]:
    """Lines ended by a line feed and by nothing else."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def paragraphs(source: str):
    """Paragraphs of the docstrings and comments of a module, in their order, each as one line."""
    texts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if text := ast.get_docstring(node):
                texts.append((getattr(node, "lineno", 0), text))
    comment, last = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if comment and token.start[0] != last + 1:
                texts.append((last, " ".join(comment)))
                comment = []
            comment.append(token.string.lstrip("#!: "))
            last = token.start[0]
    texts.append((last, " ".join(comment)))
    for _, text in sorted(texts):
        for part in re.split(r"\n\s*\n", text):
            if len(line := " ".join(part.split())) >= 20:
                yield line


def lines(args) -> None:
    """Writes texts: different ones, drawn with a fixed seed."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            found.update(dict.fromkeys(paragraphs(path.read_text(encoding="utf-8"))))
        except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
            continue  # Test cases that are meant to be broken.
    drawn = random.Random(0).sample(list(found), args.count)
    text = "".join(line + "\n" for line in drawn)
    args.texts.write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(f"{args.count} of {len(found)} lines of Python {sys.version.split()[0]}, {len(text)} bytes, SHA-256 {digest}")


def max_tokens(directory: Path) -> int:
    """What sentence-transformers keeps of a text."""
    return json.loads((directory / "sentence_bert_config.json").read_text())["max_seq_length"]


def tokenizer_of(directory: Path):
    """The fast tokenizer, padding a batch to its longest text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(max_tokens(directory))
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer


def export_onnx(directory: Path, out: Path) -> None:
    """The encoder with dynamic batch and length."""
    import torch
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = AutoModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e9
            return self.model(input_ids=input_ids, attention_mask=mask, token_type_ids=token_type_ids).last_hidden_state

    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {name: {0: "batch", 1: "length"} for name in [*INPUTS, "hidden"]}
    torch.onnx.export(
        Encoder(), (ids, torch.ones_like(ids), torch.zeros_like(ids)), str(out),
        input_names=INPUTS, output_names=["hidden"], dynamic_axes=axes, opset_version=17, dynamo=False,
    )  # fmt: skip


def sentence_transformers(directory: Path, dtype: str, threads: int, batch: int):
    """A function from texts to normalised vectors."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = SentenceTransformer(str(directory), device="cpu", model_kwargs={"dtype": kind})

    def embed(texts):
        return model.encode(texts, batch_size=batch, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False).float().numpy()

    return embed


def onnxruntime(directory: Path, file: Path, threads: int, batch: int):
    """A function from texts to normalised vectors, batches of like length as sentence-transformers makes them."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    tokenizer = tokenizer_of(directory)

    def embed(texts):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        out = [None] * len(texts)
        for begin in range(0, len(order), batch):
            part = order[begin : begin + batch]
            encoded = tokenizer.encode_batch([texts[i] for i in part])
            ids = np.array([e.ids for e in encoded], dtype=np.int64)
            mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
            hidden = session.run(None, dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)))))[0]
            weight = mask[:, :, None].astype(np.float32)
            mean = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
            mean /= np.linalg.norm(mean, axis=1, keepdims=True)
            for i, row in zip(part, mean):
                out[i] = row
        return np.stack(out)

    return embed


def bursar(args) -> dict:
    """`bursar embed` as users run it, files included."""
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder) / "vectors.npy"
        command = [args.program, "embed", str(args.model), str(args.texts), "--threads", str(args.threads), "--json", "-o", str(out), "--restart"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(done.stdout)
    version = subprocess.run([args.program, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[1]
    return {
        "engine": "bursar",
        "version": version,
        "threads": args.threads,
        "texts": figures["texts"],
        "tokens": figures["tokens"],
        "seconds": round(figures["seconds"], 3),
        "texts_per_second": round(figures["texts_per_second"], 3),
        "tokens_per_second": round(figures["tokens_per_second"], 1),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


def resume(args) -> None:
    """One run, and one that is killed twice."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole.npy", Path(folder) / "killed.npy"
        command = [args.program, "embed", str(args.model), str(args.texts), "--threads", str(args.threads), "--json", "-o"]
        one = json.loads(subprocess.run([*command, str(whole)], stdout=subprocess.PIPE, text=True, check=True).stdout)
        partial = killed.with_name(killed.name + ".partial")
        kept = []
        for part in (1, 2):
            process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not partial.exists() or partial.stat().st_size < whole.stat().st_size * part / 3:
                if process.poll() is not None:
                    sys.exit("it ended before it could be killed")
                time.sleep(0.01)
            process.kill()
            process.wait()
            kept.append((partial.stat().st_size - 128) // (4 * one["dimensions"]))
        rest = json.loads(subprocess.run([*command, str(killed)], stdout=subprocess.PIPE, text=True, check=True).stdout)
        equal = whole.read_bytes() == killed.read_bytes()
        print(f"in one go: {one['texts']} texts in {one['seconds']:.1f} s; killed after {kept[0]} and {kept[1]} rows, "
              f"the last run went on after {rest['texts_resumed']} and took {rest['seconds']:.1f} s; "
              f"the files are {'equal' if equal else 'DIFFERENT'}")
        sys.exit(0 if equal else 1)


def peer(args) -> dict:
    """An engine in this process."""
    import numpy as np

    texts = read_texts(args.texts)
    if args.engine == "onnx-f32":
        if args.onnx is None:
            sys.exit("--engine onnx-f32 needs --onnx FILE; make it with: minilm.py onnx MODEL_DIR FILE")
        embed, package = onnxruntime(args.model, args.onnx, args.threads, args.batch), "onnxruntime"
    else:
        embed, package = sentence_transformers(args.model, args.engine.removeprefix("st-"), args.threads, args.batch), "sentence-transformers"
    embed(texts[:WARM_UP])
    begun = time.perf_counter()
    vectors = embed(texts)
    seconds = time.perf_counter() - begun
    peak = peak_bytes()
    if args.out:
        np.save(args.out, vectors.astype(np.float32))
    tokenizer = tokenizer_of(args.model)
    tokenizer.no_padding()
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts))
    return {
        "engine": args.engine,
        "version": importlib.metadata.version(package),
        "threads": args.threads,
        "batch": args.batch,
        "texts": len(texts),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "texts_per_second": round(len(texts) / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_rss_bytes": peak,
    }


def run(args) -> None:
    """Measures one engine."""
    print(json.dumps(bursar(args) if args.engine == "bursar" else peer(args)))


def peak_bytes() -> int:
    """VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def compare(args) -> None:
    """Runs the engines in turn and prints the table."""
    import numpy as np

    names = {"st-f32": "sentence-transformers f32", "st-bf16": "sentence-transformers bf16"}
    if args.onnx:
        names["onnx-f32"] = "onnxruntime f32"
    if args.program:
        names["bursar"] = "bursar f32"
    names = {engine: name for engine, name in names.items() if engine in (args.engines or names)}
    more = ["--threads", str(args.threads), "--batch", str(args.batch), "--program", str(args.program), "--onnx", str(args.onnx)]
    with tempfile.TemporaryDirectory() as folder:
        vectors = {engine: Path(folder) / f"{engine}.npy" for engine in names}
        me = [sys.executable, str(Path(__file__).resolve()), "run", str(args.model), str(args.texts), *more]
        commands = {name: [*me, "--engine", engine, "--out", str(vectors[engine])] for engine, name in names.items()}
        results = interleave.rounds(commands, args.rounds)
        first, *others = [(names[engine], np.load(path).astype(np.float64)) for engine, path in vectors.items()]
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    texts, tokens = (results[first[0]][0][key] for key in ("texts", "tokens"))
    print(f"{args.model.name}, {args.texts.name}: {texts} texts, {tokens} tokens, {args.threads} threads, peers in batches of {args.batch}, rounds: {args.rounds}\n")
    print(interleave.table(results, METRICS, first[0]) + "\n")
    for name, rows in others:
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(first[1], axis=1)
        print(f"smallest cosine of {name} with {first[0]}: {((rows * first[1]).sum(axis=1) / lengths).min():.9f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("onnx", help="export the encoder")
    verb.add_argument("model", type=Path, metavar="MODEL_DIR")
    verb.add_argument("out", type=Path, metavar="OUT.onnx")
    verb = verbs.add_parser("lines", help="make a file of texts")
    verb.add_argument("texts", type=Path, metavar="TEXTS")
    verb.add_argument("--count", type=int, default=20_000)
    verb = verbs.add_parser("resume", help="kill Bursar and start it again")
    verb.add_argument("model", type=Path, metavar="MODEL_DIR")
    verb.add_argument("texts", type=Path, metavar="TEXTS")
    verb.add_argument("--program", metavar="BURSAR", required=True)
    verb.add_argument("--threads", type=int, default=2)
    for name in ("run", "table"):
        verb = verbs.add_parser(name, help={"run": "measure one engine", "table": "measure all in turn"}[name])
        verb.add_argument("model", type=Path, metavar="MODEL_DIR")
        verb.add_argument("texts", type=Path, metavar="TEXTS")
        verb.add_argument("--onnx", type=Path, metavar="FILE", help="the exported encoder")
        verb.add_argument("--program", metavar="BURSAR", help="the bursar program")
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--batch", type=int, default=32)
        if name == "run":
            verb.add_argument("--engine", choices=ENGINES, required=True)
            verb.add_argument("--out", type=Path, metavar="FILE.npy", help="keep the vectors")
        else:
            verb.add_argument("--engines", nargs="+", choices=ENGINES, help="only these")
            verb.add_argument("--rounds", type=int, default=3)
            verb.add_argument("--json", type=Path, help="write every single result to this file")
    args = parser.parse_args()
    if args.verb == "onnx":
        export_onnx(args.model, args.out)
    elif args.verb == "lines":
        lines(args)
    elif args.verb == "resume":
        resume(args)
    elif args.verb == "run":
        run(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
