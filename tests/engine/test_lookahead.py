"""Drafts change when logits are computed, never which tokens come out, nor what is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.config import Rope, RopeScaling
from engine.lookup import SIZES, CallTimes
from engine.model import Model
from engine.tokenizer.detokenizer import Detokenizer
from tests.engine.decoders import small_config, small_model

GREEDY = engine.SamplingParams(temperature=0, max_tokens=60)
COLD = engine.SamplingParams(temperature=0.2, top_k=8, seed=3, max_tokens=60)
PARAMS = {
    "greedy": GREEDY,
    "drawn": replace(COLD, temperature=0.7, top_k=0),
    "top_k": COLD,
    "top_p": replace(COLD, top_k=0, top_p=0.7, temperature=0.5),
    "min_p": replace(COLD, top_k=0, min_p=0.1, temperature=0.5),
    "penalty": replace(GREEDY, repetition_penalty=1.05),
    "penalty, drawn": replace(COLD, repetition_penalty=1.1),
    "bolt": replace(GREEDY, allowed_repeats=frozenset(range(0, 97, 2))),
}


class Eager(CallTimes):
    """A draft costs nothing, so there is one wherever the text repeats itself."""

    def of(self, n_tokens: int) -> float:
        return 1.0


def eager_model(**changes: Any) -> Model:
    """small_model with drafts wherever possible."""
    model = small_model(**changes)
    model.call_times = Eager()
    return model


def repetitive(seed: int) -> list[int]:
    """A prompt of runs that come again, some with a change."""
    rng = np.random.default_rng(seed)
    runs = [rng.integers(0, 97, rng.integers(1, 9)).tolist() for _ in range(3)]
    return [int(token) for i in rng.integers(0, 3, 12) for token in runs[i]]


def both(
    model: Model, prompt: Sequence[int], params: engine.SamplingParams
) -> tuple[engine.Generation, list[engine.Step]]:
    """The generation with drafts, its steps held against those without.

    The cache must be left with the text, as far as it is left without drafts.
    """
    left, found = [], []
    for lookup in (False, True):
        model.cache.truncate(0)
        generation = engine.stream(model, prompt, replace(params, lookup=lookup))
        found.append(list(generation))
        left.append(list(model.cache.token_ids))
    assert found[1] == found[0]
    assert left[1] == left[0]
    assert left[1] == [*prompt, *generation.token_ids][: len(left[1])]
    return generation, found[1]


@pytest.mark.parametrize("name", PARAMS)
def test_tokens_and_logprobs_are_those_of_plain_decoding(name: str) -> None:
    drafted = accepted = 0
    model = eager_model()
    for seed in range(12):
        generation, _ = both(model, repetitive(seed), PARAMS[name])
        drafted += generation.usage.drafted_tokens
        accepted += generation.usage.accepted_tokens
    assert drafted > accepted > 30  # some came true and some did not


@pytest.mark.parametrize("threads", [2, 3])
def test_they_are_the_same_on_several_threads(threads: int) -> None:
    expected = [step.token_id for step in both(eager_model(), repetitive(0), COLD)[1]]
    _, steps = both(eager_model(threads=threads), repetitive(0), COLD)
    assert [step.token_id for step in steps] == expected


def test_measured_times_decide_nothing_but_the_speed() -> None:
    model = eager_model()
    for seed in range(6):
        model.call_times = Eager()
        _, expected = both(model, repetitive(seed), COLD)
        model.call_times = CallTimes()
        assert both(model, repetitive(seed), COLD)[1] == expected


def looping_answer(model: Model) -> tuple[list[int], list[int]]:
    """A prompt, and a greedy answer most of which came out of drafts."""
    for seed in range(100):
        prompt = repetitive(seed)
        model.cache.truncate(0)
        generation = engine.stream(model, prompt, GREEDY)
        list(generation)
        if generation.usage.accepted_tokens > 30 and len(set(generation.token_ids)) > 6:
            return prompt, generation.token_ids
    raise AssertionError("no prompt gave such an answer")


def test_usage_counts_calls_that_were_saved() -> None:
    model = eager_model()
    prompt, _ = looping_answer(model)
    calls = spied(model)
    generation = engine.stream(model, [*prompt, 5], GREEDY)
    list(generation)
    usage, sizes = generation.usage, [len(ids) for ids in calls[1:]]  # without the prompt's
    assert usage.drafted_tokens == sum(sizes) - len(sizes)
    assert usage.accepted_tokens == usage.new_tokens - 1 - len(sizes)
    assert usage.accepted_tokens > 0
    assert set(sizes) <= {1, *SIZES}


def test_max_tokens_may_end_anywhere_in_a_draft() -> None:
    model = eager_model()
    prompt, answer = looping_answer(model)
    ends = spied_ends(model)
    for n in range(1, len(answer) + 1):
        generation, steps = both(model, prompt, replace(GREEDY, max_tokens=n))
        assert (generation.token_ids, steps[-1].finish_reason) == (answer[:n], "length")
        assert max(ends) < len(prompt) + n or n == 1  # the last token is not run either
        ends.clear()


def test_a_full_context_may_end_anywhere_in_a_draft() -> None:
    model = eager_model()
    prompt, answer = looping_answer(model)
    ends = spied_ends(model)
    for n in range(1, 50):
        model.max_seq_len = len(prompt) + n
        generation, steps = both(model, prompt, GREEDY)
        assert (generation.token_ids, steps[-1].finish_reason) == (answer[:n], "context")
        assert max(ends) < model.max_seq_len  # nothing is run that could not be followed
        ends.clear()


def test_a_stop_id_may_come_anywhere_in_a_draft() -> None:
    model = eager_model()
    prompt, answer = looping_answer(model)
    for token_id in set(answer):
        model.stop_ids = frozenset({token_id})
        generation, steps = both(model, prompt, GREEDY)
        assert generation.token_ids == answer[: answer.index(token_id)]
        assert (steps[-1].token_id, steps[-1].finish_reason) == (-1, "stop")
        assert model.cache.token_ids == [*prompt, *generation.token_ids]


class Numbers:
    """A tokenizer whose tokens are their ids as text: "42,"."""

    def detokenizer(self, stop: Sequence[str], *, continues: bool) -> Detokenizer:
        return Detokenizer(lambda token_id: f"{token_id},".encode(), stop)


def test_a_stop_string_may_be_completed_anywhere_in_a_draft() -> None:
    model = eager_model(tokenizer=Numbers())
    prompt, answer = looping_answer(model)
    text = "".join(f"{token_id}," for token_id in answer)
    lengths = set()
    for start in range(len(text) - 5):
        stop = text[start : start + 5]  # ends within a token too
        generation, steps = both(model, prompt, replace(GREEDY, stop=(stop,)))
        assert steps[-1].finish_reason == "stop_string"
        assert generation.text == text[: text.index(stop)]
        assert len(model.cache.token_ids) == len(prompt) + len(generation.token_ids) - 1
        lengths.add(len(generation.token_ids))
    assert len(lengths) > 8


def test_cancel_between_drafted_tokens_ends_there() -> None:
    model, cancel = eager_model(), engine.Cancel()
    prompt, answer = looping_answer(model)
    for n in range(1, len(answer)):
        cancel.clear()
        model.cache.truncate(0)
        generation = engine.stream(model, prompt, GREEDY, cancel=cancel)
        for _ in range(n):
            next(generation)
        cancel.set()
        assert [step.finish_reason for step in generation] == ["cancelled"]
        assert generation.token_ids == answer[:n]
        assert model.cache.token_ids == [*prompt, *answer[: n - 1]]


def test_cancel_while_a_draft_is_verified_keeps_what_was_said() -> None:
    model, cancel = eager_model(), engine.Cancel()
    prompt, answer = looping_answer(model)
    real, ends = model.decoder.extend, list[int]()

    def extend(cache: Any, token_ids: Sequence[int], **options: Any) -> Any:
        if options.get("all_logits"):
            cancel.set()
            ends.append(len(cache.token_ids))
        return real(cache, token_ids, **options)

    model.cache.truncate(0)
    model.decoder.extend = extend  # type: ignore[method-assign]
    generation = engine.stream(model, prompt, GREEDY, cancel=cancel)
    *_, last = generation
    assert ends and last.finish_reason == "cancelled"
    assert generation.token_ids == answer[: len(generation.token_ids)]
    assert model.cache.token_ids == [*prompt, *generation.token_ids[:-1]]
    model.decoder.extend = real  # type: ignore[method-assign]
    cancel.clear()
    again = engine.stream(model, prompt, GREEDY, cancel=cancel)
    list(again)
    assert again.token_ids == answer


def test_an_answer_that_is_dropped_in_a_draft_leaves_a_usable_model() -> None:
    model = eager_model()
    prompt, answer = looping_answer(model)
    for n in range(1, 40, 3):
        generation = engine.stream(model, prompt, GREEDY)
        for _ in range(n):
            next(generation)
        del generation
        again = engine.stream(model, prompt, GREEDY)
        list(again)
        assert again.token_ids == answer


def test_an_answer_goes_on_from_the_cache_of_one_with_drafts() -> None:
    model = eager_model()
    prompt, answer = looping_answer(model)
    model.cache.truncate(0)
    list(engine.stream(model, prompt, GREEDY))
    follow = [*prompt, *answer, 7, 8]
    generation = engine.stream(model, follow, GREEDY)
    list(generation)
    assert generation.usage.cached_tokens == len(prompt) + len(answer) - 1
    model.cache.truncate(0)
    fresh = engine.stream(model, follow, replace(GREEDY, lookup=False))
    assert list(fresh) and fresh.token_ids == generation.token_ids


@pytest.mark.parametrize("params", [replace(GREEDY, lookup=False), replace(GREEDY, beams=2)])
def test_there_are_no_drafts_without_lookup_or_with_beams(params: engine.SamplingParams) -> None:
    model = eager_model()
    prompt, _ = looping_answer(model)
    generation = engine.stream(model, prompt, params)
    list(generation)
    assert (generation.usage.drafted_tokens, generation.usage.accepted_tokens) == (0, 0)


def test_a_dynamic_rope_has_no_drafts_since_its_angles_depend_on_each_calls_length() -> None:
    scaling = RopeScaling(kind="dynamic", factor=2.0, original_max_seq_len=32)
    model = eager_model(config=small_config(rope=Rope(scaling=scaling)))
    calls = spied(model)
    list(engine.stream(model, repetitive(0), GREEDY))
    assert {len(ids) for ids in calls[1:]} == {1}


def test_an_error_comes_after_the_same_token() -> None:
    """Rows behind the present one are not looked at."""
    model = eager_model()
    prompt, answer = looping_answer(model)
    real, first_bad = model.decoder.extend, 0

    def extend(cache: Any, token_ids: Sequence[int], **options: Any) -> Any:
        rows = real(cache, token_ids, **options)
        n_good = max(0, first_bad - len(cache.token_ids) + len(rows) - 1)
        rows[n_good:] = np.nan
        return rows

    model.decoder.extend = extend  # type: ignore[method-assign]
    for n in range(1, 40):
        first_bad = len(prompt) + n
        model.cache.truncate(0)
        generation = engine.stream(model, prompt, GREEDY)
        with pytest.raises(ValueError, match="no token can be chosen"):
            list(generation)
        assert generation.token_ids == answer[:n]


def spied(model: Model) -> list[list[int]]:
    """The token ids of every later call of extend."""
    calls: list[list[int]] = []
    real = model.decoder.extend

    def extend(cache: Any, token_ids: Sequence[int], **options: Any) -> Any:
        calls.append(list(token_ids))
        return real(cache, token_ids, **options)

    model.decoder.extend = extend  # type: ignore[method-assign]
    return calls


def spied_ends(model: Model) -> list[int]:
    """How many tokens the cache holds after every later call of extend."""
    ends: list[int] = []
    real = model.decoder.extend

    def extend(cache: Any, token_ids: Sequence[int], **options: Any) -> Any:
        found = real(cache, token_ids, **options)
        ends.append(len(cache.token_ids))
        return found

    model.decoder.extend = extend  # type: ignore[method-assign]
    return ends


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Iterator[Model]:
    model = engine.load(smollm2_path)
    yield model
    model.close()


@pytest.mark.model
@pytest.mark.parametrize("name", ["greedy", "top_k", "penalty, drawn"])
def test_the_real_model_quotes_a_passage_as_it_does_without_drafts(
    smollm2: Model, name: str
) -> None:
    text = Path(__file__).parents[1] / "golden" / "text" / "notes.txt"
    passage = text.read_text("utf-8").split("\n\n")[0]
    question = {"role": "user", "content": f"{passage}\n\nRepeat the passage above word for word."}
    assert smollm2.tokenizer is not None
    prompt = smollm2.tokenizer.encode_chat([question], add_generation_prompt=True)
    smollm2.call_times = CallTimes()
    _, expected = both(smollm2, prompt, PARAMS[name])
    smollm2.call_times = Eager()
    generation, steps = both(smollm2, prompt, PARAMS[name])
    assert steps == expected
    assert generation.usage.accepted_tokens > 5
