"""Beam search on small models, against a search that recomputes everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.beam import Beam, Search, beam_search, step_logprobs
from engine.decoder import Decoder
from engine.sampling import SamplingParams
from tests.engine.decoders import small_config, small_decoder

PROMPT = [5, 17, 3, 88, 42]


def search(decoder: Decoder, n_tokens: int, params: SamplingParams, stop_ids=()) -> list[Beam]:
    cache = decoder.new_cache()
    logits = decoder.extend(cache, PROMPT)
    return list(beam_search(Search(decoder, cache, PROMPT, stop_ids, n_tokens), logits, params))


def beams(n: int, **fields: object) -> SamplingParams:
    return SamplingParams(**({"temperature": 0, "beams": n, "top_k": 0} | fields))


def logprob(decoder: Decoder, token_ids: list[int]) -> float:
    """Sum of log p of token_ids after the prompt."""
    logits = decoder.extend(decoder.new_cache(), [*PROMPT, *token_ids], all_logits=True)
    rows = logits[len(PROMPT) - 1 : -1].astype(np.float64)
    norms = np.log(np.exp(rows).sum(axis=-1))
    return float((rows[np.arange(len(token_ids)), token_ids] - norms).sum())


@pytest.mark.parametrize("format_name", ["f32", "q4"])
def test_one_beam_equals_greedy(format_name: str) -> None:
    decoder = small_decoder(small_config(), format_name)
    cache = decoder.new_cache()
    logits, greedy = decoder.extend(cache, PROMPT), []
    for _ in range(15):
        greedy.append(int(logits[0].argmax()))
        logits = decoder.extend(cache, greedy[-1:])
    assert list(search(decoder, 15, beams(1))[-1].token_ids) == greedy


def test_as_many_beams_as_texts_find_the_best_of_all() -> None:
    decoder = small_decoder(small_config(vocab_size=6))
    token_ids = {p: logprob_of_small(decoder, p) for p in itertools.product(range(6), repeat=3)}
    best = max(token_ids, key=lambda ids: token_ids[ids])
    found = search_small(decoder, 3, beams(36))[-1]
    assert found.token_ids == best
    assert found.score == pytest.approx(token_ids[best], abs=1e-4)


def logprob_of_small(decoder: Decoder, token_ids: tuple[int, ...]) -> float:
    logits = decoder.extend(decoder.new_cache(), [1, 2, *token_ids], all_logits=True)
    rows = logits[1:-1].astype(np.float64)
    norms = np.log(np.exp(rows).sum(axis=-1))
    return float((rows[np.arange(len(token_ids)), list(token_ids)] - norms).sum())


def search_small(decoder: Decoder, n_tokens: int, params: SamplingParams) -> list[Beam]:
    cache = decoder.new_cache()
    logits = decoder.extend(cache, [1, 2])
    return list(beam_search(Search(decoder, cache, [1, 2], (), n_tokens), logits, params))


@pytest.mark.parametrize("n_beams", [2, 5])
def test_a_beams_score_is_the_sum_of_its_log_probabilities(n_beams: int) -> None:
    decoder = small_decoder(small_config())
    for beam in search(decoder, 8, beams(n_beams)):
        expected = logprob(decoder, list(beam.token_ids))
        assert beam.score == pytest.approx(expected, abs=1e-3)


def test_more_beams_never_find_a_worse_text() -> None:
    decoder = small_decoder(small_config())
    scores = [search(decoder, 6, beams(n))[-1].score for n in (1, 8, 64)]
    assert scores[0] <= scores[1] + 1e-6 <= scores[2] + 2e-6


def test_a_stop_id_ends_a_beam_and_is_left_out() -> None:
    decoder = small_decoder(small_config())
    free = search(decoder, 10, beams(3))[-1].token_ids
    stop = free[4]
    position = free.index(stop)
    found = search(decoder, 10, beams(3, length_penalty=-5.0), stop_ids={stop})[-1]
    assert stop not in found.token_ids
    assert found.finish_reason == "stop"
    assert len(found.path) == len(found.token_ids) <= position


def test_length_penalty_divides_by_a_power_of_the_length() -> None:
    decoder = small_decoder(small_config())
    plain = search(decoder, 7, beams(1))[-1]
    divided = search(decoder, 7, beams(1, length_penalty=2.0))[-1]
    assert divided.score == pytest.approx(plain.score / 49)


def test_temperature_reweighs_by_bolts_rule() -> None:
    logits = np.array([[0.0, 1.0, 3.0]], np.float32)
    params = beams(2, temperature=2.0)
    p = np.exp(logits[0]) / np.exp(logits[0]).sum()
    expected = p**0.5 / (p**0.5).sum()
    result = step_logprobs(logits, [Beam((), 0.0, ())], [], params)
    np.testing.assert_allclose(np.exp(result[0]), expected, rtol=1e-6)


def test_forbidden_repeats_are_never_chosen() -> None:
    decoder = small_decoder(small_config())
    found = search(decoder, 12, beams(3, allowed_repeats=frozenset(), max_tokens=50))[-1]
    text = [*PROMPT, *found.token_ids]
    assert len(set(text)) == len(text)
