"""SmolLM2-135M-Instruct in transformers, its GGUF file dequantised by the gguf package."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
}


def _half_rotation(weight: NDArray[np.float32], n_heads: int) -> NDArray[np.float32]:
    """GGUF stores a head's rows for interleaved pairs; transformers rotates halves."""
    n_out, n_in = weight.shape
    pairs = weight.reshape(n_heads, n_out // n_heads // 2, 2, n_in)
    return pairs.swapaxes(1, 2).reshape(n_out, n_in)


@lru_cache(maxsize=2)
def reference_model(path: Path) -> Any:
    """LlamaForCausalLM in float32, eval mode."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    state = {}
    for tensor in GGUFReader(path).tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        prefix, _, rest = tensor.name.removesuffix(".weight").rpartition(".")
        name = _NAMES[rest]
        if prefix:
            name = f"model.layers.{prefix.removeprefix('blk.')}.{name}"
        if rest in ("attn_q", "attn_k"):
            values = _half_rotation(values, 9 if rest == "attn_q" else 3)
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(values))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


def write_q8(source: Path, target: Path) -> Path:
    """The same model with every matrix in Q8_0, quantised by the gguf package; no tokenizer."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
    from gguf.quants import dequantize, quantize

    writer = GGUFWriter(target, "llama")
    writer.add_block_count(30)
    writer.add_context_length(8192)
    writer.add_embedding_length(576)
    writer.add_feed_forward_length(1536)
    writer.add_head_count(9)
    writer.add_head_count_kv(3)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    q8 = GGMLQuantizationType.Q8_0
    for tensor in GGUFReader(source).tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 2:
            writer.add_tensor(tensor.name, quantize(values, q8), raw_dtype=q8)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def reference_logits(path: Path, token_ids: list[int]) -> NDArray[np.float32]:
    """Scores after each token, (T, vocab_size) float32."""
    import torch

    with torch.no_grad():
        logits: NDArray[np.float32] = (
            reference_model(path)(torch.tensor([token_ids])).logits[0].numpy()
        )
    return logits


def reference_greedy(path: Path, token_ids: list[int], n: int) -> list[int]:
    """The n likeliest tokens, one after another, without stopping at EOS."""
    import torch

    output = reference_model(path).generate(
        torch.tensor([token_ids]), attention_mask=torch.ones(1, len(token_ids), dtype=torch.long),
        do_sample=False, max_new_tokens=n, eos_token_id=-1,
    )  # fmt: skip
    return [int(i) for i in output[0][len(token_ids) :]]
