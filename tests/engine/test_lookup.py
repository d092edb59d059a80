"""Drafts from a text's own n-grams: the index, what calls take, and when a draft is worth it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine import lookup
from engine.lookup import LONGEST_MATCH, LONGEST_NGRAM, SIZES, CallTimes, Drafter, NgramIndex


class SlowIndex:
    """NgramIndex by looking through the whole text each time."""

    def __init__(self, text: list[int]) -> None:
        self.text, self.source = text, self._latest(text)

    @staticmethod
    def _latest(text: list[int]) -> int | None:
        for n in range(LONGEST_NGRAM, 0, -1):
            for end in range(len(text) - 1, n - 1, -1):
                if text[end - n : end] == text[-n:]:
                    return end
        return None

    def append(self, token_id: int) -> None:
        came_true = self.source is not None and self.text[self.source] == token_id
        self.text = [*self.text, token_id]
        if came_true:
            assert self.source is not None
            self.source += 1
        else:
            self.source = self._latest(self.text)

    @property
    def match_length(self) -> int:
        if self.source is None:
            return 0
        before, ours = self.text[: self.source], self.text
        lengths = range(1, min(len(before), LONGEST_MATCH) + 1)
        return max(n for n in lengths if before[-n:] == ours[-n:])

    def propose(self, max_tokens: int) -> list[int]:
        if self.source is None:
            return []
        text = list(self.text)
        for i in range(max_tokens):
            text.append(text[self.source + i])
        return text[len(self.text) :]


@pytest.mark.parametrize("n_kinds", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("n_prompt", [1, 2, 3, 4, 60])
def test_the_index_equals_a_search_of_the_whole_text(
    rng: np.random.Generator, n_kinds: int, n_prompt: int
) -> None:
    text = rng.integers(0, n_kinds, n_prompt + 150).tolist()
    text += text[20:120]  # a quotation, longer than LONGEST_MATCH
    index, slow = NgramIndex(text[:n_prompt]), SlowIndex(text[:n_prompt])
    n_matches = 0
    for token_id in text[n_prompt:]:
        assert index.match_length == slow.match_length
        for n in (0, 1, 5, 40):
            assert index.propose(n) == slow.propose(n)
        assert index.expected == (slow.propose(1) or [-1])[0]
        n_matches += index.match_length > 0
        index.append(token_id)
        slow.append(token_id)
    assert n_matches > 100


def test_a_text_without_repeats_has_no_match() -> None:
    index = NgramIndex(range(50))
    assert (index.match_length, index.expected, index.propose(8)) == (0, -1, [])


def test_the_latest_of_the_longest_ngrams_is_followed() -> None:
    assert NgramIndex([1, 2, 9, 1, 2, 8, 3, 2, 7, 1, 2]).propose(3) == [8, 3, 2]
    # 5 1 2 came only once before, 1 2 also later
    assert NgramIndex([5, 1, 2, 9, 1, 2, 8, 5, 1, 2]).propose(2) == [9, 1]


def test_a_loop_is_drafted_beyond_the_end_of_the_text() -> None:
    assert NgramIndex([4, 1, 2, 3, 1, 2, 3]).propose(8) == [1, 2, 3, 1, 2, 3, 1, 2]


def measured(**seconds: float) -> CallTimes:
    """Call times after many calls: n1=, n2=, … seconds."""
    times = CallTimes()
    for _ in range(200):
        for name, value in seconds.items():
            times.record(int(name[1:]), value)
    return times


def test_times_are_in_calls_of_one_token() -> None:
    times = measured(n1=0.004, n2=0.005, n4=0.006, n8=0.012)
    assert times.of(2) == pytest.approx(1.25, rel=0.01)
    assert times.of(4) == pytest.approx(1.5, rel=0.01)
    assert times.of(8) == pytest.approx(3, rel=0.01)
    assert times.of(16) == pytest.approx(CallTimes.GROWTH * times.of(8))
    assert times.of(32) == pytest.approx(CallTimes.GROWTH**2 * times.of(8))


def test_nothing_is_known_before_the_first_call_of_one_token() -> None:
    times = CallTimes()
    times.record(4, 0.01)
    assert times.of(2) == times.of(32) == math.inf
    times.record(1, 0.01)
    assert times.of(2) == CallTimes.UNTRIED


def test_one_slow_call_changes_little_and_a_lasting_change_is_followed() -> None:
    times = measured(n1=0.004, n2=0.005)
    times.record(2, 60)
    assert times.of(2) < 1.6
    for _ in range(20):
        times.record(2, 0.005)
    times.record(1, 60)
    times.record(2, 0.005)
    assert times.of(2) == pytest.approx(1.2, rel=0.02)
    for _ in range(60):
        times.record(1, 0.008)
        times.record(2, 0.024)
    assert times.of(2) == pytest.approx(3, rel=0.05)


def test_a_size_that_is_not_used_is_tried_again_some_day_but_is_never_free() -> None:
    times = measured(n1=0.004, n2=0.008, n32=0.2)
    at_first = times.of(2), times.of(32)
    for _ in range(300):
        times.record(1, 0.004)
    assert at_first[0] > 1.9 and times.of(2) < 1.5
    assert times.of(32) > 0.9 * at_first[1]  # a trial of a long draft may lose more
    for _ in range(100_000):
        times.record(1, 0.004)
    assert times.of(2) == times.of(32) == 1


FREE = {f"n{n}": 0.004 for n in (1, *SIZES)}  # a call takes what it takes, whatever its size
LINEAR = {f"n{n}": 0.004 * n for n in (1, *SIZES)}  # verifying gains nothing
PASSAGE = list(range(100, 200))


def quoting(drafter: Drafter, n_tokens: int) -> None:
    for token_id in PASSAGE[:n_tokens]:
        drafter.append(token_id)


def test_drafts_grow_while_they_come_true() -> None:
    drafter = Drafter(measured(n1=0.004, n2=0.005, n4=0.006, n8=0.012), [*PASSAGE, 7])
    lengths = []
    for token_id in PASSAGE[:60]:
        drafter.append(token_id)
        draft = drafter.draft(31)
        assert draft == PASSAGE[token_id - 99 :][: len(draft)]
        lengths.append(len(draft))
    assert lengths == sorted(lengths)
    assert lengths[0] == 0 and lengths[-1] >= 15


def test_a_call_with_a_draft_is_of_a_size_whose_time_is_kept() -> None:
    drafter = Drafter(measured(**FREE), [*PASSAGE, 7])
    quoting(drafter, 40)
    lengths = [len(drafter.draft(room)) for room in range(40)]
    assert all(n <= room for room, n in enumerate(lengths))
    assert set(lengths) == {0, *(size - 1 for size in SIZES)}


def test_nothing_is_drafted_when_it_gains_nothing() -> None:
    drafter = Drafter(measured(**LINEAR), [*PASSAGE, 7])
    for token_id in PASSAGE[:60]:
        drafter.append(token_id)
        assert drafter.draft(31) == []


def test_a_text_that_never_comes_true_is_no_longer_drafted() -> None:
    """Pairs return, but never with the same token behind them."""
    times = measured(n1=0.004, n2=0.005, n4=0.006, n8=0.012)
    drafter = Drafter(times, [1])
    tried = []
    for i in range(60):
        for token_id in (1, 2, 1000 + i):
            drafter.append(token_id)
        drafter.append(1)
        drafter.append(2)
        tried.append(bool(drafter.draft(31)))
        drafter.append(2000 + i)
    assert tried[1] and not any(tried[30:])


def test_what_is_not_drafted_is_learnt_from_too() -> None:
    """Tokens come true while calls seem dear; the first draft after that is a long one."""
    times = measured(**LINEAR)
    drafter = Drafter(times, [*PASSAGE, 7])
    quoting(drafter, 60)
    for name, seconds in FREE.items():
        for _ in range(60):
            times.record(int(name[1:]), seconds)
    assert len(drafter.draft(31)) == 31


def test_a_draft_ends_before_a_stop_id() -> None:
    stop_id = PASSAGE[50]
    drafter = Drafter(measured(**FREE), [*PASSAGE, 7], {stop_id})
    quoting(drafter, 45)
    assert drafter.draft(31) == PASSAGE[45:48]  # 5 are left, sizes are 2, 4, 8
    quoting(drafter, 0)
    for token_id in PASSAGE[45:50]:
        drafter.append(token_id)
    assert drafter.draft(31) == []


def test_work_for_a_token_does_not_grow_with_the_text() -> None:
    """Counted in comparisons of tokens, not in seconds."""
    comparisons = 0

    class Token(int):
        def __eq__(self, other: object) -> bool:
            nonlocal comparisons
            comparisons += 1
            return int.__eq__(self, other)  # type: ignore[arg-type]

        __hash__ = int.__hash__

    most = []
    for n in (200, 3200):
        index = NgramIndex([Token(i % 7 if i % 50 else i) for i in range(n)])
        counts = []
        for i in range(200):
            comparisons = 0
            index.append(Token(i % 5))
            index.propose(lookup.SIZES[-1])
            counts.append(comparisons)
        most.append(max(counts))
    assert most[1] <= most[0] + 3 * LONGEST_MATCH
