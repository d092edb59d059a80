"""GGUF metadata that contradicts itself is told in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.tokenizer.ggml import parts_from_ggml


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model is 'bert'; this build reads gpt2, llama, t5"),
        ({"model": 7}, "tokenizer.ggml.model is 7"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing or empty"),
        ({"tokens": []}, "tokenizer.ggml.tokens is missing or empty"),
        ({"tokens": "abc"}, "tokenizer.ggml.tokens is str, not a list"),
        ({"tokens": ["a", 7]}, "tokenizer.ggml.tokens[1] is int, not text"),
        ({"tokens": [b"a"]}, "tokenizer.ggml.tokens[0] is bytes, not text"),
        ({"tokens": ["a", "b", "a"], "token_type": None}, "tokenizer.ggml.tokens holds 'a' twice"),
        ({"token_type": [1, 2]}, "tokenizer.ggml.token_type has 2 entries for 270 tokens"),
        ({"token_type": ["x"] * 270}, "tokenizer.ggml.token_type[0] is 'x', not a number"),
        ({"scores": [0.0]}, "tokenizer.ggml.scores has 1 entries for 270 tokens"),
        ({"scores": [float("nan")] * 270}, "tokenizer.ggml.scores[0] is nan, not a number"),
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"merges": ["h e", "hé"]}, "tokenizer.ggml.merges[1] is 'hé', not two pieces"),
        ({"merges": ["h "]}, "tokenizer.ggml.merges[0] is 'h ', not two pieces"),
        ({"merges": ["h 好"]}, "tokenizer.ggml.merges[0] is 'h 好', but '好' is no token"),
        ({"merges": ["x y"]}, "tokenizer.ggml.merges[0] is 'x y', but 'xy' is no token"),
        ({"merges": [5]}, "tokenizer.ggml.merges[0] is int, not text"),
        ({"eos_token_id": 270}, "tokenizer.ggml.eos_token_id is 270; there are 270 tokens"),
        ({"bos_token_id": -1}, "tokenizer.ggml.bos_token_id is -1; there are 270 tokens"),
        ({"eot_token_id": "2"}, "tokenizer.ggml.eot_token_id is '2'"),
        ({"add_bos_token": "yes"}, "tokenizer.ggml.add_bos_token is 'yes', not true or false"),
        ({"model": "llama"}, "tokenizer.ggml.scores is missing"),
    ],
)
def test_wrong_metadata_is_one_line(
    change: dict[str, Any], message: str, byte_level_metadata: dict[str, Any]
) -> None:
    metadata = {**byte_level_metadata, **change}
    with pytest.raises(ValueError) as raised:
        parts_from_ggml(metadata)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_arrays_serve_as_lists(byte_level_metadata: dict[str, Any]) -> None:
    types = np.array(byte_level_metadata["token_type"], dtype=np.int32)
    parts = parts_from_ggml({**byte_level_metadata, "token_type": types})
    assert parts is not None
    assert sorted(parts.special) == [0, 1, 2]


def test_without_types_only_the_named_tokens_are_special(
    byte_level_metadata: dict[str, Any],
) -> None:
    metadata = {k: v for k, v in byte_level_metadata.items() if k != "token_type"}
    parts = parts_from_ggml(metadata)
    assert parts is not None
    assert parts.special == {1: "<|im_start|>", 2: "<|im_end|>"}


def test_an_end_of_turn_that_was_mislabelled_is_special(
    byte_level_metadata: dict[str, Any],
) -> None:
    types = list(byte_level_metadata["token_type"])
    types[2] = 4
    metadata = {**byte_level_metadata, "token_type": types, "eos_token_id": 0}
    parts = parts_from_ggml(metadata)
    assert parts is not None
    assert 2 in parts.special


def test_an_empty_token_keeps_its_id(byte_level_metadata: dict[str, Any]) -> None:
    tokens = [*byte_level_metadata["tokens"], ""]
    types = [*byte_level_metadata["token_type"], 1]
    parts = parts_from_ggml({**byte_level_metadata, "tokens": tokens, "token_type": types})
    assert parts is not None
    assert parts.backend.token_to_id("[EMPTY_270]") == 270
    assert parts.backend.encode("hello").ids == [parts.backend.token_to_id("hello")]


@pytest.mark.parametrize("model", [None, "none", "no_vocab", ""])
def test_a_file_without_vocabulary_has_no_tokenizer(model: str | None) -> None:
    assert parts_from_ggml({"model": model}) is None


def test_llama3_keeps_whole_words_that_are_tokens(byte_level_metadata: dict[str, Any]) -> None:
    # "held" is no merge's result; only a kind that ignores merges may use it
    tokens = [*byte_level_metadata["tokens"], "held"]
    types = [*byte_level_metadata["token_type"], 1]
    changed = {**byte_level_metadata, "tokens": tokens, "token_type": types}
    for pre, expected in (("llama-bpe", 1), ("gpt-2", 2)):
        parts = parts_from_ggml({**changed, "pre": pre})
        assert parts is not None
        assert len(parts.backend.encode("held").ids) == expected
