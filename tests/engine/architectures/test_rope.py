"""Both spellings of rotary parameters."""

from __future__ import annotations

from typing import Any

import pytest

from engine.architectures._keys import Keys
from engine.architectures._rope import rope
from engine.config import Rope, RopeScaling

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def read(config: dict[str, Any]) -> Rope:
    return rope(Keys(config), 16, 512)


def test_without_keys_the_rotation_is_the_original() -> None:
    assert read({}) == Rope()
    assert read({"rope_scaling": None, "rope_theta": 5e5}) == Rope(theta=5e5)


@pytest.mark.parametrize(
    ("own", "scaling"),
    [
        ({"rope_type": "default"}, RopeScaling()),
        ({"rope_type": "linear", "factor": 2}, RopeScaling("linear", factor=2.0)),
        (
            {"rope_type": "dynamic", "factor": 4.0},
            RopeScaling("dynamic", factor=4.0, original_max_seq_len=512),
        ),
        (
            {"rope_type": "llama3", **LLAMA3},
            RopeScaling("llama3", 8.0, 64, low_freq_factor=1.0, high_freq_factor=4.0),
        ),
        ({"rope_type": "yarn", "factor": 4.0}, RopeScaling("yarn", 4.0, 512)),
        (
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 16,
                "beta_slow": 2,
                "attention_factor": 0.9,
                "mscale": 1.0,
                "mscale_all_dim": 0.5,
                "truncate": False,
            },
            RopeScaling(
                "yarn",
                4.0,
                128,
                beta_fast=16.0,
                beta_slow=2.0,
                attention_factor=0.9,
                mscale=1.0,
                mscale_all_dim=0.5,
                truncate=False,
            ),
        ),
        (
            {"rope_type": "yarn", "original_max_position_embeddings": 128},
            RopeScaling("yarn", 4.0, 128),
        ),
    ],
)
def test_kinds_are_read_in_three_spellings(own: dict[str, Any], scaling: RopeScaling) -> None:
    old = {("type" if key == "rope_type" else key): value for key, value in own.items()}
    assert read({"rope_theta": 1e6, "rope_scaling": own}) == Rope(theta=1e6, scaling=scaling)
    assert read({"rope_theta": 1e6, "rope_scaling": old}) == Rope(theta=1e6, scaling=scaling)
    new = own | {"rope_theta": 1e6}
    assert read({"rope_parameters": new}) == Rope(theta=1e6, scaling=scaling)


def test_an_original_length_beside_the_scaling_wins() -> None:
    config = {
        "original_max_position_embeddings": 32,
        "rope_scaling": {"rope_type": "llama3", **LLAMA3},
    }
    assert read(config).scaling.original_max_seq_len == 32


def test_rope_scaling_wins_over_rope_parameters() -> None:
    linear = {"rope_type": "linear", "factor": 2.0}
    config = {"rope_scaling": linear, "rope_parameters": {"rope_type": "default"}}
    assert read(config).scaling == RopeScaling("linear", factor=2.0)


def test_gguf_sets_interleaving_and_divisors() -> None:
    found = read({"rope_interleaved": True, "rope_frequency_divisors": [1.0] * 8})
    assert found == Rope(interleaved=True, frequency_divisors=(1.0,) * 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"rope_scaling": {"type": "ntk"}},
            r"rope_scaling\.type must be one of default, linear, dynamic, llama3, yarn, longrope, "
            "got 'ntk'",
        ),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 7}},
            r"rope_scaling\.short_factor has 7 items, half the rotary dimension is 8",
        ),
        ({"rope_scaling": {"rope_type": ["yarn"]}}, r"rope_scaling\.rope_type must be one of"),
        ({"rope_scaling": {"type": "linear"}}, r"rope_scaling\.factor is missing"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 0}},
            r"rope_parameters\.factor must be greater than 0",
        ),
        ({"rope_scaling": [1]}, r"rope_scaling must be an object, got \[1\]"),
        ({"rope_theta": 1.0}, "rope_theta must be greater than 1"),
        ({"rope_theta": "big"}, "rope_theta must be a number, got 'big'"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor must be at most 1"),
        (
            {"rope_scaling": {"rope_type": "llama3", **LLAMA3, "high_freq_factor": 1.0}},
            r"rope_scaling\.high_freq_factor must be greater than low_freq_factor 1, got 1\.0",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            r"rope_parameters differs between layers \('full_attention'\)",
        ),
        (
            {"rope_frequency_divisors": [1.0] * 7},
            "rope_frequency_divisors has 7 items, half the rotary dimension is 8",
        ),
    ],
)
def test_faults_name_their_key(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        read(config)
