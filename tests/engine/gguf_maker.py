"""Small GGUF files of Llama, made with the gguf package alone, as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from engine.config import DecoderConfig

_NAMES = {
    "embedding": "token_embd", "final_norm": "output_norm", "head": "output",
    "attention_norm": "attn_norm", "ffn_norm": "ffn_norm", "wq": "attn_q", "wk": "attn_k",
    "wv": "attn_v", "wo": "attn_output", "w_gate": "ffn_gate", "w_up": "ffn_up",
    "w_down": "ffn_down",
}  # fmt: skip


def permuted(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """What convert_hf_to_gguf.py does to wq and wk, spelled out row by row."""
    head_dim = len(rows) // n_heads
    out = np.empty_like(rows)
    for head in range(n_heads):
        for i in range(head_dim):
            half, place = divmod(i, head_dim // 2)
            out[head * head_dim + 2 * place + half] = rows[head * head_dim + i]
    return out


def save_gguf(path: Path, config: DecoderConfig, values: dict[str, np.ndarray]) -> Path:
    """A float32 file of values in Hugging Face's order of rows."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.n_layers)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_context_length(config.max_seq_len)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope.theta)
    for name, rows in values.items():
        *layer, kind = name.split(".")
        if kind in ("wq", "wk"):
            rows = permuted(rows, config.n_heads if kind == "wq" else config.n_kv_heads)
        block = f"blk.{layer[1]}." if layer else ""
        writer.add_tensor(f"{block}{_NAMES[kind]}.weight", rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
