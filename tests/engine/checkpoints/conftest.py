"""A writer of tiny GGUF files through the gguf package: our reader meets another's bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

LLAMA = {
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.block_count": 1,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10_000.0,
}


def llama_tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    shapes = {
        "token_embd.weight": (11, 64),
        "output_norm.weight": (64,),
        "blk.0.attn_norm.weight": (64,),
        "blk.0.attn_q.weight": (64, 64),
        "blk.0.attn_k.weight": (32, 64),
        "blk.0.attn_v.weight": (32, 64),
        "blk.0.attn_output.weight": (64, 64),
        "blk.0.ffn_norm.weight": (64,),
        "blk.0.ffn_gate.weight": (96, 64),
        "blk.0.ffn_up.weight": (96, 64),
        "blk.0.ffn_down.weight": (64, 96),
    }
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


@pytest.fixture
def write_gguf(tmp_path: Path) -> Callable[..., Path]:
    """write_gguf(keys, tensors, quantised={name: (kind, rows)}, arch=…) → path.

    Without `keys` and `tensors`: a whole Llama of one layer.
    """

    def write(
        keys: dict[str, Any] | None = None,
        tensors: dict[str, np.ndarray] | None = None,
        quantised: dict[str, tuple[str, np.ndarray]] | None = None,
        arch: str = "llama",
    ) -> Path:
        path = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(path, arch)
        for key, value in (LLAMA if keys is None else keys).items():
            _add(writer, key, value)
        if tensors is None:
            tensors = llama_tensors(np.random.default_rng(0))
        for name, array in tensors.items():
            writer.add_tensor(name, array)
        for name, (kind, rows) in (quantised or {}).items():
            writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write
