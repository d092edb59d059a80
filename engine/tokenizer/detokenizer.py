"""Token ids become text as they are generated: whole characters, no piece of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

__all__ = ["Detokenizer"]


class Detokenizer:
    """UTF-8 safe, stop-string safe streaming text.

    token_bytes      the bytes that a token adds (b"" for control tokens)
    stop             strings that end the text; of several, the one that is complete first wins, and
                     of those complete at the same character the longest
    strip_one_space  drop the space that the text begins with, as SentencePiece's decoding does

    Without stop strings, the pushed pieces and the flushed rest joined are what `Tokenizer.decode`
    gives for the same ids. Work per character is constant for each stop string.
    """

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        stop: Sequence[str] = (),
        *,
        strip_one_space: bool = False,
    ) -> None:
        self.stopped = False
        self._token_bytes = token_bytes
        self._matchers = [_Matcher(s) for s in stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip_one_space
        self._held = ""
        self._released: list[str] = []

    @property
    def text(self) -> str:
        """All text released so far."""
        if len(self._released) > 1:
            self._released = ["".join(self._released)]
        return self._released[0] if self._released else ""

    def push(self, token_id: int) -> str:
        """Take one token; returns the text that may be shown now, often "".

        Held back are the bytes of an unfinished character and any beginning of a stop string.
        """
        if self.stopped:
            return ""
        new = self._decoder.decode(self._token_bytes(token_id))
        return self._release(new) if new else ""

    def flush(self) -> str:
        """The held-back rest at the end of generation; an unfinished character becomes U+FFFD."""
        if self.stopped:
            return ""
        shown = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        for matcher in self._matchers:
            matcher.matched = 0
        self._released.append(rest)
        return shown + rest

    def _release(self, new: str) -> str:
        """Add decoded characters; what of all held text can no longer belong to a stop string."""
        if new and self._strip:
            self._strip = False
            new = new.removeprefix(" ")
        pending = self._held + new
        keep_from = len(pending) - self._match(new)
        self._held = "" if self.stopped else pending[keep_from:]
        shown = pending[:keep_from]
        self._released.append(shown)
        return shown

    def _match(self, new: str) -> int:
        """How many characters at the end, once `new` is read, are a stop string or begin one.

        On a complete stop string `stopped` is set; the count reaches back to its first character.
        """
        for n_read, char in enumerate(new, start=1):
            complete = 0
            for matcher in self._matchers:
                if matcher.advance(char):
                    complete = max(complete, len(matcher.pattern))
            if complete:
                self.stopped = True
                return complete + len(new) - n_read
        return max((matcher.matched for matcher in self._matchers), default=0)


class _Matcher:
    """How much of `pattern` the text read so far ends with (Knuth, Morris and Pratt)."""

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise ValueError("a stop string is empty; leave it out or give it a character")
        self.pattern = pattern
        self.matched = 0
        self._shorter = _borders(pattern)

    def advance(self, char: str) -> bool:
        """Read one character; whether the pattern is now complete. Not to be called after that."""
        while self.matched and self.pattern[self.matched] != char:
            self.matched = self._shorter[self.matched - 1]
        self.matched += self.pattern[self.matched] == char
        return self.matched == len(self.pattern)


def _borders(pattern: str) -> list[int]:
    """For each prefix of `pattern`, the length of its longest proper prefix that also ends it."""
    borders = [0]
    for char in pattern[1:]:
        length = borders[-1]
        while length and pattern[length] != char:
            length = borders[length - 1]
        borders.append(length + (pattern[length] == char))
    return borders
