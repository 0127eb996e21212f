"""Compares Bursar with PyTorch on the exported files: greedy tokens, and vectors.

    python parity.py VOCABULARIES CHAT.gguf EMBED.gguf BURSAR

PyTorch computes with the file's weights dequantised and 32-bit activations; Bursar also rounds
activations to 8 bits, so vectors agree closely rather than exactly, and greedy texts may part where
two tokens are about equally likely. Where they part, the gap between the two tokens is printed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer

import gguf_model
from eval_chat import PROMPTS

TOKENS = 48
LIKENESS_MIN = 0.995
TEXTS = (
    "binary search in a sorted slice",
    "pub fn len(&self) -> usize {\n    self.entries.len()\n}",
    "Reads all bytes until EOF, na\u00efvely; HashMap<String, Vec<u8>>",
)


def greedy(model, tokenizer: Tokenizer, text: str, stops: set[int]) -> tuple[str, list[float]]:
    """The most likely continuation, and how far each token's logit is above the next one's."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    start, gaps = len(ids), []
    while len(ids) - start < TOKENS:
        with torch.no_grad():
            logits = model.logits(model.hidden(torch.tensor([ids]))[:, -1])[0]
        best = logits.topk(2)
        if int(best.indices[0]) in stops:
            break
        gaps.append(float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return tokenizer.decode(ids[start:]), gaps


def main() -> None:
    vocabularies, chat, embed, bursar = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    model, tokenizer = gguf_model.load(Path(chat)), Tokenizer.from_file(str(vocabularies / "chat.json"))
    stops = {tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|im_end|>")}
    agreed = 0
    for kind, prompt in PROMPTS:
        text = prompt if kind == "raw" else f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        want, gaps = greedy(model, tokenizer, text, stops)
        command = [bursar, "run", chat, text, "--raw", "--temperature", "0", "--max-tokens", str(TOKENS)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        got = done.stdout
        if got.strip() == want.strip():
            agreed += 1
            continue
        same = next((n for n, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
        place = len(tokenizer.encode(want[:same], add_special_tokens=False).ids)
        print(f"parts after {place} tokens, smallest gap near there {min(gaps[max(0, place - 1) : place + 2]):.3f}: {prompt!r}")
    print(f"chat: {agreed} of {len(PROMPTS)} continuations are equal")

    model, tokenizer = gguf_model.load(Path(embed)), Tokenizer.from_file(str(vocabularies / "embed.json"))
    for text in TEXTS:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(text)
            file.flush()
            command = [bursar, "embed", embed, "--files", file.name, "--format", "jsonl"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        got = torch.tensor(json.loads(done.stdout.splitlines()[0])["embedding"])
        ids = tokenizer.encode(text).ids
        with torch.no_grad():
            want = model.vectors(torch.tensor([ids]), torch.tensor([len(ids) - 1]))[0]
        likeness = float(want @ got)
        print(f"embed: cosine {likeness:.5f}")
        if likeness < LIKENESS_MIN:
            sys.exit(f"below {LIKENESS_MIN}")


if __name__ == "__main__":
    main()
