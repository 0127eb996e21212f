#!/usr/bin/env python3
"""Embedding speed of all-MiniLM-L6-v2: Bursar beside sentence-transformers and onnxruntime.

    python bench/peers/minilm.py onnx  MODEL_DIR OUT.onnx
    python bench/peers/minilm.py run   MODEL_DIR TEXTS --engine st-f32|st-bf16|onnx-f32 [--onnx FILE]
    python bench/peers/minilm.py table MODEL_DIR TEXTS [--onnx FILE] [--bursar 'COMMAND {model} {texts}']

MODEL_DIR is a sentence-transformers directory with BERT, mean pooling and
normalisation; TEXTS has one text per line. `onnx` exports the encoder once. `run`
measures one engine and prints one JSON line with texts_per_second: tokenisation
and pooling are part of it, loading and one warm-up pass are not. `table` runs the
engines in turn, each in its own process, and prints a Markdown table; COMMAND is
any command that prints a JSON line with texts_per_second and, if it can,
tokens_per_second ({model}, {texts}, {threads} and {batch} are filled in).
"""

import argparse
import importlib.metadata
import json
import shlex
import sys
import time
from pathlib import Path

import interleave

METRICS = {"texts_per_second": "texts/s", "tokens_per_second": "tokens/s", "peak_rss_bytes": "peak RSS bytes"}
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def read_texts(path: Path) -> list[str]:
    """Lines ended by a line feed and by nothing else."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


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


def run(args) -> None:
    """Measures one engine."""
    import numpy as np

    texts = read_texts(args.texts)
    tokenizer = tokenizer_of(args.model)
    tokenizer.no_padding()
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts))
    if args.engine == "onnx-f32":
        if args.onnx is None:
            sys.exit("--engine onnx-f32 needs --onnx FILE; make it with: minilm.py onnx MODEL_DIR FILE")
        embed, package = onnxruntime(args.model, args.onnx, args.threads, args.batch), "onnxruntime"
    else:
        embed, package = sentence_transformers(args.model, args.engine.removeprefix("st-"), args.threads, args.batch), "sentence-transformers"
    embed(texts)
    best = []
    for _ in range(args.repeat):
        begun = time.perf_counter()
        vectors = embed(texts)
        best.append(time.perf_counter() - begun)
    seconds = sorted(best)[len(best) // 2]
    value = {
        "engine": args.engine,
        "version": importlib.metadata.version(package),
        "threads": args.threads,
        "batch": args.batch,
        "texts": len(texts),
        "tokens": tokens,
        "texts_per_second": round(len(texts) / seconds, 3),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_rss_bytes": peak_bytes(),
    }
    reference = args.model / "reference.npy"
    if reference.exists() and np.load(reference).shape == vectors.shape:
        value["cosine_min"] = float((np.load(reference) * vectors).sum(axis=1).min())
    print(json.dumps(value))


def peak_bytes() -> int:
    """VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def compare(args) -> None:
    """Runs the engines in turn and prints the table."""
    me = [sys.executable, str(Path(__file__).resolve()), "run", str(args.model), str(args.texts)]
    shape = ["--threads", str(args.threads), "--batch", str(args.batch), "--repeat", str(args.repeat)]
    commands = {"sentence-transformers f32": [*me, *shape, "--engine", "st-f32"], "sentence-transformers bf16": [*me, *shape, "--engine", "st-bf16"]}
    if args.onnx:
        commands["onnxruntime f32"] = [*me, *shape, "--engine", "onnx-f32", "--onnx", str(args.onnx)]
    if args.bursar:
        fill = {"model": args.model, "texts": args.texts, "threads": args.threads, "batch": args.batch}
        commands = {"bursar": [word.format(**fill) for word in shlex.split(args.bursar)], **commands}
    results = interleave.rounds(commands, args.rounds)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{args.model.name}, {args.texts.name}, {args.threads} threads, batches of {args.batch}, {args.rounds} rounds\n")
    print(interleave.table(results, METRICS, "sentence-transformers f32"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("onnx", help="export the encoder")
    verb.add_argument("model", type=Path, metavar="MODEL_DIR")
    verb.add_argument("out", type=Path, metavar="OUT.onnx")
    for name in ("run", "table"):
        verb = verbs.add_parser(name, help={"run": "measure one engine", "table": "measure all in turn"}[name])
        verb.add_argument("model", type=Path, metavar="MODEL_DIR")
        verb.add_argument("texts", type=Path, metavar="TEXTS")
        verb.add_argument("--onnx", type=Path, metavar="FILE", help="the exported encoder")
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--batch", type=int, default=32)
        verb.add_argument("--repeat", type=int, default=1, help="timed passes per process, of which the median counts")
        if name == "run":
            verb.add_argument("--engine", choices=["st-f32", "st-bf16", "onnx-f32"], required=True)
        else:
            verb.add_argument("--bursar", metavar="COMMAND", help="Bursar's command line, a template")
            verb.add_argument("--rounds", type=int, default=3)
            verb.add_argument("--json", type=Path, help="write every single result to this file")
    args = parser.parse_args()
    if args.verb == "onnx":
        export_onnx(args.model, args.out)
    elif args.verb == "run":
        run(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
