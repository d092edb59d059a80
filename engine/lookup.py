"""Prompt lookup: drafts of the next tokens, copied from where the last ones stood before.

An answer that quotes its context repeats runs of it. What followed the last tokens at their earlier
place is drafted, and one call of the model verifies the whole draft through one read of the
weights; only tokens that would have been chosen anyway are kept. (Saxena 2023, "Prompt Lookup
Decoding", https://github.com/apoorvumang/prompt-lookup-decoding. Of the same kind are
`prompt_lookup_num_tokens` of transformers and `llama-lookup` of llama.cpp; their drafts have a
length that the user sets.) Here a draft is as long as pays, by how often tokens found like this
came true and by what calls of each size take on this machine, which is measured on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import log2

LONGEST_NGRAM = 3
LONGEST_MATCH = 32  # a longer one says no more
SIZES = (2, 3, 4, 8, 16, 32)  # tokens of a call with a draft, the token before it included


class NgramIndex:
    """Where the last tokens of a growing text stood before; constant work for each token.

    expected      the token that followed them there; -1 when they are new
    match_length  how many tokens before both places are equal, at most LONGEST_MATCH; 0 = new
    """

    def __init__(self, token_ids: Sequence[int]) -> None:
        """Index a text of at least one token."""
        self._text = text = list(token_ids[:-1])
        # n-gram -> the position behind the latest one, longest n-grams first
        self._behind: list[dict[tuple[int, ...], int]] = [
            {tuple(text[end - n : end]): end for end in range(n, len(text) + 1)}
            for n in range(LONGEST_NGRAM, 0, -1)
        ]
        self._source = -1  # position of the expected token
        self.expected, self.match_length = -1, 0
        self.append(token_ids[-1])

    def append(self, token_id: int) -> None:
        """The text's next token."""
        text = self._text
        if token_id == self.expected:
            # any longer match would have been longer before this token too
            self._source += 1
            self.match_length = min(self.match_length + 1, LONGEST_MATCH)
        else:
            self._source, self.match_length = -1, 0
        text.append(token_id)
        end = len(text)
        for n, behind in zip(range(LONGEST_NGRAM, 0, -1), self._behind, strict=True):
            if n > end:
                continue
            ngram = tuple(text[-n:])
            if self._source < 0 and ngram in behind:
                self._source = behind[ngram]
                self.match_length = self._length(n)
            behind[ngram] = end
        self.expected = text[self._source] if self._source >= 0 else -1

    def _length(self, n: int) -> int:
        """How far back the text's end and the tokens before the source agree; n are known to."""
        text, source = self._text, self._source
        longest = min(source, LONGEST_MATCH)
        while n < longest and text[source - 1 - n] == text[-1 - n]:
            n += 1
        return n

    def propose(self, max_tokens: int) -> list[int]:
        """What followed there, max_tokens of it; past the text's end the draft goes on itself."""
        if self._source < 0:
            return []
        found = self._text[self._source : self._source + max_tokens]
        period = len(found)
        while len(found) < max_tokens:
            found.append(found[-period])
        return found


class CallTimes:
    """What calls of several tokens have taken of late, in calls of one token.

    Sizes that were not tried count as GROWTH times the next smaller one for twice the tokens: parts
    of a call show what it takes at most, so a trial costs little. A size that is not used seems a
    little cheaper with every call, so that it is tried again after a while.
    """

    UNTRIED = 1.1  # a call of two tokens: they share one read of the weights
    GROWTH = 1.6
    FORGET = 0.002

    def __init__(self) -> None:
        self._one = 0.0  # seconds of a call of one token; 0 = not known yet
        self._several: dict[int, float] = {}

    def of(self, n_tokens: int) -> float:
        """For n_tokens in SIZES; inf before the first call of one token was measured."""
        if not self._one:
            return float("inf")
        if n_tokens in self._several:
            return self._several[n_tokens]
        if n_tokens == SIZES[0]:
            return self.UNTRIED
        smaller = SIZES[SIZES.index(n_tokens) - 1]
        growth: float = self.GROWTH ** log2(n_tokens / smaller)
        return growth * self.of(smaller)

    def measured(self) -> dict[int, float]:
        """Of the sizes that were tried, smallest first."""
        return {size: self._several[size] for size in SIZES if size in self._several}

    def record(self, n_tokens: int, seconds: float) -> None:
        """What a call of 1 token or of one of SIZES took."""
        if n_tokens == 1:
            self._one += self._step(seconds) if self._one else seconds
        elif self._one:
            before = self.of(n_tokens)
            # one call that another program held up must not condemn the size
            now = min(seconds / self._one, 1.5 * before)
            self._several[n_tokens] = (before + now) / 2
        for size, times in self._several.items():
            if size != n_tokens:
                self._several[size] = max(1.0, times * (1 - self.FORGET / size))

    def _step(self, seconds: float) -> float:
        """Slower upwards, for the same reason."""
        step = min(seconds, 2 * self._one) - self._one
        return step * (0.1 if step > 0 else 0.2)


class Drafter:
    """When to draft and how much, for one answer.

    The chance that an expected token comes true is learnt from every token, drafted or not, for
    each length of match (1, 2-3, 4-7, …).
    """

    # before anything is learnt: as seen in 30 answers of a small chat model
    CHANCES = 0.0, 0.18, 0.5, 0.8, 0.9, 0.94, 0.98
    LEARN = 1 / 16
    MARGIN = 1.1  # a draft must promise this many times the tokens per second of none

    def __init__(
        self, times: CallTimes, token_ids: Sequence[int], stop_ids: Collection[int] = ()
    ) -> None:
        """For the text token_ids, not empty; stop_ids are never drafted."""
        self._times, self._stop_ids = times, stop_ids
        self._index = NgramIndex(token_ids)
        self._chances = list(self.CHANCES)

    def append(self, token_id: int) -> None:
        """The text's next token."""
        index = self._index
        if index.match_length:
            kind = index.match_length.bit_length()
            came_true = token_id == index.expected
            self._chances[kind] += self.LEARN * (came_true - self._chances[kind])
        index.append(token_id)

    def draft(self, max_tokens: int) -> list[int]:
        """The tokens that are worth verifying now, often none; with one more they are of SIZES."""
        if not self._index.match_length:
            return []
        found = self._index.propose(min(max_tokens, SIZES[-1] - 1))
        end = next((i for i, token in enumerate(found) if token in self._stop_ids), len(found))
        return found[: self._worthwhile(end)]

    def _worthwhile(self, max_tokens: int) -> int:
        """How many drafted tokens promise the most tokens per second; 0 when none gain MARGIN."""
        best, best_rate = 0, self.MARGIN
        match_length, chance, n_expected = self._index.match_length, 1.0, 1.0
        for n in range(1, max_tokens + 1):
            chance *= self._chances[match_length.bit_length()]
            match_length = min(match_length + 1, LONGEST_MATCH)
            n_expected += chance
            if n + 1 in SIZES and (rate := n_expected / self._times.of(n + 1)) > best_rate:
                best, best_rate = n, rate
        return best
