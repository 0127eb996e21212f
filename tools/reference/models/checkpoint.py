"""Writes tiny checkpoints the way real ones look on disk, with seeded weights.

Weights are drawn per tensor name, so that adding a case never changes another.
Scales are chosen so that attention scores and logits have spread: a forward
pass that drops a term must not stay within tolerance.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer

from fixtures import seed_of, write_json

transformers.utils.logging.disable_progress_bar()

LOGIT_STD = 2.0


def draw(seed: int, name: str, shape: tuple[int, ...], tied: bool, dim: int) -> torch.Tensor:
    """The weight of that name: norms near one, biases visible, matrices variance-keeping."""
    rng = np.random.Generator(np.random.PCG64(seed_of(seed, name)))
    noise = rng.standard_normal(shape)
    if name.endswith("bias"):
        value = 0.3 * noise
    elif len(shape) == 1:
        value = 1.0 + 0.2 * noise
    elif "lm_head" in name:
        value = noise * LOGIT_STD / np.sqrt(dim)
    elif "embed" in name:
        # Tied: it is the output matrix as well. Norms make its scale harmless as an input.
        value = noise * (LOGIT_STD / np.sqrt(dim) if tied else 1.0)
    else:
        gain = 1.5 if any(p in name for p in ("q_proj", "k_proj", "query", "key")) else 1.0
        # After BERT's layer norms a lone CLS row would hardly see the other tokens.
        gain = 4.0 if "self.value" in name else gain
        value = noise * gain / np.sqrt(shape[-1])
    return torch.from_numpy(value.astype(np.float32))


def weights(config: dict, seed: int) -> dict[str, torch.Tensor]:
    """Seeded tensors for every parameter of the architecture that the config names."""
    cls = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        model = cls(transformers.AutoConfig.for_model(**config))
    tied = bool(config.get("tie_word_embeddings", False))
    out = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if tied and name == "lm_head.weight":
            continue
        out[name] = draw(seed, name, tuple(parameter.shape), tied, config["hidden_size"])
    return out


def write(
    directory: Path,
    config: dict,
    tensors: dict[str, torch.Tensor],
    tokenizer: Tokenizer,
    tokenizer_config: dict,
    generation: dict | None = None,
    shards: int = 1,
) -> None:
    """A checkpoint directory: config, tokenizer, weights in one or several safetensors files."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.rglob("*.safetensors"):
        old.unlink()
    write_json(directory / "config.json", config)
    write_json(directory / "tokenizer_config.json", tokenizer_config)
    if generation is not None:
        write_json(directory / "generation_config.json", generation)
    value = json.loads(tokenizer.to_str())
    (directory / "tokenizer.json").write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for i in range(shards):
        part = {n: tensors[n] for n in names[i::shards]}
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def load(directory: Path, dtype=torch.float32, config: dict | None = None):
    """The language model in the given precision, every tensor of the file accounted for.

    `config` replaces the one on disk, to see what a changed setting does.
    """
    extra = {} if config is None else {"config": transformers.AutoConfig.for_model(**config)}
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager", output_loading_info=True, **extra
    )
    assert not info["missing_keys"], info
    assert not info["mismatched_keys"], info
    return model.eval()


def logits(model, ids: list[int]) -> np.ndarray:
    """Logits of every position, one pass without a cache."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def noise(directory: Path, ids: list[int], reference: np.ndarray) -> float:
    """Largest difference of the float32 reference from the same model in float64."""
    with torch.no_grad():
        exact = load(directory, dtype=torch.float64)(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    return float(np.abs(exact - reference.astype(np.float64)).max())
