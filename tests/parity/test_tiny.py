"""The whole path on tiny random checkpoints, against transformers."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

import engine
from engine.beam import Search, beam_search
from engine.generate import prefill
from tests.tiny import (
    EOS,
    FAMILY_NAMES,
    LONG_IDS,
    PROMPT_IDS,
    TINY_NAMES,
    reference_beams,
    reference_greedy,
    reference_logits,
    tiny_checkpoint,
)

pytestmark = pytest.mark.parity
BEAMS = [
    *product(
        ("llama", "llama-chat", "mistral-window", "qwen2", "llama-llama3"),
        (2, 3, 5),
        (0.0, 1.0, -0.5),
    ),
    # a search that grows into longrope's other angles stays with those that it began with
    *((name, 3, 1.0) for name in FAMILY_NAMES if name != "phi3-longrope"),
]


@cache
def tiny_model(name: str) -> engine.Model:
    """In float32 or as stored, which are the same numbers."""
    return engine.load(tiny_checkpoint(name), threads=2, max_seq_len=128, kv_cache="f32")


def greedy_ids(model: engine.Model, n: int) -> list[int]:
    params = engine.SamplingParams(temperature=0, max_tokens=n)
    generation = engine.stream(model, PROMPT_IDS, params)
    return [step.token_id for step in generation if step.token_id >= 0]


@pytest.mark.parametrize("name", TINY_NAMES + FAMILY_NAMES)
@pytest.mark.parametrize("token_ids", [PROMPT_IDS, LONG_IDS], ids=["trained", "beyond"])
def test_logits_equal_transformers(name: str, token_ids: tuple[int, ...]) -> None:
    ours = tiny_model(name).logits(token_ids)
    theirs = reference_logits(tiny_checkpoint(name), token_ids)
    assert ours.shape == theirs.shape
    assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max() / 10)


@pytest.mark.parametrize("name", TINY_NAMES + FAMILY_NAMES)
def test_greedy_tokens_equal_transformers(name: str) -> None:
    theirs = list(reference_greedy(tiny_checkpoint(name), PROMPT_IDS, 24))
    assert greedy_ids(tiny_model(name), 24) == [i for i in theirs if i != EOS]


@pytest.mark.parametrize(("name", "n_beams", "length_penalty"), BEAMS)
def test_beams_equal_transformers(name: str, n_beams: int, length_penalty: float) -> None:
    (theirs, score), *_ = reference_beams(
        tiny_checkpoint(name), PROMPT_IDS, n_beams, 16, length_penalty=length_penalty
    )
    model = tiny_model(name)
    params = engine.SamplingParams(
        temperature=0, top_k=0, beams=n_beams, length_penalty=length_penalty
    )
    logits, _ = prefill(model, PROMPT_IDS)
    search = Search(model.decoder, model.cache, PROMPT_IDS, model.stop_ids, 16)
    *_, best = beam_search(search, logits, params)
    assert list(best.token_ids) == [i for i in theirs if i != EOS]
    assert best.score == pytest.approx(score, rel=1e-4, abs=1e-6)
