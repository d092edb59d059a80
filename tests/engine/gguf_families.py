"""GGUF files of Hugging Face directories of other families than Llama, made with the gguf package
alone, as llama.cpp's converter does."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

ARCHITECTURES = {
    "gpt_neox": gguf.MODEL_ARCH.GPTNEOX,
    "mpt": gguf.MODEL_ARCH.MPT,
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}


def converted(path: Path, folder: Path) -> Path:
    """The model of the folder in float32, without its tokenizer."""
    keys = json.loads((folder / "config.json").read_text())
    kind = keys["model_type"]
    architecture = ARCHITECTURES[kind]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    globals()[f"_{kind}"](writer, keys)
    writer.add_vocab_size(keys["vocab_size"])
    names = gguf.get_tensor_name_map(architecture, 16)
    for name, stored in load_file(folder / "model.safetensors").items():
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found, name
        writer.add_tensor(found, _turned(kind, keys, name, stored.astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _turned(kind: str, keys: dict[str, Any], name: str, values: np.ndarray) -> np.ndarray:
    if kind == "gpt_neox" and "query_key_value" in name:
        n_heads = keys["num_attention_heads"]
        heads = values.reshape(n_heads, 3, -1, *values.shape[1:])
        flat = [heads[:, part].reshape(-1, *values.shape[1:]) for part in range(3)]
        return np.concatenate(flat)
    if kind == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return np.ascontiguousarray(values.T)
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        return values + np.float32(1)
    return values


def _gpt_neox(writer: gguf.GGUFWriter, keys: dict[str, Any]) -> None:
    size = keys["hidden_size"] // keys["num_attention_heads"]
    writer.add_context_length(keys["max_position_embeddings"])
    writer.add_embedding_length(keys["hidden_size"])
    writer.add_block_count(keys["num_hidden_layers"])
    writer.add_feed_forward_length(keys["intermediate_size"])
    fraction = keys["rope_parameters"]["partial_rotary_factor"]
    writer.add_rope_dimension_count(int(fraction * size))
    writer.add_head_count(keys["num_attention_heads"])
    writer.add_parallel_residual(keys["use_parallel_residual"])
    writer.add_layer_norm_eps(keys["layer_norm_eps"])


def _mpt(writer: gguf.GGUFWriter, keys: dict[str, Any]) -> None:
    writer.add_context_length(keys["max_seq_len"])
    writer.add_embedding_length(keys["d_model"])
    writer.add_block_count(keys["n_layers"])
    writer.add_feed_forward_length(4 * keys["d_model"])
    writer.add_head_count(keys["n_heads"])
    writer.add_layer_norm_eps(1e-5)
    attention = keys["attn_config"]
    if attention["clip_qkv"] is not None:
        writer.add_clamp_kqv(attention["clip_qkv"])
    writer.add_max_alibi_bias(attention["alibi_bias_max"] if attention["alibi"] else 0.0)


def _gpt2(writer: gguf.GGUFWriter, keys: dict[str, Any]) -> None:
    writer.add_block_count(keys["n_layer"])
    writer.add_context_length(keys["n_positions"])
    writer.add_embedding_length(keys["n_embd"])
    writer.add_feed_forward_length(4 * keys["n_embd"])
    writer.add_head_count(keys["n_head"])
    writer.add_layer_norm_eps(keys["layer_norm_epsilon"])


def _phi3(writer: gguf.GGUFWriter, keys: dict[str, Any]) -> None:
    rope = keys["rope_parameters"]
    size = keys["hidden_size"] // keys["num_attention_heads"]
    original = keys["original_max_position_embeddings"]
    _rms(writer, keys)
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1.0) * size))
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_sliding_window(keys["sliding_window"] or 0)
    if "long_factor" in rope:
        scale = keys["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        for kind in ("long", "short"):
            factors = np.array(rope[f"{kind}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{kind}.weight", factors)


def _gemma2(writer: gguf.GGUFWriter, keys: dict[str, Any]) -> None:
    _rms(writer, keys)
    writer.add_key_length(keys["head_dim"])
    writer.add_value_length(keys["head_dim"])
    writer.add_attn_logit_softcapping(keys["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(keys["final_logit_softcapping"])
    writer.add_sliding_window(keys["sliding_window"])


def _gemma3_text(writer: gguf.GGUFWriter, keys: dict[str, Any]) -> None:
    rope = keys["rope_parameters"]["full_attention"]
    _rms(writer, keys)
    writer.add_key_length(keys["head_dim"])
    writer.add_value_length(keys["head_dim"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_sliding_window(keys["sliding_window"])


def _rms(writer: gguf.GGUFWriter, keys: dict[str, Any]) -> None:
    writer.add_context_length(keys["max_position_embeddings"])
    writer.add_embedding_length(keys["hidden_size"])
    writer.add_block_count(keys["num_hidden_layers"])
    writer.add_feed_forward_length(keys["intermediate_size"])
    writer.add_head_count(keys["num_attention_heads"])
    writer.add_head_count_kv(keys["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(keys["rms_norm_eps"])
