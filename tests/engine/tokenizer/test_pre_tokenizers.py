"""Where words are cut, by the kinds that GGUF names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger
from tokenizers import Regex, pre_tokenizers

from engine.tokenizer.pre_tokenizers import KINDS, kind_named, pre_tokenizer
from engine.tokenizer.spelling import byte_level


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged as a warning."""
    seen: list[str] = []
    handler = logger.add(lambda message: seen.append(message.record["message"]), level="WARNING")
    yield seen
    logger.remove(handler)


def words(name: str, text: str) -> list[str]:
    pieces = pre_tokenizer(KINDS[name]).pre_tokenize_str(text)
    return [byte_level(piece).decode("utf-8", "replace") for piece, _ in pieces]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "It's 1234  ok", ["It", "'s", " 1234", " ", " ok"]),
        ("gpt-2", "IT'S", ["IT", "'", "S"]),
        ("llama-bpe", "IT'S 1234567!\n\n x", ["IT", "'S", " ", "123", "456", "7", "!\n\n", " x"]),
        ("llama-bpe", ".append(x)", [".append", "(x", ")"]),
        ("qwen2", "a1234", ["a", "1", "2", "3", "4"]),
        ("smollm", "in 2026", ["in", " ", "2", "0", "2", "6"]),
        ("starcoder", "x=10", ["x", "=", "1", "0"]),
        ("falcon", "pi=31415", ["pi", "=", "314", "15"]),
        ("deepseek-coder", "f(x)=12", ["f", "(", "x", ")", "=", "1", "2"]),
        ("deepseek-llm", "Hallo 你好 12", ["Hallo", " ", "你好", " ", "12"]),
        ("deepseek-v3", "1234 你好 a", ["123", "4", " ", "你好", " a"]),
        ("tekken", "camelCase XMLFile", ["camel", "Case", " XMLFile"]),
        ("gpt-4o", "Don't 1234", ["Don't", " ", "123", "4"]),
        ("bloom", "a b, c", ["a", " b", ",", " c"]),
        ("viking", "a12", ["a", "1", "2"]),
    ],
)
def test_words_are_cut_as_the_kind_does(name: str, text: str, expected: list[str]) -> None:
    assert words(name, text) == expected


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_kind_loses_or_adds_a_byte(name: str, mixed_text: str) -> None:
    pieces = pre_tokenizer(KINDS[name]).pre_tokenize_str(mixed_text)
    assert b"".join(byte_level(piece) for piece, _ in pieces).decode() == mixed_text


def test_gpt2_and_smollm_cut_as_their_tokenizer_json_does(mixed_text: str) -> None:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    smollm = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    for name, theirs in (("gpt-2", gpt2), ("smollm", smollm)):
        ours = pre_tokenizer(KINDS[name]).pre_tokenize_str(mixed_text)
        assert [p for p, _ in ours] == [p for p, _ in theirs.pre_tokenize_str(mixed_text)]


@pytest.mark.parity
def test_kinds_cut_as_transformers_does(mixed_text: str) -> None:
    from transformers.integrations.gguf import gguf_tokenizer_mapping

    theirs = gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS
    shared = sorted(theirs.keys() & KINDS.keys())
    assert len(shared) > 15
    for name in shared:
        split = pre_tokenizers.Split(Regex(theirs[name]), "isolated")
        expected = [piece for piece, _ in split.pre_tokenize_str(mixed_text)]
        assert words(name, mixed_text) == expected, name


def test_an_unknown_kind_cuts_as_gpt2_with_one_warning(warnings: list[str]) -> None:
    assert kind_named("smollm3000") is KINDS["gpt-2"]
    assert len(warnings) == 1
    assert "smollm3000" in warnings[0]
    assert kind_named(None) is KINDS["gpt-2"]
    assert len(warnings) == 2
    assert kind_named("smollm") is KINDS["smollm"]
    assert len(warnings) == 2
