"""How long a text may be: the weights' word, then the memory's."""

from __future__ import annotations

from typing import Any

import pytest

from engine import context
from engine.config import DecoderConfig, Rope, RopeScaling
from engine.context import Context, context_of, within_memory
from tests.engine.decoders import small_config

DYNAMIC = Rope(scaling=RopeScaling("dynamic", 2.0, 256))


def config(**flags: Any) -> DecoderConfig:
    return small_config(max_seq_len=256, **flags)


def test_what_the_weights_were_made_for_needs_no_word() -> None:
    assert context_of(config(), None) == context_of(config(), 256) == Context(256)
    assert context_of(config(position="learned"), 8) == Context(8)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "where rotary positions soon lead to nonsense"),
        ({"position": "alibi"}, "ALiBi bears that"),
        ({"rope": DYNAMIC}, "positions are stretched to it"),
    ],
)
def test_a_longer_context_is_given_with_a_word(flags: dict[str, Any], words: str) -> None:
    found = context_of(config(**flags), 16_384)
    assert found.n_tokens == 16_384
    assert found.note.startswith("the context of 16,384 tokens is beyond the trained 256")
    assert words in found.note


def test_learned_positions_end_where_they_end() -> None:
    with pytest.raises(ValueError, match="257 is beyond the 256 positions that llama learned") as e:
        context_of(config(position="learned"), 257)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("free", [None, 10**9])
def test_small_keys_and_values_need_no_word(
    free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "available_bytes", lambda: free)
    assert within_memory(Context(1000), 1000, 1000, "f16") == Context(1000)


def test_a_context_that_takes_a_good_part_of_memory_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "available_bytes", lambda: 4 << 30)
    found = within_memory(Context(16_384, "it is long"), 16_384, 128 << 10, "f16")
    assert found.n_tokens == 16_384
    assert found.note == (
        "it is long; a text that fills the context of 16,384 tokens has 2.0 GiB of keys and values "
        "(f16), of 4.0 GiB that are free"
    )


def test_what_cannot_fit_is_refused_or_cut_where_nobody_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context, "available_bytes", lambda: 1 << 30)
    with pytest.raises(ValueError) as error:
        within_memory(Context(32_768), 32_768, 512 << 10, "f16")
    assert str(error.value) == (
        "a context of 32,768 tokens has 16.0 GiB of keys and values (f16), and 1.0 GiB of memory "
        "are free; --max-seq-len 1,843 fits, --kv-cache q8 makes them smaller"
    )
    found = within_memory(Context(32_768), None, 512 << 10, "q8")
    assert found.n_tokens == 1843
    assert found.note == (
        "the context is 1,843 tokens: the model's 32,768 would have 16.0 GiB of keys and values "
        "(q8), and 1.0 GiB of memory are free"
    )
