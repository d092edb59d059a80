"""Samplers: hand-written probabilities, frequencies, and transformers' processors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from engine import sampling
from engine.sampling import SamplingParams, next_token, random_generator

NEG_INF = -np.inf


def log(probs: list[float]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probs, dtype=np.float32))


def draw_many(logits: np.ndarray, params: SamplingParams, n: int, seed: int = 1) -> np.ndarray:
    random = random_generator(seed)
    return np.array([next_token(logits, [], params, random)[0] for _ in range(n)])


# --- parameters ---------------------------------------------------------------------------------


def test_defaults_switch_every_optional_rule_off() -> None:
    params = SamplingParams()
    assert (params.temperature, params.top_k, params.max_tokens) == (0.6, 40, 512)
    assert (params.top_p, params.min_p, params.repetition_penalty) == (1.0, 0.0, 1.0)
    assert (params.seed, params.stop, params.beams, params.length_penalty) == (None, (), 1, 0.0)
    assert params.allowed_repeats is None
    assert params.punctuation_tokens == frozenset()
    assert params.punctuation_repeat_threshold == 0.8


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("temperature", -0.1, "0 (always the likeliest token) or a number of at least 0.000001"),
        ("temperature", 1e-9, "0 (always the likeliest token) or a number of at least 0.000001"),
        ("temperature", math.nan, "0 (always the likeliest token)"),
        ("temperature", math.inf, "0 (always the likeliest token)"),
        ("temperature", "0.6", "0 (always the likeliest token)"),
        ("temperature", True, "0 (always the likeliest token)"),
        ("top_k", -1, "a whole number of at least 0; 0 turns it off"),
        ("top_k", 2.5, "a whole number of at least 0; 0 turns it off"),
        ("top_p", 0.0, "above 0 and at most 1; 1 turns it off"),
        ("top_p", 1.01, "above 0 and at most 1; 1 turns it off"),
        ("min_p", 1.5, "from 0 to 1; 0 turns it off"),
        ("min_p", math.nan, "from 0 to 1; 0 turns it off"),
        ("repetition_penalty", 0, "0.01 to 100; 1 = off"),
        ("seed", -1, "a whole number of at least 0, or None"),
        ("seed", 1.0, "a whole number of at least 0, or None"),
        ("max_tokens", 0, "a whole number of at least 1"),
        ("stop", ["a", ""], "texts, none empty"),
        ("stop", 5, "texts, none empty"),
        ("beams", 0, "a whole number of at least 1"),
        ("length_penalty", math.inf, "a finite number; 0 turns it off"),
        ("lookup", 1, "True or False"),
        ("allowed_repeats", {-1}, "token ids, or None"),
        ("punctuation_tokens", {"."}, "token ids"),
        ("punctuation_repeat_threshold", 80, "from 0 to 1"),
    ],
)
def test_a_bad_value_is_refused_with_field_rule_and_value(
    field: str, value: Any, rule: str
) -> None:
    with pytest.raises(ValueError) as error:
        SamplingParams(**{field: value})
    message = str(error.value)
    assert message.startswith(f"{field} must be {rule}")
    assert "got" in message and "\n" not in message


def test_stop_takes_one_text_or_many() -> None:
    assert SamplingParams(stop="END").stop == ("END",)  # type: ignore[arg-type]
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]


def test_params_with_lists_and_sets_are_hashable_and_equal() -> None:
    one = SamplingParams(stop=["a"], allowed_repeats={1, 2})  # type: ignore[arg-type]
    assert hash(one) == hash(SamplingParams(stop=("a",), allowed_repeats=frozenset({2, 1})))


# --- filters on hand-written numbers ------------------------------------------------------------


def test_softmax_divides_logits_by_the_temperature() -> None:
    logits = log([0.1, 0.6, 0.3])
    assert_allclose(sampling.softmax(logits), [0.1, 0.6, 0.3], rtol=1e-6)
    squares = np.array([0.01, 0.36, 0.09])
    assert_allclose(sampling.softmax(logits, 0.5), squares / squares.sum(), rtol=1e-6)


def test_softmax_is_safe_for_huge_logits_tiny_temperatures_and_minus_infinity() -> None:
    logits = np.array([3e38, 0, NEG_INF, -3e38], dtype=np.float32)
    assert sampling.softmax(logits, 1e-6).tolist() == [1, 0, 0, 0]


def test_log_sum_exp_works_along_the_last_axis() -> None:
    logits = np.array([[0, 0, NEG_INF], [1000, 1000, 1000]], dtype=np.float32)
    assert_allclose(sampling.log_sum_exp(logits), [math.log(2), 1000 + math.log(3)])


@pytest.mark.parametrize(
    ("top_k", "kept"),
    [(0, [0, 1, 2, 3]), (1, [1]), (2, [1, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_top_k_keeps_the_k_largest(top_k: int, kept: list[int]) -> None:
    scores = np.array([-1.0, 3.0, NEG_INF, 0.5])
    assert sampling.top_k_ids(scores, top_k).tolist() == kept


def test_top_k_keeps_all_that_tie_with_the_last() -> None:
    assert sampling.top_k_ids(np.array([1.0, 5.0, 1.0, 0.0]), 2).tolist() == [0, 1, 2]


@pytest.mark.parametrize("n", [1_000, 4_096, 49_157])
@pytest.mark.parametrize("top_k", [1, 7, 40, 300])
def test_top_k_of_a_large_vocabulary_is_that_of_a_full_sort(n: int, top_k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(n).astype(np.float32).round(3)
    scores[rng.integers(0, n, n // 3)] = NEG_INF
    expected = np.flatnonzero(scores >= np.sort(scores)[-top_k])
    assert_array_equal(sampling.top_k_ids(scores, top_k), expected)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.3, [0]), (0.5, [0]), (0.6, [0, 2]), (0.95, [0, 2, 3]), (0.999, [0, 2, 3])],
)
def test_top_p_keeps_the_smallest_sufficient_set(top_p: float, kept: list[int]) -> None:
    mask = sampling.top_p_mask(np.array([0.5, 0.0, 0.4, 0.1]), top_p)
    assert np.flatnonzero(mask).tolist() == kept


def test_top_p_takes_the_lower_id_of_two_equals() -> None:
    mask = sampling.top_p_mask(np.array([0.2, 0.2, 0.2, 0.2, 0.2]), 0.35)
    assert mask.tolist() == [True, True, False, False, False]


def test_top_p_keeps_everything_when_rounding_leaves_the_sum_short() -> None:
    probs = np.array([0.5, 0.3, 0.1], dtype=np.float32)
    assert sampling.top_p_mask(probs, 0.99).all()


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.9999])
@pytest.mark.parametrize("spread", [0.0, 0.01, 3.0])
def test_top_p_of_a_large_vocabulary_is_that_of_a_full_sort(top_p: float, spread: float) -> None:
    rng = np.random.default_rng(1)
    probs = sampling.softmax(spread * rng.standard_normal(20_000))
    order = np.argsort(-probs, kind="stable")
    n_kept = np.searchsorted(np.cumsum(probs[order]), top_p) + 1
    mask = sampling.top_p_mask(probs, top_p)
    # one token more or less where a sum in another order rounds differently
    assert abs(int(mask.sum()) - int(n_kept)) <= 1
    assert probs[mask].sum() >= top_p - 1e-12
    assert probs[mask].min() >= probs[~mask].max()


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, [0, 1, 2, 3]), (0.2, [0, 2, 3]), (1.0, [0])])
def test_min_p_is_relative_to_the_likeliest(min_p: float, kept: list[int]) -> None:
    mask = sampling.min_p_mask(np.array([0.5, 0.0, 0.375, 0.125]), min_p)
    assert np.flatnonzero(mask).tolist() == kept


def test_filters_apply_in_the_order_temperature_top_k_top_p_min_p() -> None:
    logits = log([0.4, 0.3, 0.2, 0.06, 0.04])
    # of the .9 that top_k leaves, .4 and .3 are .777 and enough for top_p; of all five they are .7
    params = SamplingParams(temperature=1.0, top_k=3, top_p=0.75)
    token_ids, probs = sampling.candidates(logits, params)
    assert token_ids.tolist() == [0, 1]
    assert_allclose(probs, [4 / 7, 3 / 7], rtol=1e-6)
    # at temperature 1/2 the weights are .16 .09 .04: top_p .8 keeps two, at 1 it keeps three
    hot = SamplingParams(temperature=1.0, top_k=0, top_p=0.8)
    cold = SamplingParams(temperature=0.5, top_k=0, top_p=0.8)
    assert sampling.candidates(logits, hot)[0].tolist() == [0, 1, 2]
    assert sampling.candidates(logits, cold)[0].tolist() == [0, 1]
    # min_p compares with the likeliest after the temperature: .3 / .4 < .8 < 1
    assert sampling.candidates(logits, SamplingParams(1.0, min_p=0.8))[0].tolist() == [0]
    assert sampling.candidates(logits, SamplingParams(2.0, min_p=0.8))[0].tolist() == [0, 1]


def test_repetition_penalty_divides_positive_and_multiplies_negative_scores_once() -> None:
    scores = np.array([2.0, -2.0, 3.0, NEG_INF, -5.0])
    penalized = sampling.penalize_repeats(scores, [0, 1, 0, 0, 3], 2.0)
    assert penalized.tolist() == [1.0, -4.0, 3.0, NEG_INF, -5.0]
    assert scores.tolist() == [2.0, -2.0, 3.0, NEG_INF, -5.0]


def test_repetition_penalty_takes_a_history_for_each_beam() -> None:
    scores = np.array([[2.0, 4.0], [2.0, 4.0]])
    assert sampling.penalize_repeats(scores, [[0, 0], [1, 1]], 2.0).tolist() == [[1, 4], [2, 2]]


def test_repetition_penalty_of_an_empty_history_changes_nothing() -> None:
    assert sampling.penalize_repeats(np.array([1.0, 2.0]), [], 2.0).tolist() == [1.0, 2.0]


# --- BOLT's rule --------------------------------------------------------------------------------


def test_repeats_are_allowed_unless_the_rule_is_on() -> None:
    assert not sampling.forbid_repeats(log([0.5, 0.5]), [0, 1], SamplingParams()).any()


def test_the_rule_forbids_recent_tokens_except_allowed_ones_and_likely_punctuation() -> None:
    logprobs = log([0.01, 0.85, 0.05, 0.05, 0.04])
    params = SamplingParams(allowed_repeats={2, 99}, punctuation_tokens={1, 3, 99})  # type: ignore[arg-type]
    mask = sampling.forbid_repeats(logprobs, [0, 0, 1, 2, 3], params)
    assert mask.tolist() == [True, False, False, True, False]


def test_punctuation_returns_when_it_reaches_the_threshold() -> None:
    params = SamplingParams(
        allowed_repeats=frozenset(),
        punctuation_tokens=frozenset({0}),
        punctuation_repeat_threshold=0.5,
    )
    assert not sampling.forbid_repeats(log([0.5, 0.5]), [0], params)[0]
    assert sampling.forbid_repeats(log([0.49, 0.51]), [0], params)[0]


def test_punctuation_that_has_not_appeared_needs_no_probability() -> None:
    params = SamplingParams(allowed_repeats=frozenset(), punctuation_tokens=frozenset({0}))
    assert not sampling.forbid_repeats(log([0.1, 0.9]), [1], params)[0]


def test_the_punctuation_rule_wins_over_the_whitelist() -> None:
    params = SamplingParams(allowed_repeats=frozenset({0}), punctuation_tokens=frozenset({0}))
    assert sampling.forbid_repeats(log([0.1, 0.9]), [0], params)[0]


def test_the_rule_takes_a_history_for_each_beam() -> None:
    params = SamplingParams(allowed_repeats=frozenset({2}), punctuation_tokens=frozenset({1}))
    logprobs = np.stack([log([0.05, 0.9, 0.05]), log([0.5, 0.4, 0.1])])
    mask = sampling.forbid_repeats(logprobs, np.array([[1, 2], [1, 0]]), params)
    assert mask.tolist() == [[False, False, False], [True, True, False]]


def test_the_rule_looks_back_max_tokens_over_prompt_and_answer() -> None:
    logits = log([0.6, 0.3, 0.1])
    params = SamplingParams(temperature=0, allowed_repeats=frozenset(), max_tokens=2)
    random = random_generator(0)
    assert next_token(logits, [0, 1], params, random)[0] == 2
    assert next_token(logits, [0, 1, 2], params, random)[0] == 0
    assert next_token(logits, [], params, random)[0] == 0


def test_a_vocabulary_that_is_all_forbidden_is_an_error_and_not_a_loop() -> None:
    params = SamplingParams(allowed_repeats=frozenset())
    with pytest.raises(ValueError, match="no token is left: all that are possible appeared in the"):
        next_token(log([0.5, 0.5, 0.0]), [1, 0], params, random_generator(0))


# --- the choice ---------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0, 0.0, None])
def test_temperature_zero_or_none_takes_the_likeliest_and_draws_nothing(temperature: Any) -> None:
    random = random_generator(3)
    state = random.bit_generator.state
    token_id, logprob = next_token(log([0.2, 0.5, 0.3]), [], SamplingParams(temperature), random)
    assert token_id == 1
    assert logprob == pytest.approx(math.log(0.5))
    assert random.bit_generator.state == state


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    assert sampling.greedy(np.array([1.0, 7.0, 7.0, 7.0])) == 1


@pytest.mark.parametrize(
    ("uniform", "index"), [(0.0, 1), (0.2499, 1), (0.25, 3), (0.9999, 3), (1 - 2**-53, 3)]
)
def test_sample_inverts_the_cumulative_distribution(uniform: float, index: int) -> None:
    assert sampling.sample(np.array([0.0, 0.25, 0.0, 0.75, 0.0]), uniform) == index


def test_sample_never_falls_off_the_end_when_the_product_rounds_up() -> None:
    probs = np.array([1.0, 2**-52, 0.0])  # (1 - 2**-53) * total rounds up to total
    assert sampling.sample(probs, 1 - 2**-53) == 1


def test_logprob_is_the_models_own_whatever_the_settings() -> None:
    logits = log([0.7, 0.2, 0.1]) + 5
    params = SamplingParams(
        temperature=0.3, top_k=1, top_p=0.5, repetition_penalty=1.5, min_p=0.5, seed=1
    )
    token_id, logprob = next_token(logits, [2], params, random_generator(1))
    assert token_id == 0
    assert logprob == pytest.approx(math.log(0.7), rel=1e-5)


def test_one_number_is_drawn_for_each_token() -> None:
    random, twin = random_generator(5), random_generator(5)
    logits = np.zeros(50, dtype=np.float32)
    for params in (SamplingParams(), SamplingParams(top_k=0, top_p=0.9), SamplingParams(min_p=0.1)):
        next_token(logits, [], params, random)
        twin.random()
    assert random.bit_generator.state == twin.bit_generator.state


def test_the_logits_are_not_changed() -> None:
    logits = log([0.7, 0.2, 0.1])
    before = logits.copy()
    params = SamplingParams(repetition_penalty=2.0, allowed_repeats=frozenset({1}))
    next_token(logits, [1], params, random_generator(0))
    assert_array_equal(logits, before)


def test_same_seed_same_tokens_other_seed_other_tokens() -> None:
    logits = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    params = SamplingParams(temperature=1.0)
    first, again, other = (draw_many(logits, params, 200, seed) for seed in (7, 7, 8))
    assert_array_equal(first, again)
    assert (first != other).any()


def test_the_tokens_of_a_seed_do_not_change_between_releases() -> None:
    logits = np.linspace(0, 3, 100, dtype=np.float32)
    tokens = draw_many(logits, SamplingParams(temperature=1.0, top_k=0), 8, seed=42)
    cumulative = np.cumsum(np.exp(np.linspace(0, 3, 100)))
    uniforms = np.random.Generator(np.random.PCG64(42)).random(8)
    assert_array_equal(tokens, np.searchsorted(cumulative / cumulative[-1], uniforms, side="right"))


def test_impossible_tokens_are_never_chosen() -> None:
    logits = np.full(1_000, NEG_INF, dtype=np.float32)
    logits[[3, 900]] = 0
    for params in (SamplingParams(), SamplingParams(top_k=0), SamplingParams(top_p=0.9, min_p=0.1)):
        assert set(draw_many(logits, params, 50)) == {3, 900}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_an_error_in_one_line(
    bad: float, temperature: float
) -> None:
    logits = np.zeros(10, dtype=np.float32)
    logits[4] = bad
    with pytest.raises(
        ValueError, match=f"no token can be chosen: the largest logit is {bad}"
    ) as e:
        next_token(logits, [], SamplingParams(temperature), random_generator(0))
    assert "\n" not in str(e.value)


def test_logits_that_are_all_impossible_are_an_error() -> None:
    with pytest.raises(ValueError, match="the largest logit is -inf"):
        next_token(np.full(4, NEG_INF), [], SamplingParams(), random_generator(0))


# --- frequencies --------------------------------------------------------------------------------

# 99.9 % quantile of the chi-square distribution by degrees of freedom
CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 7: 24.32}
N_DRAWS = 20_000
PROBS = [0.3, 0.22, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02]


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    expected = counts.sum() * probs
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    ("params", "weights"),
    [
        (SamplingParams(1.0, top_k=0), PROBS),
        (SamplingParams(0.7, top_k=0), [p ** (1 / 0.7) for p in PROBS]),
        (SamplingParams(1.5, top_k=0), [p ** (1 / 1.5) for p in PROBS]),
        (SamplingParams(1.0, top_k=3), PROBS[:3]),
        (SamplingParams(1.0, top_k=0, top_p=0.8), PROBS[:4]),
        (SamplingParams(1.0, top_k=0, min_p=0.25), PROBS[:5]),
        (SamplingParams(1.3, top_k=5, top_p=0.6), [p ** (1 / 1.3) for p in PROBS[:3]]),
    ],
    ids=["plain", "cold", "hot", "top_k", "top_p", "min_p", "all"],
)
def test_frequencies_are_those_of_the_filtered_distribution(
    params: SamplingParams, weights: list[float]
) -> None:
    tokens = draw_many(log(PROBS), params, N_DRAWS)
    counts = np.bincount(tokens, minlength=len(PROBS))
    assert counts[len(weights) :].sum() == 0
    probs = np.array(weights) / sum(weights)
    assert chi_square(counts[: len(weights)], probs) < CRITICAL[len(weights) - 1]


def test_the_statistic_notices_a_wrong_temperature() -> None:
    tokens = draw_many(log(PROBS), SamplingParams(1.1, top_k=0), N_DRAWS)
    counts = np.bincount(tokens, minlength=len(PROBS))
    assert chi_square(counts, np.array(PROBS)) > CRITICAL[len(PROBS) - 1]


# --- transformers -------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize("vocab_size", [331, 5_000])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 10_000},
        {"top_p": 0.5},
        {"top_p": 0.95, "temperature": 1.4},
        {"min_p": 0.05},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"temperature": 0.8, "top_k": 50, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.1},
        {"temperature": 3.0, "top_k": 200, "top_p": 0.7, "min_p": 0.3, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_probabilities_are_those_of_transformers_processors(
    settings: dict[str, Any], vocab_size: int
) -> None:
    import torch
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as hf

    settings = {"temperature": 1.0, "top_k": 0} | settings
    params = SamplingParams(**settings)
    # as GenerationMixin._get_logits_processor orders them
    makers = {
        "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor,
        "temperature": hf.TemperatureLogitsWarper,
        "top_k": hf.TopKLogitsWarper,
        "top_p": hf.TopPLogitsWarper,
        "min_p": hf.MinPLogitsWarper,
    }
    processors = LogitsProcessorList(
        make(settings[name]) for name, make in makers.items() if settings.get(name)
    )
    rng = np.random.default_rng(2)
    for _ in range(20):
        logits = (4 * rng.standard_normal(vocab_size)).astype(np.float32)
        history = rng.integers(0, vocab_size, 60)
        with torch.no_grad():
            scores = processors(torch.tensor(history[None]), torch.tensor(logits[None]))
        expected = scores.softmax(-1)[0].numpy()

        penalized = sampling.penalize_repeats(logits, history, params.repetition_penalty)
        token_ids, probs = sampling.candidates(penalized, params)
        ours = np.zeros(vocab_size)
        ours[token_ids] = probs
        assert_array_equal(ours > 0, expected > 0)
        assert_allclose(ours, expected, rtol=2e-5, atol=1e-9)
