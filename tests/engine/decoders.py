"""Small decoders with random weights for the engine's tests, built without a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from engine.architectures import llama
from engine.config import DecoderConfig
from engine.decoder import Decoder
from engine.formats import Weight, weight_format
from engine.kernels.layout import padded
from engine.model import Model
from engine.threads import Team
from engine.weights import Weights
from tests.parity.reference import random_weights

SIZES: dict[str, Any] = {
    "architecture": "llama",
    "vocab_size": 97,
    "hidden_size": 72,
    "intermediate_size": 136,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 24,
    "max_seq_len": 256,
}


def small_config(**flags: Any) -> DecoderConfig:
    """No size is a multiple of a block."""
    return DecoderConfig(**(SIZES | flags))


def random_values(config: DecoderConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Canonical name -> float32."""
    return random_weights(config, np.random.default_rng(seed))


def packed_weights(values: dict[str, np.ndarray], format_name: str = "f32") -> Weights:
    """The same in a weight format, vectors padded."""
    matrices, vectors = {}, {}
    for name, value in values.items():
        if value.ndim == 2:
            data = weight_format(format_name).quantize(padded(value))
            matrices[name] = Weight(format_name, data, *value.shape)
        else:
            vectors[name] = np.pad(value, (0, -len(value) % 32))
    return Weights(matrices, vectors)


def small_decoder(
    config: DecoderConfig, format_name: str = "f32", threads: int = 1, kv: str = "f32"
) -> Decoder:
    """A decoder on random weights, the same for the same config."""
    return Decoder(config, packed_weights(random_values(config), format_name), Team(threads), kv)


def save_llama(folder: Path, values: dict[str, np.ndarray] | None = None, **keys: Any) -> Path:
    """A Hugging Face directory of SIZES; weights random or `values`; keys go to config.json."""
    from safetensors.numpy import save_file

    config = {
        "model_type": "llama",
        "vocab_size": SIZES["vocab_size"],
        "hidden_size": SIZES["hidden_size"],
        "intermediate_size": SIZES["intermediate_size"],
        "num_hidden_layers": SIZES["n_layers"],
        "num_attention_heads": SIZES["n_heads"],
        "num_key_value_heads": SIZES["n_kv_heads"],
        "head_dim": SIZES["head_dim"],
        "max_position_embeddings": SIZES["max_seq_len"],
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | keys))
    values = random_values(small_config()) if values is None else values
    save_file({_stored_name(name): value for name, value in values.items()},
              folder / "model.safetensors")  # fmt: skip
    return folder


def _stored_name(canonical: str) -> str:
    """The name that llama checkpoints use."""
    if not canonical.startswith("layers."):
        return llama.TENSORS[canonical]
    _, layer, name = canonical.split(".", 2)
    return llama.TENSORS[f"layers.{{i}}.{name}"].format(i=layer)


def small_model(format_name: str = "q8", threads: int = 1, **changes: Any) -> Model:
    """A model of random weights without a tokenizer; changes are fields of Model."""
    config = changes.get("config", small_config())
    fields: dict[str, Any] = {
        "path": Path("small"),
        "config": config,
        "tokenizer": None,
        "decoder": small_decoder(config, format_name, threads),
        "fingerprint": "0" * 64,
        "max_seq_len": config.max_seq_len,
        "stop_ids": frozenset(),
        "generation_defaults": {},
    }
    return Model(**(fields | changes))


SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def save_talker(folder: Path, max_seq_len: int = 2048) -> Path:
    """A Hugging Face directory of a model that chats in ASCII, one character a token.

    It never ends a turn: special tokens have the score 0, others' best is above. So its answers are
    encoded as the very tokens that it gave.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from tests.tiny import CHAT_TEMPLATE

    characters = {"\n": "Ċ", " ": "Ġ"} | {chr(code): chr(code) for code in range(33, 127)}
    names = [*SPECIAL_TOKENS, *characters.values()]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL_TOKENS])
    values = random_values(small_config(vocab_size=len(names)))
    values["head"][: len(SPECIAL_TOKENS)] = 0
    sizes = {"vocab_size": len(names), "max_position_embeddings": max_seq_len}
    save_llama(folder, values, **sizes, bos_token_id=1, eos_token_id=2)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
