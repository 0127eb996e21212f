"""llama.cpp through llama-cpp-python's low-level interface: quantise, tokenize, logits, embeddings."""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

GGML_F32, GGML_F16 = 0, 1


@llama_cpp.llama_log_callback
def _silent(_level, _text, _data):
    pass


llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def quantize(source: Path, target: Path, file_type: int, pure: bool) -> None:
    """Writes `target` in a llama.cpp file type; `pure` keeps one type for all matrices."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type
    params.pure = pure
    params.nthread = 1
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert status == 0, (status, target)


class Session:
    """A model file and one context on it; free with `close`."""

    def __init__(self, path: Path, kv_type: int = GGML_F32, context: int = 1024, embedding: bool = False, flash: bool = False):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp cannot load {path}"
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = kv_type
        params.flash_attn_type = 1 if flash else 0
        params.embeddings = embedding
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context, f"llama.cpp cannot run {path}"

    def close(self) -> None:
        """Frees the context and the model."""
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def tokenize(self, text: str) -> list[int]:
        """Ids with the specials the file asks for, special tokens in the text recognised."""
        data = text.encode()
        out = (llama_cpp.llama_token * (len(data) + 16))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), out, len(out), True, True)
        assert count >= 0
        return list(out[:count])

    def _decode(self, ids: list[int]) -> None:
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        assert status == 0, status

    def logits(self, ids: list[int]) -> np.ndarray:
        """Logits of every position of one sequence."""
        self._decode(ids)
        width = llama_cpp.llama_vocab_n_tokens(self.vocab)
        pointer = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(pointer, shape=(len(ids), width)).copy()

    def embedding(self, ids: list[int]) -> np.ndarray:
        """The pooled embedding of one sequence, as the model gives it (not normalised)."""
        memory = llama_cpp.llama_get_memory(self.context)
        if memory:
            llama_cpp.llama_memory_clear(memory, True)
        self._decode(ids)
        width = llama_cpp.llama_model_n_embd(self.model)
        pointer = llama_cpp.llama_get_embeddings_seq(self.context, 0)
        return np.ctypeslib.as_array(pointer, shape=(width,)).copy()


def compare(ours: np.ndarray, reference: np.ndarray) -> dict:
    """Error figures of `ours` [positions, vocab] against `reference`."""
    difference = ours.astype(np.float64) - reference
    centred = difference - difference.mean(axis=1, keepdims=True)
    spread = reference - reference.mean(axis=1, keepdims=True)
    return {
        "nmse": float((difference**2).sum() / (reference.astype(np.float64) ** 2).sum()),
        "nmse_centred": float((centred**2).sum() / (spread.astype(np.float64) ** 2).sum()),
        "max_abs": float(np.abs(difference).max()),
        "top1_agreement": float((ours.argmax(axis=1) == reference.argmax(axis=1)).mean()),
    }
