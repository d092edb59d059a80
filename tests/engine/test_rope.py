"""Rotary tables: by hand, and against transformers for every scaling kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.config import Rope, RopeScaling
from engine.rope import inverse_frequencies, rotation_table

TRAINED_LEN = 64

SCALINGS = {
    "none": RopeScaling(),
    "linear": RopeScaling("linear", factor=2.5),
    "dynamic": RopeScaling("dynamic", factor=4.0),
    "llama3": RopeScaling(
        "llama3",
        factor=8.0,
        original_max_seq_len=TRAINED_LEN,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
    ),
    "yarn": RopeScaling("yarn", factor=4.0, original_max_seq_len=TRAINED_LEN),
    "yarn_factor_given": RopeScaling(
        "yarn", factor=4.0, original_max_seq_len=TRAINED_LEN, attention_factor=0.75
    ),
    "yarn_mscale": RopeScaling(
        "yarn", factor=8.0, original_max_seq_len=TRAINED_LEN, mscale=0.707, mscale_all_dim=1.3
    ),
    "yarn_mscale_alone": RopeScaling(
        "yarn", factor=8.0, original_max_seq_len=TRAINED_LEN, mscale=0.707
    ),
    "yarn_not_truncated": RopeScaling(
        "yarn",
        factor=4.0,
        original_max_seq_len=TRAINED_LEN,
        truncate=False,
        beta_fast=8.0,
        beta_slow=0.5,
    ),
    "yarn_no_stretch": RopeScaling("yarn", factor=1.0, original_max_seq_len=TRAINED_LEN),
}


def test_frequencies_of_a_hand_written_case() -> None:
    frequencies, factor = inverse_frequencies(Rope(theta=10_000.0), 8, 1, 100)
    assert frequencies.dtype == np.float32
    assert_allclose(frequencies, [1.0, 0.1, 0.01, 0.001], rtol=1e-6)
    assert factor == 1.0


def test_table_holds_cos_and_sin_of_position_times_frequency() -> None:
    cos, sin = rotation_table(Rope(theta=100.0), 4, np.array([0, 3]), 4, 100)
    assert cos.shape == sin.shape == (2, 2)
    assert cos.dtype == sin.dtype == np.float32
    assert_allclose(cos, [[1, 1], [np.cos(3), np.cos(0.3)]], rtol=1e-6)
    assert_allclose(sin, [[0, 0], [np.sin(3), np.sin(0.3)]], rtol=1e-6)


def test_table_of_one_position_is_a_row_of_the_whole_table() -> None:
    rope = Rope(scaling=SCALINGS["yarn"])
    cos, sin = rotation_table(rope, 10, np.arange(50), 50, 256)
    cos_17, sin_17 = rotation_table(rope, 10, np.array([17]), 18, 256)
    assert_array_equal(cos_17[0], cos[17])
    assert_array_equal(sin_17[0], sin[17])


def test_linear_divides_every_frequency_by_the_factor() -> None:
    plain, _ = inverse_frequencies(Rope(), 6, 1, 100)
    scaled, _ = inverse_frequencies(Rope(scaling=RopeScaling("linear", factor=4.0)), 6, 1, 100)
    assert_array_equal(scaled * 4, plain)


def test_dynamic_is_unscaled_up_to_the_trained_length_and_slower_beyond() -> None:
    plain, _ = inverse_frequencies(Rope(), 8, 64, 64)
    rope = Rope(scaling=SCALINGS["dynamic"])
    assert_array_equal(inverse_frequencies(rope, 8, 64, 64)[0], plain)
    beyond, _ = inverse_frequencies(rope, 8, 65, 64)
    assert beyond[0] == 1.0
    assert (beyond[1:] < plain[1:]).all()


def test_dynamic_prefers_its_own_trained_length_to_the_maximum() -> None:
    rope = Rope(scaling=replace(SCALINGS["dynamic"], original_max_seq_len=32))
    by_field, _ = inverse_frequencies(rope, 8, 50, 128)
    by_maximum, _ = inverse_frequencies(Rope(scaling=SCALINGS["dynamic"]), 8, 50, 32)
    assert_array_equal(by_field, by_maximum)


def test_two_rotated_dimensions_turn_by_one_radian_under_dynamic() -> None:
    frequencies, _ = inverse_frequencies(Rope(scaling=SCALINGS["dynamic"]), 2, 500, 64)
    assert frequencies.tolist() == [1.0]


def test_llama3_keeps_fast_pairs_and_divides_slow_ones() -> None:
    rope = Rope(theta=10_000.0, scaling=SCALINGS["llama3"])
    plain, _ = inverse_frequencies(Rope(theta=10_000.0), 16, 1, TRAINED_LEN)
    scaled, _ = inverse_frequencies(rope, 16, 1, TRAINED_LEN)
    turns = TRAINED_LEN * plain / (2 * np.pi)
    assert_array_equal(scaled[turns > 4], plain[turns > 4])
    assert_allclose(scaled[turns < 1], plain[turns < 1] / 8, rtol=1e-6)
    between = (turns > 1) & (turns < 4)
    assert between.any()
    assert ((scaled < plain) & (scaled > plain / 8))[between].all()


def test_yarn_scales_cos_and_sin_by_its_attention_factor() -> None:
    rope = Rope(scaling=SCALINGS["yarn"])
    _, factor = inverse_frequencies(rope, 8, 1, 256)
    assert factor == pytest.approx(0.1 * np.log(4) + 1)
    cos, _ = rotation_table(rope, 8, np.array([0]), 1, 256)
    assert_allclose(cos, factor, rtol=1e-6)


def test_frequency_divisors_divide() -> None:
    plain, _ = inverse_frequencies(Rope(), 6, 1, 100)
    divided, _ = inverse_frequencies(Rope(frequency_divisors=(1.0, 2.0, 8.0)), 6, 1, 100)
    assert_array_equal(divided * [1, 2, 8], plain)


@pytest.mark.parametrize(
    ("rope", "rotary_dim", "message"),
    [
        (Rope(), 7, "must be even and at least 2, got 7"),
        (Rope(theta=1.0), 8, "theta must be greater than 1 and below 1e30, got 1.0"),
        (Rope(theta=float("nan")), 8, "theta must be greater than 1 and below 1e30, got nan"),
        (Rope(scaling=RopeScaling("linear", factor=0.0)), 8, "'linear' needs a positive factor"),
        (
            Rope(scaling=RopeScaling("llama3", low_freq_factor=4.0, high_freq_factor=4.0)),
            8,
            "needs 0 < low_freq_factor < high_freq_factor, got 4.0 and 4.0",
        ),
        (
            Rope(scaling=RopeScaling("yarn", factor=2.0, beta_fast=-1.0)),
            8,
            "needs beta_fast and beta_slow of at least 0, got -1.0 and 1.0",
        ),
        (Rope(frequency_divisors=(1.0, 0.0)), 4, "divisors must all be positive and finite"),
        (Rope(frequency_divisors=(1.0,)), 8, "1 frequency divisors for 4 rotated pairs"),
    ],
)
def test_a_rope_without_meaning_is_refused_in_one_line(
    rope: Rope, rotary_dim: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        inverse_frequencies(rope, rotary_dim, 10, 100)
    assert "\n" not in str(error.value)


def transformers_config(rope: Rope, rotary_dim: int, max_seq_len: int):
    """A LlamaConfig with one head of rotary_dim dimensions and the same rope."""
    from transformers import LlamaConfig

    scaling = rope.scaling
    parameters: dict[str, object] = {"rope_theta": rope.theta, "rope_type": scaling.kind}
    keys = {
        "none": [],
        "linear": ["factor"],
        "dynamic": ["factor"],
        "llama3": ["factor", "low_freq_factor", "high_freq_factor"],
        "yarn": [
            *("factor", "beta_fast", "beta_slow", "truncate"),
            *("attention_factor", "mscale", "mscale_all_dim"),
        ],
    }[scaling.kind]
    parameters |= {key: getattr(scaling, key) for key in keys}
    if scaling.kind == "none":
        parameters["rope_type"] = "default"
    if scaling.kind in ("llama3", "yarn"):
        parameters["original_max_position_embeddings"] = scaling.original_max_seq_len
    return LlamaConfig(
        hidden_size=rotary_dim,
        num_attention_heads=1,
        head_dim=rotary_dim,
        max_position_embeddings=max_seq_len,
        rope_parameters=parameters,
    )


@pytest.mark.parity
@pytest.mark.parametrize("theta", [10_000.0, 1_000_000.0])
@pytest.mark.parametrize("rotary_dim", [6, 10, 40, 128])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_agree_with_transformers(name: str, rotary_dim: int, theta: float) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = Rope(theta=theta, scaling=SCALINGS[name])
    config = transformers_config(rope, rotary_dim, TRAINED_LEN)
    initialise = ROPE_INIT_FUNCTIONS.get(
        rope.scaling.kind, LlamaRotaryEmbedding.compute_default_rope_parameters
    )
    for seq_len in (10, TRAINED_LEN, 3 * TRAINED_LEN):
        expected, expected_factor = initialise(config, seq_len=seq_len)
        ours, factor = inverse_frequencies(rope, rotary_dim, seq_len, TRAINED_LEN)
        assert_allclose(ours, expected.numpy(), rtol=2.4e-7)  # two last bits
        assert factor == pytest.approx(expected_factor, rel=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("n_tokens", [20, TRAINED_LEN, 3 * TRAINED_LEN, 3_000])
@pytest.mark.parametrize("rotary_dim", [10, 40, 64])
@pytest.mark.parametrize("name", SCALINGS)
def test_table_agrees_with_transformers(name: str, rotary_dim: int, n_tokens: int) -> None:
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = Rope(theta=10_000.0, scaling=SCALINGS[name])
    config = transformers_config(rope, rotary_dim, TRAINED_LEN)
    positions = torch.arange(n_tokens)
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), positions[None])
    ours_cos, ours_sin = rotation_table(rope, rotary_dim, positions.numpy(), n_tokens, TRAINED_LEN)
    half = rotary_dim // 2
    # a last bit of a frequency is worth position * 6e-8 radians
    tolerance = 3e-7 + 1.2e-7 * n_tokens
    assert_allclose(ours_cos, cos[0, :, :half].numpy(), rtol=0, atol=tolerance)
    assert_allclose(ours_sin, sin[0, :, half:].numpy(), rtol=0, atol=tolerance)
