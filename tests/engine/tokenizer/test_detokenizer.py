"""Streaming text: whole characters, nothing of a stop string, nothing lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import pytest

from engine.tokenizer import Detokenizer, Tokenizer


def stream(pieces: Sequence[bytes | str], stop: Sequence[str] = (), **options: bool) -> list[str]:
    """What is shown after each piece, and at the end."""
    encoded = [p if isinstance(p, bytes) else p.encode() for p in pieces]
    detokenizer = Detokenizer(encoded.__getitem__, stop, **options)
    shown = [detokenizer.push(i) for i in range(len(encoded))]
    shown.append(detokenizer.flush())
    assert detokenizer.text == "".join(shown)
    return shown


def every_cut(text: str) -> Iterable[list[str]]:
    """All ways to cut a short text into pieces."""
    for n in range(len(text)):
        for places in itertools.combinations(range(1, len(text)), n):
            ends = [*places, len(text)]
            yield [text[a:b] for a, b in zip([0, *places], ends, strict=True)]


def test_an_emoji_in_four_tokens_is_shown_when_it_is_whole() -> None:
    assert stream([bytes([byte]) for byte in "😀".encode()]) == ["", "", "", "😀", ""]


def test_an_unfinished_character_at_the_end_becomes_one_replacement() -> None:
    assert stream(["a", "😀".encode()[:3]]) == ["a", "", "\ufffd"]


def test_bytes_that_cannot_begin_a_character_are_replaced_at_once() -> None:
    assert stream([b"\xff", "é"]) == ["\ufffd", "é", ""]


def test_the_beginning_of_a_stop_string_comes_out_in_the_end() -> None:
    assert stream(["if a", " <"], ["<human>:"]) == ["if a", " ", "<"]


def test_a_stop_string_over_three_tokens_is_never_shown() -> None:
    assert stream(["Hi", "\n<hu", "man", ">: more", "x"], ["<human>:"]) == [
        *("Hi", "\n", "", "", "", "")
    ]


def test_text_behind_a_stop_string_is_dropped_and_the_stop_is_reported() -> None:
    detokenizer = Detokenizer([b"one", b"END", b"two"].__getitem__, ["END"])
    assert [detokenizer.push(i) for i in range(3)] == ["one", "", ""]
    assert detokenizer.stopped
    assert detokenizer.flush() == ""
    assert detokenizer.text == "one"


def test_what_turns_out_to_be_no_stop_string_is_shown() -> None:
    assert stream(["<hu", "ge>", "!"], ["<human>:"]) == ["", "<huge>", "!", ""]


def test_a_stop_string_that_begins_within_a_failed_one_is_found() -> None:
    assert stream(["a<<", "human>:"], ["<human>:"]) == ["a<", "", ""]


def test_of_stop_strings_that_end_together_the_longest_is_cut_off() -> None:
    assert stream(["Hi\n", "<bot>:"], ["<bot>:", "\n<bot>:"]) == ["Hi", "", ""]


def test_of_overlapping_stop_strings_the_first_complete_one_wins() -> None:
    assert stream(["xabcd"], ["abcd", "bc"]) == ["xa", ""]


@pytest.mark.parametrize("stop", [["aab"], ["aba", "ba"], ["ab", "b<"], ["<a", "a<a"], ["zz"]])
@pytest.mark.parametrize("text", ["aaab<a", "<ab<a<", "ababa<", "ba<aab"])
def test_the_text_does_not_depend_on_how_it_was_cut(text: str, stop: list[str]) -> None:
    results = {"".join(stream(pieces, stop)) for pieces in every_cut(text)}
    assert len(results) == 1
    (shown,) = results
    assert not any(s in shown for s in stop)
    assert text.startswith(shown)
    assert shown == text or any(s in text for s in stop)


def test_the_first_space_is_dropped_once_where_the_vocabulary_puts_one() -> None:
    assert stream([b"", " Hi", " you"], strip_one_space=True) == ["", "Hi", " you", ""]
    assert stream(["  Hi"], strip_one_space=True) == [" Hi", ""]
    assert stream([" Hi"]) == [" Hi", ""]


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="stop string is empty"):
        Detokenizer([b""].__getitem__, ["a", ""])


def test_streams_of_random_ids_equal_decode(tokenizer: Tokenizer) -> None:
    chance = random.Random(0)
    for _ in range(200):
        # mostly bytes, so that characters are cut, broken and put together
        ids = [chance.randrange(-2, tokenizer.vocab_size + 5) for _ in range(chance.randrange(40))]
        detokenizer = tokenizer.detokenizer()
        shown = [detokenizer.push(i) for i in ids]
        assert "".join(shown) + detokenizer.flush() == tokenizer.decode(ids)


def test_a_thousand_tokens_of_a_stop_string_s_beginning_stay_cheap() -> None:
    steps = 0

    class Counting(str):
        """Counts how often characters of the pattern are looked at."""

        def __getitem__(self, key: object) -> str:
            nonlocal steps
            steps += 1
            return super().__getitem__(key)  # type: ignore[index]

    text = "a" * 5000
    detokenizer = Detokenizer([b"a"].__getitem__, [Counting("a" * 300 + "b")])
    for _ in text:
        detokenizer.push(0)
    assert detokenizer.text + detokenizer.flush() == text
    # Knuth, Morris and Pratt: at most three looks per character here, not three hundred
    assert steps <= 4 * len(text) + 2000
