"""stream(): stopping, cancelling, re-use of the cache, seeds."""

from __future__ import annotations

from typing import Any

import pytest

import engine
from tests.engine.decoders import small_model

PROMPT = [5, 17, 3, 88, 42]


def params(**fields: Any) -> engine.SamplingParams:
    return engine.SamplingParams(**({"max_tokens": 20, "seed": 1} | fields))


def ids_of(generation: engine.Generation) -> list[int]:
    return [step.token_id for step in generation if step.token_id >= 0]


def test_length_ends_after_max_tokens_and_is_counted() -> None:
    generation = engine.stream(small_model(), PROMPT, params())
    steps = list(generation)
    assert [step.finish_reason for step in steps] == [None] * 19 + ["length"]
    usage = generation.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.new_tokens) == (5, 0, 20)
    assert usage.finish_reason == "length"
    assert usage.prefill_s > 0 and usage.decode_s > 0
    assert usage.prefill_s <= usage.time_to_first_token_s
    assert generation.token_ids == [step.token_id for step in steps]


def test_a_stop_id_ends_the_answer_and_is_not_part_of_it() -> None:
    greedy = ids_of(engine.stream(small_model(), PROMPT, params(temperature=0)))
    position = next(i for i, token in enumerate(greedy) if i > 2 and token not in greedy[:i])
    model = small_model(stop_ids=frozenset({greedy[position]}))
    generation = engine.stream(model, PROMPT, params(temperature=0))
    *_, last = generation
    assert generation.token_ids == greedy[:position]
    assert (last.token_id, last.finish_reason) == (-1, "stop")


def test_a_full_context_is_told_apart_from_max_tokens() -> None:
    generation = engine.stream(small_model(max_seq_len=12), PROMPT, params())
    *_, last = generation
    assert last.finish_reason == "context"
    assert len(generation.token_ids) == 12 - len(PROMPT)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_seed_gives_the_same_tokens_on_any_number_of_threads(threads: int) -> None:
    expected = ids_of(engine.stream(small_model(), PROMPT, params(temperature=1.5, top_k=0)))
    model = small_model(threads=threads)
    ours = ids_of(engine.stream(model, PROMPT, params(temperature=1.5, top_k=0)))
    assert ours == expected


def test_other_seeds_give_other_tokens_and_no_seed_is_reported() -> None:
    model = small_model()
    texts = {
        tuple(ids_of(engine.stream(model, PROMPT, params(temperature=1.5, top_k=0, seed=seed))))
        for seed in range(4)
    }
    assert len(texts) == 4
    free = engine.stream(model, PROMPT, params(temperature=1.5, top_k=0, seed=None))
    tokens = ids_of(free)
    again = engine.stream(model, PROMPT, params(temperature=1.5, top_k=0, seed=free.usage.seed))
    assert ids_of(again) == tokens


def test_drawn_seeds_are_valid_and_differ() -> None:
    seeds = {engine.stream(small_model(), PROMPT, params(seed=None)).usage.seed for _ in range(5)}
    assert len(seeds) > 1
    assert all(engine.SamplingParams(seed=seed).seed == seed for seed in seeds)


def test_the_common_prefix_is_not_computed_again() -> None:
    model = small_model()
    answer = ids_of(engine.stream(model, PROMPT, params(temperature=0)))
    second = [*PROMPT, *answer, 7, 8]
    generation = engine.stream(model, second, params(temperature=0))
    tokens = ids_of(generation)
    # the answer's last token was never run
    assert generation.usage.cached_tokens == len(PROMPT) + len(answer) - 1
    assert tokens == ids_of(engine.stream(small_model(), second, params(temperature=0)))
    assert model.cached_prefix(second) == len(second)
    again = engine.stream(model, second, params(temperature=0))
    assert ids_of(again) == tokens
    assert again.usage.cached_tokens == len(second) - 1


def test_cancel_before_the_start_ends_at_once_with_its_reason() -> None:
    cancel = engine.Cancel()
    cancel.set()
    generation = engine.stream(small_model(), PROMPT, params(), cancel=cancel)
    assert list(generation) == [engine.Step(-1, "", 0.0, "cancelled")]
    assert generation.usage.finish_reason == "cancelled"


def test_cancel_between_tokens_keeps_what_there_is_and_the_model_usable() -> None:
    model, cancel = small_model(), engine.Cancel()
    expected = ids_of(engine.stream(small_model(), PROMPT, params(temperature=0)))
    generation = engine.stream(model, PROMPT, params(temperature=0), cancel=cancel)
    for _ in range(6):
        next(generation)
    cancel.set()
    assert [step.finish_reason for step in generation] == ["cancelled"]
    assert generation.token_ids == expected[:6]
    cancel.clear()
    assert ids_of(engine.stream(model, PROMPT, params(temperature=0), cancel=cancel)) == expected


def test_a_generation_that_is_dropped_leaves_a_usable_model() -> None:
    model = small_model()
    expected = ids_of(engine.stream(small_model(), PROMPT, params(temperature=0)))
    next(engine.stream(model, PROMPT, params(temperature=0)))
    assert ids_of(engine.stream(model, PROMPT, params(temperature=0))) == expected


def test_progress_reaches_the_length_of_the_prompt() -> None:
    seen: list[tuple[int, int]] = []
    prompt = PROMPT * 40
    list(engine.stream(small_model(), prompt, params(), on_progress=lambda *n: seen.append(n)))
    assert seen[-1] == (len(prompt), len(prompt))
    assert len(seen) > 1


def test_bad_prompts_are_one_clear_line() -> None:
    model = small_model(max_seq_len=8)
    with pytest.raises(ValueError, match="the prompt is empty"):
        engine.stream(model, [], params())
    with pytest.raises(ValueError, match="prompt has 9 tokens and the context holds 8"):
        engine.stream(model, [1] * 9, params())
    with pytest.raises(ValueError, match="no tokenizer"):
        engine.stream(model, [1], params(stop=("x",)))


def test_logprobs_are_the_models_own() -> None:
    import numpy as np

    model = small_model()
    generation = engine.stream(model, PROMPT, params(temperature=0.3, repetition_penalty=1.3))
    steps = list(generation)
    logits = model.logits([*PROMPT, *generation.token_ids]).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for i, step in enumerate(steps):
        expected = logprobs[len(PROMPT) - 1 + i, step.token_id]
        assert step.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("n_beams", [2, 4])
def test_beams_come_at_the_end_and_leave_a_usable_cache(n_beams: int) -> None:
    model = small_model()
    generation = engine.stream(model, PROMPT, params(temperature=0, beams=n_beams))
    tokens = ids_of(generation)
    assert len(tokens) == 20
    assert generation.usage.finish_reason == "length"
    text = [*PROMPT, *tokens]
    assert model.cached_prefix(text) == len(text) - 1
    follow = engine.stream(model, [*text, 3], params(temperature=0))
    assert ids_of(follow) == ids_of(engine.stream(small_model(), [*text, 3], params(temperature=0)))


def test_cancelled_beams_give_the_best_so_far() -> None:
    model, cancel = small_model(), engine.Cancel()
    real = model.decoder.branch
    calls = []

    def branch(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            cancel.set()
        return real(*args, **more)

    model.decoder.branch = branch  # type: ignore[method-assign]
    generation = engine.stream(model, PROMPT, params(temperature=0, beams=3), cancel=cancel)
    *_, last = generation
    assert last.finish_reason == "cancelled"
    assert len(generation.token_ids) == 5
