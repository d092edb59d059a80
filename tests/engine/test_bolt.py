"""BOLT's calls: generate and streaming_generate."""

from __future__ import annotations

import pytest

import engine
from tests.engine.test_generate import PROMPT, small_model


@pytest.mark.parametrize("beam_width", [1, 3])
@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
@pytest.mark.parametrize("temperature", [None, 1.2])
def test_the_last_streamed_item_equals_generate(
    beam_width: int, chunk: int, temperature: float | None
) -> None:
    options = {"beam_width": beam_width, "temperature": temperature, "seed": 3}
    model = small_model()
    whole = model.generate(PROMPT, max_predictions=15, **options)
    items = list(model.streaming_generate(PROMPT, [], chunk, 15, **options))
    assert items[-1] == whole
    assert len(whole) == 15
    if beam_width == 1:
        assert [len(item) for item in items] == [*range(chunk, 15, chunk), 15]


def test_greedy_with_one_beam_equals_stream() -> None:
    model = small_model()
    params = engine.SamplingParams(temperature=0, max_tokens=12)
    expected = [step.token_id for step in engine.stream(model, PROMPT, params)]
    assert model.generate(PROMPT, [], 12, 1) == expected
    assert model.generate(PROMPT, [], 12, 1, 0.0) == expected


def test_one_beam_with_a_temperature_draws() -> None:
    model = small_model()
    texts = {tuple(model.generate(PROMPT, [], 12, 1, 1.5, seed=seed)) for seed in range(5)}
    assert len(texts) > 1


def test_several_beams_with_a_temperature_draw_nothing() -> None:
    model = small_model()
    first, second = (model.generate(PROMPT, [], 12, 3, 1.5, seed=seed) for seed in (1, 2))
    assert first == second


def test_the_prompt_stands_before_the_input_under_either_name() -> None:
    model = small_model()
    expected = model.generate(PROMPT, max_predictions=8, beam_width=1)
    assert model.generate(PROMPT[2:], prompt_tokens=PROMPT[:2], max_predictions=8, beam_width=1) \
        == expected  # fmt: skip
    assert (
        model.generate(PROMPT[2:], prompt=PROMPT[:2], max_predictions=8, beam_width=1) == expected
    )


def test_repeats_are_allowed_unless_asked_otherwise() -> None:
    model = small_model()
    free = model.generate(PROMPT, max_predictions=60, beam_width=1)
    strict = model.generate(PROMPT, max_predictions=60, beam_width=1, allowed_repeats=set())
    assert len(set(free)) < len(free)
    assert len({*PROMPT, *strict}) == len(PROMPT) + len(strict)


def test_bad_values_are_one_clear_line() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="beams must be a whole number of at least 1, got 0"):
        model.generate(PROMPT, beam_width=0)
    with pytest.raises(ValueError, match="prediction_chunk_size must be at least 1, got 0"):
        list(model.streaming_generate(PROMPT, prediction_chunk_size=0))
