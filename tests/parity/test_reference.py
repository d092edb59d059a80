"""The NumPy decoder: by its symmetries, and against transformers family by family."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine.config import DecoderConfig, Rope, RopeScaling
from tests import tiny
from tests.parity import families, reference
from tests.parity.families import FAMILIES, SMALL

TOKEN_IDS = np.random.default_rng(3).integers(0, SMALL.vocab_size, 24)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- symmetries, without transformers -----------------------------------------------------------


def test_a_token_does_not_change_the_logits_before_it(rng: np.random.Generator) -> None:
    weights = reference.random_weights(SMALL, rng)
    changed = TOKEN_IDS.copy()
    changed[10] += 1
    before = reference.logits(SMALL, weights, TOKEN_IDS)
    after = reference.logits(SMALL, weights, changed)
    assert_array_equal(before[:10], after[:10])
    assert (before[10:] != after[10:]).any(axis=1).all()


def test_a_token_outside_every_window_has_no_influence(rng: np.random.Generator) -> None:
    config = replace(SMALL, sliding_window=4)  # 2 layers of 3 tokens back each
    weights = reference.random_weights(config, rng)
    changed = TOKEN_IDS.copy()
    changed[5] += 1
    differs = (
        reference.logits(config, weights, TOKEN_IDS) != reference.logits(config, weights, changed)
    ).any(axis=1)
    assert np.flatnonzero(differs).tolist() == list(range(5, 12))


def test_interleaved_rope_is_half_rope_with_the_rows_of_q_and_k_in_another_order(
    rng: np.random.Generator,
) -> None:
    weights = reference.random_weights(SMALL, rng)
    expected = reference.logits(SMALL, weights, TOKEN_IDS)
    order = np.arange(SMALL.head_dim).reshape(2, -1).T.ravel()  # 0, 4, 1, 5, …
    for name in [n for n in weights if n.endswith(("wq", "wk"))]:
        heads = weights[name].reshape(-1, SMALL.head_dim, SMALL.hidden_size)
        weights[name] = heads[:, order].reshape(weights[name].shape)
    interleaved = replace(SMALL, rope=Rope(interleaved=True))
    assert_allclose(reference.logits(interleaved, weights, TOKEN_IDS), expected, rtol=1e-9)


def test_one_kv_head_is_many_equal_ones(rng: np.random.Generator) -> None:
    config = replace(SMALL, n_kv_heads=1)
    weights = reference.random_weights(config, rng)
    expected = reference.logits(config, weights, TOKEN_IDS)
    for name in [n for n in weights if n.endswith(("wk", "wv"))]:
        weights[name] = np.tile(weights[name], (SMALL.n_heads, 1))
    assert_allclose(reference.logits(SMALL, weights, TOKEN_IDS), expected, rtol=1e-9)


def test_alibi_slopes_of_a_power_of_two_and_of_five_heads() -> None:
    four = reference.alibi_slopes(replace(SMALL, n_heads=4, n_kv_heads=1))
    assert_allclose(four, [2**-2.0, 2**-4.0, 2**-6.0, 2**-8.0])
    five = reference.alibi_slopes(replace(SMALL, n_heads=5))
    assert_allclose(five, [2**-2.0, 2**-4.0, 2**-6.0, 2**-8.0, 2**-1.0])
    halved = reference.alibi_slopes(replace(SMALL, n_heads=5, alibi_max_bias=4.0))
    assert_allclose(halved**2, five)


def test_float32_is_close_to_float64(rng: np.random.Generator) -> None:
    weights = reference.random_weights(SMALL, rng)
    exact = reference.logits(SMALL, weights, TOKEN_IDS)
    single = reference.logits(SMALL, weights, TOKEN_IDS, np.float32)
    assert (exact.dtype, single.dtype) == (np.float64, np.float32)
    assert_allclose(single, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_random_weights_give_logits_that_spread(name: str, rng: np.random.Generator) -> None:
    config = FAMILIES[name].config
    weights = reference.random_weights(config, rng)
    logits = reference.logits(config, weights, TOKEN_IDS)
    assert logits.shape == (len(TOKEN_IDS), config.vocab_size)
    assert 2 < logits.std() / config.logit_scale < 8


def test_the_families_set_every_flag_of_the_config_both_ways() -> None:
    configs = [family.config for family in FAMILIES.values()]
    sizes = {"architecture", "vocab_size", "hidden_size", "intermediate_size", "n_layers"}
    sizes |= {"n_heads", "head_dim", "max_seq_len", "alibi_max_bias"}
    sizes.add("qk_norm_whole")  # MPT's qk_ln, which transformers leaves out
    for flag in {field.name for field in fields(DecoderConfig)} - sizes:
        assert len({getattr(config, flag) for config in configs}) > 1, flag


# --- transformers -------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_every_family_are_those_of_transformers(name: str) -> None:
    import torch

    family = FAMILIES[name]
    model = family.model()
    with torch.no_grad():
        expected = model(torch.tensor(TOKEN_IDS[None])).logits[0].numpy()
    ours = reference.logits(family.config, family.weights(model), TOKEN_IDS)
    assert expected.std() > 1 * family.config.logit_scale
    assert_allclose(ours, expected, rtol=0, atol=2e-4)


def tiny_decoder_config(keys: Any) -> DecoderConfig:
    """What transformers' config of a tiny Llama, Mistral or Qwen2 means, by hand."""
    rope = keys.rope_parameters
    kind = "none" if rope["rope_type"] == "default" else rope["rope_type"]
    names = ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "mscale")
    names += ("mscale_all_dim", "truncate")
    scaling = RopeScaling(
        kind,
        original_max_seq_len=rope.get("original_max_position_embeddings", 0),
        **{name: rope[name] for name in names if name in rope},
    )
    layer_types = getattr(keys, "layer_types", None) or []
    is_llama = keys.model_type == "llama"
    return DecoderConfig(
        architecture=keys.model_type,
        vocab_size=keys.vocab_size,
        hidden_size=keys.hidden_size,
        intermediate_size=keys.intermediate_size,
        n_layers=keys.num_hidden_layers,
        n_heads=keys.num_attention_heads,
        n_kv_heads=keys.num_key_value_heads,
        head_dim=keys.head_dim,
        max_seq_len=keys.max_position_embeddings,
        norm_eps=keys.rms_norm_eps,
        rope=Rope(theta=rope["rope_theta"], scaling=scaling),
        qkv_bias=keys.attention_bias if is_llama else keys.model_type == "qwen2",
        o_bias=is_llama and keys.attention_bias,
        mlp_bias=is_llama and keys.mlp_bias,
        sliding_window=getattr(keys, "sliding_window", None) or 0,
        full_attention_layers=tuple(
            i for i, kind in enumerate(layer_types) if kind == "full_attention"
        ),
        tied_head=keys.tie_word_embeddings,
    )


@pytest.mark.parity
@pytest.mark.parametrize("name", tiny.TINY_NAMES)
def test_logits_of_every_tiny_checkpoint_are_those_of_transformers(name: str) -> None:
    folder = tiny.tiny_checkpoint(name)
    model = tiny.reference_model(folder)
    family = families.Family("", {}, tiny_decoder_config(model.config), names=families.LLAMA_NAMES)
    weights = family.weights(model)
    ours = reference.logits(family.config, weights, list(tiny.LONG_IDS))
    expected = tiny.reference_logits(folder, tiny.LONG_IDS)
    assert_allclose(ours, expected, rtol=0, atol=5e-4)


@pytest.mark.parity
@pytest.mark.parametrize("name", tiny.TINY_NAMES)
def test_the_likeliest_token_of_every_tiny_checkpoint_leads_clearly(name: str) -> None:
    """Greedy text decides nothing when two logits are closer than float32 noise."""
    folder = tiny.tiny_checkpoint(name)
    new_ids = tiny.reference_greedy(folder, tiny.PROMPT_IDS, 24, eos_token_id=-1)
    assert len(new_ids) == 24
    assert len(set(new_ids)) > 5
    if "dynamic" in name:
        return  # its cached keys keep the frequencies of their time; one pass gives other logits
    logits = tiny.reference_logits(folder, [*tiny.PROMPT_IDS, *new_ids])[len(tiny.PROMPT_IDS) - 1 :]
    assert logits[:-1].argmax(axis=1).tolist() == new_ids
    second, first = np.sort(logits[:-1], axis=1)[:, -2:].T
    assert (first - second).min() > 1e-3


@pytest.mark.parity
def test_reference_beams_score_is_the_sum_of_log_probabilities() -> None:
    folder = tiny.tiny_checkpoint("llama")
    results = tiny.reference_beams(
        folder, tiny.PROMPT_IDS, 4, 8, num_return_sequences=3, eos_token_id=-1
    )
    assert len(results) == 3
    for new_ids, score in results:
        logits = tiny.reference_logits(folder, [*tiny.PROMPT_IDS, *new_ids]).astype(np.float64)
        logits = logits[len(tiny.PROMPT_IDS) - 1 : -1]
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert score == pytest.approx(logprobs[range(8), new_ids].sum(), abs=1e-4)
    assert results[0][1] >= results[1][1] >= results[2][1]


@pytest.mark.parity
def test_reference_text_ends_with_the_first_end_token() -> None:
    folder = tiny.tiny_checkpoint("llama")
    free = tiny.reference_greedy(folder, tiny.PROMPT_IDS, 12, eos_token_id=-1)
    end = free[6]
    stop = free.index(end) + 1
    assert tiny.reference_greedy(folder, tiny.PROMPT_IDS, 12, eos_token_id=end) == free[:stop]

    free_beam, _ = tiny.reference_beams(folder, tiny.PROMPT_IDS, 3, 12, eos_token_id=-1)[0]
    end = free_beam[3]
    beams = tiny.reference_beams(
        folder, tiny.PROMPT_IDS, 3, 12, eos_token_id=end, num_return_sequences=3
    )
    assert any(new_ids[-1] == end and len(new_ids) < 12 for new_ids, _ in beams)
    assert all(end not in new_ids[:-1] for new_ids, _ in beams)


@pytest.mark.parity
def test_the_tiny_tokenizer_fits_the_model_and_its_template_has_an_end() -> None:
    from transformers import AutoTokenizer

    folder = tiny.tiny_checkpoint("llama-chat")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == tiny.VOCAB_SIZE
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Grüezi 🙂"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nGrüezi 🙂<|im_end|>\n<|im_start|>assistant\n"
    token_ids = tokenizer.encode(text)
    assert tokenizer.decode(token_ids) == text
    assert (token_ids[0], tokenizer.eos_token_id) == (tiny.BOS, tiny.EOS)
