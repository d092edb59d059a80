"""Small decoders with random weights for the engine's tests, built without a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.config import DecoderConfig
from engine.decoder import Decoder
from engine.formats import Weight, weight_format
from engine.kernels.layout import padded
from engine.threads import Team
from engine.weights import Weights
from tests.parity.reference import random_weights

SIZES: dict[str, Any] = {
    "architecture": "test",
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


def small_decoder(config: DecoderConfig, format_name: str = "f32", threads: int = 1) -> Decoder:
    """A decoder on random weights, the same for the same config."""
    return Decoder(config, packed_weights(random_values(config), format_name), Team(threads))
