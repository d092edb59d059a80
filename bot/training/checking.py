"""What a run would learn from its rows, counted row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from data.datasets import BadRow, Row, digest
from engine.tokenizer import Tokenizer
from engine.training.examples import Example, ends_trained, example

ERRORS_SHOWN = 20
PREVIEWS = 3
# rows whose digests are remembered: some 100 bytes each
REMEMBERED = 5_000_000

Piece = tuple[str, bool]  # text, and whether it is learned


@dataclass
class Counted:
    """Filled by `add`.

    max_seq_len   tokens beyond which rows are cut
    n_rows        that were read, bad ones among them; kinds: good ones by dataset
    errors        the first of the n_errors rows that cannot be learned from, (origin, reason);
                  n_left_out: rows that say that they are not to be, as those rated bad
    lengths       tokens of rows before they are cut -> rows
    n_tokens      after the cut; n_trained: labels among them; n_lost: tokens that were cut
    n_duplicates  rows that were there before
    n_chats       conversations that were not cut; n_ended: of them, those whose end is learned
    ends          tokens that end an answer, as text -> conversations that end with it
    """

    tokenizer: Tokenizer
    max_seq_len: int
    n_rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[str, str]] = field(default_factory=list)
    n_errors: int = 0
    n_left_out: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    n_tokens: int = 0
    n_trained: int = 0
    n_cut: int = 0
    n_lost: int = 0
    n_duplicates: int = 0
    n_chats: int = 0
    n_ended: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    previews: list[tuple[str, list[Piece]]] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def add(self, found: Row | BadRow) -> None:
        """Count one row."""
        self.n_rows += 1
        if isinstance(found, BadRow):
            if found.on_purpose:
                self.n_left_out += 1
            else:
                self._error(found.origin, found.reason)
            return
        self._remember(found)
        try:
            made = example(found, self.tokenizer, self.max_seq_len)
        except ValueError as error:
            self._error(found.origin, str(error))
            return
        self.kinds[found.kind] += 1
        self.lengths[len(made.token_ids) + made.cut] += 1
        self.n_tokens += len(made.token_ids)
        self.n_trained += made.n_trained
        self.n_cut, self.n_lost = self.n_cut + (made.cut > 0), self.n_lost + made.cut
        if found.turns and not made.cut:
            self._end(made)
        if len(self.previews) < PREVIEWS:
            self.previews.append((found.origin, list(pieces_of(made, self.tokenizer))))

    def _end(self, made: Example) -> None:
        tokenizer = self.tokenizer
        self.n_chats += 1
        if not ends_trained(made, tokenizer):
            self._error(made.origin, "the end of its answer is not learned: it would never stop")
            return
        self.n_ended += 1
        labels = zip(reversed(made.token_ids), reversed(made.trained), strict=True)
        last = next(i for i, is_label in labels if is_label and i in tokenizer.stop_ids)
        self.ends[tokenizer.decode([last], skip_special=False)] += 1

    def _remember(self, row: Row) -> None:
        key = int.from_bytes(digest(row)[:8], "little")
        if key in self._seen:
            self.n_duplicates += 1
        elif len(self._seen) < REMEMBERED:
            self._seen.add(key)

    def _error(self, origin: str, reason: str) -> None:
        self.n_errors += 1
        if len(self.errors) < ERRORS_SHOWN:
            self.errors.append((origin, reason))

    @property
    def n_good(self) -> int:
        """Rows that are learned from."""
        return self.kinds.total()

    def record(self) -> dict[str, Any]:
        """For --json."""
        return {
            "max_seq_len": self.max_seq_len,
            "rows": self.n_rows,
            "kinds": dict(self.kinds),
            "errors": [{"origin": origin, "reason": reason} for origin, reason in self.errors],
            "n_errors": self.n_errors,
            "left_out": self.n_left_out,
            "tokens": self.n_tokens,
            "trained_tokens": self.n_trained,
            "cut_rows": self.n_cut,
            "cut_tokens": self.n_lost,
            "duplicates": self.n_duplicates,
            "conversations": self.n_chats,
            "end_trained": self.n_ended,
            "ends": dict(self.ends),
            "lengths": [
                {"from": low, "to": high, "rows": n} for low, high, n in bins(self.lengths)
            ],
            "preview": [
                {"origin": origin, "pieces": [{"text": t, "trained": k} for t, k in pieces]}
                for origin, pieces in self.previews
            ],
        }


def pieces_of(made: Example, tokenizer: Tokenizer) -> Iterator[Piece]:
    """The row's text, cut where learned and other tokens meet."""
    start = 0
    for i in range(1, len(made.token_ids) + 1):
        if i == len(made.token_ids) or made.trained[i] != made.trained[start]:
            yield tokenizer.decode(made.token_ids[start:i], skip_special=False), made.trained[start]
            start = i


def bins(lengths: Counter[int]) -> list[tuple[int, int, int]]:
    """(from, to, rows) of lengths between powers of two, without gaps, shortest first."""
    if not lengths:
        return []
    found: Counter[int] = Counter()
    for length, n in lengths.items():
        found[length.bit_length()] += n
    return [
        (1 << (bits - 1) if bits else 0, (1 << bits) - 1, found[bits])
        for bits in range(min(found), max(found) + 1)
    ]
