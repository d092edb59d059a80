"""The default model against transformers with the same dequantised weights in float32."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.generate import prefill
from tests.parity.smollm2 import reference_greedy, reference_logits, write_q8

pytestmark = [pytest.mark.parity, pytest.mark.model, pytest.mark.slow]

TEXTS = sorted((Path(__file__).parents[1] / "golden" / "text").glob("*.txt"))
PROMPTS = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain why the sky is blue to a child.",
    "List three uses of a paper clip.",
    "def fibonacci(n):",
]


@cache
def model(path: Path, weight_format: str | None) -> engine.Model:
    return engine.load(path, weight_format)


@pytest.fixture(scope="module")
def texts(smollm2_path: Path) -> list[list[int]]:
    """Token ids of prose, notes and code."""
    tokenizer = model(smollm2_path, None).tokenizer
    assert tokenizer is not None
    return [tokenizer.encode(text.read_text("utf-8")) for text in TEXTS]


@pytest.fixture(scope="module")
def expected(smollm2_path: Path, texts: list[list[int]]) -> np.ndarray:
    """transformers' logits at every position of all texts."""
    return np.concatenate([reference_logits(smollm2_path, ids) for ids in texts])


def ours(path: Path, weight_format: str | None, texts: list[list[int]]) -> np.ndarray:
    return np.concatenate([model(path, weight_format).logits(ids) for ids in texts])


def logprobs(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def divergence_and_agreement(theirs: np.ndarray, mine: np.ndarray) -> tuple[float, float]:
    """Mean KL in nats, and the share of positions with the same likeliest token."""
    p, q = logprobs(theirs), logprobs(mine)
    agreement = (p.argmax(axis=-1) == q.argmax(axis=-1)).mean()
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean()), float(agreement)


def test_float32_logits_equal_transformers(
    smollm2_path: Path, texts: list[list[int]], expected: np.ndarray
) -> None:
    difference = np.abs(ours(smollm2_path, "f32", texts) - expected).max(axis=-1)
    assert len(expected) >= 1000
    assert (difference / np.abs(expected).max(axis=-1)).max() <= 1e-3


def test_q4_with_int8_activations_keeps_the_distribution(
    smollm2_path: Path, texts: list[list[int]], expected: np.ndarray
) -> None:
    divergence, agreement = divergence_and_agreement(expected, ours(smollm2_path, None, texts))
    assert divergence <= 1e-4  # fifty times below what was asked for, 5e-3
    assert agreement >= 0.985


def test_q8_with_int8_activations_keeps_the_distribution(
    smollm2_path: Path, texts: list[list[int]], tmp_path: Path
) -> None:
    path = write_q8(smollm2_path, tmp_path / "q8.gguf")
    theirs = np.concatenate([reference_logits(path, ids) for ids in texts])
    divergence, agreement = divergence_and_agreement(theirs, ours(path, None, texts))
    assert model(path, None).weight_format == "q8"
    assert divergence <= 1e-4
    assert agreement >= 0.985


def test_what_follows_a_long_prompt_keeps_the_distribution(
    smollm2_path: Path, texts: list[list[int]], expected: np.ndarray
) -> None:
    """A prompt's first tokens take one byte an activation; they act through the cache alone."""
    loaded, begin = model(smollm2_path, None), 0
    theirs, mine = [], []
    for ids in texts:
        half, end = len(ids) // 2, begin + len(ids)
        loaded.cache.truncate(0)
        last, _ = prefill(loaded, ids[:half])
        mine += [last.copy(), loaded.decoder.extend(loaded.cache, ids[half:], all_logits=True)]
        theirs.append(expected[begin + half - 1 : end])
        begin = end
    divergence, agreement = divergence_and_agreement(np.concatenate(theirs), np.concatenate(mine))
    assert 1e-6 < divergence <= 1e-3
    assert agreement >= 0.985


@pytest.mark.parametrize("prompt", PROMPTS)
def test_64_greedy_tokens_equal_transformers(smollm2_path: Path, prompt: str) -> None:
    loaded = model(smollm2_path, "f32")
    assert loaded.tokenizer is not None
    ids = loaded.tokenizer.encode_chat([{"role": "user", "content": prompt}])
    theirs = reference_greedy(smollm2_path, ids, 64)
    cache = loaded.decoder.new_cache()
    logits, mine = loaded.decoder.extend(cache, ids), []
    for _ in range(64):  # no EOS rule on either side
        mine.append(int(logits[0].argmax()))
        logits = loaded.decoder.extend(cache, mine[-1:])
    assert mine == theirs
