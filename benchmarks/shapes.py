"""Real shapes without a model: tensors and keys of GGUF files, as llama.cpp reads them."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """A decoder's sizes; architecture: GGUF's name."""

    n_layers: int
    hidden_size: int
    intermediate_size: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    architecture: str = "llama"
    rotary_dim: int = 0  # 0 = all of a head
    context: int = 4096


SHAPES = {
    "shape-1.1b": Shape(22, 2048, 5632, 32, 4, 32000),  # TinyLlama 1.1B
    "shape-6.7b": Shape(32, 4096, 11008, 32, 32, 32000),  # Llama 2 7B
    "shape-pythia-6.9b": Shape(32, 4096, 16384, 32, 32, 50432, "gptneox", 32, 2048),
    "shape-mpt-7b": Shape(32, 4096, 16384, 32, 32, 50432, "mpt", context=8192),
    # the width of Pythia 160M, a third of its layers: for texts that are long
    "shape-pythia-long": Shape(4, 768, 3072, 12, 12, 50304, "gptneox", 16, 32768),
    "shape-mpt-long": Shape(4, 768, 3072, 12, 12, 50304, "mpt", context=32768),
}
_BIASED = ("gptneox",)  # all of norms and matrices of layers
_TIED = ("mpt",)


def tensors(shape: Shape) -> dict[str, list[int]]:
    """Name -> size, (n_out, n_in), in the order of the file."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    n_kv = hidden // shape.n_heads * shape.n_kv_heads
    layer = {"attn_norm": [hidden], "attn_output": [hidden, hidden], "ffn_norm": [hidden],
             "ffn_up": [inner, hidden], "ffn_down": [hidden, inner]}  # fmt: skip
    if shape.architecture == "llama":
        layer |= {"attn_q": [hidden, hidden], "attn_k": [n_kv, hidden], "attn_v": [n_kv, hidden]}
        layer["ffn_gate"] = [inner, hidden]
    else:
        layer["attn_qkv"] = [hidden + 2 * n_kv, hidden]
    names = {"output_norm": [hidden]}
    for i in range(shape.n_layers):
        names |= {f"blk.{i}.{name}": size for name, size in layer.items()}
    found = {"token_embd.weight": [shape.vocab_size, hidden]}
    if shape.architecture not in _TIED:
        found["output.weight"] = [shape.vocab_size, hidden]
    found |= {f"{name}.weight": size for name, size in names.items()}
    if shape.architecture in _BIASED:
        found |= {f"{name}.bias": size[:1] for name, size in names.items()}
    return found


def keys(shape: Shape) -> dict[str, int | float | bool]:
    """Below the architecture's name."""
    found: dict[str, int | float | bool] = {
        "block_count": shape.n_layers, "context_length": shape.context,
        "embedding_length": shape.hidden_size, "feed_forward_length": shape.intermediate_size,
        "attention.head_count": shape.n_heads, "attention.head_count_kv": shape.n_kv_heads,
        "vocab_size": shape.vocab_size,
    }  # fmt: skip
    if shape.architecture == "mpt":
        return found | {"attention.layer_norm_epsilon": 1e-5, "attention.max_alibi_bias": 8.0}
    found["rope.dimension_count"] = shape.rotary_dim or shape.hidden_size // shape.n_heads
    if shape.architecture == "gptneox":
        return found | {"attention.layer_norm_epsilon": 1e-5, "use_parallel_residual": True}
    return found | {"attention.layer_norm_rms_epsilon": 1e-5}
