"""Training rows out of files, shuffled as a whole and never in memory as a whole.

Of each file only the places of its rows are known (data.row_index), and the row that stands at a
position of an epoch is computed (data.row_order), so an epoch can begin anywhere.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Set
from hashlib import blake2b
from itertools import accumulate, islice
from typing import NamedTuple

from .datasets import BadRow, Row, dataset, digest
from .mixture import parse_mixture
from .row_files import RowFile, files_of, open_row_file
from .row_order import Draws

LOSSES = ("answers", "all")
# looked at for held-out rows, which are a few hundred: 10 s and 20 MB
_N_SPLIT = 200_000


class RowSource(NamedTuple):
    """One part of a mixture: a file, or all files of a folder. weight None: none was given."""

    path: str
    weight: float | None
    files: tuple[RowFile, ...]

    @property
    def n_rows(self) -> int:
        return sum(file.n_rows for file in self.files)


class Rows:
    """The rows of a mixture.

    n_rows   of one epoch, bad ones among them. Without weights that is every row once; with them as
             many rows in all, drawn from the sources in these proportions (1 where none is given)
    sources  in the order in which they were written
    """

    def __init__(
        self,
        sources: tuple[RowSource, ...],
        seed: int,
        loss: str,
        held_out: Set[bytes] = frozenset(),
    ) -> None:
        self.sources, self.seed, self.loss = sources, seed, loss
        self._held_out = held_out
        self._ends = [list(accumulate(file.n_rows for file in s.files)) for s in sources]
        weights = [1.0 if source.weight is None else source.weight for source in sources]
        is_weighted = any(source.weight is not None for source in sources)
        sizes = [source.n_rows for source in sources]
        self._draws = Draws(sizes, weights if is_weighted else None, seed)
        self.n_rows = self._draws.n_rows

    def epoch(self, number: int, start: int = 0) -> Iterator[Row | BadRow]:
        """The rows of epoch `number` in its order, without the first `start` of them.

        The same for the same seed, number and files. OSError, one line, when a file has changed.
        """
        first = 0 if self._held_out else start
        rows = (self._at(number, position) for position in range(first, self._draws.n_rows))
        if not self._held_out:
            return rows
        # which are held out is known when they are read
        return islice(filter(self._is_ours, rows), start, None)

    def each(self) -> Iterator[Row | BadRow]:
        """Every row of every file once, in the order of the files, whatever the weights are."""
        for source in self.sources:
            for file in source.files:
                for number in range(file.n_rows):
                    if self._is_ours(row := self._trained(file.read(number))):
                        yield row

    def fingerprint(self) -> str:
        """32 hex digits that change with the content of the files, their kinds and weights."""
        hashed = blake2b(self.loss.encode(), digest_size=16)
        for source in self.sources:
            hashed.update(repr(source.weight).encode())
            for file in source.files:
                hashed.update(repr((file.kind, file.index.digest, file.n_rows)).encode())
        return hashed.hexdigest()

    def without(self, held_out: Set[bytes], n_rows: int) -> Rows:
        """These rows except those whose digest is in `held_out`; n_rows are left of an epoch."""
        left = Rows(self.sources, self.seed, self.loss, self._held_out | held_out)
        left.n_rows = n_rows
        return left

    def _at(self, epoch: int, position: int) -> Row | BadRow:
        source, number = self._draws.at(epoch, position)
        ends, files = self._ends[source], self.sources[source].files
        n_before = bisect_right(ends, number)
        return self._trained(files[n_before].read(number - (ends[n_before - 1] if n_before else 0)))

    def _trained(self, row: Row | BadRow) -> Row | BadRow:
        if self.loss == "answers" or isinstance(row, BadRow):
            return row
        return row._replace(turns=tuple(turn._replace(trained=True) for turn in row.turns))

    def _is_ours(self, row: Row | BadRow) -> bool:
        return not self._held_out or isinstance(row, BadRow) or digest(row) not in self._held_out


def open_rows(spec: str, kind: str | None = None, seed: int = 0, loss: str = "answers") -> Rows:
    """The rows of `path[:weight],path[:weight],…`, files and folders.

    kind  the name of a dataset; None: each file's is recognised by its first rows
    loss  "answers" (BOLT's targets and plain texts too) or "all", every turn
    OSError and ValueError in one line: a missing or unreadable file, one without rows, or one
    of whose rows none is of a known kind. A wrong row among others is a BadRow in its place.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be one of {', '.join(LOSSES)}")
    if kind is not None:
        dataset(kind)
    sources = []
    for path, weight in parse_mixture(spec):
        opened = (open_row_file(file, name, kind) for file, name in files_of(path))
        source = RowSource(path, weight, tuple(file for file in opened if file.n_rows))
        if not source.files:
            raise ValueError(f"{path}: there are no rows in it")
        if not any(file.kind for file in source.files):
            first = source.files[0].read(0)
            assert isinstance(first, BadRow)  # by definition of `kind`
            raise ValueError(f"{first.origin}: {first.reason}")
        sources.append(source)
    return Rows(tuple(sources), seed, loss)


def split(
    rows: Rows, share: float | None = None, n: int | None = None, seed: int = 0
) -> tuple[Rows, list[Row]]:
    """The rows to train on, and rows held out from them, of which none is equal to one of those.

    share, n  how many are held out: of different rows the share, at most n; half at most
    They are drawn by a hash of their contents, from the mixture as an epoch shows it; of equal
    rows one is given back. Of a large mixture only the first rows of an epoch are looked at.
    """
    if share is None and n is None:
        raise ValueError("say how many rows to hold out: share, n or both")
    if share is not None and not 0 <= share <= 0.5:
        raise ValueError(f"share is {share}; it must be in [0, 0.5]")
    if n is not None and n < 0:
        raise ValueError(f"n is {n}; it must be 0 or more")
    n_seen = min(rows.n_rows, _N_SPLIT)
    counts, drawn = _drawn(rows, n_seen, _n_held_out(n_seen, share, n), seed)
    held_out = drawn[: _n_held_out(len(counts), share, n)]
    n_equal = sum(counts[digest(row)] for row in held_out)
    n_left = round(rows.n_rows * (1 - n_equal / max(n_seen, 1)))
    return rows.without({digest(row) for row in held_out}, n_left), held_out


def _n_held_out(n_different: int, share: float | None, n: int | None) -> int:
    wanted = n_different / 2
    if share is not None:
        wanted = min(wanted, max(share * n_different, 1 if share else 0))
    return int(wanted if n is None else min(wanted, n))


def _drawn(rows: Rows, n_seen: int, n: int, seed: int) -> tuple[Counter[bytes], list[Row]]:
    """How often each digest is among the first n_seen rows; n different rows drawn from them."""
    counts: Counter[bytes] = Counter()
    kept: dict[bytes, Row] = {}
    heap: list[tuple[int, bytes]] = []  # the n smallest hashes, negative: the largest goes first
    for row in islice(rows.epoch(0), n_seen):
        if isinstance(row, BadRow):
            continue
        found = digest(row)
        counts[found] += 1
        if n and counts[found] == 1:
            hashed = blake2b(found, digest_size=8, key=repr(int(seed)).encode()).digest()
            kept[found] = row
            heapq.heappush(heap, (-int.from_bytes(hashed, "big"), found))
            if len(heap) > n:
                del kept[heapq.heappop(heap)[1]]
    return counts, [kept[found] for _, found in sorted(heap, reverse=True)]
