"""Reads an exported model back into PyTorch, with the weights that the file holds (dequantised)."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, dequantize

from decoder import Decoder, Shape


def load(path: Path) -> Decoder:
    """The network of a GGUF file that `export.py` wrote."""
    reader = GGUFReader(str(path))

    def number(key: str):
        return reader.fields[f"qwen3.{key}"].contents()

    tensors = {t.name: torch.from_numpy(np.array(dequantize(t.data, t.tensor_type))) for t in reader.tensors}
    shape = Shape(
        vocab=tensors["token_embd.weight"].shape[0],
        dim=number("embedding_length"),
        layers=number("block_count"),
        heads=number("attention.head_count"),
        kv_heads=number("attention.head_count_kv"),
        head_dim=number("attention.key_length"),
        ffn=number("feed_forward_length"),
        context=number("context_length"),
        theta=number("rope.freq_base"),
        eps=number("attention.layer_norm_rms_epsilon"),
    )
    model = Decoder(shape)
    names = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in names.items():
            key = name if name in tensors else name + ".weight"
            parameter.copy_(tensors.pop(key).reshape(parameter.shape))
    if tensors:
        raise ValueError(f"{path} has tensors that the model has not: {sorted(tensors)}")
    return model.eval()
